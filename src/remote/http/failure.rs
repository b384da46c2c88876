//! A failed question, and whether it may only have failed because the server is not the one that
//! is remembered.

use crate::base::error::{Stage, SyncError};
use crate::net::http;
use crate::remote::protocol::ProtocolError;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// The error as the project reports it.
    pub error: SyncError,
    /// Whether the answer was none that a server with the remembered address and capabilities
    /// gives: the repository may have moved, or the server changed.
    pub unexpected: bool,
}

impl Failure {
    /// The answer does not come from the server that was expected.
    pub(super) fn unexpected(error: SyncError) -> Self {
        Self {
            error,
            unexpected: true,
        }
    }

    /// An answer that a machine of the protocol refused.
    pub(super) fn protocol(
        error: ProtocolError,
        stage: Stage,
        remote: &dyn std::fmt::Display,
    ) -> Self {
        let unexpected = matches!(
            error,
            ProtocolError::Malformed(_)
                | ProtocolError::Unsupported(_)
                | ProtocolError::ObjectFormat(_)
        );
        Self {
            error: error.at(stage, remote),
            unexpected,
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        Self {
            error,
            unexpected: false,
        }
    }
}

impl From<http::Failure> for Failure {
    fn from(failure: http::Failure) -> Self {
        Self {
            error: failure.error,
            unexpected: failure.malformed,
        }
    }
}
