//! What a commit must pass before readers see it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// The flags about checks before a publish.
#[derive(Args, Debug)]
#[command(next_help_heading = "Checks before a publish")]
pub struct GateFlags {
    /// A program that checks each new tree before readers see it
    ///
    /// It runs in the complete, not yet published tree, without a shell. Exit code 0 accepts the
    /// commit and 1 to 125 reject it: readers keep the tree that they have, and the commit is not
    /// checked again. Any other end (126, 127, a signal, the time limit) is no verdict: readers keep
    /// the tree that they have, and the check is repeated. Its environment has GVR_COMMIT,
    /// GVR_PREVIOUS_COMMIT (what readers see now), GVR_REF, GVR_LINK and GVR_TREE. It must not change
    /// the tree: a changed tree is rejected.
    #[arg(long, env = "GVR_CHECK_COMMAND", value_name = "PROGRAM")]
    pub check_command: Option<PathBuf>,

    /// An argument for --check-command; may be repeated
    #[arg(
        long,
        env = "GVR_CHECK_ARG",
        value_name = "ARGUMENT",
        requires = "check_command",
        allow_hyphen_values = true
    )]
    pub check_arg: Vec<OsString>,

    /// A URL that checks each new tree before readers see it
    ///
    /// Usually of a container in the same pod that mounts the same volume. It gets a POST with a JSON
    /// object: target, commit, previous, ref, tree, path (of the tree, relative to --root). An answer
    /// of 200 accepts the commit, 422 rejects it with the body as the reason, and any other is no
    /// verdict.
    #[arg(long, env = "GVR_CHECK_URL", value_name = "URL")]
    pub check_url: Option<String>,

    /// How long a check may take
    ///
    /// It is a part of --sync-timeout.
    #[arg(long, env = "GVR_CHECK_TIMEOUT", default_value = "60s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub check_timeout: Duration,

    /// The directory that --check-command starts in; default: the tree
    ///
    /// A scratch directory for what the check writes. GVR_TREE names the tree.
    #[arg(
        long,
        env = "GVR_CHECK_DIR",
        value_name = "DIRECTORY",
        requires = "check_command"
    )]
    pub check_dir: Option<PathBuf>,

    /// Check a rejected commit again after this time; default: never
    ///
    /// For checks whose verdict depends on more than the commit.
    #[arg(long, env = "GVR_RECHECK_AFTER", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub recheck_after: Option<Duration>,

    /// Reject commits without this path; may be repeated
    #[arg(
        long,
        env = "GVR_REQUIRE_PATH",
        value_delimiter = ',',
        value_name = "PATH"
    )]
    pub require_path: Vec<PathBuf>,

    /// Publish a commit in which --path or --sparse-checkout-file matches nothing
    ///
    /// Without this flag such a commit is rejected, because it would leave readers an empty
    /// directory.
    #[arg(long, env = "GVR_ALLOW_EMPTY", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub allow_empty: bool,
}
