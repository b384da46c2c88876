//! The volume: sole owner of every path name under the root, and of the link.
//!
//! It locks the root, says what is live, hands out staged directories, seals and publishes them,
//! and removes what nobody reads any more. Disk is the only state: everything is read again from
//! names whose appearance is one rename, so a kill at any instruction is an ordinary start.
//!
//! It does not write trees or read manifests (it only insists that a manifest exists), does not
//! know the object store beyond its path, and does not decide when to publish or to prune.
//!
//! ```text
//! <root>/<link> -> .gvr/revisions/000042/<commit>
//! <root>/.gvr/lock              one writer per root
//! <root>/.gvr/last              the last number handed out: numbers only grow
//! <root>/.gvr/store.git/        the object store
//! <root>/.gvr/staging/<n>/      being built
//! <root>/.gvr/spare/<n>/        links to the files of revision <n>, for the one after it
//! <root>/.gvr/revisions/<n>/    complete: <commit>/, manifest, verdict, and once replaced `retired`
//! <root>/.gvr/trash/            on its way out: renamed here in one step, deleted in slices
//! ```
//!
//! With [`PublishMode::Exchange`] the link path is itself the live tree. `revisions/<n>/swap`
//! holds the commit and inode number of the tree, written before the swap, so that whichever step
//! was the last one, each tree is recognised by its inode and put where it belongs.

mod lock;
mod publish;
mod remove;
mod retire;
mod root;
mod scan;
mod staged;
mod verdict;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

use lock::Lock;
pub use retire::{Moment, Prune, Pruned};
pub use staged::Staged;
pub use verdict::{Accepted, Sealed, Verdict};

/// Where a target lives on disk.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The directory that is ours; absolute. Created when missing.
    pub root: PathBuf,
    /// The path that readers use; absolute, inside the root or elsewhere.
    pub link: PathBuf,
    /// What the link path is.
    pub mode: PublishMode,
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
    /// Its number: later revisions have greater ones.
    pub n: u64,
    /// The commit whose tree it is.
    pub commit: Commit,
    /// The tree; absolute. In exchange mode the live tree is at the link path.
    pub path: PathBuf,
    /// The manifest; absolute.
    pub manifest: PathBuf,
}

/// What the link shows to readers now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The revision that readers see; none before the first publish, when the link is damaged, or
    /// when the manifest that would tell what it is has gone.
    pub live: Option<Revision>,
    /// What somebody else did to the link or to the tree: a reason to publish again.
    pub damage: Option<String>,
    /// Whether the live tree is a directory at the link path where a symbolic link is wanted.
    misplaced: bool,
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
    /// From the directory of the link to `revisions`, without symbolic links.
    link_target: PathBuf,
    lock: Lock,
    memory: Mutex<Memory>,
}

/// What is worth remembering between calls; nothing that a restart would miss.
#[derive(Debug, Default)]
struct Memory {
    last: u64,
    /// The inode of each tree when it was first seen live.
    inodes: HashMap<u64, (u64, u64)>,
    /// The live tree of exchange mode, by inode.
    exchanged: Option<(u64, Revision)>,
    /// Retirements that a full disk did not let us write down.
    retired: HashMap<u64, Moment>,
    serial: u64,
}

const STAGING: &str = "staging";
const REVISIONS: &str = "revisions";
const SPARE: &str = "spare";
const TRASH: &str = "trash";
const MANIFEST: &str = "manifest";
const RETIRED: &str = "retired";
const SWAP: &str = "swap";
const LAST: &str = "last";
/// The longest time that opening spends on deleting debris; pruning does the rest.
const OPENING_SWEEP: Duration = Duration::from_secs(5);

impl Volume {
    /// Opens the root for writing: creates what is missing, takes the lock, sweeps what earlier
    /// lives left behind.
    ///
    /// `owner` is written into the lock for the eyes of whoever waits for it. Another holder is
    /// waited for as long as `wait`, and said once in the log.
    ///
    /// # Errors
    /// Stage `start`: the root is not a directory, not writable, or inside the work tree of a git
    /// repository that does not ignore it; something real is in the link's place; the lock stays
    /// taken.
    pub fn open(
        layout: Layout,
        owner: &str,
        wait: Duration,
        budget: &Budget,
    ) -> Result<Self, SyncError> {
        let opened = root::open(&layout.root)?;
        let (link_parent, link_leaf) = root::link_place(&layout, &opened.path)?;
        let lock = Lock::take(&opened.gvr_fd, &opened.gvr, owner, wait, budget)?;
        let revisions = opened.gvr.join(REVISIONS);
        let volume = Self {
            mode: layout.mode,
            store: opened.gvr.join("store.git"),
            link: link_parent.join(&link_leaf),
            link_target: root::relative(&link_parent, &revisions),
            link_parent,
            link_leaf,
            root: opened.path,
            root_fd: opened.root_fd,
            gvr: opened.gvr,
            gvr_fd: opened.gvr_fd,
            lock,
            memory: Mutex::default(),
        };
        volume.make_rooms()?;
        volume.settle()?;
        volume.refuse_foreign_link()?;
        volume.sweep(budget)?;
        Ok(volume)
    }

