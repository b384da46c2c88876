//! What a target is, as values that were checked.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::base::repo_url::RepoUrl;
use crate::child::Command;
use crate::net::NetConfig;
use crate::notify::files::FileSettings;
use crate::notify::process_signal::SignalSettings;
use crate::notify::webhook::WebhookSettings;
use crate::remote::{RefName, RemoteConfig};
use crate::tree::{Sparse, TreeOptions};
use crate::volume::Layout;

/// A repository, a ref and a link: what one sync cycle works on.
#[derive(Debug)]
pub struct Target {
    /// The value of the target label.
    pub name: String,
    /// The ref to follow.
    pub reference: RefName,
    /// How to reach the repository, and those of its submodules.
    pub remote: RemoteConfig,
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
    /// When a tree is synced to the disk.
    pub sync_when: SyncWhen,
    /// How often the contents of the live tree are verified; `None` for never.
    pub scrub_period: Option<Duration>,
    /// When to poll, and when to give up.
    pub schedule: ScheduleConfig,
    /// How old the last successful poll may be before the target counts as stale.
    pub max_staleness: Option<Duration>,
    /// The files that tell other programs what happened.
    pub files: FileSettings,
    /// Where to keep the JSON of `/status`; absolute.
    pub status_file: Option<PathBuf>,
    /// The programs that are told about a publish.
    pub hooks: HooksConfig,
    /// What a commit must pass before readers see it.
    pub gate: GateConfig,
}

/// The hooks of a target.
#[derive(Clone, Debug, Default)]
pub struct HooksConfig {
    /// The command to run.
    pub exec: Option<ExecConfig>,
    /// The request to send.
    pub webhook: Option<WebhookSettings>,
    /// The signal to send.
    pub signal: Option<SignalSettings>,
}

/// A command to run after a publish.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// The command.
    pub command: Command,
    /// The wait after a failure.
    pub backoff: Duration,
    /// Only a change under these paths is worth a run; `None` for every publish.
    pub watched: Option<Sparse>,
}

/// What a commit must pass before readers see it.
#[derive(Clone, Debug, Default)]
pub struct GateConfig {
    /// The program that checks a tree.
    pub command: Option<Command>,
    /// The container that checks a tree.
    pub url: Option<CheckUrlConfig>,
    /// Where the program starts, if not in the tree; absolute.
    pub directory: Option<PathBuf>,
    /// After what time a rejected commit is checked again; `None` for never.
    pub recheck_after: Option<Duration>,
    /// The paths that a tree must have, relative to it.
    pub require_paths: Vec<PathBuf>,
    /// Whether a tree without a file may be published although paths were selected.
    pub allow_empty: bool,
}

/// When to try, and when to give up.
#[derive(Clone, Debug)]
pub struct ScheduleConfig {
    /// Between two polls.
    pub period: Duration,
    /// After the first failure before anything is published.
    pub init_period: Duration,
    /// Exit after the first success.
    pub one_time: bool,
    /// With `one_time`: an existing tree is good enough when the remote fails.
    pub allow_stale: bool,
    /// Failures in a row to bear once published; `None` for no limit.
    pub max_failures: Option<u64>,
    /// Failures in a row to bear before that; `None` for no limit.
    pub init_max_failures: Option<u64>,
    /// For one whole cycle.
    pub sync_timeout: Duration,
    /// For one silence of the remote.
    pub stall_timeout: Duration,
    /// How long to go on polling for what a nudge announced.
    pub nudge_wait: Duration,
}

/// Which new commits are published. "Paths" without patterns cannot be expressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PublishOn {
    /// Every new commit.
    #[default]
    Commit,
    /// Only a commit that changes something that these patterns, those of the tree, select.
    Paths(Sparse),
}

/// When a tree is synced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncWhen {
    /// Right after the flip, on a thread of its own.
    #[default]
    Background,
    /// Before the flip, and the link right after it.
    Flip,
}

impl Target {
    /// How to reach the repository of a submodule. The keyring decides which credentials are for
    /// its URL.
    pub fn remote_for(&self, url: &RepoUrl) -> RemoteConfig {
        self.remote.at(url)
    }
}

/// A container that checks trees.
#[derive(Clone, Debug)]
pub struct CheckUrlConfig {
    /// Where to send the request.
    pub url: Url,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Proxies and certificate authorities.
    pub net: NetConfig,
}
