//! Publishing by exchange, and moving trees to their revisions after a kill in the middle of one.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, RenameFlags};
use rustix::io::Errno;

use super::scan::{ExchangeRecord, RevisionDir};
use super::{REVISIONS, Revision, SWAP, TRASH, Volume, dir_name};
use crate::base::error::{Stage, SyncError};

impl Volume {
    /// Exchanges the tree of a revision, whose inode number is `inode`, with the link path.
    pub(super) fn exchange(&self, home: &Revision, inode: u64) -> Result<(), SyncError> {
        self.complete_exchanges()
            .map_err(|error| error.at(Stage::Publish))?;
        let record = ExchangeRecord {
            commit: home.commit,
            inode,
        };
        let prepared = self.forget_records_of(inode, home.n).and_then(|()| {
            let name = format!("{REVISIONS}/{}/{SWAP}", dir_name(home.n));
            // After a power cut, only this record tells which tree the directory at the link path is.
            self.write_small_synced(&name, &record.text())
        });
        prepared.map_err(|cause| SyncError::disk(Stage::Publish, "prepare", &home.path, cause))?;
        let occupied = rustix::fs::lstat(&self.link).is_ok() && !self.link_is_empty();
        let moved = if occupied {
            swap(&home.path, &self.link)
        } else {
            rustix::fs::rename(&home.path, &self.link)
        };
        moved.map_err(|cause| {
            let error = SyncError::disk(Stage::Publish, "exchange", &self.link, cause.into());
            match cause {
                Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => error.with_hint(
                    "this file system cannot exchange directories: use --publish symlink",
                ),
                Errno::XDEV | Errno::BUSY => error.with_hint(
                    "with --publish exchange the link must be on the file system of --root and must \
                     not be a mount point",
                ),
                _ => error,
            }
        })?;
        self.complete_exchanges()
            .map_err(|error| error.at(Stage::Publish))
    }

    /// Removes the records of other revisions with this inode number: somebody deleted their tree, and
    /// the file system gave its inode number to another one.
    fn forget_records_of(&self, inode: u64, except: u64) -> io::Result<()> {
        for dir in self.scan()? {
            if dir.n != except && dir.exchange.is_some_and(|record| record.inode == inode) {
                let path = format!("{REVISIONS}/{}/{SWAP}", dir.name);
                rustix::fs::unlinkat(&self.gvr_fd, path, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Moves every tree that an exchange left at a wrong path to its revision. Does nothing if no
    /// exchange was interrupted.
    pub(super) fn complete_exchanges(&self) -> Result<(), SyncError> {
        let revisions = self.gvr.join(REVISIONS);
        let failed = |cause| SyncError::disk(Stage::Start, "tidy", &revisions, cause);
        let dirs = self.scan().map_err(failed)?;
        if dirs.iter().all(|dir| dir.exchange.is_none()) {
            return Ok(());
        }
        let at_link = self.inode_at_link();
        for dir in &dirs {
            let is_live = |record: &ExchangeRecord| Some(record.inode) == at_link;
            if !dir.exchange.as_ref().is_some_and(is_live) {
                continue;
            }
            if let Some(commit) = dir.stray {
                let path = format!("{REVISIONS}/{}/{commit}", dir.name);
                rustix::fs::unlinkat(&self.gvr_fd, path, AtFlags::empty())
                    .map_err(|cause| failed(cause.into()))?;
            }
            if let Some((commit, inode)) = dir.tree {
                let path = revisions.join(&dir.name).join(commit.to_string());
                self.move_to_revision(&path, inode, &dirs).map_err(failed)?;
            }
        }
        for (path, inode) in self.directories_beside_link().map_err(failed)? {
            if dirs
                .iter()
                .any(|dir| dir.exchange.is_some_and(|record| record.inode == inode))
            {
                self.move_to_revision(&path, inode, &dirs).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Moves a tree to the revision that recorded its inode number, or to the trash.
    fn move_to_revision(&self, path: &Path, inode: u64, dirs: &[RevisionDir]) -> io::Result<()> {
        let home = dirs.iter().find_map(|dir| {
            let record = dir.exchange.filter(|record| record.inode == inode)?;
            dir.tree
                .is_none()
                .then(|| self.revision(dir.n, &dir.name, record.commit).path)
        });
        let to = home.unwrap_or_else(|| self.gvr.join(TRASH).join(self.unique("tree")));
        Ok(rustix::fs::rename(path, to)?)
    }
}

/// Exchanges two names in one step (renameat2(2), `RENAME_EXCHANGE`).
pub(super) fn swap(a: &Path, b: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}
