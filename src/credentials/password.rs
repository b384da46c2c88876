//! A user name and password that the configuration gave as values: `GVR_PASSWORD`, `--username`
//! without a password, or a `--credential` object. They last as long as the process.

use crate::base::budget::Budget;
use crate::base::error::SyncError;
use crate::base::secret::Secret;

use super::source::{Credential, Proof, Request, Source};
use super::url;

/// A fixed user name, password, or both. What is missing is taken from the URL.
#[derive(Debug)]
pub struct Password {
    username: Option<String>,
    password: Option<Secret>,
}

impl Password {
    /// Both None give what the URL itself holds.
    pub fn new(username: Option<String>, password: Option<Secret>) -> Self {
        Self { username, password }
    }
}

impl Source for Password {
    fn get(
        &mut self,
        request: &Request<'_>,
        _budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        let username = self.username.clone().or_else(|| url::username(request.url));
        let password = self.password.clone().or_else(|| url::password(request.url));
        if username.is_none() && password.is_none() {
            return Ok(None);
        }
        Ok(Some(Credential::lasting(Proof::Password {
            username,
            password,
        })))
    }
}
