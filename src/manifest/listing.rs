//! What a manifest says about whole trees: whether it lists any file, and what it does not list.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::reader::Manifest;
use super::record::Kind;
use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};
use crate::base::text::printable;

/// Whether the manifest lists no file, link or submodule.
///
/// # Errors
/// When it cannot be read, or is damaged; stage `check`.
pub fn is_empty(manifest: &Path) -> Result<bool, SyncError> {
    let unreadable = |cause| SyncError::disk(Stage::Check, "read", manifest, cause);
    let records = Manifest::open(manifest).map_err(unreadable)?;
    let mut waiting = vec![0];
    while let Some(number) = waiting.pop() {
        let block = records.block(number).map_err(unreadable)?;
        for entry in block.records() {
            let entry = entry.map_err(unreadable)?;
            if entry.kind != Kind::Directory {
                return Ok(false);
            }
            waiting.push(entry.child);
        }
        waiting.extend(Some(block.next).filter(|next| *next != 0));
    }
    Ok(true)
}

/// The first path in the tree that is not in its manifest, if there is one. A `.git` is not looked
/// at: manifests do not list it.
///
/// # Errors
/// When the budget ends first, or the disk fails; stage `check`.
pub fn unlisted(
    tree: &Path,
    manifest: &Path,
    budget: &Budget,
) -> Result<Option<String>, SyncError> {
    let unreadable = |cause| SyncError::disk(Stage::Check, "read", manifest, cause);
    let disk = |cause: io::Error| SyncError::disk(Stage::Check, "read", tree, cause);
    let records = Manifest::open(manifest).map_err(unreadable)?;
    let mut waiting = vec![(0, Vec::new())];
    while let Some((number, path)) = waiting.pop() {
        budget.check().map_err(|cause| {
            SyncError::interrupted(Stage::Check, "looking for added files", cause)
        })?;
        let mut listed = HashSet::new();
        let mut next = Some(number);
        while let Some(number) = next {
            let block = records.block(number).map_err(unreadable)?;
            for entry in block.records() {
                let entry = entry.map_err(unreadable)?;
                listed.insert(entry.name.to_vec());
                if entry.kind.has_block() {
                    waiting.push((entry.child, join(&path, entry.name)));
                }
            }
            next = Some(block.next).filter(|next| *next != 0);
        }
        let directory = tree.join(std::ffi::OsStr::from_bytes(&path));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(CWD, &directory, flags, Mode::empty()) {
            Ok(opened) => opened,
            // An empty tree has no directory.
            Err(Errno::NOENT) => continue,
            Err(cause) => return Err(disk(cause.into())),
        };
        for found in Dir::new(opened).map_err(|cause| disk(cause.into()))? {
            let found = found.map_err(|cause| disk(cause.into()))?;
            let name = found.file_name().to_bytes();
            if !matches!(name, b"." | b".." | b".git") && !listed.contains(name) {
                return Ok(Some(printable(&String::from_utf8_lossy(&join(
                    &path, name,
                )))));
            }
        }
    }
    Ok(None)
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    match above {
        [] => name.to_vec(),
        above => [above, b"/", name].concat(),
    }
}
