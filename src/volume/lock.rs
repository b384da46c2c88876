//! One writer per root: a flock(2) on a file that says who holds it.
//!
//! The kernel releases it with the process; what the file says is for people.

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

/// A held lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

const NAME: &str = "lock";
/// flock(2) cannot wait with a deadline; asking this often costs nothing.
const RETRY: Duration = Duration::from_millis(50);

impl Lock {
    pub(super) fn take(
        gvr: &OwnedFd,
        gvr_path: &Path,
        owner: &str,
        wait: Duration,
        budget: &Budget,
    ) -> Result<Self, SyncError> {
        let path = gvr_path.join(NAME);
        let asked = Instant::now();
        let mut said = false;
        loop {
            let mut file = open(gvr)
                .map_err(|cause| SyncError::disk(Stage::Start, "open", &path, cause.into()))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let lock = Self { file };
                    // Somebody may have removed the file between opening and locking it.
                    if lock.is_in_place(gvr) {
                        lock.sign(owner);
                        return Ok(lock);
                    }
                }
                Err(Errno::WOULDBLOCK) => {
                    let holder = holder(&mut file);
                    // Who holds the lock is worth more than that the time is over.
                    let late = budget.check() == Err(Interrupted::DeadlineExceeded);
                    if late || asked.elapsed() >= wait {
                        return Err(SyncError::new(
                            Stage::Start,
                            Reason::Other,
                            format!(
                                "{} is in use by {holder}, and was for the {} that we waited",
                                gvr_path.parent().unwrap_or(gvr_path).display(),
                                humantime::format_duration(wait),
                            ),
                        )
                        .with_hint("stop the other instance, or give each one its own --root"));
                    }
                    if !said {
                        said = true;
                        tracing::info!(lock = %path.display(), %holder, "waiting for another instance");
                    }
                    let left = budget.remaining().map_err(|cause| {
                        SyncError::interrupted(Stage::Start, "waiting for the lock", cause)
                    })?;
                    std::thread::sleep(RETRY.min(left));
                }
                Err(Errno::INTR) => {}
                Err(cause) => {
                    return Err(SyncError::disk(Stage::Start, "lock", &path, cause.into())
                        .with_hint(
                            "the file system must support locks; use another volume for --root",
                        ));
                }
            }
        }
    }

    /// Whether the name still leads to the file that is locked.
    pub(super) fn is_in_place(&self, gvr: &OwnedFd) -> bool {
        let ours = rustix::fs::fstat(&self.file);
        let named = rustix::fs::statat(gvr, NAME, AtFlags::SYMLINK_NOFOLLOW);
        match (ours, named) {
            (Ok(ours), Ok(named)) => (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino),
            _ => false,
        }
    }

    /// Says who we are. A full disk must not keep us from starting, so failures are ignored.
    fn sign(&self, owner: &str) {
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

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(512).read_to_string(&mut text);
    match text.trim() {
        "" => "another process".to_owned(),
        text => printable(text),
    }
}
