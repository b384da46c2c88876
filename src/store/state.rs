//! What this process remembers of earlier maintenance. A restart loses it and finds out again.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use super::Store;
use super::packs::Pack;

/// Results of earlier maintenance.
#[derive(Debug, Default)]
pub(super) struct MaintenanceState {
    /// Bytes that the retained commits needed when they were last counted; 0 if they never were.
    pub(super) needed_bytes: u64,
    /// Packs that an unfinished rewrite has written. They are not garbage, although other packs
    /// hold the same objects.
    pub(super) finished: BTreeSet<String>,
    /// Packs that cannot be rewritten because one of them is damaged.
    pub(super) damaged: BTreeSet<String>,
}

/// Whether a rewrite may replace a pack. The order is that in which packs are considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PackRank {
    Replaceable,
    /// The unfinished rewrite wrote it.
    Finished,
    Damaged,
}

impl MaintenanceState {
    pub(super) fn rank(&self, pack: &Pack) -> PackRank {
        if self.damaged.contains(&pack.name) {
            PackRank::Damaged
        } else if self.finished.contains(&pack.name) {
            PackRank::Finished
        } else {
            PackRank::Replaceable
        }
    }
}

impl Store {
    pub(super) fn maintenance(&self) -> MutexGuard<'_, MaintenanceState> {
        // Each use inserts, removes or reads single values, so a panic leaves nothing half-changed.
        self.maintenance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
