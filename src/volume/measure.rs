//! Measuring how much disk space a directory occupies.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::trash::{is_dot, open_directory};
use crate::base::budget::{Budget, Interrupted};

/// Directories deeper than this are not measured.
const MAX_DEPTH: usize = 256;

/// Bytes that everything below a directory occupies, with hard-linked files counted once.
pub(super) fn occupied(dir: &OwnedFd, budget: &Budget) -> io::Result<Result<u64, Interrupted>> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    Ok(add_occupied(dir, 0, &mut seen, &mut bytes, budget)?.map(|()| bytes))
}

fn add_occupied(
    dir: &OwnedFd,
    depth: usize,
    seen: &mut HashSet<u64>,
    bytes: &mut u64,
    budget: &Budget,
) -> io::Result<Result<(), Interrupted>> {
    if let Err(cause) = budget.check() {
        return Ok(Err(cause));
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if is_dot(entry.file_name()) {
            continue;
        }
        let stat = match rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(cause) => return Err(cause.into()),
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_dir || stat.st_nlink == 1 || seen.insert(stat.st_ino) {
            *bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        if is_dir && depth < MAX_DEPTH {
            match open_directory(dir, entry.file_name()) {
                Ok(child) => {
                    if let Err(cause) = add_occupied(&child, depth + 1, seen, bytes, budget)? {
                        return Ok(Err(cause));
                    }
                }
                Err(Errno::NOENT | Errno::ACCESS | Errno::MFILE) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }
    Ok(Ok(()))
}
