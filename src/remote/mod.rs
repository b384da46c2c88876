//! The upstream repository: what a ref points to, and the pack that brings a commit here.
//!
//! This module knows the network and the git protocol. It does not know the store, the volume or
//! when to try again: `sync` joins them, and the supervisor decides on the next attempt.

mod http;
pub mod local;
pub mod protocol;
pub mod ssh;

use std::fmt;
use std::path::PathBuf;

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::repo_url::RepoUrl;
use crate::base::secret::Secret;

pub use crate::base::transfer::{Advertised, Fetched, PackSink};
pub use http::HttpRemote;
pub use local::LocalRemote;
pub use ssh::SshRemote;

/// What `--ref` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefName {
    /// The remote's default branch.
    Head,
    /// A full name: `refs/…`.
    Full(String),
    /// A short name: `refs/heads/<name>` first, then `refs/tags/<name>`, then `refs/<name>`, as
    /// `git clone --branch` prefers branches.
    Short(String),
    /// A full commit id: nothing to poll.
    Commit(Commit),
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Full(name) | Self::Short(name) => f.write_str(name),
            Self::Commit(commit) => commit.fmt(f),
        }
    }
}

/// The remote's answer to a poll. That a ref does not exist is an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tip {
    /// The ref exists.
    At(Advertised),
    /// The repository answered, and it has no such ref.
    Missing {
        /// Whether it has no ref at all that we asked about because it is empty (no HEAD either),
        /// as far as one request can tell.
        empty: bool,
    },
}

/// What to ask of a fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest<'a> {
    /// The object to bring, with all that its commits' trees need.
    pub want: Commit,
    /// Other objects to bring in the same way: tags that stand for what the store holds.
    pub also: &'a [Commit],
    /// The ref that held it, for servers that only serve advertised refs.
    pub name: Option<&'a str>,
    /// Commits whose trees (and, but for `shallow`, history) the store already holds.
    pub haves: &'a [Commit],
    /// The store's shallow boundary: commits whose parents it does not hold.
    pub shallow: &'a [Commit],
    /// How many commits of history to bring; 0 for all.
    pub depth: u32,
    /// Whether deltas may refer to objects that only the receiver has.
    ///
    /// With a depth, git's servers take the trees of `haves` for known only then: without it, the
    /// smallest change brings everything. The receiver has to complete such a pack.
    pub thin: bool,
}

/// A connection to one upstream repository. Connections are opened when needed and kept.
pub trait Remote: Send {
    /// Asks for the one ref: no store access, no fetch.
    ///
    /// # Errors
    /// When the remote cannot be reached or does not answer the question; stage `poll`.
    fn tip(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, SyncError>;

    /// Asks for all tags. None where the server only speaks version 0 of the protocol.
    ///
    /// # Errors
    /// When the remote cannot be reached or does not answer the question; stage `fetch`.
    fn tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, SyncError>;

    /// Streams the pack that a request needs into `pack`.
    ///
    /// # Errors
    /// Stage `fetch`. Reason `ref_missing` means that the remote no longer serves the object,
    /// as after a force push: the answer is to poll again.
    fn fetch(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, SyncError>;
}

/// The remote that an address needs.
///
/// # Errors
/// When the address, or what it takes to reach it, is not usable.
pub fn open(config: &RemoteConfig) -> Result<Box<dyn Remote>, SyncError> {
    match &config.url {
        RepoUrl::Http(_) => Ok(Box::new(HttpRemote::new(config)?)),
        RepoUrl::Ssh(_) => Ok(Box::new(SshRemote::new(config)?)),
        RepoUrl::Local(path) => Ok(Box::new(LocalRemote::new(path))),
    }
}

/// The error for a ref, or an object, that stands for something else than a commit.
pub fn no_commit(stage: Stage, what: &str, kind: &str) -> SyncError {
    SyncError::new(
        stage,
        Reason::RefMissing,
        format!("{what} leads to a {kind}, not to a commit"),
    )
    .with_hint("let --ref name a branch, a tag of a commit, or a full commit id")
}

/// The error for a repository that names its objects by another hash than SHA-1.
fn object_format(stage: Stage, remote: &dyn fmt::Display, format: &str) -> SyncError {
    SyncError::new(
        stage,
        Reason::Protocol,
        format!("{remote} has the object format {format}, and only sha1 can be read"),
    )
    .with_hint(
        "follow a repository in git's default format: one made with `git init \
         --object-format=sha1` that the same files are pushed to",
    )
}

/// Everything needed to reach a remote: resolved, absolute, validated.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Where the repository is.
    pub url: RepoUrl,
    /// How to authenticate.
    pub auth: Auth,
    /// Proxies, from the usual variables.
    pub proxy: ProxyConfig,
    /// PEM bundle that replaces the system's certificate authorities (`SSL_CERT_FILE`).
    pub ca_file: Option<PathBuf>,
}

/// Credentials and trust, as files that are read again for every attempt.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// User name for HTTP; wins over one in the URL.
    pub username: Option<String>,
    /// File with the password or token for HTTP.
    pub password_file: Option<PathBuf>,
    /// The password that the environment gave (`GVR_PASSWORD`).
    pub password: Option<Secret>,
    /// Private key for SSH.
    pub ssh_key_file: Option<PathBuf>,
    /// Whether the SSH server's key must be in the known_hosts file.
    pub ssh_known_hosts: bool,
    /// The known_hosts file.
    pub ssh_known_hosts_file: Option<PathBuf>,
}

/// Proxy settings as curl reads them from the environment.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// For `https://` URLs; may hold credentials.
    pub https: Option<Secret>,
    /// For `http://` URLs; may hold credentials.
    pub http: Option<Secret>,
    /// Comma-separated hosts to reach directly.
    pub no_proxy: Option<String>,
}
