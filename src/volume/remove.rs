//! Deleting, in two steps: a rename into the trash, then files in slices of time.
//!
//! Works by directory descriptors, follows no link, stays on one file system, and holds a bounded
//! number of descriptors however deep a tree is.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::scan::Slot;
use super::{OPENING_SWEEP, REVISIONS, STAGING, TRASH, Volume};
use crate::base::budget::{Budget, Interrupted};
use crate::base::error::{Stage, SyncError};

/// Directories deeper than this are moved up before they are emptied.
const DEPTH: usize = 32;
/// Directories deeper than this are not measured.
const MEASURED_DEPTH: usize = 256;

impl Volume {
    /// Removes what earlier lives left: stages, links that were never flipped, revisions without
    /// a tree or a manifest. What the link shows stays, whatever its state; spares are left to
    /// housekeeping: the first poll need not wait until a whole tree of links is gone.
    pub(super) fn sweep(&self, budget: &Budget) -> Result<(), SyncError> {
        let failed = |cause| SyncError::disk(Stage::Start, "sweep", &self.gvr, cause);
        // Before the names that tell it are gone.
        let last = self.last_number().map_err(failed)?;
        self.memory().last = last;
        for name in self.names(STAGING).map_err(failed)? {
            self.discard(STAGING, &name);
        }
        if let Err(cause) = self.sweep_beside_link() {
            tracing::warn!(directory = %self.link_parent.display(), error = %cause, "cannot sweep");
        }
        let slots = self.scan().map_err(failed)?;
        let at_link = self.inode_at_link();
        let linked = self.linked(&slots);
        for slot in &slots {
            if self.complete_slot(slot, at_link).is_none() && Some(slot.n) != linked {
                self.discard(REVISIONS, &slot.name);
            }
        }
        let slice = budget
            .remaining()
            .map_err(|cause| SyncError::interrupted(Stage::Start, "sweeping the root", cause))?
            .min(OPENING_SWEEP);
        let slice = Budget::new(slice, slice, budget.cancelled().clone());
        self.delete_trash(&slice).map_err(failed)?;
        Ok(())
    }

    /// The revision that the link leads to, complete or not.
    pub(super) fn linked(&self, slots: &[Slot]) -> Option<u64> {
        if let Some(inode) = self.inode_at_link() {
            return slots
                .iter()
                .find(|slot| slot.swap.is_some_and(|swap| swap.inode == inode))
                .map(|slot| slot.n);
        }
        let target = rustix::fs::readlink(&self.link, Vec::new()).ok()?;
        self.parse_target(target.as_bytes()).map(|(n, ..)| n)
    }

    /// Moves a directory to the trash; false, and a line in the log, when it cannot be moved.
    pub(super) fn discard(&self, room: &str, name: &str) -> bool {
        let from = format!("{room}/{name}");
        let to = format!("{TRASH}/{}", self.unique(name));
        let make_trash = || {
            let _ = rustix::fs::mkdirat(&self.gvr_fd, TRASH, Mode::from_raw_mode(0o755));
            rustix::fs::renameat(&self.gvr_fd, &from, &self.gvr_fd, &to)
        };
        match rustix::fs::renameat(&self.gvr_fd, &from, &self.gvr_fd, &to).or_else(|_| make_trash())
        {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(cause) => {
                let path = self.gvr.join(&from);
                tracing::warn!(path = %path.display(), error = %cause, "cannot remove for now");
                false
            }
        }
    }

    /// A name for the trash that keeps the number in front.
    pub(super) fn unique(&self, name: &str) -> String {
        let mut memory = self.memory();
        memory.serial += 1;
        let first = name.split('.').next().unwrap_or_default();
        format!("{first}.{}.{:08x}", memory.serial, fastrand::u32(..))
    }

    /// Deletes from the trash until it is empty, or the budget ends or gives way; true when something is left.
    pub(super) fn delete_trash(&self, budget: &Budget) -> io::Result<bool> {
        let trash = match open_directory(&self.gvr_fd, TRASH) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(false),
            Err(cause) => return Err(cause.into()),
        };
        let device = rustix::fs::fstat(&trash)?.st_dev;
        let mut remover = Remover {
            volume: self,
            trash: &trash,
            device,
            budget,
            steps: 0,
            progress: true,
        };
        while remover.progress {
            remover.progress = false;
            if remover.empty(&trash, 0).is_err() {
                break;
            }
        }
        Ok(Dir::read_from(&trash)?
            .filter_map(Result::ok)
            .any(|entry| !is_dot(entry.file_name())))
    }

    /// For where nobody waits: deletes what a moment suffices for.
    pub(super) fn delete_trash_briefly(&self) {
        let moment = Duration::from_secs(1);
        let _ = self.delete_trash(&Budget::new(moment, moment, Arc::default()));
    }
}

struct Remover<'a> {
    volume: &'a Volume,
    trash: &'a OwnedFd,
    device: u64,
    budget: &'a Budget,
    steps: u32,
    /// Whether anything went, so that another pass over the trash is worth it.
    progress: bool,
}

/// Time to leave the rest for the next call.
struct Stop;

impl From<Interrupted> for Stop {
    fn from(_: Interrupted) -> Self {
        Self
    }
}

impl Remover<'_> {
    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> Result<(), Stop> {
        // Reading a directory while deleting from it may skip names on some file systems.
        loop {
            let mut removed = false;
            let Ok(entries) = Dir::read_from(dir) else {
                return Ok(());
            };
            for entry in entries {
                let Ok(entry) = entry else { break };
                if is_dot(entry.file_name()) {
                    continue;
                }
                self.steps = self.steps.wrapping_add(1);
                if self.steps.is_multiple_of(64) {
                    self.budget.check()?;
                    if self.budget.gives_way() {
                        return Err(Stop);
                    }
                }
                removed |= self.remove(dir, entry.file_name(), entry.file_type(), depth)?;
            }
            if !removed {
                return Ok(());
            }
            self.progress = true;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Whether the name is gone. What will not go is left for another time.
    fn remove(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> Result<bool, Stop> {
        let is_dir = match kind {
            FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()),
            kind => kind.is_dir(),
        };
        if !is_dir {
            return Ok(unlink(dir, name, AtFlags::empty()));
        }
        if depth >= DEPTH {
            let up = self.volume.unique("deep");
            return Ok(rustix::fs::renameat(dir, name, self.trash, up).is_ok());
        }
        let child = match open_directory(dir, name) {
            Err(Errno::ACCESS) => {
                let _ = rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty());
                open_directory(dir, name)
            }
            other => other,
        };
        let Ok(child) = child else { return Ok(false) };
        if rustix::fs::fstat(&child).is_ok_and(|stat| stat.st_dev == self.device) {
            self.empty(&child, depth + 1)?;
        }
        Ok(unlink(dir, name, AtFlags::REMOVEDIR))
    }
}

fn unlink(dir: &OwnedFd, name: &CStr, flags: AtFlags) -> bool {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => true,
        Err(Errno::ACCESS) => {
            // A directory that somebody made read-only; it is ours, and on its way out.
            rustix::fs::fchmod(dir, Mode::RWXU).is_ok()
                && rustix::fs::unlinkat(dir, name, flags).is_ok()
        }
        Err(_) => false,
    }
}

fn open_directory(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Bytes that everything under a directory occupies, hard links counted once.
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
        if is_dir && depth < MEASURED_DEPTH {
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
