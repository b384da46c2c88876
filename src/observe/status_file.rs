//! The observer that keeps the JSON of `/status` in a file.
//!
//! It runs deferred, because the file may lie on a slow volume. It writes after the events that
//! change what the file shows, except for the beginning of a cycle. A process that is killed leaves
//! a file that says "running"; its `next_poll` is then in the past.

use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::status::TargetStatus;
use crate::base::error::{Stage, SyncError};
use crate::base::files;
use crate::notify::{Event, Observer};

/// Keeps the status file of one target.
#[derive(Debug)]
pub struct StatusFile {
    status: TargetStatus,
    path: PathBuf,
}

impl StatusFile {
    /// Keeps the status in a file at `path`. `status` must hear each event before this observer.
    pub fn new(status: TargetStatus, path: PathBuf) -> Self {
        Self { status, path }
    }

    fn write(&self) {
        let written = serde_json::to_vec(&self.status.snapshot())
            .map_err(io::Error::from)
            .and_then(|json| files::replace(&self.path, &json));
        if let Err(cause) = written {
            let error = SyncError::disk(Stage::Notify, "write the status file", &self.path, cause);
            warn!(
                error = error.chain(),
                hint = error.hint(),
                "the status file was not updated"
            );
        }
    }
}

impl Observer for StatusFile {
    fn observe(&mut self, event: &Event) {
        match event {
            // The first cycle creates the root, and an event after it writes the file.
            Event::Started if !self.path.parent().is_some_and(Path::exists) => {}
            Event::Started
            | Event::Found(_)
            | Event::Published(_)
            | Event::Restored { .. }
            | Event::Rejected(_)
            | Event::Failed(_)
            | Event::Pinned { .. }
            | Event::Unpinned
            | Event::Pruned(_)
            | Event::Waiting { .. }
            | Event::Stopped => self.write(),
            Event::Attempt
            | Event::Opened
            | Event::Polled { .. }
            | Event::Finished(_)
            | Event::Unchanged
            | Event::Checked(_)
            | Event::Recovered { .. }
            | Event::Stale { .. }
            | Event::Damaged { .. }
            | Event::Scrubbed { .. }
            | Event::HousekeepingFailed(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::observe::status::Identity;

    #[test]
    fn the_file_says_when_the_loop_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let mut status = TargetStatus::new(Identity::default(), None, Arc::default());
        let mut file = StatusFile::new(status.clone(), path.clone());
        for (event, running) in [(Event::Started, true), (Event::Stopped, false)] {
            status.observe(&event);
            file.observe(&event);
            let json: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(json["running"], running);
        }
    }
}
