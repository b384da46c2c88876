//! What a commit says about itself, for logs, metrics and the status.

use crate::base::commit::{Commit, Timestamp};
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::excerpt;

use super::Store;
use super::objects::with_commit;

/// A commit's subject, author and time: printable and of bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The first line of the message.
    pub subject: String,
    /// The author's name, without the address.
    pub author: String,
    /// When it was committed.
    pub time: Timestamp,
}

/// The longest subject or author that is returned, in characters. Git sets no limit.
const MAX_TEXT: usize = 256;

impl Store {
    /// Reads the subject, author and time of a commit.
    ///
    /// # Errors
    /// Stage `build`, reason `store`: the commit is not in the store, or is damaged.
    pub fn summary(&self, commit: Commit) -> Result<CommitInfo, SyncError> {
        self.repository()
            .and_then(|repository| {
                with_commit(&repository.odb()?, commit, |found| {
                    let message = String::from_utf8_lossy(found.message);
                    let subject = message.trim_start().lines().next().unwrap_or_default();
                    CommitInfo {
                        subject: excerpt(subject, MAX_TEXT),
                        author: excerpt(&String::from_utf8_lossy(found.author_name()), MAX_TEXT),
                        time: found.time,
                    }
                })
            })
            .map_err(|cause| {
                SyncError::new(
                    Stage::Build,
                    Reason::Store,
                    format!("cannot read commit {commit} in {}", self.path.display()),
                )
                .with_source(cause)
            })
    }
}
