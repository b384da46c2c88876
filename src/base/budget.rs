//! How long an operation may take in total and per step, and whether it must stop.
//!
//! A budget interrupts nothing by itself. Code that blocks (a read, a lock, a wait) limits each call to
//! [`Budget::step`] and checks again after it. Work that can be continued later also checks
//! [`Budget::gives_way`] at the points where it can stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time that is left for one operation. Clones share the deadline and the cancellation.
#[derive(Clone, Debug)]
pub struct Budget {
    deadline: Instant,
    stall: Duration,
    cancelled: Arc<AtomicBool>,
    urgent: Option<Urgent>,
}

/// What takes precedence over work that can be continued later.
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
    /// A budget that ends after `total`. One step without progress may take at most `stall`. Setting
    /// `cancelled` ends it at once.
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

    /// The same budget for work that can be continued later: it should stop at `due`, or when `asked`
    /// is set.
    #[must_use]
    pub fn giving_way(self, due: Instant, asked: Arc<AtomicBool>) -> Self {
        let urgent = Some(Urgent { due, asked });
        Self { urgent, ..self }
    }

    /// Whether the work should stop at the next point where it can be continued later.
    pub fn gives_way(&self) -> bool {
        self.urgent.as_ref().is_some_and(|urgent| {
            urgent.asked.load(Ordering::Relaxed) || Instant::now() >= urgent.due
        })
    }

    /// The instant at which the total time is used up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The flag that cancels the budget, for code that checks it in its own way.
    pub fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// Fails if the total time is used up or the budget is cancelled.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.remaining().map(drop)
    }

    /// The rest of the total time; never zero.
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

    /// How long the next blocking call may wait for progress: the stall limit, or the rest of the
    /// total time if that is shorter.
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
