//! When to poll, how long a sync may take, and when to give up.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::values::positive_duration;

/// The flags about time and failures.
#[derive(Args, Debug)]
#[command(next_help_heading = "Schedule")]
pub struct ScheduleFlags {
    /// Sync once, then exit
    ///
    /// Exits with 0 when the link leads to the commit of the remote, and with 1 at the first failure
    /// (see --init-max-failures and --allow-stale). After SIGTERM or SIGINT it exits with 0, whether
    /// or not a tree is published.
    #[arg(long, env = "GVR_ONE_TIME", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub one_time: bool,

    /// With --one-time: exit with 0 if the remote fails and a complete tree is already there
    #[arg(long, env = "GVR_ALLOW_STALE", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub allow_stale: bool,

    /// How long to wait between two polls, plus or minus a tenth
    ///
    /// After failures the wait doubles with each failure in a row, up to one minute or the period,
    /// whichever is longer, plus or minus a quarter. A Retry-After of the remote can make it longer,
    /// up to one hour.
    #[arg(long, env = "GVR_PERIOD", default_value = "10s", value_parser = positive_duration, value_name = "DURATION")]
    pub period: Duration,

    /// How long to wait after the first failure, until the first tree is published
    ///
    /// Default: --period. It doubles in the same way.
    #[arg(long, env = "GVR_INIT_PERIOD", value_parser = positive_duration, value_name = "DURATION")]
    pub init_period: Option<Duration>,

    /// How long one whole sync may take
    ///
    /// One deadline for poll, fetch, build and publish together, including name resolution.
    #[arg(long, env = "GVR_SYNC_TIMEOUT", default_value = "120s", value_parser = positive_duration, value_name = "DURATION")]
    pub sync_timeout: Duration,

    /// How long the remote may send nothing in the middle of an answer
    #[arg(long, env = "GVR_STALL_TIMEOUT", default_value = "30s", value_parser = positive_duration, value_name = "DURATION")]
    pub stall_timeout: Duration,

    /// How many failures in a row to allow before exiting with 1; negative for no limit
    ///
    /// Applies once a tree is published; before that, --init-max-failures does.
    #[arg(long, env = "GVR_MAX_FAILURES", default_value_t = -1, allow_negative_numbers = true, value_name = "COUNT")]
    pub max_failures: i64,

    /// The same as --max-failures, until the first tree is published
    ///
    /// With --one-time it applies after that, too. Default: no limit; with --one-time, 0.
    #[arg(
        long,
        env = "GVR_INIT_MAX_FAILURES",
        allow_negative_numbers = true,
        value_name = "COUNT"
    )]
    pub init_max_failures: Option<i64>,

    /// The signal that triggers a poll: HUP, USR1 or USR2
    ///
    /// Also written SIGHUP, or as the number of the signal. Default: none.
    #[arg(long, env = "GVR_SYNC_ON_SIGNAL", value_name = "SIGNAL")]
    pub sync_on_signal: Option<String>,
}
