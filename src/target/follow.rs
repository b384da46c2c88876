//! The loop around the cycles of one target: when to try, when to give up, whom to tell.
//!
//! Delays are computed by [`Schedule`], which is pure; the one wait is on [`Wake`]. This module
//! does not know what a cycle does.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, error, info, warn};

use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};
use crate::base::wake::{Wake, Woken};
use crate::config::ScheduleConfig;
use crate::notify::files;
use crate::observe::metrics::{self, Metrics};
use crate::observe::status::{Board, Shown};
use crate::target::{Current, Outcome, Report, Sync};

/// The longest wait between two attempts after failures, unless the period is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The longest wait that a remote can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// When to look again after a nudge that found nothing: it may have come before the server's own
/// view of the ref.
const AFTER_NUDGE: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How long housekeeping may take at a time.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// When housekeeping is tried again after it failed or ran out of time.
const HOUSEKEEPING_RETRY: Duration = Duration::from_secs(60);

/// How the loop ended.
#[derive(Debug)]
pub enum Ended {
    /// `--one-time`: the link is on the remote's commit.
    Done,
    /// Somebody asked the process to end.
    Shutdown,
    /// Too many failures; the last one.
    GaveUp(SyncError),
}

/// Runs the cycles of one target until they are done, given up or shut down.
pub struct Supervisor {
    sync: Sync,
    schedule: Schedule,
    wake: Arc<Wake>,
    board: Arc<Board>,
    metrics: Metrics,
    failures: u64,
    published: bool,
    /// Which of [`AFTER_NUDGE`] comes next; past the end when no nudge is being followed up.
    follow_up: usize,
    housekeeping_due: Option<Instant>,
    /// Until when the remote asked not to be asked again.
    embargo: Option<Instant>,
}

/// When to try again: a function of what happened, and of chance.
#[derive(Clone, Debug)]
struct Schedule(ScheduleConfig);

impl Supervisor {
    /// A supervisor that has not begun yet.
    pub fn new(
        sync: Sync,
        schedule: ScheduleConfig,
        wake: Arc<Wake>,
        board: Arc<Board>,
        metrics: Metrics,
    ) -> Self {
        Self {
            sync,
            schedule: Schedule(schedule),
            wake,
            board,
            metrics,
            failures: 0,
            published: false,
            follow_up: AFTER_NUDGE.len(),
            housekeeping_due: None,
            embargo: None,
        }
    }

    /// Runs until there is nothing more to do.
    pub fn run(mut self) -> Ended {
        loop {
            let result = self.attempt();
            if self.wake.is_shutdown() {
                return Ended::Shutdown;
            }
            let delay = match result {
                Ok(()) if self.schedule.0.one_time => {
                    // Nobody else would, where there is no sidecar.
                    self.keep_house(None);
                    return Ended::Done;
                }
                Ok(()) => self.schedule.after_success(fastrand::f64()),
                Err(error) => match self.after_failure(error) {
                    Ok(delay) => delay,
                    Err(ended) => return ended,
                },
            };
            if self.wait(delay) == Woken::Shutdown {
                return Ended::Shutdown;
            }
        }
    }

    fn budget(&self, total: Duration) -> Budget {
        Budget::new(total, self.schedule.0.stall_timeout, self.wake.cancelled())
    }

    /// One cycle, and everything that is told about it.
    fn attempt(&mut self) -> Result<(), SyncError> {
        let budget = self.budget(self.schedule.0.sync_timeout);
        self.board.heartbeat(self.schedule.0.sync_timeout);
        self.board.attempt_started();
        self.metrics.attempt();
        let started = Instant::now();
        let mut report = Report::default();
        let result = self
            .sync
            .open(&budget)
            .map(|()| self.recognise())
            .and_then(|()| self.sync.cycle(&budget, &mut report));

        for (stage, took) in &report.stages {
            self.metrics.stage(*stage, *took);
        }
        self.metrics.fetched(report.fetched_bytes);
        if report.fetched_bytes > 0 {
            // Whether or not it is published, it takes room.
            self.housekeeping_due.get_or_insert_with(Instant::now);
        }
        self.metrics
            .files(report.files_written, report.files_shared);
        let (outcome, result) = match result {
            Ok(Outcome::Unchanged) => (metrics::Outcome::Unchanged, Ok(())),
            Ok(Outcome::Published(current)) => {
                self.follow_up = AFTER_NUDGE.len();
                self.housekeeping_due = Some(Instant::now());
                self.show(&current, SystemTime::now());
                (metrics::Outcome::Changed, Ok(()))
            }
            Err(error) => (metrics::Outcome::Error, Err(error)),
        };
        let cancelled = result.as_ref().is_err_and(SyncError::is_cancelled);
        if !cancelled {
            self.metrics.sync(outcome, started.elapsed());
        }
        if result.is_ok() {
            self.succeeded();
        }
        result
    }

