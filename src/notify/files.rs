//! What others are told through files: a touch file after a publish, an error file while a sync
//! fails, the termination message at the end.
//!
//! This module runs no commands and sends no requests.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use serde::Serialize;

use crate::base::error::{Stage, SyncError};

/// Where Kubernetes reads a container's last words: at most 4096 bytes
/// (`terminationMessagePath` in the Pod API).
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The bytes of a termination message that Kubernetes keeps.
const TERMINATION_LIMIT: usize = 4096;

/// The content of the error file.
#[derive(Serialize)]
struct LastError<'a> {
    target: &'a str,
    stage: &'static str,
    reason: &'static str,
    message: String,
    hint: Option<&'a str>,
    at: String,
}

/// Creates each file, or sets its times to now.
///
/// # Errors
/// The first file that cannot be touched, after all were tried; stage `notify`.
pub fn touch(files: &[PathBuf]) -> Result<(), SyncError> {
    files
        .iter()
        .filter_map(|file| {
            touch_one(file)
                .err()
                .map(|cause| SyncError::disk(Stage::Notify, "touch", file, cause))
        })
        .reduce(|first, _| first)
        .map_or(Ok(()), Err)
}

/// Writes the error as one JSON object, replacing the file atomically.
///
/// # Errors
/// When the file's directory does not take it; stage `notify`.
pub fn write_error(file: &Path, target: &str, error: &SyncError) -> Result<(), SyncError> {
    let last = LastError {
        target,
        stage: error.stage.as_str(),
        reason: error.reason.as_str(),
        message: error.chain(),
        hint: error.hint(),
        at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    };
    serde_json::to_vec(&last)
        .map_err(io::Error::from)
        .and_then(|json| replace(file, &json))
        .map_err(|cause| SyncError::disk(Stage::Notify, "write the error file", file, cause))
}

/// Removes the error file; one that does not exist is no error.
///
/// # Errors
/// When it exists and cannot be removed; stage `notify`.
pub fn clear_error(file: &Path) -> Result<(), SyncError> {
    match fs::remove_file(file) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(SyncError::disk(
            Stage::Notify,
            "remove the error file",
            file,
            cause,
        )),
        _ => Ok(()),
    }
}

/// Leaves the last words where Kubernetes looks for them, if the file exists.
///
/// Best effort: the same line has gone to standard error, and there is nobody left to tell.
pub fn write_termination_message(file: &Path, line: &str) {
    let mut end = line.len().min(TERMINATION_LIMIT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    if let Ok(mut file) = File::options().write(true).truncate(true).open(file) {
        let _ = file.write_all(&line.as_bytes()[..end]);
    }
}

fn touch_one(file: &Path) -> io::Result<()> {
    File::options()
        .create(true)
        .append(true)
        .open(file)
        .map(drop)?;
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    utimensat(CWD, file, &times, AtFlags::empty()).map_err(io::Error::from)
}

fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, content)?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Reason;

    #[test]
    fn a_touched_file_exists_and_an_existing_one_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        fs::write(&old, "kept").unwrap();
        let past = SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&old)
            .unwrap()
            .set_modified(past)
            .unwrap();
        touch(&[new.clone(), old.clone()]).unwrap();
        assert!(new.exists());
        assert_eq!(fs::read(&old).unwrap(), b"kept");
        assert!(fs::metadata(&old).unwrap().modified().unwrap() > past);
    }

    #[test]
    fn one_file_that_cannot_be_touched_does_not_keep_the_others_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let (lost, fine) = (dir.path().join("no/such"), dir.path().join("fine"));
        let error = touch(&[lost, fine.clone()]).unwrap_err();
        assert_eq!((error.stage, error.reason), (Stage::Notify, Reason::Disk));
        assert!(fine.exists());
    }

    #[test]
    fn the_error_file_holds_the_error_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("error.json");
        let error = SyncError::new(Stage::Poll, Reason::Auth, "refused").with_hint("try harder");
        write_error(&file, "docs", &error).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["reason"], "auth");
        assert_eq!(json["hint"], "try harder");
        clear_error(&file).unwrap();
        clear_error(&file).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_termination_message_is_cut_at_a_character_and_replaces_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        write_termination_message(&file, "nobody creates it");
        assert!(!file.exists());
        fs::write(&file, "").unwrap();
        write_termination_message(&file, &"é".repeat(3000));
        assert_eq!(fs::read_to_string(&file).unwrap(), "é".repeat(2048));
        write_termination_message(&file, "shorter");
        assert_eq!(fs::read_to_string(&file).unwrap(), "shorter");
    }
}
