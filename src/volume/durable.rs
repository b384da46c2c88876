//! What of a revision a power cut leaves: whether its files are known to be on the disk.
//!
//! `revisions/<n>/durable` holds `no  <boot id>` from the moment the revision is staged. Once
//! everything of it was synced, the first word becomes `yes`; after a sync that failed, `bad`. A tree
//! that was written in this boot is whole as long as the machine runs, because the kernel has what
//! the disk lacks. After another boot, a tree that is not marked may have lost the contents of its
//! files, although their sizes and times survived.
//!
//! One syncfs(2) makes all new revisions durable: a tree of hard links changes every inode that it
//! links, and only syncfs covers those and the directories on every file system. A sync of each file
//! of a first tree would take minutes. The cost is that it also writes what others have in the
//! kernel's cache for the same file system, which therefore happens on a thread of its own.
//!
//! This module does not verify trees.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};

use super::small_files::sync_directory;
use super::{REVISIONS, Volume, dir_name};
use crate::base::error::{Stage, SyncError};
use crate::base::files;

/// The name of the file.
pub(super) const DURABLE: &str = "durable";

/// The longest file that is read, in bytes.
const MAX_LENGTH: u64 = 256;

/// How the file begins: all of one length, so that one is replaced by another in one write.
const NO: &str = "no  ";
const YES: &str = "yes ";
const BAD: &str = "bad ";

/// Whether the contents of a revision's files can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything was synced: a power cut changes nothing.
    Durable,
    /// It was written or verified in this boot, and not synced yet.
    Unsynced,
    /// It was written before this boot and was not known to be synced, or a sync of it failed:
    /// only reading the files tells what is in them.
    Unproven,
}

/// What one sync works on; owns everything, so that a thread can have it.
struct Syncing {
    gvr_fd: OwnedFd,
    link_parent: PathBuf,
    revisions: Vec<u64>,
}

impl Volume {
    /// Whether the contents of a revision's files can be relied on.
    pub fn durability(&self, n: u64) -> Durability {
        let path = self.gvr.join(durable_path(n));
        let content = files::read(&path, MAX_LENGTH).unwrap_or_default();
        if content.starts_with(YES.as_bytes()) {
            Durability::Durable
        } else if !self.boot.is_empty() && content == unsynced(&self.boot).as_bytes() {
            Durability::Unsynced
        } else {
            Durability::Unproven
        }
    }

    /// Records that the contents of a revision were verified in this boot.
    pub fn record_verified(&self, n: u64) {
        if let Err(cause) = self.write_small(&durable_path(n), &unsynced(&self.boot)) {
            tracing::debug!(revision = n, error = %cause, "a verification was not recorded");
        }
    }

    /// Makes every revision of this boot durable, and waits for it.
    ///
    /// # Errors
    /// Stage `publish`: the disk fails.
    pub fn sync(&self) -> Result<(), SyncError> {
        let failed = |cause| SyncError::disk(Stage::Publish, "sync", &self.gvr, cause);
        match self.syncing().map_err(failed)? {
            Some(syncing) => syncing.run().map_err(failed),
            None => Ok(()),
        }
    }

    /// Begins to make every revision of this boot durable, on a thread of its own. Returns whether
    /// that is under way: call again.
    ///
    /// # Errors
    /// The directory of revisions cannot be read, or the system has no thread to spare.
    pub fn sync_in_background(&self) -> io::Result<bool> {
        let running = |thread: &JoinHandle<()>| !thread.is_finished();
        if self.cache().syncing.as_ref().is_some_and(running) {
            return Ok(true);
        }
        let Some(syncing) = self.syncing()? else {
            return Ok(false);
        };
        let thread = std::thread::Builder::new()
            .name("durability".to_owned())
            .spawn(move || {
                if let Err(error) = syncing.run() {
                    tracing::warn!(
                        %error,
                        "the volume cannot be synced: after a power cut the newest tree is verified"
                    );
                }
            })?;
        self.cache().syncing = Some(thread);
        Ok(true)
    }

    /// The revisions that need a sync; `None` if there are none.
    fn syncing(&self) -> io::Result<Option<Syncing>> {
        let revisions: Vec<u64> = self
            .complete()?
            .into_iter()
            .map(|revision| revision.n)
            .filter(|n| self.durability(*n) == Durability::Unsynced)
            .collect();
        if revisions.is_empty() {
            return Ok(None);
        }
        Ok(Some(Syncing {
            gvr_fd: self.gvr_fd.try_clone()?,
            link_parent: self.link_parent.clone(),
            revisions,
        }))
    }
}

impl Syncing {
    fn run(&self) -> io::Result<()> {
        // The link may be on another file system than the root.
        let synced =
            sync_directory(&self.link_parent).and_then(|()| Ok(rustix::fs::syncfs(&self.gvr_fd)?));
        for n in &self.revisions {
            // After an error the kernel forgets what it could not write, and the next sync succeeds:
            // these revisions must not be taken for durable then.
            let word = if synced.is_ok() { YES } else { BAD };
            match self.mark(*n, word) {
                // Pruning may remove a revision meanwhile.
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        synced
    }

    fn mark(&self, n: u64, word: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.gvr_fd, durable_path(n), flags, Mode::empty())?;
        let file = File::from(file);
        file.write_all_at(word.as_bytes(), 0)?;
        file.sync_data()
    }
}

/// What the file holds until a sync, for a boot.
pub(super) fn unsynced(boot: &str) -> String {
    format!("{NO}{boot}\n")
}

/// The id of this boot; empty if the kernel does not tell.
pub(super) fn boot_id() -> String {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let content = files::read(path, MAX_LENGTH).unwrap_or_default();
    String::from_utf8_lossy(&content).trim().to_owned()
}

fn durable_path(n: u64) -> String {
    format!("{REVISIONS}/{}/{DURABLE}", dir_name(n))
}