    /// A new, empty directory for links to the files of revision `n`, on their file system; nobody
    /// but the next build looks into it.
    ///
    /// # Errors
    /// When it is there already, or the disk does not take it.
    pub fn make_spare(&self, n: u64) -> io::Result<PathBuf> {
        self.make_rooms().map_err(io::Error::other)?;
        let name = format!("{SPARE}/{}", dir_name(n));
        rustix::fs::mkdirat(&self.gvr_fd, &name, Mode::from_raw_mode(0o755))?;
        Ok(self.gvr.join(name))
    }

    /// Moves what is left of spares to the trash; whether there was something.
    ///
    /// # Errors
    /// When the directory that they are in cannot be read.
    pub fn drop_spares(&self) -> io::Result<bool> {
        let mut moved = false;
        for name in self.names(SPARE)? {
            moved |= self.discard(SPARE, &name);
        }
        Ok(moved)
    }

    /// Deletes what is left of spares, for somebody who waits for the room; whether there was
    /// something.
    ///
    /// # Errors
    /// When one of the directories concerned cannot be read.
    pub fn delete_spares(&self, budget: &Budget) -> io::Result<bool> {
        let moved = self.drop_spares()?;
        if moved {
            self.delete_trash(budget)?;
        }
        Ok(moved)
    }

    /// Where the object store belongs.
    pub fn store_path(&self) -> &Path {
        &self.store
    }

    /// The root, without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the root and the lock are still those that were opened. When somebody removed or
    /// replaced them, the volume must be opened again.
    pub fn is_current(&self) -> bool {
        let same = |fd: &OwnedFd, path: &Path| -> io::Result<bool> {
            let (ours, there) = (rustix::fs::fstat(fd)?, rustix::fs::stat(path)?);
            Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
        };
        same(&self.root_fd, &self.root).unwrap_or(false)
            && same(&self.gvr_fd, &self.gvr).unwrap_or(false)
            && self.lock.is_in_place(&self.gvr_fd)
    }

