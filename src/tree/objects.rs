//! Reads objects of the store: one handle per thread, errors as [`SyncError`].
//!
//! libgit2 reads a whole object into memory; it cannot stream objects of packs. Callers that may meet
//! large objects read the [`header`] first and [`stream`] them.

use std::error::Error;
use std::io;
use std::path::Path;

use git2::{ErrorCode, ObjectType, Odb, Oid, Repository};

use crate::base::error::{Reason, Stage, SyncError};
use crate::pack::{CommitObject, Whole};

/// The largest tree object that is read, in bytes: about two million names.
const TREE_LIMIT: usize = 128 << 20;

/// The largest `.gitattributes` that git reads (attr.h), in bytes; it ignores a larger one.
const ATTRIBUTES_LIMIT: usize = 100 << 20;

/// The largest `.gitattributes` or `.gitmodules` that is read, in bytes. Each worker may hold one.
const CONTROL_LIMIT: usize = 16 << 20;

/// The objects of a store, for one thread.
pub(super) struct Objects {
    repository: Repository,
}

/// The type of an entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryMode {
    File,
    Executable,
    Symlink,
    Tree,
    Commit,
}

/// One entry of a tree object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry<'a> {
    pub mode: EntryMode,
    pub name: &'a [u8],
    pub id: Oid,
}

impl Objects {
    pub fn open(store: &Path) -> Result<Self, SyncError> {
        let repository = Repository::open_bare(store).map_err(|error| {
            SyncError::new(
                Stage::Build,
                Reason::Store,
                format!("cannot open the object store {}", store.display()),
            )
            .with_source(error)
        })?;
        Ok(Self { repository })
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn odb(&self) -> Result<Odb<'_>, SyncError> {
        self.repository.odb().map_err(|error| {
            SyncError::new(
                Stage::Build,
                Reason::Store,
                "cannot open the object database of the store",
            )
            .with_source(error)
        })
    }
}

/// The size of an object and its type, without decompressing it.
pub(super) fn header(odb: &Odb<'_>, id: Oid) -> Result<(usize, ObjectType), SyncError> {
    odb.read_header(id).map_err(|error| unreadable(id, error))
}

/// Reads an object, which must be of the type `kind`.
pub(super) fn read<'a>(
    odb: &'a Odb<'_>,
    id: Oid,
    kind: ObjectType,
) -> Result<git2::OdbObject<'a>, SyncError> {
    let object = odb.read(id).map_err(|error| unreadable(id, error))?;
    if object.kind() != kind {
        return Err(hostile(format!(
            "object {id} is a {}, but a tree names it as a {}",
            object.kind().str(),
            kind.str()
        )));
    }
    Ok(object)
}

/// Opens an object of `size` bytes for reading it piece by piece; `None` if no pack of the store
/// holds it whole: then it must be [`read`].
pub(super) fn stream(store: &Path, id: Oid, size: usize) -> Result<Option<Whole>, SyncError> {
    let packs = store.join("objects/pack");
    let found = Whole::find(&packs, id).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(id, error),
        _ => SyncError::disk(Stage::Build, "read", &packs, error),
    })?;
    if let Some(whole) = &found
        && whole.size() != size as u64
    {
        let error = io::Error::other("two copies of it have different sizes");
        return Err(damaged(id, error));
    }
    Ok(found)
}

/// The raw bytes of a tree object.
pub(super) fn tree(odb: &Odb<'_>, id: Oid) -> Result<Vec<u8>, SyncError> {
    // Git knows the empty tree without storing it.
    if id.to_string() == "4b825dc642cb6eb9a060e54bf8d69288fbee4904" {
        return Ok(Vec::new());
    }
    let (size, _) = header(odb, id)?;
    if size > TREE_LIMIT {
        return Err(SyncError::new(
            Stage::Build,
            Reason::Limit,
            format!("tree {id} has {size} bytes; the limit is {TREE_LIMIT}"),
        ));
    }
    Ok(read(odb, id, ObjectType::Tree)?.data().to_vec())
}

