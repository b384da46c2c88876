//! Replacing packs by new ones that hold only the needed objects.
//!
//! Which packs are replaced is decided in `selection`; the copying itself is done by `copy`.

use std::collections::{BTreeSet, HashSet};

use git2::Oid;

use super::Store;
use super::copy::{CopyFailure, CopyPlan};
use super::packs::{self, Pack, total};
use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::pack::Index;

impl Store {
    /// Replaces the first `count` packs by new ones with their needed objects. Returns the size of
    /// the new packs in bytes, or `None` if it stopped between two slices because the budget gives
    /// way.
    pub(super) fn rewrite(
        &self,
        packs: &[Pack],
        indexes: &[Index],
        count: usize,
        needed: Option<&HashSet<Oid>>,
        slice: u64,
        budget: &Budget,
    ) -> Result<Option<u64>, CopyFailure> {
        let sound = {
            let state = self.maintenance();
            let is_sound = |pack: &&Pack| !state.damaged.contains(&pack.name);
            packs.iter().take_while(is_sound).count().max(count)
        };
        // Objects that a damaged pack holds are copied all the same. Damaged packs come last.
        let kept = &indexes[count..sound];
        let is_copied = |id| {
            needed.is_none_or(|needed| needed.contains(&id))
                && !kept.iter().any(|index| index.contains(id))
        };
        let directory = self.pack_dir();
        let replaced = &packs[..count];
        let plan = CopyPlan::new(
            &directory,
            replaced,
            &indexes[..count],
            is_copied,
            slice,
            budget,
        )?;
        let mut written = BTreeSet::new();
        for slice in 0..plan.slices() {
            if slice > 0 && budget.gives_way() {
                self.keep(written, packs);
                return Ok(None);
            }
            match plan.write(slice, &directory, budget) {
                Ok(name) => written.insert(name),
                Err(failure) => {
                    self.keep_or_remove(&failure, written, packs);
                    return Err(failure);
                }
            };
        }
        for pack in replaced {
            if !written.contains(&pack.name) {
                packs::remove(&directory, &pack.name).map_err(CopyFailure::Disk)?;
            }
        }
        tracing::debug!(
            packs = count,
            objects = plan.objects(),
            slices = plan.slices(),
            "rewrote packs"
        );
        let left = packs::list(&directory).map_err(CopyFailure::Disk)?;
        let new = left.iter().filter(|pack| written.contains(&pack.name));
        Ok(Some(new.map(|pack| pack.bytes).sum()))
    }

    /// Remembers the finished slices of an unfinished rewrite of `packs`.
    fn keep(&self, mut written: BTreeSet<String>, packs: &[Pack]) {
        written.retain(|name| packs.iter().all(|pack| pack.name != *name));
        self.maintenance().finished.extend(written);
    }

    /// Keeps the finished slices of a rewrite that failed, unless the disk failed: then it removes
    /// them, because the disk may be full.
    fn keep_or_remove(&self, failure: &CopyFailure, written: BTreeSet<String>, packs: &[Pack]) {
        if !matches!(failure, CopyFailure::Disk(_)) {
            return self.keep(written, packs);
        }
        let is_old = |name: &String| packs.iter().any(|pack| pack.name == *name);
        for name in written.into_iter().filter(|name| !is_old(name)) {
            // A pack that cannot be removed is garbage, which the next rewrite removes.
            let _ = packs::remove(&self.pack_dir(), &name);
        }
    }

    /// The error for a failed rewrite of the first `count` packs. Remembers what makes the next
    /// rewrite avoid the same failure.
    pub(super) fn not_rewritten(
        &self,
        failure: CopyFailure,
        packs: &[Pack],
        count: usize,
    ) -> SyncError {
        let mut state = self.maintenance();
        match failure {
            CopyFailure::Interrupted(cause) => {
                if state.finished.is_empty() {
                    // Not even one slice fits into the budget, so the next attempt waits until the
                    // store has doubled.
                    state.needed_bytes = total(packs);
                }
                SyncError::interrupted(Stage::Prune, "rewriting packs", cause)
                    .with_hint("no action is needed: the next housekeeping continues it")
            }
            CopyFailure::Disk(cause) => {
                state.needed_bytes = total(packs);
                SyncError::disk(Stage::Prune, "rewrite packs in", &self.path, cause)
            }
            CopyFailure::Damaged(cause) => {
                let names = packs[..count].iter().map(|pack| pack.name.clone());
                state.damaged.extend(names);
                state.needed_bytes = total(packs);
                SyncError::new(
                    Stage::Prune,
                    Reason::Store,
                    format!("a pack in {} is damaged", self.path.display()),
                )
                .with_source(cause)
            }
        }
    }
}
