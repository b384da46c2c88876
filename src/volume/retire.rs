//! Which old trees go, and when.
//!
//! A revision retires when another one is published, or when pruning first finds it not live (a
//! kill came in between). The time is written into its directory with both clocks: within one boot
//! only the one that nobody can set counts.

use std::io;
use std::time::{Duration, SystemTime};

use rustix::time::ClockId;

use super::scan::Slot;
use super::{RETIRED, REVISIONS, Verdict, Volume, dir_name};
use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};

/// What must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// How many accepted revisions stay besides the live one.
    pub keep: usize,
    /// How long a revision stays after it retired.
    pub stale_timeout: Duration,
}

/// What pruning did, and what is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The revisions that are no longer there.
    pub removed: Vec<u64>,
    /// How many complete revisions are left, the live one included.
    pub left: usize,
    /// Whether something waits in the trash: call again.
    pub pending: bool,
    /// When the next revision may go, if one is only waiting for its time.
    pub next: Option<Duration>,
}

/// A point in time on the wall clock, and on the clock that no one can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    boot_id: String,
    since_boot: Duration,
    wall: Duration,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let boot = rustix::time::clock_gettime(ClockId::Boottime);
        Self {
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            since_boot: Duration::new(
                u64::try_from(boot.tv_sec).unwrap_or(0),
                u32::try_from(boot.tv_nsec).unwrap_or(0),
            ),
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// The same moment, later.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        Self {
            boot_id: self.boot_id.clone(),
            since_boot: self.since_boot + by,
            wall: self.wall + by,
        }
    }

    /// The time from `earlier` until now; unknown when the wall clock, the only one that two boots
    /// share, ran backwards.
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        if !self.boot_id.is_empty() && self.boot_id == earlier.boot_id {
            return self.since_boot.checked_sub(earlier.since_boot);
        }
        self.wall.checked_sub(earlier.wall)
    }

    fn text(&self) -> String {
        let boot_id = match self.boot_id.as_str() {
            "" => "-",
            id => id,
        };
        format!(
            "{boot_id} {} {}\n",
            self.since_boot.as_millis(),
            self.wall.as_millis()
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_ascii_whitespace();
        Some(Self {
            boot_id: parts.next()?.trim_matches('-').to_owned(),
            since_boot: Duration::from_millis(parts.next()?.parse().ok()?),
            wall: Duration::from_millis(parts.next()?.parse().ok()?),
        })
    }
}

/// Until when readers saw a revision, as its directory tells.
#[derive(Debug)]
enum Seen {
    /// Nobody can read what was written down.
    Unknown,
    Until(Moment),
    /// It never retired: it is live, or was when the link was lost.
    Last,
}

impl Seen {
    /// Whether it was not before the other, as far as it is known.
    fn is_after(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Last, _) | (_, Self::Unknown) => true,
            (Self::Until(this), Self::Until(other)) => this.since(other).is_some(),
            _ => false,
        }
    }
}

impl Volume {
    /// Which of these revisions readers saw last, wherever the link leads now: the one that never
    /// retired, or else the last that did. The newest, where the disk does not tell more (a kill
    /// between a flip and the retirement that it brings).
    pub fn last_live(&self, among: impl IntoIterator<Item = u64>) -> Option<u64> {
        among
            .into_iter()
            .map(|n| (n, self.seen(n)))
            .reduce(|best, other| match other.1.is_after(&best.1) {
                true => other,
                false => best,
            })
            .map(|(n, _)| n)
    }

