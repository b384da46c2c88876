//! Making a revision the live one, and putting right what a kill in the middle of it left.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, RenameFlags};
use rustix::io::Errno;

use super::scan::{Slot, Swap};
use super::{Accepted, PublishMode, RETIRED, REVISIONS, Revision, SWAP, TRASH, Volume, dir_name};
use crate::base::error::{Reason, Stage, SyncError};

impl Volume {
    /// Makes an accepted tree what readers see, in one atomic step.
    ///
    /// The revision that was live counts as retired from now on. In exchange mode the paths of
    /// both change: ask [`Volume::observe`] for the new ones.
    ///
    /// # Errors
    /// Stage `publish`: the revision is not complete, a real directory has taken the link's place,
    /// or the disk refuses. Readers then see what they saw before.
    pub fn publish(&self, accepted: &Accepted) -> Result<(), SyncError> {
        let revision = accepted.revision();
        let before = self.observe().map_err(|error| error.at(Stage::Publish))?;
        let previous = before.live.map(|live| live.n);
        if previous == Some(revision.n) && before.damage.is_none() {
            return Ok(());
        }
        let home = self.revision(revision.n, &dir_name(revision.n), revision.commit);
        let tree =
            rustix::fs::lstat(&home.path).map_err(|cause| disk("publish", &home.path, cause))?;
        if !FileType::from_raw_mode(tree.st_mode).is_dir() || !self.has_manifest(revision.n) {
            return Err(SyncError::new(
                Stage::Publish,
                Reason::Disk,
                format!("the revision {} is no longer complete", home.path.display()),
            ));
        }
        self.unretire(revision.n);
        std::fs::create_dir_all(&self.link_parent)
            .map_err(|cause| SyncError::disk(Stage::Publish, "create", &self.link_parent, cause))?;
        match self.mode {
            PublishMode::Symlink => self.flip(&home)?,
            PublishMode::Exchange => self.exchange(&home, tree.st_ino)?,
        }
        {
            let mut memory = self.memory();
            memory.inodes.clear();
            memory.inodes.insert(home.n, (tree.st_dev, tree.st_ino));
            memory.exchanged = None;
        }
        self.sync_directory(&self.link_parent)
            .map_err(|cause| SyncError::disk(Stage::Publish, "write", &self.link, cause))?;
        if let Some(previous) = previous.filter(|n| *n != revision.n) {
            self.retire(previous);
        }
        Ok(())
    }

    fn flip(&self, home: &Revision) -> Result<(), SyncError> {
        let target = self
            .link_target
            .join(dir_name(home.n))
            .join(home.commit.to_string());
        let temporary = self.link_parent.join(self.temporary_name());
        rustix::fs::symlinkat(&target, CWD, &temporary)
            .map_err(|cause| disk("create", &temporary, cause))?;
        let flipped = if self.inode_at_link().is_some() {
            // `observe` has recognised the directory as one that exchange mode left here.
            swap(&temporary, &self.link)
        } else {
            rustix::fs::rename(&temporary, &self.link)
        };
        if let Err(cause) = flipped {
            let _ = rustix::fs::unlink(&temporary);
            return Err(disk("flip", &self.link, cause));
        }
        self.settle().map_err(|error| error.at(Stage::Publish))
    }

    fn exchange(&self, home: &Revision, inode: u64) -> Result<(), SyncError> {
        self.settle().map_err(|error| error.at(Stage::Publish))?;
        let record = Swap {
            commit: home.commit,
            inode,
        };
        let prepared = self.forget_swaps_of(inode, home.n).and_then(|()| {
            let name = format!("{REVISIONS}/{}/{SWAP}", dir_name(home.n));
            self.write_small(&name, &record.text())
        });
        prepared.map_err(|cause| SyncError::disk(Stage::Publish, "prepare", &home.path, cause))?;
        let occupied = rustix::fs::lstat(&self.link).is_ok() && !self.link_is_empty();
        let moved = if occupied {
            swap(&home.path, &self.link)
        } else {
            rustix::fs::rename(&home.path, &self.link)
        };
        moved.map_err(|cause| {
            let error = disk("exchange", &self.link, cause);
            match cause {
                Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => error.with_hint(
                    "this file system cannot exchange directories: use --publish symlink",
                ),
                Errno::XDEV | Errno::BUSY => error.with_hint(
                    "with --publish exchange the link must be on the file system of --root, and \
                     no mount point",
                ),
                _ => error,
            }
        })?;
        self.settle().map_err(|error| error.at(Stage::Publish))
    }

