//! What may be typed: flags, their environment variables, and their help.
//!
//! Each room of the program has its flags in a file of its own. This module does not check what
//! several flags mean together, and reads no file: `config` does.

mod auth;
mod gate;
mod git;
mod hooks;
mod log;
mod notify;
mod schedule;
mod serve;
mod tree;
mod values;
mod volume;

pub use auth::AuthFlags;
pub use gate::GateFlags;
pub use git::{GitFlags, Submodules};
pub use hooks::HookFlags;
pub use log::{LogFlags, LogFormat};
pub use notify::NotifyFlags;
pub use schedule::ScheduleFlags;
pub use serve::ServeFlags;
pub use tree::{PublishOn, Share, TreeFlags};
pub use volume::{DurabilityChoice, Publish, VolumeFlags};

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};

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
/// Polls the remote for one ref, checks each new commit out into a new directory, and points a
/// symbolic link to it in one atomic step. Readers of the link always see one complete commit.
///
/// Every flag has an environment variable: GVR_ and the name of the flag in upper case (--http-bind
/// is GVR_HTTP_BIND). A flag takes precedence over its variable. Durations are written as 10s, 1m30s
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
    /// A command other than the main job.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The flags of the main job.
    #[command(flatten)]
    pub flags: Flags,
}

/// Which health question the `healthcheck` command asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Does the sync loop run?
    Livez,
    /// Do readers have a tree that is fresh enough?
    Readyz,
}

/// What the binary does besides its main job.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask a running instance for its health, and exit with 0 or 1
    ///
    /// For exec probes, because the image has no shell and no curl.
    Healthcheck {
        /// livez: does the sync loop run? readyz: is there a tree to read that is fresh enough?
        #[arg(value_enum, default_value_t = Probe::Readyz, value_name = "livez|readyz", hide_possible_values = true)]
        probe: Probe,
        /// The --http-bind of the instance to ask
        #[arg(long, env = "GVR_HTTP_BIND", value_name = "ADDRESS")]
        http_bind: Bind,
        /// How long to wait for the answer
        #[arg(long, default_value = "2s", value_parser = values::duration, value_name = "DURATION")]
        timeout: Duration,
    },
    /// Show the state of a running instance
    ///
    /// This command, and those below, ask the instance through a socket in its root. They need no
    /// port, and the user that the instance runs as.
    Status {
        /// Which instance and target.
        #[command(flatten)]
        instance: Instance,
        /// Print the JSON document that /status serves
        #[arg(long)]
        json: bool,
    },
    /// Poll now
    Nudge {
        /// Which instance and target.
        #[command(flatten)]
        instance: Instance,
    },
    /// Hold readers on a revision that is kept, until `unpin`
    ///
    /// Points readers at it at once and without the remote. The pin outlives restarts. Polls go on,
    /// so that `status` shows what is upstream, but nothing else is published. See --keep for how
    /// many revisions are there to go back to.
    Pin {
        /// A commit (4 digits or more), or previous: what readers saw before, or current
        #[arg(value_name = "COMMIT|previous|current")]
        to: String,
        /// Which instance and target.
        #[command(flatten)]
        instance: Instance,
    },
    /// Let readers follow the ref again
    Unpin {
        /// Which instance and target.
        #[command(flatten)]
        instance: Instance,
    },
    /// Judge a rejected commit again
    Recheck {
        /// Which instance and target.
        #[command(flatten)]
        instance: Instance,
    },
}

/// Which running instance a command is for.
#[derive(Args, Debug)]
pub struct Instance {
    /// The --root of the instance
    #[arg(long, env = "GVR_ROOT", value_name = "DIR")]
    pub root: PathBuf,
    /// The target by its --name
    ///
    /// Default: the target whose root it is; `status` shows all targets of the instance.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
}

/// The flags of the main job, as typed: one struct per room, in the order that `--help` shows them.
#[derive(Args, Debug)]
pub struct Flags {
    /// What to follow.
    #[command(flatten)]
    pub git: GitFlags,
    /// Where trees go.
    #[command(flatten)]
    pub volume: VolumeFlags,
    /// What a tree holds.
    #[command(flatten)]
    pub tree: TreeFlags,
    /// How to authenticate.
    #[command(flatten)]
    pub auth: AuthFlags,
    /// When to poll and when to give up.
    #[command(flatten)]
    pub schedule: ScheduleFlags,
    /// The HTTP port.
    #[command(flatten)]
    pub serve: ServeFlags,
    /// Who is told.
    #[command(flatten)]
    pub notify: NotifyFlags,
    /// Which programs are told.
    #[command(flatten)]
    pub hooks: HookFlags,
    /// What a commit must pass.
    #[command(flatten)]
    pub gate: GateFlags,
    /// What is logged.
    #[command(flatten)]
    pub log: LogFlags,
}

/// The message of clap for a wrong command line. An argument that may be a URL with credentials is
/// not quoted.
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
            Cli::try_parse_from([&["gvr"], args].concat()).map(|cli| cli.flags.schedule.one_time)
        };
        assert!(!one_time(&[]).unwrap());
        assert!(one_time(&["--one-time"]).unwrap());
        assert!(!one_time(&["--one-time=false"]).unwrap());
    }

    #[test]
    fn a_period_of_zero_is_refused() {
        for flag in ["--period=0", "--init-period=0s"] {
            assert!(Cli::try_parse_from(["gvr", flag]).is_err(), "{flag}");
        }
    }
}
