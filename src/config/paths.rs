//! Typed paths become absolute ones.

use std::path::{Component, Path, PathBuf};

use super::error::{ConfigError, bad};

/// The directory that relative paths start from.
pub(super) struct WorkingDirectory(PathBuf);

impl WorkingDirectory {
    /// The working directory of this process.
    pub(super) fn current() -> Result<Self, ConfigError> {
        std::env::current_dir().map(Self).map_err(|error| {
            bad(
                "the working directory",
                &format!("it cannot be determined: {error}"),
            )
        })
    }

    /// The absolute form of a typed path, without `.` and `..`.
    pub(super) fn absolute(&self, typed: &Path) -> PathBuf {
        normalized(&self.0.join(typed))
    }
}

/// The path without `.` and `..`, as text: symbolic links are not resolved.
pub(super) fn normalized(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
