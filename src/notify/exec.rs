//! The hook that runs a command in the published tree.
//!
//! It tells the command which commit it succeeded for last, and which files differ since then. A
//! commit that it was not run for, because a newer one came or it failed, is part of that
//! difference. After a start of this process, and when the older commit is no longer in the object
//! store, the difference is unknown.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::debug;

use super::hook::{Hook, HookKind, News, Notice, Occasion, Shown, Told};
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;
use crate::child::{Command, How};

/// What to run, and when.
#[derive(Clone, Debug)]
pub struct ExecSettings {
    /// The command.
    pub command: Command,
    /// The wait after a failure.
    pub backoff: Duration,
    /// The ref as it was configured.
    pub reference: String,
    /// The link that readers follow; absolute.
    pub link: PathBuf,
    /// Where to write the list of changed files; absolute.
    pub changed_files: PathBuf,
}

/// How two commits differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What `git diff --no-renames --name-status -z` prints for the two.
    pub list: Vec<u8>,
    /// Whether something differs under the paths that the hook watches.
    pub is_watched: bool,
}

/// Compares two commits.
pub trait Differences: Send {
    /// How the published files differ between two commits.
    ///
    /// # Errors
    /// When one of them is no longer there, or too much differs.
    fn between(&mut self, old: Commit, new: Commit) -> Result<Difference, SyncError>;
}

/// Runs a command after each publish.
pub struct Exec<D> {
    settings: ExecSettings,
    differences: D,
    /// The commit that the command succeeded for last.
    succeeded: Option<Commit>,
}

impl<D: Differences> Exec<D> {
    /// A hook that has not run yet.
    pub fn new(settings: ExecSettings, differences: D) -> Self {
        Self {
            settings,
            differences,
            succeeded: None,
        }
    }

    /// How the tree differs from the one that the command succeeded for last, if that is known.
    fn difference(&mut self, new: Commit) -> Option<Difference> {
        let old = self.succeeded?;
        self.differences
            .between(old, new)
            .inspect_err(|error| {
                debug!(
                    error = error.chain(),
                    "the list of changed files is not known"
                );
            })
            .ok()
    }

    fn run(&mut self, shown: &Shown, cancelled: &AtomicBool) -> Result<Told, SyncError> {
        let commit = shown.commit.id;
        let difference = self.difference(commit);
        if difference.as_ref().is_some_and(|found| !found.is_watched) {
            self.succeeded = Some(commit);
            return Ok(Told::NotNeeded);
        }
        let settings = &self.settings;
        let list = match &difference {
            None => OsString::new(),
            Some(difference) => {
                let path = &settings.changed_files;
                files::replace(path, &difference.list).map_err(|cause| {
                    SyncError::disk(
                        Stage::Notify,
                        "write the list of changed files",
                        path,
                        cause,
                    )
                })?;
                path.clone().into()
            }
        };
        let id = commit.to_string();
        let previous = self.succeeded.map(|commit| commit.to_string());
        let variables: [(&str, OsString); 7] = [
            ("GVR_COMMIT", id.clone().into()),
            ("GVR_PREVIOUS_COMMIT", previous.unwrap_or_default().into()),
            ("GVR_REF", settings.reference.clone().into()),
            ("GVR_LINK", settings.link.clone().into()),
            ("GVR_TREE", shown.path.clone().into()),
            ("GVR_CHANGED_FILES", list),
            ("GITSYNC_HASH", id.into()),
        ];
        let ended = settings
            .command
            .run("exechook", &shown.path, &variables, cancelled)
            .map_err(|error| error.at(Stage::Notify))?;
        match ended.how {
            How::Exited(0) => {
                self.succeeded = Some(commit);
                Ok(Told::Yes)
            }
            how => {
                let reason = match how {
                    How::TimedOut(_) => Reason::Timeout,
                    How::Cancelled => Reason::Cancelled,
                    How::Exited(_) | How::Signalled(_) => Reason::Other,
                };
                let what = settings.command.what(&ended);
                Err(SyncError::new(Stage::Notify, reason, what))
            }
        }
    }
}

impl<D: Differences> Hook for Exec<D> {
    fn kind(&self) -> HookKind {
        HookKind::Exec
    }

    fn tells(&self, occasion: Occasion) -> bool {
        occasion == Occasion::Published
    }

    fn timeout(&self) -> Duration {
        self.settings.command.timeout
    }

    fn backoff(&self) -> Duration {
        self.settings.backoff
    }

    fn tell(&mut self, notice: &Notice, cancelled: &Arc<AtomicBool>) -> Result<Told, SyncError> {
        match &notice.news {
            News::Published(shown) => self.run(shown, cancelled),
            _ => Ok(Told::NotNeeded),
        }
    }
}
