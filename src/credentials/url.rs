//! User information in a URL: `https://user:password@host/`.

use crate::base::budget::Budget;
use crate::base::error::SyncError;
use crate::base::repo_url::RepoUrl;
use crate::base::secret::Secret;

use super::source::{Credential, Proof, Request, Source};

/// The user name and password that stand in a URL.
#[derive(Debug)]
pub struct UserInformation {
    username: Option<String>,
    password: Option<Secret>,
}

impl UserInformation {
    /// Takes what stands in the URL; None if there is nothing.
    pub fn of(url: &RepoUrl) -> Option<Self> {
        let (username, password) = (username(url), password(url));
        let given = username.is_some() || password.is_some();
        given.then_some(Self { username, password })
    }
}

impl Source for UserInformation {
    fn get(
        &mut self,
        _request: &Request<'_>,
        _budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        Ok(Some(Credential::lasting(Proof::Password {
            username: self.username.clone(),
            password: self.password.clone(),
        })))
    }
}

pub(super) fn username(url: &RepoUrl) -> Option<String> {
    match url {
        RepoUrl::Http(http) => http.username.clone(),
        _ => None,
    }
}

pub(super) fn password(url: &RepoUrl) -> Option<Secret> {
    match url {
        RepoUrl::Http(http) => http.password.clone(),
        _ => None,
    }
}
