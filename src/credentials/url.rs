//! User information in a URL: `https://user:password@host/`.

use crate::base::budget::Budget;
use crate::base::error::SyncError;
use crate::base::repo_url::RepoUrl;
use crate::base::secret::Secret;

use super::{Credential, Password, Request, Source};

/// What the URL of `--repo` holds, for URLs of its host that hold nothing themselves.
#[derive(Debug)]
pub struct UserInformation(Password);

impl UserInformation {
    /// Takes what stands in the URL; None if there is nothing.
    pub fn of(url: &RepoUrl) -> Option<Self> {
        let (username, password) = (username(url), password(url));
        let given = username.is_some() || password.is_some();
        given.then(|| Self(Password::new(username, password)))
    }
}

impl Source for UserInformation {
    fn get(
        &mut self,
        request: &Request<'_>,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        self.0.get(request, budget)
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
