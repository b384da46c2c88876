//! One writer per root: flock(2) on a file that names the process that holds it.
//!
//! The kernel releases the lock when the process ends. The text in the file is for people.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::base::budget::{Budget, Interrupted};
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;

/// The held lock of a root. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct RootLock {
    file: File,
}

/// The result of one attempt to take the lock.
enum Attempt {
    Taken(RootLock),
    /// Somebody removed the file between opening and locking it, or a signal interrupted the call.
    Repeat,
    /// Another process, described by the text, holds the lock.
    HeldBy(String),
}

const NAME: &str = "lock";
/// The time between two attempts: flock(2) cannot wait with a deadline.
const RETRY: Duration = Duration::from_millis(50);
/// The longest text that is read from the lock file, in bytes.
const MAX_HOLDER: u64 = 512;

impl RootLock {
    /// Takes the lock, waiting for up to `wait`. `owner` is written into the file.
    pub(super) fn take(
        gvr: &OwnedFd,
        gvr_path: &Path,
        owner: &str,
        wait: Duration,
        budget: &Budget,
    ) -> Result<Self, SyncError> {
        let path = gvr_path.join(NAME);
        let started = Instant::now();
        let mut logged = false;
        loop {
            let holder = match Self::attempt(gvr, &path)? {
                Attempt::Taken(lock) => {
                    lock.write_owner(owner);
                    return Ok(lock);
                }
                Attempt::Repeat => continue,
                Attempt::HeldBy(holder) => holder,
            };
            // If the budget is used up, the error that names the holder is the more useful one.
            let late = budget.check() == Err(Interrupted::DeadlineExceeded);
            if late || started.elapsed() >= wait {
                return Err(held(gvr_path, &holder, wait));
            }
            if !logged {
                logged = true;
                tracing::info!(lock = %path.display(), %holder, "waiting for another instance");
            }
            let left = budget.remaining().map_err(|cause| {
                SyncError::interrupted(Stage::Start, "waiting for the lock", cause)
            })?;
            std::thread::sleep(RETRY.min(left));
        }
    }

    fn attempt(gvr: &OwnedFd, path: &Path) -> Result<Attempt, SyncError> {
        let mut file =
            open(gvr).map_err(|cause| SyncError::disk(Stage::Start, "open", path, cause.into()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let lock = Self { file };
                Ok(match lock.is_in_place(gvr) {
                    true => Attempt::Taken(lock),
                    false => Attempt::Repeat,
                })
            }
            Err(Errno::WOULDBLOCK) => Ok(Attempt::HeldBy(holder(&mut file))),
            Err(Errno::INTR) => Ok(Attempt::Repeat),
            Err(cause) => Err(SyncError::disk(Stage::Start, "lock", path, cause.into())
                .with_hint("the file system must support locks; use another volume for --root")),
        }
    }

    /// Whether the file name still leads to the locked file.
    pub(super) fn is_in_place(&self, gvr: &OwnedFd) -> bool {
        let locked = rustix::fs::fstat(&self.file);
        let named = rustix::fs::statat(gvr, NAME, AtFlags::SYMLINK_NOFOLLOW);
        match (locked, named) {
            (Ok(locked), Ok(named)) => {
                (locked.st_dev, locked.st_ino) == (named.st_dev, named.st_ino)
            }
            _ => false,
        }
    }

    /// Writes who holds the lock. Errors are ignored, because a full disk must not prevent a start.
    fn write_owner(&self, owner: &str) {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let text = format!(
            "pid {} on {}, {owner}, since {}\n",
            std::process::id(),
            host.trim(),
            humantime::format_rfc3339_seconds(SystemTime::now()),
        );
        let mut file = &self.file;
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()));
    }
}

fn open(gvr: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(gvr, NAME, flags, Mode::from_raw_mode(0o644)).map(File::from)
}

/// The text in a lock file that another process holds.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(MAX_HOLDER).read_to_string(&mut text);
    match text.trim() {
        "" => "another process".to_owned(),
        text => printable(text),
    }
}

fn held(gvr_path: &Path, holder: &str, wait: Duration) -> SyncError {
    SyncError::new(
        Stage::Start,
        Reason::Other,
        format!(
            "{} is in use by {holder}; waited {} for it",
            gvr_path.parent().unwrap_or(gvr_path).display(),
            humantime::format_duration(wait),
        ),
    )
    .with_hint("stop the other instance, or give each one its own --root")
}
