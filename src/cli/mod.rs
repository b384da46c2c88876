//! What may be typed: flags, their environment variables, and their help.
//!
//! This module says nothing about what the values mean together; `config` does.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::app::healthcheck::Probe;
use crate::serve::bind::Bind;

/// The version and the commit it was built from.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("GVR_BUILD_COMMIT"),
    ")"
);

/// Keep a directory on a volume equal to a git ref
///
/// Polls the remote for one ref, checks each new commit out into a fresh directory, and flips a
/// symbolic link to it atomically. Readers of the link see one complete commit at every moment.
///
/// Every flag can also be given as an environment variable: GVR_ and the flag's name in upper case
/// (--http-bind is GVR_HTTP_BIND); a flag wins over its variable. Durations are written 10s, 1m30s
/// or 100ms.
///
/// Exit codes: 0 done, 1 gave up, 2 bad usage or configuration.
#[derive(Debug, Parser)]
#[command(
    name = "git-volume-reloader",
    version = VERSION,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do other than syncing.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The flags of the main job.
    #[command(flatten)]
    pub flags: Flags,
}

/// What the binary does besides its main job.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask a running instance for its health and exit 0 or 1
    ///
    /// For exec probes: the image has no shell and no curl.
    Healthcheck {
        /// Which question to ask: is the loop alive, or is there a tree to read?
        #[arg(value_parser = probe, default_value = "readyz", value_name = "livez|readyz")]
        probe: Probe,
        /// The --http-bind of the instance to ask
        #[arg(long, env = "GVR_HTTP_BIND", value_name = "ADDRESS")]
        http_bind: Bind,
        /// How long to wait for the answer
        #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
        timeout: Duration,
    },
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How readers find the current tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Publish {
    /// A symbolic link, replaced by rename.
    Symlink,
    /// A real directory, swapped by renameat2(RENAME_EXCHANGE).
    Exchange,
}

/// What makes a new commit worth publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PublishOn {
    /// Every new commit.
    Commit,
    /// Only a commit that changes something under --path or the sparse patterns.
    Paths,
}

/// How an unchanged file gets into the next tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Share {
    /// As a hard link to the previous tree's file.
    Hardlink,
    /// As a copy-on-write clone, where the file system has them.
    Reflink,
    /// Written again.
    None,
}

/// Which submodules are checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Submodules {
    /// All, and theirs.
    Recursive,
    /// Those of the repository itself.
    Shallow,
    /// None.
    Off,
}

/// The flags of the main job, as typed.
#[derive(Args, Debug)]
pub struct Flags {
    /// The repository to follow
    ///
    /// https://host/path, http://host/path, ssh://user@host/path, user@host:path, file:///path or a
    /// path. Credentials in the URL work, and are never printed; a file is the better place.
    #[arg(long, env = "GVR_REPO", value_name = "URL", hide_env_values = true)]
    pub repo: Option<String>,

