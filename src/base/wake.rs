//! Ends a wait early: a nudge to poll now, or a shutdown.
//!
//! This module does not know what a nudge causes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wakes the loop that waits for its next poll.
#[derive(Debug, Default)]
pub struct Wake {
    /// Held while a flag is set, so that a thread that is about to wait does not miss it.
    setting: Mutex<()>,
    changed: Condvar,
    nudged: Arc<AtomicBool>,
    recheck: AtomicBool,
    cancelled: Arc<AtomicBool>,
}

/// Why [`Wake::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time has passed.
    Timeout,
    /// A poll is requested now.
    Nudged,
    /// The process must end.
    Shutdown,
}

impl Wake {
    /// A wake without a nudge.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Ends the current wait, or else the next one. Several nudges before a wait count as one.
    pub fn nudge(&self) {
        self.set(&self.nudged);
    }

    /// Asks for a poll now, and for a new check of the remote's commit if it was rejected.
    pub fn recheck(&self) {
        self.recheck.store(true, Ordering::Relaxed);
        self.nudge();
    }

    /// Whether a new check was asked for since the last call.
    pub fn take_recheck(&self) -> bool {
        self.recheck.swap(false, Ordering::Relaxed)
    }

    /// Ends every wait from now on, and cancels every budget that shares [`Wake::cancelled`].
    pub fn shutdown(&self) {
        self.set(&self.cancelled);
    }

    /// Whether the process must end.
    pub fn is_shutdown(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The flag that a shutdown sets, for the budgets of operations that must end with it.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    /// The flag that is set from a nudge until the next wait, for work that gives way to a poll.
    pub fn nudged(&self) -> Arc<AtomicBool> {
        self.nudged.clone()
    }

    /// Waits until `timeout` has passed on the monotonic clock, for a nudge, or for a shutdown.
    ///
    /// A shutdown wins over a nudge: after it, every wait returns [`Woken::Shutdown`] at once.
    pub fn wait(&self, timeout: Duration) -> Woken {
        // If the clock cannot express the deadline, there is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut setting = self.lock();
        loop {
            if self.is_shutdown() {
                return Woken::Shutdown;
            }
            if self.nudged.swap(false, Ordering::Relaxed) {
                return Woken::Nudged;
            }
            setting = match deadline {
                None => self
                    .changed
                    .wait(setting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Woken::Timeout;
                    }
                    self.changed
                        .wait_timeout(setting, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    fn set(&self, flag: &AtomicBool) {
        let setting = self.lock();
        flag.store(true, Ordering::Relaxed);
        drop(setting);
        self.changed.notify_all();
    }

    /// The lock guards no data, so poisoning does not matter.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn nudges_before_a_wait_count_as_one() {
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
}
