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

use super::{MANIFEST, REVISIONS, TRASH, Volume};
use crate::base::budget::{Budget, Interrupted};

/// Directories deeper than this are moved to the top of the trash before they are emptied.
const MAX_DEPTH: usize = 32;
/// Directories of a lower layer of an overlay, which cannot be moved, are emptied down to this depth.
const MAX_DEPTH_IN_PLACE: usize = 256;
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
            Err(Errno::XDEV) => self.condemn(directory, name),
            Err(cause) => {
                let path = self.gvr.join(&from);
                tracing::warn!(path = %path.display(), error = %cause, "cannot move it to the trash");
                false
            }
        }
    }

    /// Prepares to empty a directory where it is: overlayfs does not rename a directory that is on a
    /// lower layer. Without its manifest a revision is incomplete, so that nobody publishes or
    /// shares it from now on, also after a restart.
    fn condemn(&self, directory: &str, name: &str) -> bool {
        if directory == REVISIONS {
            let manifest = format!("{directory}/{name}/{MANIFEST}");
            match rustix::fs::unlinkat(&self.gvr_fd, manifest, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(cause) => {
                    tracing::warn!(directory, name, error = %cause, "cannot remove it");
                    return false;
                }
            }
        }
        if !self.is_condemned(directory, name) {
            let entry = (directory.to_owned(), name.to_owned());
            self.cache().condemned.push(entry);
        }
        true
    }

    pub(super) fn is_condemned(&self, directory: &str, name: &str) -> bool {
        let is_it = |(d, n): &(String, String)| d == directory && n == name;
        self.cache().condemned.iter().any(is_it)
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
        let condemned = self.cache().condemned.clone();
        for (directory, name) in condemned {
            if remover.empty_in_place(&directory, &name).unwrap_or(false) {
                let mut cache = self.cache();
                cache
                    .condemned
                    .retain(|(d, n)| *d != directory || *n != name);
            }
        }
        let is_left = Dir::read_from(&trash)?
            .filter_map(Result::ok)
            .any(|entry| !is_dot(entry.file_name()));
        Ok(is_left || !self.cache().condemned.is_empty())
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

    /// Deletes a directory that is not in the trash; returns whether it is gone.
    fn empty_in_place(&mut self, directory: &str, name: &str) -> Result<bool, OutOfTime> {
        let path = format!("{directory}/{name}");
        let gone = |error| error == Errno::NOENT;
        let dir = match open_directory(&self.volume.gvr_fd, &path) {
            Ok(dir) => dir,
            Err(error) => return Ok(gone(error)),
        };
        self.empty(&dir, 1)?;
        let gvr = &self.volume.gvr_fd;
        Ok(rustix::fs::unlinkat(gvr, &path, AtFlags::REMOVEDIR).map_or_else(gone, |()| true))
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
            match rustix::fs::renameat(dir, name, self.trash, up) {
                Err(Errno::XDEV) if depth < MAX_DEPTH_IN_PLACE => {}
                moved => return Ok(moved.is_ok()),
            }
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
