//! How long an operation may take in total and per step, and whether to go on at all.
//!
//! A budget is asked; it interrupts nothing by itself. Whoever blocks (a read, a lock, a wait)
//! bounds that by [`Budget::step`] and asks again. Work that can wait also asks
//! [`Budget::gives_way`], where it can be left and taken up again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time that is left for one operation, shared by all who work on it.
#[derive(Clone, Debug)]
pub struct Budget {
    deadline: Instant,
    stall: Duration,
    cancelled: Arc<AtomicBool>,
    urgent: Option<Urgent>,
}

/// What has precedence over work that can wait.
#[derive(Clone, Debug)]
struct Urgent {
    due: Instant,
    asked: Arc<AtomicBool>,
}

/// Why an operation must end before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The process is shutting down.
    Cancelled,
    /// The total time is used up.
    DeadlineExceeded,
}

impl Budget {
    /// A budget of `total` from now on; no single step without progress may take longer than
    /// `stall`. Setting `cancelled` ends it at once.
    pub fn new(total: Duration, stall: Duration, cancelled: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        let deadline = now
            .checked_add(total)
            .unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()));
        Self {
            deadline,
            stall,
            cancelled,
            urgent: None,
        }
    }

    /// The same for work that can wait: something else is due at an instant, or as soon as `asked`
    /// is set.
    #[must_use]
    pub fn giving_way(self, due: Instant, asked: Arc<AtomicBool>) -> Self {
        let urgent = Some(Urgent { due, asked });
        Self { urgent, ..self }
    }

    /// Whether to stop at the next good place, having got somewhere: something else is due.
    pub fn gives_way(&self) -> bool {
        self.urgent.as_ref().is_some_and(|urgent| {
            urgent.asked.load(Ordering::Relaxed) || Instant::now() >= urgent.due
        })
    }

    /// The instant at which the total is used up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The flag that ends the budget, for those who poll it in their own way.
    pub fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// Fails once the total is used up or the budget was cancelled.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.remaining().map(drop)
    }

    /// What is left of the total: never zero.
    pub fn remaining(&self) -> Result<Duration, Interrupted> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Interrupted::Cancelled);
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Interrupted::DeadlineExceeded);
        }
        Ok(left)
    }

    /// How long the next blocking call may wait for progress: the stall limit, or what is left.
    pub fn step(&self) -> Result<Duration, Interrupted> {
        self.remaining().map(|left| left.min(self.stall))
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline exceeded",
        })
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_budget_has_nothing_left() {
        let cancelled = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(Duration::MAX, Duration::from_secs(7), cancelled.clone());
        assert_eq!(budget.step(), Ok(Duration::from_secs(7)));
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(budget.check(), Err(Interrupted::Cancelled));
    }

    #[test]
    fn a_spent_budget_is_a_deadline_exceeded() {
        let budget = Budget::new(Duration::ZERO, Duration::MAX, Arc::default());
        assert_eq!(budget.step(), Err(Interrupted::DeadlineExceeded));
    }

    #[test]
    fn work_that_can_wait_gives_way_when_asked_and_when_something_is_due() {
        let budget = || Budget::new(Duration::MAX, Duration::MAX, Arc::default());
        assert!(!budget().gives_way());
        let asked = Arc::new(AtomicBool::new(false));
        let later = Instant::now() + Duration::from_secs(3600);
        let patient = budget().giving_way(later, asked.clone());
        assert!(!patient.gives_way());
        asked.store(true, Ordering::Relaxed);
        assert!(patient.gives_way());
        assert_eq!(patient.check(), Ok(()));
        assert!(
            budget()
                .giving_way(Instant::now(), Arc::default())
                .gives_way()
        );
    }
}