    /// Removes old revisions, never the live one, and empties the trash for as long as `budget`
    /// allows: give it a short one, off the critical path, and call again while
    /// [`Pruned::pending`].
    ///
    /// A revision leaves in one step, by a rename; files that the file system will not let go of
    /// yet (busy, stale, held open over NFS) are tried again next time.
    ///
    /// # Errors
    /// Stage `prune`: the directory of revisions cannot be read.
    pub fn prune(&self, policy: Prune, now: &Moment, budget: &Budget) -> Result<Pruned, SyncError> {
        let slots = self.scan().map_err(|cause| {
            SyncError::disk(Stage::Prune, "read", &self.gvr.join(REVISIONS), cause)
        })?;
        let at_link = self.inode_at_link();
        // Without a link, readers will be given the one that they saw last.
        let live = self.linked(&slots).or_else(|| {
            let shown = |slot: &&Slot| {
                self.complete_slot(slot, at_link)
                    .is_some_and(|revision| self.accepted(&revision).is_some())
            };
            self.last_live(slots.iter().filter(shown).map(|slot| slot.n))
        });
        let newest = slots.last().map(|slot| slot.n);
        let mut spared = policy.keep;
        let mut pruned = Pruned::default();
        for slot in slots.iter().rev() {
            let revision = self.complete_slot(slot, at_link);
            let complete = revision.is_some();
            pruned.left += usize::from(complete);
            if Some(slot.n) == live {
                continue;
            }
            let retired = self.retired(slot.n, now);
            match revision.map(|revision| self.verdict(&revision)) {
                Some(Verdict::Accepted) if spared > 0 => {
                    spared -= 1;
                    continue;
                }
                // The newest commit must not be built and judged again at every poll.
                Some(Verdict::Rejected(_) | Verdict::Pending) if Some(slot.n) == newest => {
                    continue;
                }
                _ => {}
            }
            let age = now.since(&retired).unwrap_or_default();
            if age < policy.stale_timeout {
                let left = policy.stale_timeout - age;
                pruned.next = Some(pruned.next.map_or(left, |next| next.min(left)));
            } else if self.discard(REVISIONS, &slot.name) {
                self.memory().retired.remove(&slot.n);
                pruned.left -= usize::from(complete);
                pruned.removed.push(slot.n);
            }
        }
        pruned.pending = self.delete_trash(budget).map_err(|cause| {
            SyncError::disk(Stage::Prune, "empty", &self.gvr.join(super::TRASH), cause)
        })?;
        Ok(pruned)
    }

    /// Writes down that a revision is no longer live, from now on.
    pub(super) fn retire(&self, n: u64) {
        self.stamp(n, &Moment::now());
    }

    /// When a revision that is not live retired: now, if nobody wrote it down.
    fn retired(&self, n: u64, now: &Moment) -> Moment {
        match self.seen(n) {
            Seen::Until(moment) if now.since(&moment).is_some() => moment,
            _ => {
                self.stamp(n, now);
                now.clone()
            }
        }
    }

    fn seen(&self, n: u64) -> Seen {
        let path = self
            .gvr
            .join(format!("{REVISIONS}/{}/{RETIRED}", dir_name(n)));
        let written = std::fs::read_to_string(path);
        let known = written
            .as_ref()
            .ok()
            .and_then(|text| Moment::parse(text))
            .or_else(|| self.memory().retired.get(&n).cloned());
        match (known, written) {
            (Some(moment), _) => Seen::Until(moment),
            (None, Err(cause)) if cause.kind() == io::ErrorKind::NotFound => Seen::Last,
            (None, _) => Seen::Unknown,
        }
    }

    fn stamp(&self, n: u64, moment: &Moment) {
        let name = format!("{REVISIONS}/{}/{RETIRED}", dir_name(n));
        if let Err(cause) = self.write_small(&name, &moment.text()) {
            // As on a full disk, where pruning is what helps.
            tracing::debug!(revision = n, error = %cause, "remembering a retirement in memory only");
            self.memory().retired.insert(n, moment.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back_as_it_was_written() {
        let mut moment = Moment::now();
        moment.wall = Duration::from_millis(12_345);
        moment.since_boot = Duration::from_millis(678);
        assert_eq!(Moment::parse(&moment.text()), Some(moment.clone()));
        moment.boot_id.clear();
        assert_eq!(Moment::parse(&moment.text()), Some(moment));
        assert_eq!(Moment::parse(""), None);
    }

    #[test]
    fn setting_the_wall_clock_does_not_age_a_revision() {
        let then = Moment::now();
        let mut now = then.later(Duration::from_secs(5));
        now.wall += Duration::from_secs(1_000_000);
        assert_eq!(now.since(&then), Some(Duration::from_secs(5)));
        now.wall = Duration::ZERO;
        assert_eq!(now.since(&then), Some(Duration::from_secs(5)));
    }

    #[test]
    fn between_boots_only_the_wall_clock_counts() {
        let then = Moment::now();
        let mut now = then.later(Duration::from_secs(5));
        now.boot_id = "another".to_owned();
        now.since_boot = Duration::ZERO;
        assert_eq!(now.since(&then), Some(Duration::from_secs(5)));
        now.wall = Duration::ZERO;
        assert_eq!(now.since(&then), None);
    }
}
