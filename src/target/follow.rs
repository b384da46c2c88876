//! The loop around the cycles of one target: when to try, when to give up, whom to tell.
//!
//! Delays come from [`schedule`], which is pure; the one wait is on [`Wake`]. This module does not
//! know what a cycle does.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::debug;

use super::context::Context;
use super::cycle::{Outcome as Done, Syncer};
use super::housekeeping::Housekeeping;
use super::schedule::{self, FollowUp};
use super::settings::{ScheduleConfig, Target};
use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::heartbeat::Heartbeat;
use crate::base::wake::{PinAnswer, PinChange, Wake, Woken};
use crate::notify::event::{AfterFailure, Failure, Found, Outcome, Pruned, Published, Rejection};
use crate::notify::{Event, Observers};
use crate::volume::Pin;

/// How long housekeeping may take at a time.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// When housekeeping is tried again after it failed or ran out of time.
const HOUSEKEEPING_RETRY: Duration = Duration::from_secs(60);

/// How long the end of the loop waits for observers that are still at work.
const FLUSH: Duration = Duration::from_secs(5);

/// How the loop ended.
#[derive(Debug)]
pub enum Ended {
    /// `--one-time`: the link is on the remote's commit.
    Done,
    /// The process is to end.
    Shutdown,
    /// Too many failures; the last one.
    GaveUp(SyncError),
}

/// Runs the cycles of one target until they are done, given up or shut down.
pub struct Follower {
    settings: Arc<Target>,
    syncer: Syncer,
    wake: Arc<Wake>,
    heartbeat: Arc<Heartbeat>,
    observers: Observers,
    /// Failed cycles in a row.
    failures: u64,
    /// Whether readers have a tree.
    published: bool,
    follow_up: FollowUp,
    housekeeping_due: Option<Instant>,
    /// Until when the remote asked not to be asked again.
    embargo: Option<Instant>,
    /// What readers are held on, as the observers were told.
    pinned: Option<Pin>,
    /// Whether the observers were told that the volume is open.
    opened: bool,
    /// When the last success was, or the start.
    fresh_since: Instant,
    /// Whether the observers know that this is too long ago.
    told_stale: bool,
}

impl Follower {
    /// A loop that has not begun yet.
    pub fn new(
        settings: Arc<Target>,
        syncer: Syncer,
        wake: Arc<Wake>,
        heartbeat: Arc<Heartbeat>,
        observers: Observers,
    ) -> Self {
        Self {
            settings,
            syncer,
            wake,
            heartbeat,
            observers,
            failures: 0,
            published: false,
            follow_up: FollowUp::default(),
            housekeeping_due: None,
            embargo: None,
            pinned: None,
            opened: false,
            fresh_since: Instant::now(),
            told_stale: false,
        }
    }

    /// Runs until there is nothing more to do.
    pub fn run(mut self) -> Ended {
        self.observers.emit(&Event::Started);
        let ended = match self.follow() {
            Ended::Done => self.finish_hooks(),
            ended => ended,
        };
        self.observers.emit(&Event::Stopped);
        if !self.observers.flush(FLUSH) {
            debug!("not every observer has heard everything before the end");
        }
        ended
    }

    /// Waits until each hook has told the news once. A hook that failed makes the run a failure.
    fn finish_hooks(&mut self) -> Ended {
        self.heartbeat.beat(self.observers.hooks_limit());
        let failures = self.observers.finish_hooks(&self.wake.cancelled());
        if self.wake.is_shutdown() {
            return Ended::Shutdown;
        }
        if failures.is_empty() {
            return Ended::Done;
        }
        let what = format!(
            "the tree is published, but a hook failed: {}",
            failures.join("; ")
        );
        Ended::GaveUp(SyncError::new(Stage::Notify, Reason::Other, what))
    }

