//! How often something may happen: so many times an hour, and so many at once.
//!
//! This module reads no clock: the caller says what time it is.

use std::time::{Duration, Instant};

/// A token bucket. It is full at first.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// How long one token takes to come back; `None` without a limit.
    interval: Option<Duration>,
    burst: u32,
    /// When the bucket is full again; in the past where it is full.
    full_at: Option<Instant>,
}

impl Allowance {
    /// `per_hour` tokens come back in an hour, and `burst` of them can be taken at once. A
    /// `per_hour` or `burst` of 0 allows nothing.
    pub fn new(per_hour: u32, burst: u32) -> Self {
        let interval = match per_hour {
            0 => Duration::MAX,
            some => Duration::from_secs(3600) / some,
        };
        let burst = if per_hour == 0 { 0 } else { burst };
        Self {
            interval: Some(interval),
            burst,
            full_at: None,
        }
    }

    /// An allowance that never ends.
    pub fn unlimited() -> Self {
        Self {
            interval: None,
            burst: 0,
            full_at: None,
        }
    }

    /// Takes a token, if there is one at `now`.
    pub fn take(&mut self, now: Instant) -> bool {
        let taken = self.next(now) == Some(now);
        if let Some(interval) = self.interval
            && taken
        {
            let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
            self.full_at = full_at.checked_add(interval);
        }
        taken
    }

    /// When the next token is there: `now` if it is; `None` if it never is.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let Some(interval) = self.interval else {
            return Some(now);
        };
        // One token is missing for each interval until the bucket is full.
        let spare = interval.checked_mul(self.burst.checked_sub(1)?)?;
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        Some(full_at.checked_sub(spare).unwrap_or(now).max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_one_token_an_interval() {
        let start = Instant::now();
        let mut allowance = Allowance::new(600, 60);
        let taken = (0..100).filter(|_| allowance.take(start)).count();
        assert_eq!(taken, 60);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(allowance.next(start), Some(at(6)));
        assert!(!allowance.take(at(5)));
        assert!(allowance.take(at(6)) && !allowance.take(at(6)));
        // Tokens do not pile up beyond the burst.
        let later = at(24 * 3600);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 60);
    }

    #[test]
    fn over_an_hour_there_are_no_more_than_the_rate_and_the_burst() {
        let start = Instant::now();
        let mut allowance = Allowance::new(600, 60);
        let taken = (0..36_000)
            .filter(|tenth| allowance.take(start + Duration::from_millis(100) * *tenth))
            .count();
        assert_eq!(taken, 60 + 599);
    }

    #[test]
    fn nothing_and_everything_can_be_allowed() {
        let now = Instant::now();
        for mut nothing in [Allowance::new(0, 60), Allowance::new(600, 0)] {
            assert!(!nothing.take(now) && nothing.next(now).is_none());
        }
        let mut everything = Allowance::unlimited();
        assert!((0..1000).all(|_| everything.take(now)));
    }
}
