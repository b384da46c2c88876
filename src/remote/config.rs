//! What it takes to reach a remote.

use std::path::PathBuf;

use crate::base::repo_url::RepoUrl;
use crate::credentials::Keyring;
use crate::net::NetConfig;

/// Everything needed to reach a remote: resolved, absolute, validated.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Where the repository is.
    pub url: RepoUrl,
    /// Whom to sign in as, at every URL that credentials were given for.
    pub credentials: Keyring,
    /// Which SSH servers to trust.
    pub ssh_hosts: SshHosts,
    /// Proxies and certificate authorities.
    pub net: NetConfig,
}

/// Which SSH servers to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshHosts {
    /// Those whose key is in this known_hosts file, which is read again for every connection. None
    /// trusts no server.
    Known(Option<PathBuf>),
    /// All of them: whoever intercepts the connection can replace the content.
    Any,
}

impl RemoteConfig {
    /// How to reach another repository that this one refers to: a submodule. The keyring decides
    /// which credentials are for its URL.
    pub fn at(&self, url: &RepoUrl) -> Self {
        Self {
            url: url.clone(),
            ..self.clone()
        }
    }
}