    fn follow(&mut self) -> Ended {
        loop {
            let result = self.attempt();
            if self.wake.is_shutdown() {
                return Ended::Shutdown;
            }
            let delay = match result {
                Ok(()) if self.schedule().one_time => {
                    // With --one-time there is no later cycle, so clean up now.
                    self.keep_tidy(None);
                    return Ended::Done;
                }
                Ok(()) => schedule::after_success(self.schedule(), fastrand::f64()),
                // A change of the pin cancelled the cycle: begin again after it.
                Err(error) if error.is_cancelled() => Duration::ZERO,
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

    fn schedule(&self) -> &ScheduleConfig {
        &self.settings.schedule
    }

    fn budget(&self, total: Duration) -> Budget {
        let stall = self.schedule().stall_timeout;
        Budget::new(total, stall, self.wake.cancelled())
    }

    /// One cycle, and the events that it leads to.
    fn attempt(&mut self) -> Result<(), SyncError> {
        let timeout = self.schedule().sync_timeout;
        let budget = self.budget(timeout);
        self.heartbeat.beat(timeout);
        self.observers.emit(&Event::Attempt);
        let started = Instant::now();
        let settings = self.settings.clone();
        let mut context = Context::new(&settings, &budget, &mut self.observers);
        context.recheck = self.wake.take_recheck();
        let opened = self.syncer.open(&mut context);
        // Again after the volume was lost, because another directory may be there now.
        if !std::mem::replace(&mut self.opened, self.syncer.is_open()) && self.opened {
            context.emit(&Event::Opened);
        }
        if !self.published
            && let Some((commit, path, manifest)) = self.syncer.current()
        {
            let since = fs::metadata(manifest).and_then(|file| file.modified());
            let since = since.unwrap_or_else(|_| SystemTime::now());
            context.emit(&Event::Found(Found {
                commit,
                path,
                since,
            }));
            self.published = true;
            self.housekeeping_due = Some(Instant::now());
        }
        let held = opened.and_then(|()| self.syncer.hold(&mut context));
        let result = held.and_then(|held| {
            if tell_held(held, &mut self.pinned, &mut context) {
                self.published = true;
                self.housekeeping_due = Some(Instant::now());
            }
            self.syncer.cycle(&mut context)
        });
        let report = context.report;
        if let Some(tip) = self.syncer.tip {
            self.follow_up.shows(tip);
        }

        if report.fetched_bytes > 0 {
            // Whether or not it is published, it takes up disk space.
            self.housekeeping_due.get_or_insert_with(Instant::now);
        }
        if report.flipped {
            // The new tree is to be synced, whether or not the cycle succeeded afterwards.
            self.housekeeping_due = Some(Instant::now());
        }
        let outcome = match &result {
            Ok(Done::Unchanged | Done::Rejected(_)) => Outcome::Unchanged,
            Ok(Done::Published(_)) => Outcome::Changed,
            Err(error) if error.is_cancelled() => Outcome::Cancelled,
            Err(_) => Outcome::Error,
        };
        let work = report.into_work(outcome, started.elapsed());
        self.observers.emit(&Event::Finished(work));
        self.succeeded(result?)
    }

    /// Tells the observers. A rejected commit is a failure only with `--one-time`, because a sidecar
    /// waits for the next commit.
    fn succeeded(&mut self, done: Done) -> Result<(), SyncError> {
        self.embargo = None;
        self.fresh_since = Instant::now();
        self.told_stale = false;
        let event = match done {
            Done::Unchanged => Event::Unchanged,
            Done::Published(published) => {
                self.published = true;
                self.follow_up.published();
                self.housekeeping_due = Some(Instant::now());
                Event::Published(*published)
            }
            Done::Rejected(rejection) => {
                self.housekeeping_due.get_or_insert_with(Instant::now);
                if self.schedule().one_time {
                    let error = rejected(&rejection);
                    self.observers.emit(&Event::Rejected(rejection));
                    return Err(error);
                }
                Event::Rejected(rejection)
            }
        };
        if self.failures > 0 {
            self.observers.emit(&Event::Recovered {
                failures: self.failures,
            });
            // No spare tree was filled meanwhile, and that begins with housekeeping.
            self.housekeeping_due = Some(Instant::now());
        }
        self.failures = 0;
        self.observers.emit(&event);
        Ok(())
    }

    /// Tells the observers; returns the delay before the next attempt, or the end.
    fn after_failure(&mut self, error: SyncError) -> Result<Duration, Ended> {
        if error.is_cancelled() {
            return Err(Ended::Shutdown);
        }
        self.failures += 1;
        // The trash holds what the failed cycle had begun.
        self.housekeeping_due.get_or_insert_with(Instant::now);
        let next = self.next_step(&error);
        let failure = Failure::new(&error, self.failures, next);
        self.observers.emit(&Event::Failed(failure));
        self.tell_stale();
        match next {
            AfterFailure::AcceptStale => Err(Ended::Done),
            AfterFailure::GiveUp => Err(Ended::GaveUp(error)),
            AfterFailure::RetryIn(delay) => {
                self.embargo = schedule::embargo(error.retry_after)
                    .and_then(|asked| Instant::now().checked_add(asked));
                Ok(delay)
            }
        }
    }

    /// Tells once that the last success, or the start, is too long ago.
    fn tell_stale(&mut self) {
        let age = self.fresh_since.elapsed();
        let is_stale = self.settings.max_staleness.is_some_and(|max| age > max);
        if is_stale && !std::mem::replace(&mut self.told_stale, true) {
            self.observers.emit(&Event::Stale { age });
        }
    }

    fn next_step(&self, error: &SyncError) -> AfterFailure {
        let settings = self.schedule();
        let limit = schedule::limit(settings, self.published);
        if limit.is_none_or(|limit| self.failures <= limit) {
            return AfterFailure::RetryIn(schedule::after_failure(
                settings,
                self.failures,
                self.published,
                error.retry_after,
                fastrand::f64(),
            ));
        }
        if settings.one_time && settings.allow_stale && self.published {
            AfterFailure::AcceptStale
        } else {
            AfterFailure::GiveUp
        }
    }

    /// Waits for the next attempt, and does housekeeping and what is asked for meanwhile.
    fn wait(&mut self, delay: Duration) -> Woken {
        let delay = if self.failures == 0 {
            self.look_again(delay)
        } else {
            delay
        };
        let until = Instant::now().checked_add(delay);
        self.observers.emit(&Event::Waiting { next_poll: delay });
        loop {
            let now = Instant::now();
            let left = until.map_or(delay, |until| until.saturating_duration_since(now));
            let chores = self
                .housekeeping_due
                .map(|due| due.saturating_duration_since(now));
            let woken = match chores {
                Some(chores) if chores < left => {
                    self.heartbeat.beat(chores);
                    match self.wake.wait(chores) {
                        Woken::Timeout => {
                            self.keep_tidy(until);
                            self.fill_spare(until);
                            continue;
                        }
                        woken => woken,
                    }
                }
                _ => {
                    self.heartbeat.beat(left);
                    self.wake.wait(left)
                }
            };
            if woken == Woken::Nudged {
                if !self.serve_requests() {
                    continue;
                }
                if self.embargo.is_some_and(|until| Instant::now() < until) {
                    debug!("nudged: polling as soon as the remote wants to be asked again");
                    continue;
                }
                debug!("nudged: polling now");
            }
            return woken;
        }
    }

    /// The wait before the next poll while a nudge is followed up. Such polls count against the
    /// limit of what nudges may cause.
    fn look_again(&mut self, delay: Duration) -> Duration {
        let sooner = self.follow_up.shorten(Instant::now(), delay);
        if sooner < delay && self.wake.allow_poll() {
            sooner
        } else {
            delay
        }
    }

    /// Does what was asked for. Returns whether to poll now.
    fn serve_requests(&mut self) -> bool {
        let requests = self.wake.take();
        let mut poll = requests.nudged;
        if requests.nudged {
            let wait = self.schedule().nudge_wait;
            self.follow_up
                .begin(requests.announced, Instant::now(), wait);
        }
        if let Some(request) = requests.pin {
            let unpin = request.change == PinChange::Unpin;
            let answer = self.change_pin(&request.change);
            poll |= unpin && answer.is_ok();
            // Nobody may be waiting for it any more.
            let _ = request.answer.try_send(answer);
        }
        poll
    }

    /// Changes the pin and puts readers on it, without the remote.
    fn change_pin(&mut self, change: &PinChange) -> PinAnswer {
        self.heartbeat.beat(HOUSEKEEPING);
        let budget = self.budget(HOUSEKEEPING);
        let settings = self.settings.clone();
        let mut context = Context::new(&settings, &budget, &mut self.observers);
        let changed = self.syncer.change_pin(change, &mut context)?;
        let held = self.syncer.hold(&mut context);
        let held = held.map_err(|error| error.chain())?;
        if tell_held(held, &mut self.pinned, &mut context) {
            self.published = true;
            self.housekeeping_due = Some(Instant::now());
        }
        Ok(changed)
    }

    /// Removes what is no longer needed.
    fn keep_tidy(&mut self, until: Option<Instant>) {
        self.heartbeat.beat(HOUSEKEEPING);
        let started = Instant::now();
        let budget = self.patient_budget(until);
        let settings = self.settings.clone();
        let mut context = Context::new(&settings, &budget, &mut self.observers);
        let result = self.syncer.keep_tidy(&mut context);
        let again_in = match result {
            Ok(Housekeeping::Done {
                revisions,
                again_in,
            }) => {
                let took = started.elapsed();
                // Nobody scrapes a process that ends now.
                let bytes = if self.schedule().one_time {
                    None
                } else {
                    let budget = self.budget(HOUSEKEEPING);
                    self.syncer.measure(&budget)
                };
                self.observers.emit(&Event::Pruned(Pruned {
                    revisions,
                    bytes,
                    took,
                }));
                again_in
            }
            Ok(Housekeeping::PutOff(error)) => {
                debug!(error = error.chain(), "housekeeping is put off");
                Some(HOUSEKEEPING_RETRY)
            }
            Err(error) if error.is_cancelled() => Some(HOUSEKEEPING_RETRY),
            Err(error) => {
                let next = AfterFailure::RetryIn(HOUSEKEEPING_RETRY);
                let failure = Failure::new(&error, 0, next);
                self.observers.emit(&Event::HousekeepingFailed(failure));
                Some(HOUSEKEEPING_RETRY)
            }
        };
        self.housekeeping_due = again_in.and_then(|again| Instant::now().checked_add(again));
    }

    /// Prepares for the next commit.
    fn fill_spare(&mut self, until: Option<Instant>) {
        // A tree that cannot be built now would only be prepared again and again.
        if self.failures > 0 {
            return;
        }
        self.heartbeat.beat(HOUSEKEEPING);
        if self.syncer.fill_spare(&self.patient_budget(until)) {
            self.housekeeping_due = Some(Instant::now());
        }
    }

    /// A budget for work that gives way to nudges and to the poll that is due at `until`.
    fn patient_budget(&self, until: Option<Instant>) -> Budget {
        let budget = self.budget(HOUSEKEEPING);
        let until = until.unwrap_or_else(|| budget.deadline());
        budget.giving_way(until, self.wake.nudged())
    }
}

/// Tells the observers what readers are held on, if that changed. Returns whether the link was
/// flipped.
fn tell_held(
    (pin, flipped): (Option<Pin>, Option<Box<Published>>),
    told: &mut Option<Pin>,
    context: &mut Context<'_>,
) -> bool {
    if pin != *told {
        *told = pin;
        context.emit(&match pin {
            Some(pin) => Event::Pinned {
                commit: pin.commit,
                since: pin.since,
            },
            None => Event::Unpinned,
        });
    }
    let Some(published) = flipped else {
        return false;
    };
    context.emit(&Event::Published(*published));
    true
}

/// The error that ends `--one-time` when the commit is rejected.
fn rejected(rejection: &Rejection) -> SyncError {
    SyncError::new(Stage::Check, Reason::Check, rejection.to_string()).with_hint(Rejection::HINT)
}