    fn succeeded(&mut self) {
        self.embargo = None;
        if self.failures > 0 {
            info!(failures = self.failures, "syncing again");
            // Nothing was linked ahead meanwhile, which begins with housekeeping.
            self.housekeeping_due = Some(Instant::now());
        }
        // A file of an earlier life is cleared by the first success.
        let cleared = self.failures > 0 || self.board.snapshot().last_success.is_none();
        self.failures = 0;
        self.board.succeeded();
        if cleared
            && let Some(file) = &self.sync.target().error_file
            && let Err(error) = files::clear_error(file)
        {
            warn!(
                error = error.chain(),
                hint = error.hint(),
                "the error file stays"
            );
        }
    }

    /// After a start that found a good tree: readers have something before the first poll.
    fn recognise(&mut self) {
        if self.published {
            return;
        }
        if let Some((current, manifest)) = self.sync.current() {
            let since = fs::metadata(manifest).and_then(|file| file.modified());
            info!(commit = %current.commit, "readers have a complete tree from an earlier start");
            self.show(&current, since.unwrap_or_else(|_| SystemTime::now()));
            self.housekeeping_due = Some(Instant::now());
        }
    }

    /// Tells the board and the metrics what readers see.
    fn show(&mut self, current: &Current, at: SystemTime) {
        self.published = true;
        let info = current.info.as_ref();
        let time = info.map_or(0, |info| {
            let since = info.time.duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            })
        });
        self.board.published(
            &Shown {
                id: current.commit,
                subject: info.map(|info| info.subject.clone()).unwrap_or_default(),
                author: info.map(|info| info.author.clone()).unwrap_or_default(),
                time,
            },
            at,
        );
        let reference = self.sync.target().reference.to_string();
        self.metrics.published(&reference, current.commit, time, at);
    }

    /// Tells everybody; returns the delay before the next attempt, or the end.
    fn after_failure(&mut self, failure: SyncError) -> Result<Duration, Ended> {
        if failure.is_cancelled() {
            return Err(Ended::Shutdown);
        }
        self.failures += 1;
        // What the failed cycle had begun is in the trash.
        self.housekeeping_due.get_or_insert_with(Instant::now);
        self.board.failed(&failure);
        self.metrics.failure(&failure);
        if let Some(file) = &self.sync.target().error_file
            && let Err(error) = files::write_error(file, &self.sync.target().name, &failure)
        {
            warn!(error = error.chain(), hint = error.hint(), "no error file");
        }
        let limit = if self.published && !self.schedule.0.one_time {
            self.schedule.0.max_failures
        } else {
            self.schedule.0.init_max_failures
        };
        if limit.is_some_and(|limit| self.failures > limit) {
            if self.schedule.0.one_time && self.schedule.0.allow_stale && self.published {
                warn!(
                    stage = failure.stage.as_str(),
                    reason = failure.reason.as_str(),
                    error = failure.chain(),
                    "the sync failed; the tree that is already there is accepted (--allow-stale)"
                );
                return Err(Ended::Done);
            }
            error!(
                stage = failure.stage.as_str(),
                reason = failure.reason.as_str(),
                error = failure.chain(),
                hint = failure.hint(),
                failures = self.failures,
                "the sync failed; giving up"
            );
            return Err(Ended::GaveUp(failure));
        }
        self.embargo = failure
            .retry_after
            .and_then(|asked| Instant::now().checked_add(asked.min(MAX_RETRY_AFTER)));
        let delay = self.schedule.after_failure(
            self.failures,
            self.published,
            failure.retry_after,
            fastrand::f64(),
        );
        error!(
            stage = failure.stage.as_str(),
            reason = failure.reason.as_str(),
            error = failure.chain(),
            hint = failure.hint(),
            failures = self.failures,
            retry_in = %shown(delay),
            "the sync failed"
        );
        Ok(delay)
    }

    /// Waits for the next attempt, and keeps house meanwhile.
    fn wait(&mut self, delay: Duration) -> Woken {
        let delay = match AFTER_NUDGE.get(self.follow_up) {
            Some(soon) if self.failures == 0 => {
                self.follow_up += 1;
                delay.min(*soon)
            }
            _ => delay,
        };
        let until = Instant::now().checked_add(delay);
        self.board.next_poll(delay);
        self.metrics.next_poll(delay);
        loop {
            let now = Instant::now();
            let left = until.map_or(delay, |until| until.saturating_duration_since(now));
            let chores = self
                .housekeeping_due
                .map(|due| due.saturating_duration_since(now));
            let woken = match chores {
                Some(chores) if chores < left => {
                    self.board.heartbeat(chores);
                    match self.wake.wait(chores) {
                        Woken::Timeout => {
                            self.keep_house(until);
                            self.link_ahead(until);
                            continue;
                        }
                        woken => woken,
                    }
                }
                _ => {
                    self.board.heartbeat(left);
                    self.wake.wait(left)
                }
            };
            if woken == Woken::Nudged {
                self.follow_up = 0;
                if self.embargo.is_some_and(|until| Instant::now() < until) {
                    debug!("nudged: polling as soon as the remote wants to be asked again");
                    continue;
                }
                debug!("nudged: polling now");
            }
            return woken;
        }
    }

    /// Removes what nobody needs any more.
    fn keep_house(&mut self, until: Option<Instant>) {
        self.board.heartbeat(HOUSEKEEPING);
        let started = Instant::now();
        let result = self.sync.keep_house(&self.patient_budget(until));
        self.metrics.stage(Stage::Prune, started.elapsed());
        let again_in = match result {
            Ok(upkeep) => {
                self.board.revisions_kept(upkeep.revisions);
                // A process that ends now is not scraped any more.
                let bytes = if self.schedule.0.one_time {
                    None
                } else {
                    let budget = self.budget(HOUSEKEEPING);
                    self.sync.measure(&budget)
                };
                self.metrics.volume(upkeep.revisions, bytes);
                upkeep.again_in
            }
            Err(error) if error.is_cancelled() => None,
            Err(error) if error.stage == Stage::Start => {
                // The next cycle finds the same, and tells.
                debug!(error = error.chain(), "housekeeping is put off");
                Some(HOUSEKEEPING_RETRY)
            }
            Err(error) => {
                self.metrics.failure_aside(&error);
                warn!(
                    stage = error.stage.as_str(),
                    reason = error.reason.as_str(),
                    error = error.chain(),
                    hint = error.hint(),
                    "housekeeping failed; it will be tried again"
                );
                Some(HOUSEKEEPING_RETRY)
            }
        };
        self.housekeeping_due = again_in.and_then(|again| Instant::now().checked_add(again));
    }

    /// Prepares for the next commit.
    fn link_ahead(&mut self, until: Option<Instant>) {
        // What cannot be built now would only be prepared again and again.
        if self.failures > 0 {
            return;
        }
        self.board.heartbeat(HOUSEKEEPING);
        if self.sync.link_ahead(&self.patient_budget(until)) {
            self.housekeeping_due = Some(Instant::now());
        }
    }

    /// The budget of what gives way to nudges and to what is due at `until`.
    fn patient_budget(&self, until: Option<Instant>) -> Budget {
        let budget = self.budget(HOUSEKEEPING);
        let until = until.unwrap_or_else(|| budget.deadline());
        budget.giving_way(until, self.wake.nudged())
    }
}

