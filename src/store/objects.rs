//! Reading commits and trees of the store.
//!
//! Blobs are looked up, never read. Commits are parsed by [`CommitObject`] and not by libgit2, which
//! refuses some that `git clone` accepts.

use std::collections::HashSet;

use git2::{ErrorClass, ErrorCode, ObjectType, Odb, Oid, Repository};

use crate::base::commit::Commit;
use crate::pack::CommitObject;

/// The deepest nesting of trees that is walked; the tree writer has a lower limit.
const MAX_DEPTH: usize = 16_384;

/// Reads a commit and hands its parts to `use_commit`.
pub(super) fn with_commit<T>(
    odb: &Odb<'_>,
    commit: Commit,
    use_commit: impl FnOnce(CommitObject<'_>) -> T,
) -> Result<T, git2::Error> {
    let object = odb.read(commit.oid())?;
    let parsed = match object.kind() {
        ObjectType::Commit => CommitObject::parse(object.data()),
        _ => None,
    };
    parsed.map(use_commit).ok_or_else(|| {
        let text = format!("{commit} is not a commit or is malformed");
        git2::Error::new(ErrorCode::Invalid, ErrorClass::Object, text)
    })
}

/// Whether the commit and its root tree can be read.
pub(super) fn has_root(repository: &Repository, commit: Commit) -> bool {
    repository
        .odb()
        .and_then(|odb| with_commit(&odb, commit, |found| found.tree))
        .and_then(|tree| repository.find_tree(tree))
        .is_ok()
}

/// Whether every tree of the commit can be read and every blob exists.
pub(super) fn has_whole_tree(repository: &Repository, commit: Commit) -> bool {
    let Ok(odb) = repository.odb() else {
        return false;
    };
    let mut seen = HashSet::new();
    with_commit(&odb, commit, |found| found.tree).is_ok_and(|root| {
        each_entry(repository, root, &mut seen, &mut |id, kind| match kind {
            ObjectType::Tree => Ok(()),
            _ if odb.exists(id) => Ok(()),
            _ => Err(git2::Error::from_str("an object is missing")),
        })
        .is_ok()
    })
}

/// Visits a tree and everything below it. Trees in `seen` are skipped; visited trees are added to
/// it.
pub(super) fn each_entry(
    repository: &Repository,
    root: Oid,
    seen: &mut HashSet<Oid>,
    visit: &mut dyn FnMut(Oid, ObjectType) -> Result<(), git2::Error>,
) -> Result<(), git2::Error> {
    let mut waiting = vec![(root, 0)];
    while let Some((id, depth)) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        if depth > MAX_DEPTH {
            return Err(git2::Error::from_str("trees are nested too deeply"));
        }
        visit(id, ObjectType::Tree)?;
        for entry in repository.find_tree(id)?.iter() {
            match entry.kind() {
                Some(ObjectType::Tree) => waiting.push((entry.id(), depth + 1)),
                Some(ObjectType::Blob) => visit(entry.id(), ObjectType::Blob)?,
                // The commit of a submodule is in another repository's history.
                _ => {}
            }
        }
    }
    Ok(())
}
