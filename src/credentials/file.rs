//! A file with the password or token for HTTP, read for every attempt so that a rotated one is used
//! at once.

use std::path::PathBuf;

use crate::base::budget::Budget;
use crate::base::error::{Reason, SyncError};

use super::source::{Credential, Proof, Request, Source};
use super::{read, url};

/// A password file and the user name that goes with it.
#[derive(Debug)]
pub struct PasswordFile {
    /// None takes the user name from the URL.
    username: Option<String>,
    path: PathBuf,
}

impl PasswordFile {
    /// Nothing is read yet.
    pub fn new(username: Option<String>, path: PathBuf) -> Self {
        Self { username, path }
    }
}

impl Source for PasswordFile {
    fn get(
        &mut self,
        request: &Request<'_>,
        _budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        let password = read::secret(&self.path).map_err(|cause| {
            let (what, flag) = ("password file", "--password-file");
            read::unreadable(request.stage, Reason::Auth, what, flag, &self.path, cause)
        })?;
        Ok(Some(Credential::lasting(Proof::Password {
            username: self.username.clone().or_else(|| url::username(request.url)),
            password: Some(password),
        })))
    }
}
