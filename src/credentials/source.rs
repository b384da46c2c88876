//! What every source gives, and what it is told.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use russh::keys::PrivateKey;

use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};
use crate::base::repo_url::RepoUrl;
use crate::base::secret::Secret;

/// The user name that goes with a password alone. The hosts that take tokens ignore it.
const ANY_USER: &str = "git";

/// What credentials are wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The repository to reach.
    pub url: &'a RepoUrl,
    /// The step of the cycle that wants them, for errors.
    pub stage: Stage,
    /// What the server asked for when it refused (`WWW-Authenticate`), if that is known.
    pub challenge: Option<&'a str>,
}

/// What a server is shown to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The proof itself.
    pub proof: Proof,
    /// When it ceases to be valid. One without is asked of its source for every attempt; one with
    /// is used again until shortly before.
    pub expires: Option<SystemTime>,
}

/// The kinds of proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// For HTTP, as Basic authentication (RFC 7617).
    Password {
        /// The user name; a token alone goes with any.
        username: Option<String>,
        /// The password or token; None for a user name alone.
        password: Option<Secret>,
    },
    /// For SSH.
    SshKey {
        /// The decoded key.
        key: Arc<PrivateKey>,
        /// Where it came from, for messages.
        name: String,
    },
}

/// Somewhere credentials come from. One source serves all URLs in its scope.
pub trait Source: Send {
    /// Gives what is to be shown to the server now, or None if there is nothing for this URL.
    ///
    /// # Errors
    /// When there should be something but it cannot be had; the error says what to do.
    fn get(
        &mut self,
        request: &Request<'_>,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError>;

    /// The server accepted what [`Source::get`] gave.
    fn accepted(&mut self, _request: &Request<'_>, _credential: &Credential) {}

    /// The server refused what [`Source::get`] gave: the next call of it should look afresh.
    fn rejected(&mut self, _request: &Request<'_>, _credential: &Credential) {}
}

impl Credential {
    /// A credential that is valid until the server says otherwise.
    pub fn lasting(proof: Proof) -> Self {
        Self {
            proof,
            expires: None,
        }
    }

    /// The value of an `Authorization` header; None for a proof that is not for HTTP.
    pub fn authorization(&self) -> Option<Secret> {
        let Proof::Password { username, password } = &self.proof else {
            return None;
        };
        let pair = format!(
            "{}:{}",
            username.as_deref().unwrap_or(ANY_USER),
            password.as_ref().map_or("", Secret::expose)
        );
        Some(Secret::new(format!(
            "Basic {}",
            BASE64_STANDARD.encode(pair)
        )))
    }
}