    /// The branch, tag, full ref or full commit id to follow
    ///
    /// HEAD is the remote's default branch. A short name is looked for among branches, then tags.
    #[arg(
        long = "ref",
        env = "GVR_REF",
        default_value = "HEAD",
        value_name = "REF"
    )]
    pub reference: String,

    /// The directory that this process owns
    ///
    /// Trees and the object store live in its .gvr directory. Created if missing; files of others
    /// in it are left alone. Mount this directory (not the link) in the containers that read.
    #[arg(long, env = "GVR_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// The link that readers follow, relative to --root or absolute
    #[arg(long, env = "GVR_LINK", default_value = "current", value_name = "PATH")]
    pub link: PathBuf,

    /// The value of the target label in metrics, logs and /status
    ///
    /// Default: the last component of --link.
    #[arg(long, env = "GVR_NAME", value_name = "NAME")]
    pub name: Option<String>,

    /// How often to ask the remote, give or take a tenth
    #[arg(long, env = "GVR_PERIOD", default_value = "10s", value_parser = positive_duration, value_name = "DURATION")]
    pub period: Duration,

    /// How long to wait after a failure before the first tree is published
    ///
    /// Default: --period. Doubles with each failure in a row, up to a minute.
    #[arg(long, env = "GVR_INIT_PERIOD", value_parser = positive_duration, value_name = "DURATION")]
    pub init_period: Option<Duration>,

    /// Sync once, then exit
    ///
    /// Exits 0 once the link is on the remote's commit, and 1 at the first failure (see
    /// --init-max-failures and --allow-stale). SIGTERM ends it with 0 at any moment, published or not.
    #[arg(long, env = "GVR_ONE_TIME", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub one_time: bool,

    /// How many commits of history to keep in the store; 0 for all
    ///
    /// Readers see it with --git-dir only: there, another depth makes another revision at once.
    #[arg(long, env = "GVR_DEPTH", default_value_t = 1, value_name = "COMMITS")]
    pub depth: u32,

    /// How long one whole sync may take
    ///
    /// Poll, fetch, build and publish together, name resolution included.
    #[arg(long, env = "GVR_SYNC_TIMEOUT", default_value = "120s", value_parser = positive_duration, value_name = "DURATION")]
    pub sync_timeout: Duration,

    /// How long the remote may stay silent in the middle of an answer
    #[arg(long, env = "GVR_STALL_TIMEOUT", default_value = "30s", value_parser = positive_duration, value_name = "DURATION")]
    pub stall_timeout: Duration,

    /// How many failures in a row to bear before exiting with 1; negative: no limit
    #[arg(long, env = "GVR_MAX_FAILURES", default_value_t = -1, allow_negative_numbers = true, value_name = "COUNT")]
    pub max_failures: i64,

    /// The same as --max-failures, until the first tree is published
    ///
    /// Default: no limit; with --one-time, 0.
    #[arg(
        long,
        env = "GVR_INIT_MAX_FAILURES",
        allow_negative_numbers = true,
        value_name = "COUNT"
    )]
    pub init_max_failures: Option<i64>,

    /// How long the previous tree stays readable after a flip
    #[arg(long, env = "GVR_STALE_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub stale_timeout: Duration,

    /// How many older trees stay in any case
    #[arg(long, env = "GVR_KEEP", default_value_t = 1, value_name = "COUNT")]
    pub keep: usize,

    /// How old the last successful poll may be before /readyz fails and gvr_stale is 1
    ///
    /// Default: no limit: an outage of the git host does not take readers down.
    #[arg(long, env = "GVR_MAX_STALENESS", value_parser = positive_duration, value_name = "DURATION")]
    pub max_staleness: Option<Duration>,

    /// With --one-time: accept the tree that is already there when the remote fails
    #[arg(long, env = "GVR_ALLOW_STALE", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub allow_stale: bool,

    /// Where to serve /metrics, /livez, /readyz, /status and /nudge: [host]:port
    ///
    /// Default: nowhere.
    #[arg(long, env = "GVR_HTTP_BIND", value_name = "ADDRESS")]
    pub http_bind: Option<Bind>,

    /// A file with the bearer token that POST /nudge wants
    ///
    /// Read again for every request. Without it /nudge does not exist.
    #[arg(long, env = "GVR_NUDGE_TOKEN_FILE", value_name = "FILE")]
    pub nudge_token_file: Option<PathBuf>,

    /// The signal that means "poll now": HUP, SIGHUP or its number (also USR1, USR2)
    #[arg(long, env = "GVR_SYNC_ON_SIGNAL", value_name = "SIGNAL")]
    pub sync_on_signal: Option<String>,

    /// A file to create or touch after every publish; may be repeated
    ///
    /// Relative to --root unless absolute.
    #[arg(
        long,
        env = "GVR_TOUCH_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub touch_file: Vec<PathBuf>,

    /// A file that holds the last error as JSON, and does not exist while all is well
    ///
    /// Relative to --root unless absolute.
    #[arg(long, env = "GVR_ERROR_FILE", value_name = "FILE")]
    pub error_file: Option<PathBuf>,

    /// How log lines are written, to standard error
    #[arg(long, env = "GVR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// error, warn, info, debug, trace, or a tracing filter such as info,git_volume_reloader=debug
    #[arg(
        long,
        env = "GVR_LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_level: String,

    /// The user name for HTTP
    #[arg(
        long,
        env = "GVR_USERNAME",
        value_name = "NAME",
        help_heading = "Authentication"
    )]
    pub username: Option<String>,

    /// A file with the password or token for HTTP
    ///
    /// Read again for every attempt. The value itself may be given as GVR_PASSWORD.
    #[arg(
        long,
        env = "GVR_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "Authentication"
    )]
    pub password_file: Option<PathBuf>,

    /// Credentials for other URLs, such as submodules; may be repeated
    ///
    /// A JSON object, as in {"url": "https://host/", "username": "me", "password-file": "/secret"}.
    /// Used for every URL that lies below "url"; the longest match wins.
    #[arg(
        long,
        env = "GVR_CREDENTIAL",
        value_name = "JSON",
        hide_env_values = true,
        help_heading = "Authentication"
    )]
    pub credential: Vec<String>,

    /// The private key for SSH
    #[arg(
        long,
        env = "GVR_SSH_KEY_FILE",
        default_value = "/etc/git-secret/ssh",
        value_name = "FILE",
        help_heading = "Authentication"
    )]
    pub ssh_key_file: PathBuf,

    /// Whether the SSH server's key must stand in the known_hosts file
    #[arg(long, env = "GVR_SSH_KNOWN_HOSTS", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "true", default_missing_value = "true",
          action = ArgAction::Set, hide_possible_values = true, help_heading = "Authentication")]
    pub ssh_known_hosts: bool,

    /// The known_hosts file
    #[arg(
        long,
        env = "GVR_SSH_KNOWN_HOSTS_FILE",
        default_value = "/etc/git-secret/known_hosts",
        value_name = "FILE",
        help_heading = "Authentication"
    )]
    pub ssh_known_hosts_file: PathBuf,

    /// How many threads write a tree; 0 for one per CPU
    #[arg(
        long,
        env = "GVR_JOBS",
        default_value_t = 0,
        value_name = "COUNT",
        help_heading = "The tree"
    )]
    pub jobs: usize,

    /// How an unchanged file gets into the next tree
    #[arg(long, env = "GVR_SHARE", value_enum, default_value_t = Share::Hardlink, value_name = "HOW", help_heading = "The tree")]
    pub share: Share,

    /// Make files and directories writable by their group
    #[arg(long, env = "GVR_GROUP_WRITE", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, help_heading = "The tree")]
    pub group_write: bool,

    /// Which submodules are checked out
    #[arg(long, env = "GVR_SUBMODULES", value_enum, default_value_t = Submodules::Recursive, value_name = "WHICH", help_heading = "The tree")]
    pub submodules: Submodules,

    /// A file of sparse-checkout patterns, cone or not
    #[arg(
        long,
        env = "GVR_SPARSE_CHECKOUT_FILE",
        value_name = "FILE",
        help_heading = "The tree"
    )]
    pub sparse_checkout_file: Option<PathBuf>,

    /// A file or directory of the repository to check out, and nothing else; may be repeated
    #[arg(
        long,
        env = "GVR_PATH",
        value_delimiter = ',',
        value_name = "PATH",
        conflicts_with = "sparse_checkout_file",
        help_heading = "The tree"
    )]
    pub path: Vec<String>,

    /// What makes a new commit worth publishing
    ///
    /// With "paths", a commit that changes nothing under --path or the sparse patterns does not
    /// flip the link.
    #[arg(long, env = "GVR_PUBLISH_ON", value_enum, default_value_t = PublishOn::Commit, value_name = "WHAT", help_heading = "The tree")]
    pub publish_on: PublishOn,

    /// Leave a .git directory in the tree, so that git log and git describe work in it
    #[arg(long, env = "GVR_GIT_DIR", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, help_heading = "The tree")]
    pub git_dir: bool,

    /// How readers find the current tree
    ///
    /// "exchange" makes --link a real directory, for readers that break on symbolic links.
    #[arg(long, env = "GVR_PUBLISH", value_enum, default_value_t = Publish::Symlink, value_name = "HOW", help_heading = "The tree")]
    pub publish: Publish,

    /// The largest tree to write, in bytes; larger ones are refused
    ///
    /// Also the largest pack to receive. Default: no limit but --sync-timeout and the disk.
    #[arg(
        long,
        env = "GVR_MAX_TREE_BYTES",
        value_name = "BYTES",
        help_heading = "The tree"
    )]
    pub max_tree_bytes: Option<u64>,

    /// The largest number of files to write; larger trees are refused
    ///
    /// Default: no limit.
    #[arg(
        long,
        env = "GVR_MAX_FILES",
        value_name = "COUNT",
        help_heading = "The tree"
    )]
    pub max_files: Option<u64>,
}

