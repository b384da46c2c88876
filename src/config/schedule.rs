//! When to poll, and when to give up.

use std::time::Duration;

use crate::cli::ScheduleFlags;
use crate::target::ScheduleConfig;

/// Takes the flags about time and failures, with the defaults that depend on other flags.
pub(super) fn schedule(flags: &ScheduleFlags, nudge_wait: Duration) -> ScheduleConfig {
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
        nudge_wait,
    }
}
