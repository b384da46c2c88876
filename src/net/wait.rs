//! One wait for progress, bounded by a budget and cut into slices so that a cancellation is noticed.

use std::time::{Duration, Instant};

use crate::base::budget::{Budget, Interrupted};

/// The longest that a blocking call may take before the budget is checked again.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Why a wait ended without progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The budget was used up or cancelled.
    Interrupted(Interrupted),
    /// There was no progress for this long, the stall limit.
    Stalled(Duration),
}

/// A wait that has begun.
#[derive(Debug)]
pub(super) struct Wait {
    budget: Budget,
    since: Instant,
    limit: Duration,
}

impl Wait {
    /// Begins to wait for the next progress.
    pub(super) fn begin(budget: &Budget) -> Result<Self, Stop> {
        Ok(Self {
            limit: budget.step().map_err(Stop::Interrupted)?,
            budget: budget.clone(),
            since: Instant::now(),
        })
    }

    /// How long the next blocking call may take; an error once there is no more time to wait.
    pub(super) fn slice(&self) -> Result<Duration, Stop> {
        let total = self.budget.remaining().map_err(Stop::Interrupted)?;
        let left = self.limit.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            return Err(Stop::Stalled(self.limit));
        }
        Ok(SLICE.min(left).min(total))
    }
}

/// To a tenth of a second, for messages.
pub(super) fn shown(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis() / 100 * 100).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}
