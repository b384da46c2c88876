//! Which programs are told about a publish.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// The flags about hooks.
#[derive(Args, Debug)]
#[command(next_help_heading = "Hooks")]
pub struct HookFlags {
    /// A program to run after every publish, and at the start
    ///
    /// It runs in the published tree, without a shell, and never delays a sync. A failure is
    /// repeated until it succeeds or a newer commit is published. Its environment has GVR_COMMIT,
    /// GVR_PREVIOUS_COMMIT (of its last success), GVR_REF, GVR_LINK, GVR_TREE, GITSYNC_HASH, and
    /// GVR_CHANGED_FILES: a file with what changed since the last success, in the format of `git diff
    /// --no-renames --name-status -z`. The last is empty when that is not known.
    #[arg(long, env = "GVR_EXECHOOK_COMMAND", value_name = "PROGRAM")]
    pub exechook_command: Option<PathBuf>,

    /// An argument for --exechook-command; may be repeated
    #[arg(
        long,
        env = "GVR_EXECHOOK_ARG",
        value_name = "ARGUMENT",
        requires = "exechook_command",
        allow_hyphen_values = true
    )]
    pub exechook_arg: Vec<OsString>,

    /// How long --exechook-command may take
    ///
    /// Then it gets SIGTERM, and SIGKILL 2 s later, together with all processes that it started.
    #[arg(long, env = "GVR_EXECHOOK_TIMEOUT", default_value = "30s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub exechook_timeout: Duration,

    /// How long to wait after a failure of --exechook-command
    ///
    /// The wait doubles with each failure in a row, up to ten times this.
    #[arg(long, env = "GVR_EXECHOOK_BACKOFF", default_value = "3s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub exechook_backoff: Duration,

    /// Run --exechook-command only when something under this path changed; may be repeated
    ///
    /// A sparse-checkout pattern: docs or /docs/*.md. When it is not known what changed, the program
    /// runs.
    #[arg(
        long,
        env = "GVR_EXECHOOK_ON_PATH",
        value_name = "PATTERN",
        value_delimiter = ',',
        requires = "exechook_command"
    )]
    pub exechook_on_path: Vec<String>,

    /// A signal to send to another process after every publish, and at the start
    ///
    /// NAME or NAME:PROCESS, as in HUP:nginx. Needs a shared process namespace
    /// (shareProcessNamespace) and the same user. The topmost processes of that name get the signal;
    /// without a name, the main process of every other container in the pod. HUP, INT, QUIT, USR1,
    /// USR2, TERM or WINCH.
    #[arg(long, env = "GVR_NOTIFY_SIGNAL", value_name = "SIGNAL[:PROCESS]")]
    pub notify_signal: Option<String>,
}
