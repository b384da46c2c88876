//! The work that one step of a build may do: counted, limited, and interrupted when the build ends.
//!
//! A step is about one comparison, so a million steps take a few milliseconds. What counts a step is
//! up to the callers; this module only adds up.

use crate::base::error::{Reason, Stage, SyncError};

/// Steps between two looks at the budget: a few milliseconds.
const CHECK_EVERY: u64 = 1 << 20;

/// Counts steps; see the module.
pub struct Effort<'a> {
    spent: u64,
    limit: u64,
    next_check: u64,
    proceed: &'a dyn Fn() -> Result<(), SyncError>,
}

impl<'a> Effort<'a> {
    /// At most `limit` steps. `proceed` fails when the build must end; it is called after each
    /// million of steps.
    pub fn new(limit: u64, proceed: &'a dyn Fn() -> Result<(), SyncError>) -> Self {
        Self {
            spent: 0,
            limit,
            next_check: CHECK_EVERY,
            proceed,
        }
    }

    /// The steps so far.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Counts steps.
    ///
    /// # Errors
    /// Reason `limit` beyond the limit, or the error of `proceed`.
    pub fn spend(&mut self, steps: u64) -> Result<(), SyncError> {
        self.spent = self.spent.saturating_add(steps);
        if self.spent > self.limit {
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("it takes more than {} steps", self.limit),
            ));
        }
        if self.spent >= self.next_check {
            self.next_check = self.spent.saturating_add(CHECK_EVERY);
            (self.proceed)()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_budget_is_asked_after_each_million_steps_and_the_limit_is_exact() {
        let asked = Cell::new(0);
        let proceed = || {
            asked.set(asked.get() + 1);
            Ok(())
        };
        let mut effort = Effort::new(3 * CHECK_EVERY, &proceed);
        for _ in 0..3 * CHECK_EVERY {
            effort.spend(1).unwrap();
        }
        assert_eq!(asked.get(), 3);
        assert_eq!(effort.spend(1).unwrap_err().reason, Reason::Limit);
    }
}