    /// What readers see now: a few system calls, fit for every poll.
    ///
    /// # Errors
    /// Stage `poll`: the root was removed or replaced, a real directory has taken the link's
    /// place, or the disk does not answer.
    pub fn observe(&self) -> Result<Observed, SyncError> {
        if !self.is_current() {
            return Err(SyncError::new(
                Stage::Poll,
                Reason::Disk,
                format!(
                    "{} is no longer the directory that was locked",
                    self.root.display()
                ),
            )
            .with_hint("somebody removed or replaced it; it will be opened again"));
        }
        let at = |cause| SyncError::disk(Stage::Poll, "look at", &self.link, cause);
        let stat = match rustix::fs::lstat(&self.link) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return self.observe_nothing(),
            Err(cause) => return Err(at(cause.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => self.observe_link(),
            FileType::Directory => {
                let known = self.memory().exchanged.clone();
                let live = match known {
                    Some((inode, revision)) if inode == stat.st_ino => Some(revision),
                    _ => {
                        let found = self
                            .complete()
                            .map_err(at)?
                            .into_iter()
                            .find(|revision| revision.path == self.link);
                        if let Some(revision) = &found {
                            self.memory().exchanged = Some((stat.st_ino, revision.clone()));
                        }
                        found
                    }
                };
                match live {
                    Some(revision) if !self.has_manifest(revision.n) => Ok(Observed::default()),
                    Some(live) => {
                        let misplaced = self.mode == PublishMode::Symlink;
                        Ok(Observed {
                            damage: misplaced.then(|| {
                                "the link is a directory from publishing by exchange".to_owned()
                            }),
                            live: Some(live),
                            misplaced,
                        })
                    }
                    None if self.mode == PublishMode::Exchange && self.link_is_empty() => {
                        self.observe_nothing()
                    }
                    None => Err(self.foreign_directory(Stage::Poll)),
                }
            }
            _ => Ok(Observed::damaged("something replaced the link by a file")),
        }
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

    /// Bytes that the root occupies, hard links counted once. Walks everything: call it rarely,
    /// off the critical path.
    ///
    /// # Errors
    /// Stage `prune`: the budget ran out, or the root cannot be read.
    pub fn bytes(&self, budget: &Budget) -> Result<u64, SyncError> {
        remove::occupied(&self.root_fd, budget)
            .map_err(|cause| SyncError::disk(Stage::Prune, "measure", &self.root, cause))?
            .map_err(|cause| SyncError::interrupted(Stage::Prune, "measuring the volume", cause))
    }

    fn observe_nothing(&self) -> Result<Observed, SyncError> {
        let published_before = self.revisions()?;
        Ok(Observed {
            damage: (!published_before.is_empty()).then(|| "the link is gone".to_owned()),
            ..Observed::default()
        })
    }

    fn observe_link(&self) -> Result<Observed, SyncError> {
        let target = rustix::fs::readlink(&self.link, Vec::new())
            .map_err(|cause| SyncError::disk(Stage::Poll, "read", &self.link, cause.into()))?;
        let Some((n, name, commit)) = self.parse_target(target.as_bytes()) else {
            return Ok(Observed::damaged("the link points elsewhere"));
        };
        let tree = format!("{REVISIONS}/{name}/{commit}");
        let stat = match rustix::fs::statat(&self.gvr_fd, &tree, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => stat,
            Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                return Ok(Observed::damaged("the published tree is gone"));
            }
            Err(cause) => {
                let tree = self.gvr.join(&tree);
                return Err(SyncError::disk(Stage::Poll, "look at", &tree, cause.into()));
            }
        };
        let inode = (stat.st_dev, stat.st_ino);
        if *self.memory().inodes.entry(n).or_insert(inode) != inode {
            return Ok(Observed::damaged("the published tree was replaced"));
        }
        // Readers still have their tree: it is built anew, but never traded for an older one.
        if !self.has_manifest(n) {
            return Ok(Observed::default());
        }
        Ok(Observed {
            live: Some(self.revision(n, &name, commit)),
            damage: (self.mode == PublishMode::Exchange)
                .then(|| "the link is symbolic, and a directory is wanted".to_owned()),
            misplaced: false,
        })
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

    fn has_manifest(&self, n: u64) -> bool {
        let path = format!("{REVISIONS}/{}/{MANIFEST}", dir_name(n));
        rustix::fs::statat(&self.gvr_fd, path, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    }

    fn make_rooms(&self) -> Result<(), SyncError> {
        for room in [STAGING, SPARE, REVISIONS, TRASH] {
            match rustix::fs::mkdirat(&self.gvr_fd, room, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(cause) => {
                    let path = self.gvr.join(room);
                    return Err(SyncError::disk(Stage::Start, "create", &path, cause.into()));
                }
            }
        }
        Ok(())
    }

    /// Refuses to start over something real at the link path, unless it took the place of a link
    /// of ours.
    fn refuse_foreign_link(&self) -> Result<(), SyncError> {
        let stat = match rustix::fs::lstat(&self.link) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
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
                        "{} is a file and not a link of ours: it is left alone",
                        self.link.display()
                    ),
                )
                .with_hint("remove it, or choose another --link"))
            }
            _ => Ok(()),
        }
    }

    fn foreign_directory(&self, stage: Stage) -> SyncError {
        SyncError::new(
            stage,
            Reason::Disk,
            format!(
                "{} is a directory that this program did not publish: it is left alone",
                self.link.display()
            ),
        )
        .with_hint("remove it, or choose another --link")
    }

    fn link_is_empty(&self) -> bool {
        std::fs::read_dir(&self.link).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Number, directory name and commit of a link text of ours.
    fn parse_target(&self, target: &[u8]) -> Option<(u64, String, Commit)> {
        use std::os::unix::ffi::OsStrExt;
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        let mut rest = target.strip_prefix(&self.link_target).ok()?.components();
        let name = rest.next()?.as_os_str().to_str()?.to_owned();
        let commit = rest.next()?.as_os_str().to_str()?.parse().ok()?;
        let n = number(&name)?;
        (rest.next().is_none() && name == dir_name(n)).then_some((n, name, commit))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing in there can be half-changed: each use is one insertion or one look-up.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observed {
    /// Whether the live tree is a directory at the link path, and a symbolic link is wanted there.
    ///
    /// Such a tree cannot be moved to where the link would lead without a moment in which readers
    /// have none: another one has to be built.
    pub fn live_takes_the_links_place(&self) -> bool {
        self.misplaced
    }

    fn damaged(what: &str) -> Self {
        Self {
            damage: Some(what.to_owned()),
            ..Self::default()
        }
    }
}

fn dir_name(n: u64) -> String {
    format!("{n:06}")
}

/// The number of a directory that we named: digits, and perhaps a suffix after a dot.
fn number(name: &str) -> Option<u64> {
    let digits = name.split('.').next().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
