//! Pruning: which old revisions are removed, and when.
//!
//! A revision is retired when another one is published, or, if a kill came in between, when pruning
//! first finds that it is not live. The time is written into its directory with two clocks: the time
//! since boot, which nobody can set, counts within one boot; the wall clock counts between boots.

use std::io;
use std::time::{Duration, SystemTime};

use rustix::time::ClockId;

use super::durable::{Durability, boot_id};
use super::scan::RevisionDir;
use super::verdict::Verdict;
use super::{Pin, RETIRED, REVISIONS, Revision, TRASH, Volume, dir_name};
use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};

/// Which revisions must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// How many accepted revisions stay besides the live one.
    pub keep: usize,
    /// How long a revision stays after it was retired.
    pub stale_timeout: Duration,
}

/// What pruning removed, and what is left to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The numbers of the revisions that were removed.
    pub removed: Vec<u64>,
    /// How many complete revisions are left, the live one included.
    pub left: usize,
    /// Whether the trash is not empty: call again.
    pub pending: bool,
    /// The time until the next revision can be removed, if one waits for the stale timeout.
    pub next: Option<Duration>,
}

/// A point in time on the wall clock and on the clock since boot.
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
            boot_id: boot_id(),
            since_boot: Duration::new(
                u64::try_from(boot.tv_sec).unwrap_or(0),
                u32::try_from(boot.tv_nsec).unwrap_or(0),
            ),
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// The moment that is `by` later.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        Self {
            boot_id: self.boot_id.clone(),
            since_boot: self.since_boot + by,
            wall: self.wall + by,
        }
    }

    /// The time from `earlier` to this moment. `None` if the two moments are from different boots and
    /// the wall clock was set back.
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

/// When readers stopped seeing a revision, as its directory records it.
#[derive(Debug)]
enum Retirement {
    /// The record cannot be read.
    Unreadable,
    At(Moment),
    /// It was not retired: it is live, or was live when the link was lost.
    Never,
}

impl Retirement {
    /// Whether this was not before the other, as far as both are known.
    fn is_after(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Never, _) | (_, Self::Unreadable) => true,
            (Self::At(this), Self::At(other)) => this.since(other).is_some(),
            _ => false,
        }
    }
}

impl Volume {
    /// Which of these revisions readers saw last, independently of where the link leads now: the one
    /// that was not retired, or else the one that was retired last. If the disk does not tell (a kill
    /// came between a flip and the retirement of the previous revision), the newest of them.
    pub fn last_live(&self, among: impl IntoIterator<Item = u64>) -> Option<u64> {
        among
            .into_iter()
            .map(|n| (n, self.retirement(n)))
            .reduce(|best, other| match other.1.is_after(&best.1) {
                true => other,
                false => best,
            })
            .map(|(n, _)| n)
    }

    /// Removes old revisions, never the live or the pinned one, and empties the trash within `budget`. Call it with
    /// a short budget, off the critical path, and again while [`Pruned::pending`].
    ///
    /// A revision is removed in one step, by a rename into the trash. Files that the file system does
    /// not delete (busy, or held open over NFS) are tried again by the next call.
    ///
    /// # Errors
    /// Stage `prune`: the directory of revisions cannot be read.
    pub fn prune(&self, policy: Prune, now: &Moment, budget: &Budget) -> Result<Pruned, SyncError> {
        let dirs = self.scan().map_err(|cause| {
            SyncError::disk(Stage::Prune, "read", &self.gvr.join(REVISIONS), cause)
        })?;
        let pin = self.pin().map_err(|error| error.at(Stage::Prune))?;
        let elsewhere = self.linked_elsewhere(&dirs).map_err(|cause| {
            SyncError::disk(Stage::Prune, "read the links in", &self.gvr, cause)
        })?;
        let mut pruned = self.remove_retired(policy, now, pin, &dirs, &elsewhere);
        pruned.pending = self.delete_trash(budget).map_err(|cause| {
            SyncError::disk(Stage::Prune, "empty", &self.gvr.join(TRASH), cause)
        })?;
        Ok(pruned)
    }

