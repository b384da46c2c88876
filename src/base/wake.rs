//! Ends a wait early: a nudge to poll now, a request of the operator, or a shutdown.
//!
//! Requests are collected here until the sync thread takes them; each kind has one place, so the
//! number of requests does not matter. This module does not decide what a request leads to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::base::allowance::Allowance;
use crate::base::commit::Commit;

/// Wakes the loop that waits for its next poll.
#[derive(Debug)]
pub struct Wake {
    /// Held while a flag is set, so that a thread that is about to wait does not miss it.
    state: Mutex<State>,
    changed: Condvar,
    nudged: Arc<AtomicBool>,
    /// Set by a shutdown, and while a change of the pin waits.
    cancelled: Arc<AtomicBool>,
    ending: AtomicBool,
}

/// What was asked of the sync thread since it looked last.
#[derive(Debug, Default)]
pub struct Requests {
    /// Poll now.
    pub nudged: bool,
    /// The commit that the last nudge which named one named. It is a hint: it may decide how long
    /// to go on polling, and never what is fetched.
    pub announced: Option<Commit>,
    /// Hold readers on a revision, or follow the ref again.
    pub pin: Option<PinRequest>,
}

/// A request to change the pin, and where the answer goes.
#[derive(Debug)]
pub struct PinRequest {
    /// What is wanted.
    pub change: PinChange,
    /// Takes one answer and never blocks. It is closed without one when a later request takes the
    /// place of this one.
    pub answer: SyncSender<PinAnswer>,
}

/// What to do about the pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinChange {
    /// Hold readers on a kept revision of this commit; the text is the beginning of its id.
    Commit(String),
    /// Hold readers on what they saw before what they see now.
    Previous,
    /// Hold readers on what they see now.
    Current,
    /// Follow the ref again.
    Unpin,
}

/// The commit that readers are held on, or `None` when they follow the ref; or why nothing changed.
pub type PinAnswer = Result<Option<Commit>, String>;

/// Under the lock.
#[derive(Debug)]
struct State {
    requests: Requests,
    recheck: bool,
    allowance: Allowance,
}

/// Why [`Wake::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time has passed.
    Timeout,
    /// Somebody asks for something: see [`Wake::take`].
    Nudged,
    /// The process must end.
    Shutdown,
}

impl Wake {
    /// A wake without a nudge.
    pub fn new() -> Arc<Self> {
        Self::with_allowance(Allowance::unlimited())
    }