/// What clap has to say about a wrong command line, without quoting what may be a URL with
/// credentials.
pub fn usage(mut error: clap::Error) -> String {
    for kind in [ContextKind::InvalidSubcommand, ContextKind::InvalidArg] {
        if let Some(ContextValue::String(word)) = error.get(kind)
            && word.contains('@')
        {
            let hidden = "an argument that belongs to no flag (is --repo missing?)".to_owned();
            error.insert(kind, ContextValue::String(hidden));
        }
    }
    let text = error.render().to_string();
    text.strip_prefix("error: ")
        .unwrap_or(&text)
        .trim_end()
        .to_owned()
}

fn probe(text: &str) -> Result<Probe, String> {
    match text {
        "livez" => Ok(Probe::Livez),
        "readyz" => Ok(Probe::Readyz),
        _ => Err("it must be livez or readyz".to_owned()),
    }
}

/// A humantime duration; a bare 0 needs no unit.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error} (write it as 10s, 1m30s or 100ms)"))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        longer => Ok(longer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        for argument in Cli::command().get_arguments() {
            let Some(long) = argument.get_long() else {
                continue;
            };
            if matches!(long, "help" | "version") {
                continue;
            }
            let expected = format!("GVR_{}", long.replace('-', "_").to_uppercase());
            let env = argument
                .get_env()
                .map(|env| env.to_string_lossy().into_owned());
            assert_eq!(env, Some(expected), "--{long}");
        }
    }

    #[test]
    fn a_switch_can_be_given_bare_or_with_a_value() {
        let one_time = |args: &[&str]| {
            Cli::try_parse_from([&["gvr"], args].concat()).map(|cli| cli.flags.one_time)
        };
        assert!(!one_time(&[]).unwrap());
        assert!(one_time(&["--one-time"]).unwrap());
        assert!(!one_time(&["--one-time=false"]).unwrap());
    }

    #[test]
    fn durations_need_a_unit_unless_they_are_zero() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("10").is_err());
        assert!(positive_duration("0").is_err());
        // A loop without any pause would be one.
        for flag in ["--period=0", "--init-period=0s"] {
            assert!(Cli::try_parse_from(["gvr", flag]).is_err(), "{flag}");
        }
    }
}
