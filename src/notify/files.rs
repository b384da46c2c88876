//! The observer that tells others through files: a touch file after each publish, and an error file
//! that exists while a sync fails or the remote's commit is rejected.
//!
//! It runs deferred, because a file may lie on a slow volume.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use tracing::warn;

use super::event::{Failure, Rejection};
use super::{Event, Observer};
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
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
    /// The rejected commit that the error file tells about.
    rejected: Option<Commit>,
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
            rejected: None,
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

    fn write_failure(&mut self, failure: &Failure) {
        self.rejected = None;
        self.write_error(&LastError {
            target: &self.target.clone(),
            stage: failure.stage.as_str(),
            reason: failure.reason.as_str(),
            message: &failure.message,
            hint: failure.hint.as_deref(),
            at: shown(failure.at),
        });
    }

    /// Also for a commit that an earlier process rejected, once.
    fn write_rejection(&mut self, rejection: &Rejection) {
        if self.rejected.replace(rejection.commit) == Some(rejection.commit) && !rejection.is_new {
            return;
        }
        self.write_error(&LastError {
            target: &self.target.clone(),
            stage: Stage::Check.as_str(),
            reason: Reason::Check.as_str(),
            message: &rejection.to_string(),
            hint: Some(Rejection::HINT),
            at: shown(SystemTime::now()),
        });
    }

    fn write_error(&mut self, last: &LastError<'_>) {
        let Some(file) = &self.settings.error_file else {
            return;
        };
        self.error_may_exist = true;
        let written = serde_json::to_vec(last)
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
        self.rejected = None;
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
            Event::Failed(failure) => self.write_failure(failure),
            Event::Rejected(rejection) => self.write_rejection(rejection),
            _ => {}
        }
    }
}

fn shown(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time.max(SystemTime::UNIX_EPOCH)).to_string()
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
    fn the_error_file_holds_a_rejection_until_another_commit_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("error.json");
        let settings = FileSettings {
            error_file: Some(file.clone()),
            ..FileSettings::default()
        };
        let mut observer = Files::new("docs", settings);
        let rejected = Event::Rejected(Rejection {
            commit: "a".repeat(40).parse().unwrap(),
            reason: "no index".to_owned(),
            is_new: false,
        });
        observer.observe(&failed());
        observer.observe(&rejected);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["reason"], "check");
        let message = json["message"].as_str().unwrap();
        assert!(message.contains(&"a".repeat(40)) && message.contains("no index"));
        observer.observe(&Event::Unchanged);
        assert!(!file.exists());
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
