//! Errors that every transport reports in the same words.

use std::fmt;

use crate::base::error::{Reason, Stage, SyncError};

/// The error for a ref, or an object, that stands for something else than a commit.
pub fn no_commit(stage: Stage, what: &str, kind: &str) -> SyncError {
    SyncError::new(
        stage,
        Reason::RefMissing,
        format!("{what} leads to a {kind}, not to a commit"),
    )
    .with_hint("let --ref name a branch, a tag of a commit, or a full commit id")
}

/// The error for a repository that names its objects by another hash than SHA-1.
pub(super) fn object_format(stage: Stage, remote: &dyn fmt::Display, format: &str) -> SyncError {
    SyncError::new(
        stage,
        Reason::Protocol,
        format!("{remote} has the object format {format}, and only sha1 can be read"),
    )
    .with_hint(
        "follow a repository in git's default format: one made with `git init \
         --object-format=sha1` that the same files are pushed to",
    )
}