impl Schedule {
    /// The period, give or take a tenth, so that a fleet does not poll in step.
    fn after_success(&self, chance: f64) -> Duration {
        scaled(self.0.period, 0.9 + 0.2 * chance)
    }

    /// Doubles with each failure in a row, give or take a quarter; never sooner than the remote
    /// asked for (RFC 9110, section 10.2.3).
    fn after_failure(
        &self,
        failures: u64,
        published: bool,
        retry_after: Option<Duration>,
        chance: f64,
    ) -> Duration {
        let base = if published {
            self.0.period
        } else {
            self.0.init_period
        };
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2u32.saturating_pow(doublings.min(31));
        let grown = base.saturating_mul(factor).min(MAX_BACKOFF.max(base));
        let delay = scaled(grown, 0.75 + 0.5 * chance);
        retry_after.map_or(delay, |asked| delay.max(asked.min(MAX_RETRY_AFTER)))
    }
}

/// A period of years overflows nothing: it stays what it is.
fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(duration)
}

fn shown(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(period: u64) -> Schedule {
        Schedule(ScheduleConfig {
            period: Duration::from_secs(period),
            init_period: Duration::from_secs(1),
            one_time: false,
            allow_stale: false,
            max_failures: None,
            init_max_failures: None,
            sync_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(30),
        })
    }

    #[test]
    fn polls_are_spread_around_the_period() {
        assert_eq!(schedule(10).after_success(0.0), Duration::from_secs(9));
        assert_eq!(schedule(10).after_success(1.0), Duration::from_secs(11));
    }

    #[test]
    fn failures_back_off_to_a_minute_or_the_period() {
        let delay = |period, failures| {
            schedule(period)
                .after_failure(failures, true, None, 0.5)
                .as_secs()
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
        assert_eq!(
            schedule(10).after_failure(1, false, None, 0.5),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn the_remote_may_ask_for_more_patience_but_not_for_ever() {
        let asked = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            schedule(10).after_failure(1, true, asked, 0.5).as_secs()
        };
        assert_eq!([asked(1), asked(90), asked(1_000_000)], [10, 90, 3600]);
    }
}
