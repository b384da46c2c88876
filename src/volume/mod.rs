//! The volume: the only module that knows the path names under the root, and the link.
//!
//! It locks the root, observes what readers see, hands out staged directories, seals and publishes
//! them, and removes old revisions. The disk is the only state: everything is read again from names
//! that appear by one rename, so a start after a kill at any instruction is an ordinary start.
//!
//! It does not write trees and does not read manifests (it only checks that a manifest exists). Of
//! the object store it knows only the path. It does not decide when to publish or to prune.
//!
//! ```text
//! <root>/<link> -> .gvr/revisions/000042/<commit>
//! <root>/.gvr/lock              one writer per root
//! <root>/.gvr/last              the last revision number; numbers only grow
//! <root>/.gvr/pin               the revision that readers are held on, if they are
//! <root>/.gvr/links             the links that lead here, of this process and of earlier ones
//! <root>/.gvr/store.git/        the object store
//! <root>/.gvr/staging/<n>/      a tree that is being built
//! <root>/.gvr/spare/<n>/        links to the files of revision <n>, for the next revision
//! <root>/.gvr/revisions/<n>/    complete: <commit>/, manifest, verdict, durable, and once replaced
//!                               `retired`
//! <root>/.gvr/changed-files     what a hook is told about the last change
//! <root>/.gvr/trash/            renamed here in one step, then deleted in slices of time
//! ```
//!
//! With [`PublishMode::Exchange`] the link path is itself the live tree. `revisions/<n>/swap` holds
//! the commit and the inode number of the tree. It is written before the exchange, so that after a
//! kill each tree is recognised by its inode number and moved to its revision.

mod beside_link;
mod durable;
mod exchange;
mod links;
mod lock;
mod measure;
mod observe;
mod pin;
mod publish;
mod retire;
mod root;
mod scan;
mod small_files;
mod spares;
mod staged;
mod sweep;
mod trash;
mod verdict;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files::relative;

pub use durable::Durability;
use lock::RootLock;
pub use observe::Observed;
pub use pin::Pin;
pub use retire::{Moment, Prune, Pruned};
pub use staged::Staged;
pub use verdict::{Accepted, Recorded, Sealed, Verdict};

/// The paths of a target on disk.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The directory that belongs to this program; absolute. Created if missing.
    pub root: PathBuf,
    /// The path that readers use; absolute, inside the root or elsewhere.
    pub link: PathBuf,
    /// How trees are published at the link path.
    pub mode: PublishMode,
    /// Links of earlier processes that no longer keep their trees; absolute.
    pub forgotten: Vec<PathBuf>,
}

impl Layout {
    /// Where the list of changed files for hooks belongs.
    pub fn changed_files(&self) -> PathBuf {
        self.root.join(".gvr/changed-files")
    }

    /// Where the object store belongs.
    pub fn store(&self) -> PathBuf {
        self.root.join(".gvr/store.git")
    }
}

/// How a revision becomes the live one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMode {
    /// The link is a relative symbolic link, replaced by an atomic rename.
    Symlink,
    /// The link path is a real directory, swapped atomically (renameat2(2), `RENAME_EXCHANGE`).
    Exchange,
}

/// A complete tree on disk, with its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number; later revisions have greater numbers.
    pub n: u64,
    /// The commit whose tree it holds.
    pub commit: Commit,
    /// The tree; absolute. In exchange mode the live tree is at the link path.
    pub path: PathBuf,
    /// The manifest; absolute.
    pub manifest: PathBuf,
}

/// An open, locked root. Dropping it releases the lock.
#[derive(Debug)]
pub struct Volume {
    mode: PublishMode,
    root: PathBuf,
    root_fd: OwnedFd,
    gvr: PathBuf,
    gvr_fd: OwnedFd,
    store: PathBuf,
    link: PathBuf,
    link_parent: PathBuf,
    link_leaf: OsString,
    /// The relative path from the directory of the link to `revisions`.
    link_target: PathBuf,
    lock: RootLock,
    /// The id of this boot; empty if the kernel does not tell.
    boot: String,
    cache: Mutex<VolumeCache>,
}

/// What is remembered between calls. A restart does without it.
#[derive(Debug, Default)]
struct VolumeCache {
    /// The last revision number.
    last: u64,
    /// The inode of each tree when it was first seen live.
    inodes: HashMap<u64, (u64, u64)>,
    /// The live tree of exchange mode, with its inode number.
    exchanged: Option<(u64, Revision)>,
    /// Retirements that could not be written because the disk is full.
    retired: HashMap<u64, Moment>,
    /// Directories under `.gvr` that cannot be renamed into the trash and are emptied in place.
    condemned: Vec<(String, String)>,
    /// Makes names in the trash unique.
    serial: u64,
    /// The sync that is under way, or was the last one.
    syncing: Option<std::thread::JoinHandle<()>>,
}

const STAGING: &str = "staging";
const REVISIONS: &str = "revisions";
const SPARE: &str = "spare";
const TRASH: &str = "trash";
const MANIFEST: &str = "manifest";
const RETIRED: &str = "retired";
const SWAP: &str = "swap";
const LAST: &str = "last";
const PIN: &str = "pin";
/// The longest time that opening the volume spends on deleting debris; pruning deletes the rest.
const OPENING_SWEEP: Duration = Duration::from_secs(5);