    /// The same, with a limit on the polls that nudges from the network may cause.
    pub fn with_allowance(allowance: Allowance) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                requests: Requests::default(),
                recheck: false,
                allowance,
            }),
            changed: Condvar::new(),
            nudged: Arc::default(),
            cancelled: Arc::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Ends the current wait, or else the next one. Several nudges before a wait count as one.
    pub fn nudge(&self) {
        self.request(|requests| requests.nudged = true);
    }

    /// A nudge that may name the commit that the remote is about to show. The last one that does
    /// counts.
    pub fn announce(&self, commit: Option<Commit>) {
        self.request(|requests| {
            requests.nudged = true;
            requests.announced = commit.or(requests.announced);
        });
    }

    /// Asks for a poll now, and for a new check of the remote's commit if it was rejected.
    pub fn recheck(&self) {
        self.lock().recheck = true;
        self.nudge();
    }

    /// Whether a new check was asked for since the last call.
    pub fn take_recheck(&self) -> bool {
        std::mem::take(&mut self.lock().recheck)
    }

    /// Asks for a change of the pin. A cycle that is running is cancelled, because an operator who
    /// rolls back does not wait for a remote that hangs.
    pub fn pin(&self, request: PinRequest) {
        self.request(|requests| {
            requests.pin = Some(request);
            self.cancelled.store(true, Ordering::Relaxed);
        });
    }

    /// Takes what was asked for since the last call.
    pub fn take(&self) -> Requests {
        let mut state = self.lock();
        self.nudged.store(false, Ordering::Relaxed);
        if !self.is_shutdown() {
            self.cancelled.store(false, Ordering::Relaxed);
        }
        std::mem::take(&mut state.requests)
    }

    /// Whether a nudge from the network may cause one more poll now; counts it if so.
    pub fn allow_poll(&self) -> bool {
        self.lock().allowance.take(Instant::now())
    }

    /// Ends every wait from now on, and cancels every budget that shares [`Wake::cancelled`].
    pub fn shutdown(&self) {
        let state = self.lock();
        self.ending.store(true, Ordering::Relaxed);
        self.cancelled.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the process must end.
    pub fn is_shutdown(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// The flag that a shutdown sets, and a change of the pin until it is taken: for the budgets of
    /// operations that must end with either.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    /// The flag that is set from a request until the next wait, for work that gives way to it.
    pub fn nudged(&self) -> Arc<AtomicBool> {
        self.nudged.clone()
    }

    /// Waits until `timeout` has passed on the monotonic clock, for a request, or for a shutdown.
    ///
    /// A shutdown wins over a request: after it, every wait returns [`Woken::Shutdown`] at once.
    pub fn wait(&self, timeout: Duration) -> Woken {
        // If the clock cannot express the deadline, there is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if self.is_shutdown() {
                return Woken::Shutdown;
            }
            if self.nudged.swap(false, Ordering::Relaxed) {
                return Woken::Nudged;
            }
            state = match deadline {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Woken::Timeout;
                    }
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    fn request(&self, set: impl FnOnce(&mut Requests)) {
        let mut state = self.lock();
        set(&mut state.requests);
        self.nudged.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    /// Each use leaves the state whole, so a poisoned lock is as good as a sound one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn nudges_that_nobody_waited_for_are_one() {
        let wake = Wake::new();
        let nudged = wake.nudged();
        assert!(!nudged.load(Ordering::Relaxed));
        wake.nudge();
        wake.nudge();
        assert!(nudged.load(Ordering::Relaxed));
        assert_eq!(wake.wait(LONG), Woken::Nudged);
        assert!(!nudged.load(Ordering::Relaxed));
        assert_eq!(wake.wait(Duration::from_millis(1)), Woken::Timeout);
    }

    #[test]
    fn a_recheck_is_a_nudge_that_is_taken_once() {
        let wake = Wake::new();
        wake.recheck();
        assert_eq!(wake.wait(LONG), Woken::Nudged);
        assert!(wake.take().nudged);
        assert!(wake.take_recheck());
        assert!(!wake.take_recheck());
    }

    #[test]
    fn a_nudge_ends_a_wait_that_has_begun() {
        let wake = Wake::new();
        let waiter = {
            let wake = wake.clone();
            std::thread::spawn(move || wake.wait(Duration::MAX))
        };
        wake.nudge();
        assert_eq!(waiter.join().unwrap(), Woken::Nudged);
    }

    #[test]
    fn a_shutdown_wins_and_lasts() {
        let wake = Wake::new();
        let cancelled = wake.cancelled();
        wake.nudge();
        assert!(!wake.is_shutdown());
        wake.shutdown();
        assert_eq!(wake.wait(LONG), Woken::Shutdown);
        assert_eq!(wake.wait(LONG), Woken::Shutdown);
        assert!(wake.is_shutdown() && cancelled.load(Ordering::Relaxed));
    }

    #[test]
    fn the_last_announced_commit_counts_and_a_nudge_without_one_does_not_hide_it() {
        let wake = Wake::new();
        let commit = |digit: &str| Some(digit.repeat(40).parse().unwrap());
        wake.announce(commit("a"));
        wake.announce(commit("b"));
        wake.announce(None);
        let requests = wake.take();
        assert!(requests.nudged);
        assert_eq!(requests.announced, commit("b"));
        let nothing = wake.take();
        assert!(!nothing.nudged && nothing.announced.is_none());
    }

    #[test]
    fn a_later_change_of_the_pin_takes_the_place_of_an_earlier_one() {
        let wake = Wake::new();
        let cancelled = wake.cancelled();
        let pin = |change| {
            let (answer, answered) = std::sync::mpsc::sync_channel(1);
            wake.pin(PinRequest { change, answer });
            answered
        };
        let first = pin(PinChange::Previous);
        let second = pin(PinChange::Unpin);
        assert!(first.recv().is_err());
        assert!(cancelled.load(Ordering::Relaxed) && !wake.is_shutdown());
        let request = wake.take().pin.unwrap();
        assert!(!cancelled.load(Ordering::Relaxed));
        assert_eq!(request.change, PinChange::Unpin);
        request.answer.send(Ok(None)).unwrap();
        assert_eq!(second.recv().unwrap(), Ok(None));
    }
}
