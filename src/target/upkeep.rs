//! Housekeeping between two cycles: old trees, the store's growth, the size of it all.
//!
//! Nothing here is on the way of a publish, and none of it changes what readers see.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::config::Target;
use crate::store::{self, Borrower};
use crate::volume::{Moment, Prune};

use super::disk::Disk;
use super::fetching::each_submodule;
use super::{Sync, opened};

/// When trash that could not be deleted (an open NFS file, say) is tried again.
const TRASH_RETRY: Duration = Duration::from_secs(10);

/// How often the bytes on the volume are counted at most.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// What housekeeping found.
#[derive(Debug)]
pub struct Upkeep {
    /// Complete trees on the volume.
    pub revisions: usize,
    /// When there will be something to remove, if anything is waiting.
    pub again_in: Option<Duration>,
}

impl Sync {
    /// Removes trees that nobody needs any more and keeps the store small, within the budget.
    ///
    /// A cycle that failed at the disk has closed the volume: it is opened again, since removing
    /// old trees may be what a full disk is waiting for.
    ///
    /// # Errors
    /// Stage `start` when the volume cannot be opened, else `prune`; nothing that readers see has
    /// changed.
    pub fn keep_house(&mut self, budget: &Budget) -> Result<Upkeep, SyncError> {
        self.open_within(Duration::ZERO, budget)?;
        self.tidy_up(budget).map_err(|error| {
            // Somebody removed or replaced the root meanwhile: there is nothing here to keep.
            match &self.disk {
                Some(disk) if !disk.volume.is_current() => error.at(Stage::Start),
                _ => error,
            }
        })
    }

    fn tidy_up(&mut self, budget: &Budget) -> Result<Upkeep, SyncError> {
        let disk = opened(&mut self.disk)?;
        disk.drop_old_spares();
        let policy = Prune {
            keep: self.target.keep,
            stale_timeout: self.target.stale_timeout,
        };
        let pruned = disk.volume.prune(policy, &Moment::now(), budget)?;
        disk.refresh()?;
        let unfinished = match shrink_store(&self.target, disk, self.irrelevant, budget) {
            // Readers do not need it; the next fetch starts it afresh.
            Err(error) if error.reason == Reason::Store => {
                warn!(
                    error = error.chain(),
                    "the object store is damaged; the next fetch mends it"
                );
                false
            }
            other => other?,
        };
        Ok(Upkeep {
            revisions: disk.known.len(),
            again_in: if unfinished || (pruned.pending && budget.gives_way()) {
                Some(Duration::ZERO)
            } else if pruned.pending {
                Some(TRASH_RETRY)
            } else {
                pruned.next
            },
        })
    }

    /// Bytes that the root occupies on its file system, when it is time to count them: that looks
    /// at every file.
    pub fn measure(&mut self, budget: &Budget) -> Option<u64> {
        if self
            .measured
            .is_some_and(|measured| measured.elapsed() < MEASURE_EVERY)
        {
            return None;
        }
        let disk = self.disk.as_ref()?;
        // Also when it fails: what takes too long now will take too long next time.
        self.measured = Some(Instant::now());
        disk.volume
            .bytes(budget)
            .inspect_err(|error| debug!(error = error.chain(), "the volume is not measured"))
            .ok()
    }
}

/// Keeps in the store what the trees on the volume came from, and what the next fetch builds on.
/// Returns whether something is left to do.
fn shrink_store(
    target: &Target,
    disk: &Disk,
    irrelevant: Option<(Commit, u64)>,
    budget: &Budget,
) -> Result<bool, SyncError> {
    let mut retained = Vec::new();
    for known in &disk.known {
        let commit = known.revision.commit;
        retained.push(commit);
        each_submodule(target, &disk.store, commit, &mut |submodule| {
            retained.push(submodule.commit);
            Ok(())
        })?;
    }
    // No tree shows it, but what the remote sends next builds on it.
    retained.extend(irrelevant.map(|(tip, _)| tip));
    let borrowers: Vec<_> = disk
        .known
        .iter()
        .filter(|known| known.revision.path.join(".git").is_dir())
        .map(|known| Borrower {
            commit: known.revision.commit,
            boundary: store::boundary_of(&known.revision.path.join(".git")),
        })
        .collect();
    let maintained = disk.store.maintain_for(&retained, &borrowers, budget)?;
    Ok(maintained.pending)
}