impl Volume {
    /// Opens the root for writing: creates missing directories, takes the lock, and removes the
    /// debris of earlier processes.
    ///
    /// `owner` is written into the lock file, where a waiting process reads it. If another process
    /// holds the lock, this logs its name once and waits for up to `wait`.
    ///
    /// # Errors
    /// Stage `start`: the root is not a directory, not writable, or inside the work tree of a git
    /// repository that does not ignore it; a foreign file or directory is at the link path; another
    /// process still holds the lock.
    pub fn open(
        layout: Layout,
        owner: &str,
        wait: Duration,
        budget: &Budget,
    ) -> Result<Self, SyncError> {
        let opened = root::open(&layout.root)?;
        let (link_parent, link_leaf) = root::link_place(&layout, &opened.path)?;
        let lock = RootLock::take(&opened.gvr_fd, &opened.gvr, owner, wait, budget)?;
        let revisions = opened.gvr.join(REVISIONS);
        let volume = Self {
            mode: layout.mode,
            store: opened.gvr.join("store.git"),
            link: link_parent.join(&link_leaf),
            link_target: relative(&link_parent, &revisions),
            link_parent,
            link_leaf,
            root: opened.path,
            root_fd: opened.root_fd,
            gvr: opened.gvr,
            gvr_fd: opened.gvr_fd,
            lock,
            boot: durable::boot_id(),
            cache: Mutex::default(),
        };
        volume.create_directories()?;
        volume.complete_exchanges()?;
        volume.refuse_foreign_link()?;
        if let Err(cause) = volume.register_link(&layout.forgotten) {
            // The disk may be full, and pruning must be able to free space.
            tracing::warn!(error = %cause, "cannot register the link");
        }
        volume.sweep(budget)?;
        Ok(volume)
    }

    /// The path of the object store.
    pub fn store_path(&self) -> &Path {
        &self.store
    }

    /// The root, without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the root and the lock file are still those that were opened. If somebody removed or
    /// replaced them, the volume must be opened again.
    pub fn is_current(&self) -> bool {
        let same = |fd: &OwnedFd, path: &Path| -> io::Result<bool> {
            let (opened, named) = (rustix::fs::fstat(fd)?, rustix::fs::stat(path)?);
            Ok((opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino))
        };
        same(&self.root_fd, &self.root).unwrap_or(false)
            && same(&self.gvr_fd, &self.gvr).unwrap_or(false)
            && self.lock.is_in_place(&self.gvr_fd)
    }

    /// The complete revisions on disk, oldest first.
    ///
    /// # Errors
    /// Stage `build`: the directory of revisions cannot be read.
    pub fn revisions(&self) -> Result<Vec<Revision>, SyncError> {
        self.complete().map_err(|cause| {
            SyncError::disk(Stage::Build, "read", &self.gvr.join(REVISIONS), cause)
        })
    }

    /// Bytes that the root occupies on disk, with hard-linked files counted once. It reads every
    /// directory: call it rarely, off the critical path.
    ///
    /// # Errors
    /// Stage `prune`: the budget ran out, or the root cannot be read.
    pub fn bytes(&self, budget: &Budget) -> Result<u64, SyncError> {
        measure::occupied(&self.root_fd, budget)
            .map_err(|cause| SyncError::disk(Stage::Prune, "measure", &self.root, cause))?
            .map_err(|cause| SyncError::interrupted(Stage::Prune, "measuring the volume", cause))
    }

    fn revision(&self, n: u64, name: &str, commit: Commit) -> Revision {
        let dir = self.gvr.join(REVISIONS).join(name);
        Revision {
            n,
            commit,
            path: dir.join(commit.to_string()),
            manifest: dir.join(MANIFEST),
        }
    }

    /// Creates the directories under `.gvr` that are missing.
    fn create_directories(&self) -> Result<(), SyncError> {
        for directory in [STAGING, SPARE, REVISIONS, TRASH] {
            match rustix::fs::mkdirat(&self.gvr_fd, directory, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(cause) => {
                    let path = self.gvr.join(directory);
                    return Err(SyncError::disk(Stage::Start, "create", &path, cause.into()));
                }
            }
        }
        Ok(())
    }

    /// Refuses to start if a foreign file or directory is at the link path. A file that replaced a
    /// published link is damage and is not refused.
    fn refuse_foreign_link(&self) -> Result<(), SyncError> {
        let stat = match rustix::fs::lstat(&self.link) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(cause) => {
                let error = SyncError::disk(Stage::Start, "look at", &self.link, cause.into());
                return Err(error);
            }
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Ok(()),
            FileType::Directory => self.observe().map(drop).map_err(|e| e.at(Stage::Start)),
            _ if self.revisions().map_err(|e| e.at(Stage::Start))?.is_empty() => {
                Err(SyncError::new(
                    Stage::Start,
                    Reason::Disk,
                    format!(
                        "{} is a file that this program did not publish: it is left alone",
                        self.link.display()
                    ),
                )
                .with_hint("remove it, or choose another --link"))
            }
            _ => Ok(()),
        }
    }

    fn cache(&self) -> MutexGuard<'_, VolumeCache> {
        // Each use inserts or reads single values, so a panic leaves nothing half-changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dir_name(n: u64) -> String {
    format!("{n:06}")
}

/// The number in a directory name of this program: digits, with or without a suffix after a dot.
fn number(name: &str) -> Option<u64> {
    let digits = name.split('.').next().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