    /// Removes what other revisions recorded of this inode: their tree is gone, somebody deleted it,
    /// and the file system gave its number to another one.
    fn forget_swaps_of(&self, inode: u64, except: u64) -> io::Result<()> {
        for slot in self.scan()? {
            if slot.n != except && slot.swap.is_some_and(|swap| swap.inode == inode) {
                let path = format!("{REVISIONS}/{}/{SWAP}", slot.name);
                rustix::fs::unlinkat(&self.gvr_fd, path, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Puts every tree that an exchange moved, or was about to move, where it belongs. Does
    /// nothing where nothing was interrupted.
    pub(super) fn settle(&self) -> Result<(), SyncError> {
        let revisions = self.gvr.join(REVISIONS);
        let failed = |cause| SyncError::disk(Stage::Start, "tidy", &revisions, cause);
        let slots = self.scan().map_err(failed)?;
        if slots.iter().all(|slot| slot.swap.is_none()) {
            return Ok(());
        }
        let at_link = self.inode_at_link();
        for slot in &slots {
            let is_live = |swap: &Swap| Some(swap.inode) == at_link;
            if !slot.swap.as_ref().is_some_and(is_live) {
                continue;
            }
            if let Some(commit) = slot.stray {
                let path = format!("{REVISIONS}/{}/{commit}", slot.name);
                rustix::fs::unlinkat(&self.gvr_fd, path, AtFlags::empty())
                    .map_err(|cause| failed(cause.into()))?;
            }
            if let Some((commit, inode)) = slot.tree {
                let path = revisions.join(&slot.name).join(commit.to_string());
                self.bring_home(&path, inode, &slots).map_err(failed)?;
            }
        }
        for (path, inode) in self.directories_beside_link().map_err(failed)? {
            if slots
                .iter()
                .any(|slot| slot.swap.is_some_and(|s| s.inode == inode))
            {
                self.bring_home(&path, inode, &slots).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Moves a tree to the revision that it was recorded for, or to the trash.
    fn bring_home(&self, path: &Path, inode: u64, slots: &[Slot]) -> io::Result<()> {
        let home = slots.iter().find_map(|slot| {
            let swap = slot.swap.filter(|swap| swap.inode == inode)?;
            slot.tree
                .is_none()
                .then(|| self.revision(slot.n, &slot.name, swap.commit).path)
        });
        let to = home.unwrap_or_else(|| self.gvr.join(TRASH).join(self.unique("tree")));
        Ok(rustix::fs::rename(path, to)?)
    }

    /// Removes symbolic links of ours that were never renamed to the link.
    pub(super) fn sweep_beside_link(&self) -> io::Result<()> {
        for (path, stat) in self.temporaries_beside_link()? {
            if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
                continue;
            }
            let target = rustix::fs::readlink(&path, Vec::new())?;
            let target = PathBuf::from(OsString::from(OsStr::from_bytes(target.as_bytes())));
            let needle = Path::new(".gvr").join(REVISIONS);
            if contains(&target, &needle) {
                rustix::fs::unlink(&path)?;
            }
        }
        Ok(())
    }

    fn directories_beside_link(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        Ok(self
            .temporaries_beside_link()?
            .into_iter()
            .filter(|(_, stat)| FileType::from_raw_mode(stat.st_mode).is_dir())
            .map(|(path, stat)| (path, stat.st_ino))
            .collect())
    }

    fn temporaries_beside_link(&self) -> io::Result<Vec<(PathBuf, rustix::fs::Stat)>> {
        let prefix = self.temporary_prefix();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.link_parent)? {
            let path = entry?.path();
            let ours = path
                .file_name()
                .is_some_and(|name| name.as_bytes().starts_with(prefix.as_bytes()));
            if ours && let Ok(stat) = rustix::fs::lstat(&path) {
                found.push((path, stat));
            }
        }
        Ok(found)
    }

    /// A name that no other life of ours, and nobody else, is using.
    fn temporary_name(&self) -> OsString {
        let mut name = self.temporary_prefix();
        name.push(format!("{}.{:016x}", std::process::id(), fastrand::u64(..)));
        name
    }

    fn temporary_prefix(&self) -> OsString {
        let mut prefix = OsString::from(".");
        // A name of 255 bytes is the longest there may be.
        let leaf = self.link_leaf.as_bytes();
        prefix.push(OsStr::from_bytes(&leaf[..leaf.len().min(200)]));
        prefix.push(".gvr-");
        prefix
    }

    fn unretire(&self, n: u64) {
        self.memory().retired.remove(&n);
        let path = format!("{REVISIONS}/{}/{RETIRED}", dir_name(n));
        // A leftover is put right by the next pruning, which ignores it on the live revision.
        let _ = rustix::fs::unlinkat(&self.gvr_fd, path, AtFlags::empty());
    }
}

fn swap(a: &Path, b: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}

fn contains(path: &Path, needle: &Path) -> bool {
    let parts: Vec<_> = path.components().collect();
    let needle: Vec<_> = needle.components().collect();
    parts.windows(needle.len()).any(|window| window == needle)
}

fn disk(action: &str, path: &Path, cause: Errno) -> SyncError {
    SyncError::disk(Stage::Publish, action, path, cause.into())
}
