//! The pin: a file that says which revision readers are held on.
//!
//! `.gvr/pin` holds the commit, the number of the revision and the time in seconds since the epoch.
//! It is replaced in one step and synced before the change counts, so that it survives a power cut.
//! This module does not point readers anywhere.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::small_files::sync;
use super::{PIN, STAGING, Volume};
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;

/// The longest file that is read, in bytes.
const MAX_PIN: u64 = 4096;

/// What readers are held on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The commit.
    pub commit: Commit,
    /// The revision of it that was chosen. Another revision of the commit will do if it is gone.
    pub n: u64,
    /// Since when, to the second.
    pub since: SystemTime,
}

impl Volume {
    /// What readers are held on, if they are.
    ///
    /// # Errors
    /// Stage `poll`: the file cannot be read, or is none of ours. Readers then keep what they have.
    pub fn pin(&self) -> Result<Option<Pin>, SyncError> {
        let path = self.gvr.join(PIN);
        // Looked at first, because that takes no descriptor and there is hardly ever a pin.
        if let Err(Errno::NOENT) = rustix::fs::statat(&self.gvr_fd, PIN, AtFlags::SYMLINK_NOFOLLOW)
        {
            return Ok(None);
        }
        let content = match files::read(&path, MAX_PIN) {
            Ok(content) => content,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => {
                let error = SyncError::disk(Stage::Poll, "read", &path, cause);
                return Err(error.with_hint(REMOVE));
            }
        };
        let pin = Pin::parse(&String::from_utf8_lossy(&content)).ok_or_else(|| {
            let message = format!("{} does not name a commit", path.display());
            SyncError::new(Stage::Poll, Reason::Disk, message).with_hint(REMOVE)
        })?;
        Ok(Some(pin))
    }

    /// Holds readers on a revision from now on; durable when it returns.
    ///
    /// # Errors
    /// Stage `publish`: the disk does not take the file. What was pinned before is still pinned.
    pub fn set_pin(&self, pin: &Pin) -> Result<(), SyncError> {
        let failed = |cause| SyncError::disk(Stage::Publish, "write", &self.gvr.join(PIN), cause);
        self.create_directories()
            .map_err(|error| error.at(Stage::Publish))?;
        self.replace_pin(pin).map_err(failed)
    }

    /// Lets readers follow the ref again; durable when it returns. Whether they were held.
    ///
    /// # Errors
    /// Stage `publish`: the disk does not let go of the file.
    pub fn clear_pin(&self) -> Result<bool, SyncError> {
        let failed = |cause: io::Error| {
            SyncError::disk(Stage::Publish, "remove", &self.gvr.join(PIN), cause)
        };
        match rustix::fs::unlinkat(&self.gvr_fd, PIN, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(cause) => return Err(failed(cause.into())),
        }
        sync(&self.gvr_fd).map_err(|cause| failed(cause.into()))?;
        Ok(true)
    }

    fn replace_pin(&self, pin: &Pin) -> io::Result<()> {
        let temporary = format!("{STAGING}/{PIN}.new");
        let remove = || rustix::fs::unlinkat(&self.gvr_fd, &*temporary, AtFlags::empty());
        match remove() {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(cause) => return Err(cause.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let mut file = File::from(rustix::fs::openat(&self.gvr_fd, &*temporary, flags, mode)?);
        let written = file.write_all(pin.text().as_bytes()).and_then(|()| {
            sync(&file)?;
            rustix::fs::renameat(&self.gvr_fd, &*temporary, &self.gvr_fd, PIN)?;
            Ok(sync(&self.gvr_fd)?)
        });
        if written.is_err() {
            // It is gone if it was renamed.
            let _ = remove();
        }
        written
    }
}

const REMOVE: &str = "run `git-volume-reloader unpin`, or delete the file";

impl Pin {
    fn text(&self) -> String {
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{} {} {}\n", self.commit, self.n, since.as_secs())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let commit = words.next()?.parse().ok()?;
        let n = words.next()?.parse().ok()?;
        let since = Duration::from_secs(words.next()?.parse().ok()?);
        Some(Self {
            commit,
            n,
            since: UNIX_EPOCH.checked_add(since)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back_as_it_was_written_and_a_damaged_one_does_not() {
        let pin = Pin {
            commit: "a".repeat(40).parse().unwrap(),
            n: 42,
            since: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        assert_eq!(Pin::parse(&pin.text()), Some(pin));
        let far = format!("{} 1 {}", pin.commit, u64::MAX);
        for damaged in [
            "",
            "x",
            &pin.text()[..39],
            &pin.text()[..42],
            "\0\0\0",
            &far,
        ] {
            assert_eq!(Pin::parse(damaged), None, "{damaged:?}");
        }
    }
}
