//! When to try again: a function of what happened, and of chance. Nothing here waits.

use std::time::{Duration, Instant};

use super::settings::ScheduleConfig;
use crate::base::commit::Commit;

/// The longest wait between two attempts after failures, unless the period is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The longest wait that a remote can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The first wait after a nudge that named a commit which the remote does not show; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// The longest of these waits: a remote that lags shows the commit at most this long unnoticed.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The first wait after a nudge that named no commit and found nothing new; it doubles.
const FIRST_GUESS: Duration = Duration::from_secs(1);

/// The polls that follow a nudge, because a nudge may come before the server's own view of the
/// ref. A named commit decides only how long to go on.
#[derive(Debug, Default)]
pub(super) struct FollowUp {
    following: Option<Following>,
}

/// A nudge that is followed up.
#[derive(Debug)]
struct Following {
    /// The commit that the nudge named.
    announced: Option<Commit>,
    /// The wait before the next look.
    next: Duration,
    /// When the last look is due.
    until: Instant,
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
    /// A nudge came at `now`, and is followed up for `wait`. A commit that is followed up already
    /// does not begin again, so that repetitions of a nudge cause no more polls.
    pub fn begin(&mut self, announced: Option<Commit>, now: Instant, wait: Duration) {
        if let Some(following) = &self.following
            && now < following.until
            && (announced.is_none() || following.announced == announced)
            && following.announced.is_some()
        {
            return;
        }
        let first = match announced {
            Some(_) => FIRST_LOOK,
            None => FIRST_GUESS,
        };
        self.following = now.checked_add(wait).map(|until| Following {
            announced,
            next: first,
            until,
        });
    }

    /// The remote shows this commit.
    pub fn shows(&mut self, tip: Commit) {
        self.following
            .take_if(|following| following.announced == Some(tip));
    }

    /// Something new is published: that is all that a nudge without a commit can announce.
    pub fn published(&mut self) {
        self.following
            .take_if(|following| following.announced.is_none());
    }

    /// The wait from `now` to the next poll, where the schedule alone would wait for `delay`.
    pub fn shorten(&mut self, now: Instant, delay: Duration) -> Duration {
        let Some(following) = &mut self.following else {
            return delay;
        };
        let left = following.until.saturating_duration_since(now);
        if left.is_zero() {
            self.following = None;
            return delay;
        }
        let wait = following.next.min(left);
        let longest = match following.announced {
            Some(_) => LONGEST_LOOK,
            None => Duration::MAX,
        };
        following.next = following.next.saturating_mul(2).min(longest);
        delay.min(wait)
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
            nudge_wait: Duration::from_secs(10),
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

    const PERIOD: Duration = Duration::from_secs(300);
    const WAIT: Duration = Duration::from_secs(10);

    fn commit(digit: &str) -> Option<Commit> {
        Some(digit.repeat(40).parse().unwrap())
    }

    /// The times of the polls after a nudge, in milliseconds, up to the first that is scheduled.
    fn looks(follow_up: &mut FollowUp, start: Instant) -> Vec<u128> {
        let mut now = start;
        let mut looks = Vec::new();
        loop {
            let wait = follow_up.shorten(now, PERIOD);
            if wait == PERIOD {
                return looks;
            }
            now += wait;
            looks.push((now - start).as_millis());
        }
    }

    #[test]
    fn a_named_commit_is_looked_for_until_the_wait_is_over() {
        let start = Instant::now();
        let mut follow_up = FollowUp::default();
        assert_eq!(follow_up.shorten(start, PERIOD), PERIOD);
        follow_up.begin(commit("a"), start, WAIT);
        let looks = looks(&mut follow_up, start);
        assert_eq!(looks[..5], [250, 750, 1750, 2750, 3750]);
        assert_eq!(looks.last(), Some(&10_000));
        // One that is shown 8 s late is seen within 9.5 s.
        assert!(looks.iter().any(|look| (8000..9500).contains(look)));
    }

    #[test]
    fn a_named_commit_ends_it_when_it_is_shown_and_no_other_does() {
        let start = Instant::now();
        let mut follow_up = FollowUp::default();
        follow_up.begin(commit("a"), start, WAIT);
        follow_up.published();
        follow_up.shows(commit("b").unwrap());
        assert!(follow_up.shorten(start, PERIOD) < PERIOD);
        follow_up.shows(commit("a").unwrap());
        assert_eq!(follow_up.shorten(start, PERIOD), PERIOD);
    }

    #[test]
    fn a_nudge_without_a_commit_is_followed_up_until_something_is_published() {
        let start = Instant::now();
        let mut follow_up = FollowUp::default();
        follow_up.begin(None, start, WAIT);
        assert_eq!(looks(&mut follow_up, start), [1000, 3000, 7000, 10_000]);
        follow_up.begin(None, start, WAIT);
        follow_up.published();
        assert_eq!(follow_up.shorten(start, PERIOD), PERIOD);
    }

    #[test]
    fn a_repeated_nudge_does_not_begin_again_and_another_commit_does() {
        let start = Instant::now();
        let mut follow_up = FollowUp::default();
        follow_up.begin(commit("a"), start, WAIT);
        let now = start + follow_up.shorten(start, PERIOD);
        follow_up.begin(commit("a"), now, WAIT);
        follow_up.begin(None, now, WAIT);
        assert_eq!(follow_up.shorten(now, PERIOD), 2 * FIRST_LOOK);
        follow_up.begin(commit("b"), now, WAIT);
        assert_eq!(follow_up.shorten(now, PERIOD), FIRST_LOOK);
        // A short period is never made longer.
        let short = Duration::from_millis(1);
        assert_eq!(follow_up.shorten(now, short), short);
    }
}
