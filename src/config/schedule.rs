//! When to poll, and when to give up.

use std::time::Duration;

use crate::cli::ScheduleFlags;

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
}

/// Takes the flags about time and failures, with the defaults that depend on other flags.
pub(super) fn schedule(flags: &ScheduleFlags) -> ScheduleConfig {
    let limit = |failures: i64| u64::try_from(failures).ok();
    ScheduleConfig {
        period: flags.period,
        init_period: flags.init_period.unwrap_or(flags.period),
        one_time: flags.one_time,
        allow_stale: flags.allow_stale,
        max_failures: limit(flags.max_failures),
        init_max_failures: match flags.init_max_failures {
            Some(failures) => limit(failures),
            None if flags.one_time => Some(0),
            None => None,
        },
        sync_timeout: flags.sync_timeout,
        stall_timeout: flags.stall_timeout,
    }
}
