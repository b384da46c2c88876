//! The observer that tells others through files: a touch file after each publish, and an error file
//! that exists while a sync fails.
//!
//! It runs deferred, because a file may lie on a slow volume.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use tracing::warn;

use super::event::Failure;
use super::{Event, Observer};
use crate::base::error::{Stage, SyncError};
use crate::base::files;

/// Which files to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// Touched after every publish; absolute.
    pub touch_files: Vec<PathBuf>,
    /// Holds the last error; absolute.
    pub error_file: Option<PathBuf>,
}

/// Keeps the touch files and the error file of one target.
#[derive(Debug)]
pub struct Files {
    target: String,
    settings: FileSettings,
    /// Whether an error file may exist: at first one of an earlier process may.
    error_may_exist: bool,
}

/// The content of the error file.
#[derive(Serialize)]
struct LastError<'a> {
    target: &'a str,
    stage: &'static str,
    reason: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
    at: String,
}

impl FileSettings {
    /// Whether there is any file to keep.
    pub fn is_empty(&self) -> bool {
        self.touch_files.is_empty() && self.error_file.is_none()
    }
}

impl Files {
    /// An observer for the target of that name.
    pub fn new(target: &str, settings: FileSettings) -> Self {
        Self {
            target: target.to_owned(),
            settings,
            error_may_exist: true,
        }
    }

    /// Touches every file, also after one of them failed.
    fn touch(&self) {
        for file in &self.settings.touch_files {
            if let Err(cause) = files::touch(file) {
                report(&SyncError::disk(Stage::Notify, "touch", file, cause));
            }
        }
    }

    fn write_error(&mut self, failure: &Failure) {
        let Some(file) = &self.settings.error_file else {
            return;
        };
        self.error_may_exist = true;
        let last = LastError {
            target: &self.target,
            stage: failure.stage.as_str(),
            reason: failure.reason.as_str(),
            message: &failure.message,
            hint: failure.hint.as_deref(),
            at: humantime::format_rfc3339_seconds(failure.at.max(SystemTime::UNIX_EPOCH))
                .to_string(),
        };
        let written = serde_json::to_vec(&last)
            .map_err(io::Error::from)
            .and_then(|json| files::replace(file, &json));
        if let Err(cause) = written {
            report(&SyncError::disk(
                Stage::Notify,
                "write the error file",
                file,
                cause,
            ));
        }
    }

    fn clear_error(&mut self) {
        let Some(file) = &self.settings.error_file else {
            return;
        };
        if !std::mem::replace(&mut self.error_may_exist, false) {
            return;
        }
        match fs::remove_file(file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                // The next success tries again.
                self.error_may_exist = true;
                report(&SyncError::disk(
                    Stage::Notify,
                    "remove the error file",
                    file,
                    cause,
                ));
            }
            _ => {}
        }
    }
}

impl Observer for Files {
    fn observe(&mut self, event: &Event) {
        match event {
            Event::Published(_) => {
                self.touch();
                self.clear_error();
            }
            Event::Unchanged => self.clear_error(),
            Event::Failed(failure) => self.write_error(failure),
            _ => {}
        }
    }
}

/// The tree is published, so a file that cannot be written is no failed sync.
fn report(error: &SyncError) {
    warn!(
        error = error.chain(),
        hint = error.hint(),
        "a file that tells others about the sync was not updated"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::error::Reason;
    use crate::notify::event::AfterFailure;

    fn failed() -> Event {
        let error = SyncError::new(Stage::Poll, Reason::Auth, "refused").with_hint("try harder");
        Event::Failed(Failure::new(
            &error,
            1,
            AfterFailure::RetryIn(Duration::from_secs(1)),
        ))
    }

    #[test]
    fn the_error_file_holds_the_error_until_a_sync_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("error.json");
        let settings = FileSettings {
            error_file: Some(file.clone()),
            ..FileSettings::default()
        };
        let mut observer = Files::new("docs", settings);
        observer.observe(&failed());
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(
            (&json["target"], &json["reason"]),
            (&"docs".into(), &"auth".into())
        );
        assert_eq!(json["hint"], "try harder");
        observer.observe(&Event::Unchanged);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_first_success_removes_the_error_file_of_an_earlier_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("error.json");
        fs::write(&file, "{}").unwrap();
        let settings = FileSettings {
            error_file: Some(file.clone()),
            ..FileSettings::default()
        };
        let mut observer = Files::new("docs", settings);
        observer.observe(&Event::Attempt);
        assert!(file.exists());
        observer.observe(&Event::Unchanged);
        assert!(!file.exists());
    }
}
