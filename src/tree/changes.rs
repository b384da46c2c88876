//! Which files differ between two commits, in the words of `git diff --name-status`.

use std::path::Path;

use git2::Oid;

use super::changed::{differences, tree};
use super::objects::{self, EntryMode, Objects};
use super::sparse::Sparse;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

/// The most paths that are listed.
const MAX_PATHS: usize = 100_000;

/// The most bytes that the listed paths may have together.
const MAX_BYTES: usize = 16 << 20;

/// The most names that are compared. Trees that share their branches may have 10^10 of them.
const MAX_COMPARED: u64 = 10_000_000;

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Its path: any bytes but NUL.
    pub path: Vec<u8>,
    /// `A` added, `D` removed, `M` changed, `T` of another type.
    pub status: u8,
}

/// The files that differ between two commits of the store, sorted by path; only those that
/// `selection` includes, if there is one. A submodule is one path.
///
/// # Errors
/// Reason `store` when one of the commits or trees is not in the store. Reason `limit` when more than
/// 100,000 files differ, or 16 MiB of paths, and when a `.gitattributes` differs: then files may
/// differ although their objects do not.
pub fn changes(
    store: &Path,
    old: Commit,
    new: Commit,
    selection: Option<&Sparse>,
) -> Result<Vec<Change>, SyncError> {
    let objects = Objects::open(store)?;
    let odb = objects.odb()?;
    let old = objects::tree_of_commit(&odb, old.oid())?;
    let new = objects::tree_of_commit(&odb, new.oid())?;
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut compared = 0;
    let mut waiting = vec![(Vec::new(), Some(old), Some(new), selection.is_none())];
    while let Some((above, old, new, included)) = waiting.pop() {
        if old == new {
            continue;
        }
        let (old, new) = (tree(&odb, old)?, tree(&odb, new)?);
        for difference in differences(&old, &new)? {
            compared += 1;
            if compared > MAX_COMPARED {
                return Err(limit("too many names differ to compare them"));
            }
            if difference.name == b".gitattributes" {
                return Err(limit(
                    "a .gitattributes differs, so that any file may differ",
                ));
            }
            let path = match above.as_slice() {
                [] => difference.name.to_vec(),
                above => [above, b"/", difference.name].concat(),
            };
            let (old_tree, old_file) = split(difference.old);
            let (new_tree, new_file) = split(difference.new);
            if old_tree.is_some() || new_tree.is_some() {
                let below = includes(selection, &path, true, included);
                if below || selection.is_some_and(|sparse| sparse.may_include_below(&path)) {
                    waiting.push((path.clone(), old_tree, new_tree, below));
                }
            }
            let status = match (old_file, new_file) {
                (None, None) => continue,
                (None, Some(_)) => b'A',
                (Some(_), None) => b'D',
                (Some(old), Some(new)) if kind(old) != kind(new) => b'T',
                (Some(_), Some(_)) => b'M',
            };
            if includes(selection, &path, false, included) {
                bytes += path.len();
                if found.len() >= MAX_PATHS || bytes > MAX_BYTES {
                    return Err(limit("too many files differ to list them"));
                }
                found.push(Change { path, status });
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn limit(what: &str) -> SyncError {
    SyncError::new(Stage::Notify, Reason::Limit, what)
}

fn includes(selection: Option<&Sparse>, path: &[u8], directory: bool, inherited: bool) -> bool {
    selection.is_none_or(|sparse| sparse.includes(path, directory, inherited))
}

/// One side of a difference: a directory, or something else.
fn split(side: Option<(EntryMode, Oid)>) -> (Option<Oid>, Option<EntryMode>) {
    match side {
        None => (None, None),
        Some((EntryMode::Tree, id)) => (Some(id), None),
        Some((mode, _)) => (None, Some(mode)),
    }
}

/// An executable and another file are of one type, as in git.
fn kind(mode: EntryMode) -> EntryMode {
    match mode {
        EntryMode::Executable => EntryMode::File,
        other => other,
    }
}