    /// Moves the revisions that the policy does not keep to the trash.
    fn remove_retired(
        &self,
        policy: Prune,
        now: &Moment,
        pin: Option<Pin>,
        dirs: &[RevisionDir],
        elsewhere: &[u64],
    ) -> Pruned {
        let at_link = self.inode_at_link();
        let live = self.linked_or_last_live(dirs, at_link);
        let newest = dirs.last().map(|dir| dir.n);
        let fallback = self.fallback(dirs, live, at_link);
        let mut to_keep = policy.keep;
        let mut pruned = Pruned::default();
        for dir in dirs.iter().rev() {
            let revision = self.complete_revision(dir, at_link);
            let complete = revision.is_some();
            pruned.left += usize::from(complete);
            let pinned = |revision: &Revision| {
                pin.is_some_and(|pin| (pin.n, pin.commit) == (revision.n, revision.commit))
            };
            let is_held = Some(dir.n) == live
                || Some(dir.n) == fallback
                || elsewhere.contains(&dir.n)
                || revision.as_ref().is_some_and(pinned);
            if is_held || self.is_condemned(REVISIONS, &dir.name) {
                continue;
            }
            let retired = self.retired(dir.n, now);
            match revision.map(|revision| self.verdict(&revision)) {
                Some(Verdict::Accepted) if to_keep > 0 => {
                    to_keep -= 1;
                    continue;
                }
                // Otherwise the same commit would be built and judged again at every poll.
                Some(Verdict::Rejected(_) | Verdict::Pending) if Some(dir.n) == newest => {
                    continue;
                }
                _ => {}
            }
            let age = now.since(&retired).unwrap_or_default();
            if age < policy.stale_timeout {
                let left = policy.stale_timeout - age;
                pruned.next = Some(pruned.next.map_or(left, |next| next.min(left)));
            } else if self.discard(REVISIONS, &dir.name) {
                self.cache().retired.remove(&dir.n);
                pruned.left -= usize::from(complete);
                pruned.removed.push(dir.n);
            }
        }
        pruned
    }

    /// The newest durable revision that readers can go back to if a power cut damages the live one;
    /// `None` once the live one is durable itself.
    fn fallback(
        &self,
        dirs: &[RevisionDir],
        live: Option<u64>,
        at_link: Option<u64>,
    ) -> Option<u64> {
        let is_durable = |n| self.durability(n) == Durability::Durable;
        if live.is_none_or(is_durable) {
            return None;
        }
        dirs.iter()
            .rev()
            .find(|dir| {
                is_durable(dir.n)
                    && self
                        .complete_revision(dir, at_link)
                        .is_some_and(|revision| self.accepted(&revision).is_some())
            })
            .map(|dir| dir.n)
    }

    /// The revision that the link leads to. Without a link, the accepted revision that readers saw
    /// last, because that one is published next.
    fn linked_or_last_live(&self, dirs: &[RevisionDir], at_link: Option<u64>) -> Option<u64> {
        self.linked(dirs).or_else(|| {
            let is_accepted = |dir: &&RevisionDir| {
                self.complete_revision(dir, at_link)
                    .is_some_and(|revision| self.accepted(&revision).is_some())
            };
            self.last_live(dirs.iter().filter(is_accepted).map(|dir| dir.n))
        })
    }

    /// Records that a revision is not live from now on.
    pub(super) fn retire(&self, n: u64) {
        self.record_retirement(n, &Moment::now());
    }

    /// When a revision that is not live was retired. Without a record it is retired now.
    fn retired(&self, n: u64, now: &Moment) -> Moment {
        match self.retirement(n) {
            Retirement::At(moment) if now.since(&moment).is_some() => moment,
            _ => {
                self.record_retirement(n, now);
                now.clone()
            }
        }
    }

    fn retirement(&self, n: u64) -> Retirement {
        let path = self
            .gvr
            .join(format!("{REVISIONS}/{}/{RETIRED}", dir_name(n)));
        let written = std::fs::read_to_string(path);
        let known = written
            .as_ref()
            .ok()
            .and_then(|text| Moment::parse(text))
            .or_else(|| self.cache().retired.get(&n).cloned());
        match (known, written) {
            (Some(moment), _) => Retirement::At(moment),
            (None, Err(cause)) if cause.kind() == io::ErrorKind::NotFound => Retirement::Never,
            (None, _) => Retirement::Unreadable,
        }
    }

    fn record_retirement(&self, n: u64, moment: &Moment) {
        let name = format!("{REVISIONS}/{}/{RETIRED}", dir_name(n));
        if let Err(cause) = self.write_small(&name, &moment.text()) {
            // The disk may be full, and pruning must go on to free space.
            tracing::debug!(revision = n, error = %cause, "a retirement is kept in memory only");
            self.cache().retired.insert(n, moment.clone());
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
