//! When to try again: a function of what happened, and of chance. Nothing here waits.

use std::time::Duration;

use super::settings::ScheduleConfig;

/// The longest wait between two attempts after failures, unless the period is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The longest wait that a remote can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// When to look again after a nudge that found nothing, because it may have come before the
/// server's own view of the ref.
const AFTER_NUDGE: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// The polls that follow a nudge.
#[derive(Debug)]
pub(super) struct FollowUp {
    /// Which of [`AFTER_NUDGE`] comes next; past the end when no nudge is being followed up.
    next: usize,
}

/// How long the remote asked not to be asked again, cut to an hour.
pub(super) fn embargo(retry_after: Option<Duration>) -> Option<Duration> {
    retry_after.map(|asked| asked.min(MAX_RETRY_AFTER))
}

/// The wait after a success: the period, plus or minus a tenth, so that many instances do not poll
/// in step. `chance` is between 0 and 1.
pub(super) fn after_success(settings: &ScheduleConfig, chance: f64) -> Duration {
    scaled(settings.period, 0.9 + 0.2 * chance)
}

/// The wait after `failures` failures in a row: it doubles with each, plus or minus a quarter, and
/// is never shorter than the remote asked for (RFC 9110, section 10.2.3).
pub(super) fn after_failure(
    settings: &ScheduleConfig,
    failures: u64,
    published: bool,
    retry_after: Option<Duration>,
    chance: f64,
) -> Duration {
    let base = if published {
        settings.period
    } else {
        settings.init_period
    };
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2u32.saturating_pow(doublings.min(31));
    let grown = base.saturating_mul(factor).min(MAX_BACKOFF.max(base));
    let delay = scaled(grown, 0.75 + 0.5 * chance);
    embargo(retry_after).map_or(delay, |asked| delay.max(asked))
}

/// How many failures in a row to bear; `None` for no limit.
pub(super) fn limit(settings: &ScheduleConfig, published: bool) -> Option<u64> {
    if published && !settings.one_time {
        settings.max_failures
    } else {
        settings.init_max_failures
    }
}

impl FollowUp {
    /// No nudge is being followed up.
    pub fn none() -> Self {
        Self {
            next: AFTER_NUDGE.len(),
        }
    }

    /// A nudge came.
    pub fn begin(&mut self) {
        self.next = 0;
    }

    /// What the nudge announced is published.
    pub fn end(&mut self) {
        *self = Self::none();
    }

    /// The wait before the next poll, where the schedule alone would wait for `delay`.
    pub fn shorten(&mut self, delay: Duration) -> Duration {
        match AFTER_NUDGE.get(self.next) {
            Some(follow_up) => {
                self.next += 1;
                delay.min(*follow_up)
            }
            None => delay,
        }
    }
}

/// A factor that would overflow leaves the duration as it is.
fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(period: u64) -> ScheduleConfig {
        ScheduleConfig {
            period: Duration::from_secs(period),
            init_period: Duration::from_secs(1),
            one_time: false,
            allow_stale: false,
            max_failures: None,
            init_max_failures: None,
            sync_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn polls_are_spread_around_the_period() {
        assert_eq!(after_success(&settings(10), 0.0), Duration::from_secs(9));
        assert_eq!(after_success(&settings(10), 1.0), Duration::from_secs(11));
    }

    #[test]
    fn failures_back_off_to_a_minute_or_the_period() {
        let delay = |period, failures| {
            after_failure(&settings(period), failures, true, None, 0.5).as_secs()
        };
        assert_eq!(
            [delay(10, 1), delay(10, 2), delay(10, 3), delay(10, 4)],
            [10, 20, 40, 60]
        );
        assert_eq!(
            [delay(10, u64::MAX), delay(300, 1), delay(300, 9)],
            [60, 300, 300]
        );
    }

    #[test]
    fn before_the_first_publish_the_init_period_counts() {
        let delay = after_failure(&settings(10), 1, false, None, 0.5);
        assert_eq!(delay, Duration::from_secs(1));
    }

    #[test]
    fn the_remote_may_ask_for_a_longer_wait_of_up_to_an_hour() {
        let asked = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            after_failure(&settings(10), 1, true, asked, 0.5).as_secs()
        };
        assert_eq!([asked(1), asked(90), asked(1_000_000)], [10, 90, 3600]);
    }

    #[test]
    fn a_nudge_is_followed_up_until_it_led_to_a_publish() {
        let period = Duration::from_secs(300);
        let mut follow_up = FollowUp::none();
        assert_eq!(follow_up.shorten(period), period);
        follow_up.begin();
        let waits = [0; 5].map(|_| follow_up.shorten(period).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 300]);
        follow_up.begin();
        follow_up.end();
        assert_eq!(follow_up.shorten(period), period);
    }
}
