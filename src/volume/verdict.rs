//! Whether a complete tree may be shown to readers: `Sealed -> Accepted`, and the file that records
//! the decision.
//!
//! Two functions make an [`Accepted`]: [`Sealed::accept`], and [`Volume::accepted`] for a tree that
//! was accepted before. Only an `Accepted` can be published. This module does not judge trees.
//!
//! `revisions/<n>/verdict` holds `pending`, `accepted <checks>`, or `rejected <checks>` followed by
//! lines with the reason; `<checks>` is the fingerprint of the checks, absent if there was none. The
//! file is written before the tree. A tree with a damaged verdict counts as pending. A tree without
//! one comes from a version that accepted every tree, and counts as accepted.

use std::io;
use std::path::Path;
use std::time::SystemTime;

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

/// A verdict with what it is based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The verdict.
    pub verdict: Verdict,
    /// The fingerprint of what was checked; empty without a check.
    pub checks: String,
    /// When it was recorded, as far as the disk tells.
    pub at: Option<SystemTime>,
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

    /// Records that the tree may be published, because checks with this fingerprint accepted it.
    ///
    /// # Errors
    /// Stage `publish`: the verdict cannot be written. The tree is still pending.
    pub fn accept(self, checks: &str) -> Result<Accepted, SyncError> {
        self.volume
            .write_verdict(&self.revision, &Verdict::Accepted, checks)?;
        Ok(Accepted {
            revision: self.revision,
        })
    }

    /// Records that the tree must not be published, and why. A reason of more than 32 KiB is cut.
    ///
    /// # Errors
    /// Stage `publish`: the verdict cannot be written. The tree is still pending.
    pub fn reject(self, reason: &str, checks: &str) -> Result<(), SyncError> {
        let verdict = Verdict::Rejected(reason.to_owned());
        self.volume.write_verdict(&self.revision, &verdict, checks)
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
        self.recorded(revision).verdict
    }

    /// The same, with what the verdict is based on.
    pub fn recorded(&self, revision: &Revision) -> Recorded {
        let path = self.verdict_path(revision.n);
        let at = std::fs::metadata(&path).and_then(|file| file.modified());
        let (verdict, checks) = match files::read(&path, MAX_VERDICT) {
            Ok(content) => Verdict::parse(&content),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                (Verdict::Accepted, String::new())
            }
            Err(cause) => {
                tracing::debug!(revision = revision.n, error = %cause, "cannot read the verdict");
                (Verdict::Pending, String::new())
            }
        };
        Recorded {
            verdict,
            checks,
            at: at.ok(),
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

    fn write_verdict(
        &self,
        revision: &Revision,
        verdict: &Verdict,
        checks: &str,
    ) -> Result<(), SyncError> {
        let name = format!("{REVISIONS}/{}/{VERDICT}", dir_name(revision.n));
        self.write_small(&name, &verdict.text(checks))
            .map_err(|cause| {
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
    pub(super) fn text(&self, checks: &str) -> String {
        let by = match checks {
            "" => String::new(),
            checks => format!(" {checks}"),
        };
        match self {
            Self::Pending => "pending\n".to_owned(),
            Self::Accepted => format!("accepted{by}\n"),
            Self::Rejected(reason) => {
                let mut end = reason.len().min(MAX_REASON);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                format!("rejected{by}\n{}\n", &reason[..end])
            }
        }
    }

    /// The verdict, and the fingerprint of what was checked.
    fn parse(content: &[u8]) -> (Self, String) {
        let text = String::from_utf8_lossy(content);
        let Some((first, rest)) = text.split_once('\n') else {
            return (Self::Pending, String::new());
        };
        let (word, checks) = first.split_once(' ').unwrap_or((first, ""));
        let verdict = match (word, rest) {
            ("accepted", "") => Self::Accepted,
            ("rejected", reason) => Self::Rejected(reason.trim_end().to_owned()),
            _ => return (Self::Pending, String::new()),
        };
        (verdict, checks.to_owned())
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
            for checks in ["", "0a1b"] {
                let (read, by) = Verdict::parse(verdict.text(checks).as_bytes());
                assert_eq!(read, verdict);
                assert!(by == checks || verdict == Verdict::Pending);
            }
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
            let (verdict, _) = Verdict::parse(damaged.as_bytes());
            assert_eq!(verdict, Verdict::Pending, "{damaged:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = Verdict::Rejected("é".repeat(MAX_REASON));
        let (read, _) = Verdict::parse(long.text("").as_bytes());
        assert_eq!(read, Verdict::Rejected("é".repeat(MAX_REASON / 2)));
    }
}
