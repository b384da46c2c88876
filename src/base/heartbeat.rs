//! Proof that a loop still runs: it promises when it will beat next, and others see a broken
//! promise.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How late a beat may be before the loop counts as stuck.
pub const GRACE: Duration = Duration::from_secs(10);

/// How soon after [`Heartbeat::new`] the first beat is expected.
pub const START: Duration = Duration::from_secs(60);

/// The time of the next promised beat. The loop writes it, the watchdog and `/livez` read it.
#[derive(Debug)]
pub struct Heartbeat {
    /// `None` where the clock cannot express the time, which therefore never comes.
    due: Mutex<Option<Instant>>,
}

impl Heartbeat {
    /// A heartbeat whose first beat is due within [`START`].
    pub fn new() -> Self {
        Self {
            due: Mutex::new(Instant::now().checked_add(START)),
        }
    }

    /// Says that the loop is alive, and promises the next beat within `within`.
    pub fn beat(&self, within: Duration) {
        *self.lock() = Instant::now().checked_add(within);
    }

    /// Whether the loop is alive at `now`: the promised beat is less than [`GRACE`] late.
    pub fn is_alive(&self, now: Instant) -> bool {
        let due = *self.lock();
        due.is_none_or(|due| now.saturating_duration_since(due) <= GRACE)
    }

    /// A poisoned lock holds a whole value, because each use is one assignment or one copy.
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_overdue_beat_is_a_stuck_loop() {
        let heartbeat = Heartbeat::new();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert!(heartbeat.is_alive(start + START + GRACE - second));
        assert!(!heartbeat.is_alive(start + START + GRACE + second));
        let within = Duration::from_secs(3600);
        heartbeat.beat(within);
        assert!(heartbeat.is_alive(start + within + GRACE));
        assert!(!heartbeat.is_alive(start + within + GRACE + second));
        heartbeat.beat(Duration::MAX);
        assert!(heartbeat.is_alive(start + within * 1000));
    }
}
