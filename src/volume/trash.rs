//! Deleting in two steps: a rename into the trash, then deleting files in slices of time.
//!
//! Works with directory descriptors, follows no symbolic link, stays on one file system, and holds
//! at most 33 descriptors for a tree of any depth.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{TRASH, Volume};
use crate::base::budget::{Budget, Interrupted};

/// Directories deeper than this are moved to the top of the trash before they are emptied.
const MAX_DEPTH: usize = 32;
/// How many names are deleted between two checks of the budget.
const STEPS_PER_CHECK: u32 = 64;

impl Volume {
    /// Moves a name in a directory under `.gvr` to the trash. Returns false if it does not exist, or,
    /// with a log line, if it cannot be moved.
    pub(super) fn discard(&self, directory: &str, name: &str) -> bool {
        let from = format!("{directory}/{name}");
        let to = format!("{TRASH}/{}", self.unique(name));
        let rename = || rustix::fs::renameat(&self.gvr_fd, &from, &self.gvr_fd, &to);
        let moved = rename().or_else(|_| {
            // Somebody may have removed the trash.
            let _ = rustix::fs::mkdirat(&self.gvr_fd, TRASH, Mode::from_raw_mode(0o755));
            rename()
        });
        match moved {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(cause) => {
                let path = self.gvr.join(&from);
                tracing::warn!(path = %path.display(), error = %cause, "cannot move it to the trash");
                false
            }
        }
    }

    /// A unique name for the trash that begins with the number in `name`.
    pub(super) fn unique(&self, name: &str) -> String {
        let mut cache = self.cache();
        cache.serial += 1;
        let first = name.split('.').next().unwrap_or_default();
        format!("{first}.{}.{:08x}", cache.serial, fastrand::u32(..))
    }

    /// Empties the trash until the budget ends or gives way. Returns whether something is left.
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

    /// Spends at most one second emptying the trash, for callers that must not block. Pruning deletes
    /// the rest.
    pub(super) fn delete_trash_briefly(&self) {
        let second = Duration::from_secs(1);
        let _ = self.delete_trash(&Budget::new(second, second, Arc::default()));
    }
}

/// One call of [`Volume::delete_trash`].
struct Remover<'a> {
    volume: &'a Volume,
    trash: &'a OwnedFd,
    device: u64,
    budget: &'a Budget,
    steps: u32,
    /// Whether anything was removed, so that another pass over the trash may remove more.
    progress: bool,
}

/// The budget has ended or gives way; the next call continues.
struct OutOfTime;

impl From<Interrupted> for OutOfTime {
    fn from(_: Interrupted) -> Self {
        Self
    }
}

impl Remover<'_> {
    /// Deletes the names in a directory. Errors leave names to the next pass or call.
    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> Result<(), OutOfTime> {
        // On some file systems, deleting names while the directory is read makes the read skip others.
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
                if self.steps.is_multiple_of(STEPS_PER_CHECK) {
                    self.budget.check()?;
                    if self.budget.gives_way() {
                        return Err(OutOfTime);
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

    /// Deletes a name; returns whether it is gone. An error leaves it to the next call.
    fn remove(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> Result<bool, OutOfTime> {
        let is_dir = match kind {
            FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()),
            kind => kind.is_dir(),
        };
        if !is_dir {
            return Ok(unlink(dir, name, AtFlags::empty()));
        }
        if depth >= MAX_DEPTH {
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
            // Somebody made the directory read-only. It is in the trash, so this may change it back.
            rustix::fs::fchmod(dir, Mode::RWXU).is_ok()
                && rustix::fs::unlinkat(dir, name, flags).is_ok()
        }
        Err(_) => false,
    }
}

pub(super) fn open_directory(
    dir: impl AsFd,
    name: impl rustix::path::Arg,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

pub(super) fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
