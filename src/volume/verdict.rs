//! Whether a complete tree may be shown to readers: `Sealed -> Accepted`, and the file that records
//! the decision.
//!
//! Two functions make an [`Accepted`]: [`Sealed::accept`], and [`Volume::accepted`] for a tree that
//! was accepted before. Only an `Accepted` can be published. This module does not judge trees.
//!
//! `revisions/<n>/verdict` holds `pending`, `accepted`, or `rejected` followed by lines with the
//! reason. It is written before the tree. A tree with a damaged verdict counts as pending. A tree
//! without one comes from a version that accepted every tree, and counts as accepted.

use std::io;
use std::path::Path;

use super::{REVISIONS, Revision, Volume, dir_name};
use crate::base::error::{Stage, SyncError};
use crate::base::files;

/// The name of the file.
pub(super) const VERDICT: &str = "verdict";

/// The longest file that is read, in bytes.
const MAX_VERDICT: u64 = 64 << 10;

/// The longest reason that is written, in bytes.
const MAX_REASON: usize = 32 << 10;

/// The decision about a complete tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has decided yet.
    Pending,
    /// It may be published.
    Accepted,
    /// It must not be published, for this reason.
    Rejected(String),
}

/// A complete tree in `revisions` that nobody has decided about yet.
#[must_use = "a sealed tree is published only after it was accepted"]
#[derive(Debug)]
pub struct Sealed<'v> {
    volume: &'v Volume,
    revision: Revision,
}

/// A complete tree that may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    revision: Revision,
}

impl<'v> Sealed<'v> {
    /// Called only for a staged tree that was sealed, and for a tree whose verdict is pending.
    pub(super) fn new(volume: &'v Volume, revision: Revision) -> Self {
        Self { volume, revision }
    }

    /// The tree.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Records that the tree may be published.
    ///
    /// # Errors
    /// Stage `publish`: the verdict cannot be written. The tree is still pending.
    pub fn accept(self) -> Result<Accepted, SyncError> {
        self.volume
            .write_verdict(&self.revision, &Verdict::Accepted)?;
        Ok(Accepted {
            revision: self.revision,
        })
    }

    /// Records that the tree must not be published, and why. A reason of more than 32 KiB is cut.
    ///
    /// # Errors
    /// Stage `publish`: the verdict cannot be written. The tree is still pending.
    pub fn reject(self, reason: &str) -> Result<(), SyncError> {
        let verdict = Verdict::Rejected(reason.to_owned());
        self.volume.write_verdict(&self.revision, &verdict)
    }
}

impl Accepted {
    /// The tree.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }
}

impl Volume {
    /// The verdict on a complete tree, read from the disk.
    pub fn verdict(&self, revision: &Revision) -> Verdict {
        match files::read(&self.verdict_path(revision.n), MAX_VERDICT) {
            Ok(content) => Verdict::parse(&content),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Verdict::Accepted,
            Err(cause) => {
                tracing::debug!(revision = revision.n, error = %cause, "cannot read the verdict");
                Verdict::Pending
            }
        }
    }

    /// A tree that was accepted before, by this process or an earlier one; `None` if it was not.
    pub fn accepted(&self, revision: &Revision) -> Option<Accepted> {
        (self.verdict(revision) == Verdict::Accepted).then(|| Accepted {
            revision: revision.clone(),
        })
    }

    /// A complete tree that nobody has decided about: a process ended between sealing and the
    /// verdict. `None` if there is a verdict.
    pub fn pending(&self, revision: &Revision) -> Option<Sealed<'_>> {
        (self.verdict(revision) == Verdict::Pending).then(|| Sealed::new(self, revision.clone()))
    }

    fn write_verdict(&self, revision: &Revision, verdict: &Verdict) -> Result<(), SyncError> {
        let name = format!("{REVISIONS}/{}/{VERDICT}", dir_name(revision.n));
        self.write_small(&name, &verdict.text()).map_err(|cause| {
            let path = self.verdict_path(revision.n);
            SyncError::disk(Stage::Publish, "write", &path, cause)
        })
    }

    fn verdict_path(&self, n: u64) -> std::path::PathBuf {
        self.gvr
            .join(REVISIONS)
            .join(dir_name(n))
            .join(Path::new(VERDICT))
    }
}

impl Verdict {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Pending => "pending\n".to_owned(),
            Self::Accepted => "accepted\n".to_owned(),
            Self::Rejected(reason) => {
                let mut end = reason.len().min(MAX_REASON);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                format!("rejected\n{}\n", &reason[..end])
            }
        }
    }

    fn parse(content: &[u8]) -> Self {
        let text = String::from_utf8_lossy(content);
        match text.split_once('\n') {
            Some(("accepted", "")) => Self::Accepted,
            Some(("rejected", reason)) => Self::Rejected(reason.trim_end().to_owned()),
            _ => Self::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_reads_back_as_it_was_written() {
        for verdict in [
            Verdict::Pending,
            Verdict::Accepted,
            Verdict::Rejected("no index.html\nin docs".to_owned()),
        ] {
            assert_eq!(Verdict::parse(verdict.text().as_bytes()), verdict);
        }
    }

    #[test]
    fn a_damaged_verdict_accepts_nothing() {
        for damaged in [
            "",
            "accepted",
            "accepte\n",
            "accepted\nx",
            "\0\0\0\0\0\0\0\0\0",
        ] {
            let verdict = Verdict::parse(damaged.as_bytes());
            assert_eq!(verdict, Verdict::Pending, "{damaged:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = Verdict::Rejected("é".repeat(MAX_REASON));
        let read = Verdict::parse(long.text().as_bytes());
        assert_eq!(read, Verdict::Rejected("é".repeat(MAX_REASON / 2)));
    }
}
