//! What the session's task learns outside of any wait, kept for error messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::Disconnect;

use crate::base::error::SyncError;

/// The most characters of the server's last message that are kept.
const MAX_MESSAGE: usize = 300;

/// Why the session ended, or could not begin.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Why the host key was refused.
    pub(super) refusal: Option<SyncError>,
    /// Why the connection ended: the server's message, or what broke.
    pub(super) ending: Option<String>,
    /// Whether the server ended it because authentication failed too often.
    pub(super) unauthenticated: bool,
}

/// Shared between the session's task and whoever waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedNotes(Arc<Mutex<Notes>>);

impl SharedNotes {
    pub(super) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// Keeps the first reason for the end of a connection.
    pub(super) fn ended(&mut self, why: String) {
        self.ending.get_or_insert(why);
    }

    /// Keeps the message with which the server closed the connection.
    pub(super) fn disconnected(&mut self, reason: Disconnect, message: &str) {
        self.unauthenticated |= matches!(
            reason,
            Disconnect::NoMoreAuthMethodsAvailable | Disconnect::IllegalUserName
        ) || message.contains("authentication failures");
        let message: String = message.chars().take(MAX_MESSAGE).collect();
        self.ended(format!(
            "the server closed the connection ({reason:?}): {message}"
        ));
    }
}
