//! One target: what a sync cycle works on.

use std::time::Duration;

use super::auth::{Credential, credentials};
use super::error::ConfigError;
use super::network::Network;
use super::paths::WorkingDirectory;
use super::schedule::{ScheduleConfig, schedule};
use super::tree::PublishOn;
use super::{auth, git, notify, tree, volume};
use crate::base::repo_url::RepoUrl;
use crate::cli::Flags;
use crate::notify::files::FileSettings;
use crate::remote::{Auth, RefName, RemoteConfig};
use crate::tree::TreeOptions;
use crate::volume::Layout;

/// A repository, a ref and a link: what one sync cycle works on.
#[derive(Debug)]
pub struct Target {
    /// The value of the target label.
    pub name: String,
    /// The ref to follow.
    pub reference: RefName,
    /// How to reach the repository.
    pub remote: RemoteConfig,
    /// Credentials for URLs other than the repository's own.
    pub credentials: Vec<Credential>,
    /// Commits of history to keep; 0 for all.
    pub depth: u32,
    /// Where trees go.
    pub layout: Layout,
    /// What a tree holds, and how it is written.
    pub tree: TreeOptions,
    /// Which new commits are published.
    pub publish_on: PublishOn,
    /// How many older trees stay.
    pub keep: usize,
    /// How long a retired tree stays readable.
    pub stale_timeout: Duration,
    /// When to poll, and when to give up.
    pub schedule: ScheduleConfig,
    /// How old the last successful poll may be before the target counts as stale.
    pub max_staleness: Option<Duration>,
    /// The files that tell other programs what happened.
    pub files: FileSettings,
}

/// Takes all flags that describe the target.
pub(super) fn target(flags: &Flags, from: &WorkingDirectory) -> Result<Target, ConfigError> {
    let url = git::repo(&flags.git, from)?;
    let layout = volume::layout(&flags.volume, from)?;
    let name = volume::target_name(&flags.volume, &layout.link)?;
    let network = Network::from_environment(from);
    let auth = auth::auth(&flags.auth, from)?;
    let credentials = credentials(&flags.auth, &auth, from)?;
    let tree = tree::options(flags, from)?;
    let publish_on = tree::publish_on(&flags.tree, tree.sparse.as_ref())?;
    Ok(Target {
        name,
        reference: git::reference(&flags.git)?,
        remote: RemoteConfig {
            url,
            auth,
            proxy: network.proxy,
            ca_file: network.ca_file,
        },
        credentials,
        depth: flags.git.depth,
        tree,
        publish_on,
        keep: flags.volume.keep,
        stale_timeout: flags.volume.stale_timeout,
        schedule: schedule(&flags.schedule),
        max_staleness: flags.serve.max_staleness,
        files: notify::files(&flags.notify, &layout.root),
        layout,
    })
}

impl Target {
    /// How to reach another repository that this one refers to: a submodule.
    ///
    /// Credentials go only where they were meant to go: those of `--credential` to URLs below
    /// theirs, those of `--repo` to the same scheme, host and port. An SSH key never leaves this
    /// process, so the same key may sign in elsewhere.
    pub fn remote_for(&self, url: &RepoUrl) -> RemoteConfig {
        let configured = self
            .credentials
            .iter()
            .filter(|credential| lies_below(url, &credential.url))
            .max_by_key(|credential| credential.url.to_string().len());
        let auth = match (configured, same_origin(url, &self.remote.url)) {
            (Some(credential), _) => credential.auth.clone(),
            (None, true) => self.remote.auth.clone(),
            (None, false) => Auth {
                username: None,
                password_file: None,
                password: None,
                ..self.remote.auth.clone()
            },
        };
        // Credentials that stood in the URL of --repo belong to its host as well.
        let url = match (url, &self.remote.url) {
            (RepoUrl::Http(wanted), RepoUrl::Http(own))
                if configured.is_none()
                    && wanted.password.is_none()
                    && same_origin(url, &self.remote.url) =>
            {
                let mut wanted = wanted.clone();
                wanted.username.clone_from(&own.username);
                wanted.password.clone_from(&own.password);
                RepoUrl::Http(wanted)
            }
            _ => url.clone(),
        };
        RemoteConfig {
            url,
            auth,
            ..self.remote.clone()
        }
    }
}

/// Whether credentials for one URL may go to the other: same scheme, host and port.
fn same_origin(one: &RepoUrl, other: &RepoUrl) -> bool {
    match (one, other) {
        (RepoUrl::Http(one), RepoUrl::Http(other)) => one.url.origin() == other.url.origin(),
        _ => false,
    }
}

fn lies_below(url: &RepoUrl, prefix: &RepoUrl) -> bool {
    let path_below = |path: &str, prefix: &str| {
        let prefix = prefix.trim_matches('/');
        let path = path.trim_start_matches('/');
        prefix.is_empty()
            || path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (url, prefix) {
        (RepoUrl::Http(http), RepoUrl::Http(below)) => {
            same_origin(url, prefix) && path_below(http.url.path(), below.url.path())
        }
        (RepoUrl::Ssh(ssh), RepoUrl::Ssh(below)) => {
            ssh.host == below.host && ssh.port == below.port && path_below(&ssh.path, &below.path)
        }
        _ => false,
    }
}