/// The tree of a commit.
pub(super) fn tree_of_commit(odb: &Odb<'_>, id: Oid) -> Result<Oid, SyncError> {
    let commit = read(odb, id, ObjectType::Commit)?;
    CommitObject::parse(commit.data())
        .map(|commit| commit.tree)
        .ok_or_else(|| hostile(format!("commit {id} is malformed")))
}

/// Reads a `.gitattributes` or `.gitmodules`; `None` if git would ignore it.
///
/// # Errors
/// Reason `limit`: it has more than 16 MiB. Otherwise it cannot be read.
pub(super) fn control_file(
    odb: &Odb<'_>,
    name: &str,
    id: Oid,
) -> Result<Option<Vec<u8>>, SyncError> {
    let (size, kind) = header(odb, id)?;
    if size > ATTRIBUTES_LIMIT || kind != ObjectType::Blob {
        return Ok(None);
    }
    if size > CONTROL_LIMIT {
        return Err(SyncError::new(
            Stage::Build,
            Reason::Limit,
            format!("{name} (blob {id}) has {size} bytes; the limit is {CONTROL_LIMIT}"),
        )
        .with_hint("make the file smaller"));
    }
    Ok(Some(read(odb, id, ObjectType::Blob)?.data().to_vec()))
}

/// Parses the entry of a tree object at the offset `*at` and advances it; `None` at the end.
pub(super) fn next_entry<'a>(
    tree: &'a [u8],
    at: &mut usize,
) -> Option<Result<TreeEntry<'a>, SyncError>> {
    let rest = tree.get(*at..).filter(|rest| !rest.is_empty())?;
    let parsed = parse_entry(rest);
    match parsed {
        Some((entry, length)) => {
            *at += length;
            Some(Ok(entry))
        }
        None => {
            *at = tree.len();
            Some(Err(hostile("a tree object is malformed")))
        }
    }
}

/// Finds a name in a tree object.
pub(super) fn find<'a>(tree: &'a [u8], name: &[u8]) -> Result<Option<TreeEntry<'a>>, SyncError> {
    let mut at = 0;
    while let Some(entry) = next_entry(tree, &mut at) {
        let entry = entry?;
        if entry.name == name {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn parse_entry(bytes: &[u8]) -> Option<(TreeEntry<'_>, usize)> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let mut mode = 0_u32;
    for digit in &bytes[..space] {
        mode = mode * 8 + char::from(*digit).to_digit(8)?;
    }
    let name = &bytes[space + 1..];
    let end = name.iter().position(|byte| *byte == 0)?;
    let id = Oid::from_bytes(name.get(end + 1..end + 21)?).ok()?;
    // As in git's canon_mode, only the owner's executable bit counts.
    let mode = match mode & 0o170_000 {
        0o100_000 if mode & 0o100 != 0 => EntryMode::Executable,
        0o100_000 => EntryMode::File,
        0o120_000 => EntryMode::Symlink,
        0o040_000 => EntryMode::Tree,
        0o160_000 => EntryMode::Commit,
        _ => return None,
    };
    let entry = TreeEntry {
        mode,
        name: &name[..end],
        id,
    };
    Some((entry, space + 1 + end + 21))
}

/// The error for content that git would refuse too.
pub(super) fn hostile(message: impl Into<String>) -> SyncError {
    SyncError::new(Stage::Build, Reason::Hostile, message)
        .with_hint("correct the repository: git refuses such content too")
}

fn unreadable(id: Oid, error: git2::Error) -> SyncError {
    if error.code() == ErrorCode::NotFound {
        let message = format!("object {id} is not in the store");
        return SyncError::new(Stage::Build, Reason::Store, message).with_source(error);
    }
    damaged(id, error)
}

/// The error for an object that exists and is damaged.
pub(super) fn damaged(id: Oid, cause: impl Error + Send + Sync + 'static) -> SyncError {
    let message = format!("object {id} in the store cannot be read");
    SyncError::new(Stage::Build, Reason::Store, message).with_source(cause)
}
