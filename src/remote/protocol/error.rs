//! What can be wrong with an answer, whichever remote and transport it came from.

use std::fmt;

use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;

/// Longest quotation of a remote's text.
const QUOTE: usize = 300;

/// Why an answer cannot be used.
#[derive(Debug)]
pub enum ProtocolError {
    /// It is not the git protocol, or breaks its rules.
    Malformed(String),
    /// It is valid, but needs a capability that this program or the server lacks.
    Unsupported(String),
    /// The repository names its objects by another hash than SHA-1 (printable).
    ObjectFormat(String),
    /// It ended before it was complete.
    Truncated,
    /// It is larger than this program accepts.
    TooLarge(String),
    /// The remote refused with this message (printable): an `ERR` packet or sideband 3.
    Refused(String),
    /// The receiver of the pack failed.
    Sink(Box<SyncError>),
}

impl ProtocolError {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    /// The remote's message, cut to 300 bytes and made printable.
    pub(super) fn refused(text: &[u8]) -> Self {
        Self::Refused(quote(text))
    }

    /// The error of a sync cycle; `remote` is the address and must be safe to print.
    pub fn at(self, stage: Stage, remote: &dyn fmt::Display) -> SyncError {
        match self {
            Self::Malformed(what) => SyncError::new(
                stage,
                Reason::Protocol,
                format!("{remote} does not speak the git protocol: {what}"),
            )
            .with_hint("check that --repo is the address of a git repository"),
            Self::Unsupported(what) => SyncError::new(
                stage,
                Reason::Protocol,
                format!("{remote} cannot be used: {what}"),
            ),
            Self::ObjectFormat(format) => {
                crate::remote::errors::object_format(stage, remote, &format)
            }
            Self::Truncated => SyncError::new(
                stage,
                Reason::Network,
                format!("the answer of {remote} ended before it was complete"),
            ),
            Self::TooLarge(what) => SyncError::new(
                stage,
                Reason::Limit,
                format!("the answer of {remote} is too large: {what}"),
            ),
            Self::Refused(text) => refusal(stage, remote, &text),
            Self::Sink(error) => *error,
        }
    }
}

/// Finds the reason by the phrases in messages of git's and the large hosting services' servers.
fn refusal(stage: Stage, remote: &dyn fmt::Display, text: &str) -> SyncError {
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (reason, hint) = if says(&["not our ref", "unadvertised object", "not a valid ref"]) {
        (
            Reason::RefMissing,
            Some(
                "the commit is gone from the server (a force push?), or the server only serves \
                 what a ref points to: use a branch or tag for --ref",
            ),
        )
    } else if says(&[
        "not found",
        "does not exist",
        "not appear to be a git repository",
    ]) {
        (
            Reason::NotFound,
            Some("check the path in --repo, and that these credentials may read it"),
        )
    } else if says(&[
        "access denied",
        "permission",
        "authoriz",
        "authenti",
        "forbidden",
    ]) {
        (
            Reason::Auth,
            Some("give credentials that may read the repository"),
        )
    } else {
        (Reason::Server, None)
    };
    let error = SyncError::new(stage, reason, format!("{remote} refused: {text}"));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Text of a remote for an error message: one printable line of at most 300 bytes.
pub(super) fn quote(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(QUOTE)]);
    printable(text.trim())
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) | Self::Unsupported(what) | Self::TooLarge(what) => {
                f.write_str(what)
            }
            Self::ObjectFormat(format) => write!(f, "its object format is {format}"),
            Self::Truncated => f.write_str("the answer ended before it was complete"),
            Self::Refused(text) => write!(f, "the remote refused: {text}"),
            Self::Sink(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ProtocolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sink(error) => error.source(),
            _ => None,
        }
    }
}

impl From<SyncError> for ProtocolError {
    fn from(error: SyncError) -> Self {
        Self::Sink(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_classified_by_its_words() {
        for (text, reason) in [
            ("upload-pack: not our ref 1234", Reason::RefMissing),
            (
                "Server does not allow request for unadvertised object 12",
                Reason::RefMissing,
            ),
            ("Repository not found.", Reason::NotFound),
            ("access denied or repository not exported: /x", Reason::Auth),
            ("internal error", Reason::Server),
        ] {
            let error = ProtocolError::refused(text.as_bytes()).at(Stage::Poll, &"host");
            assert_eq!(error.reason, reason, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_quoted_short_and_printable() {
        let mut text = b"\x1b[31mno\r\n".to_vec();
        text.resize(5000, b'x');
        let ProtocolError::Refused(shown) = ProtocolError::refused(&text) else {
            panic!("not a refusal");
        };
        assert!(shown.len() < 400 && !shown.contains('\x1b'), "{shown}");
    }
}
