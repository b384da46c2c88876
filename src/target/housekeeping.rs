//! Housekeeping between two cycles: removes old trees, keeps the object store small, counts bytes.
//!
//! It runs while the sync thread waits for the next poll, and changes nothing that readers see.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Syncer;
use super::acquire::each_submodule;
use super::context::Context;
use super::settings::Target;
use super::trees::Trees;
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Remedy, SyncError};
use crate::store::{self, Borrower};
use crate::volume::{Moment, Prune};

/// When trash that could not be deleted (an open NFS file, say) is tried again.
const TRASH_RETRY: Duration = Duration::from_secs(10);

/// How often housekeeping looks whether the newest tree is on the disk, so that older ones may go.
const SYNC_CHECK: Duration = Duration::from_millis(200);

/// The shortest time between two counts of the bytes on the volume.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// How housekeeping ended.
#[derive(Debug)]
pub(super) enum Housekeeping {
    /// It did its work.
    Done {
        /// Complete trees on the volume.
        revisions: usize,
        /// When there will be something to remove, if anything is waiting.
        again_in: Option<Duration>,
    },
    /// The volume cannot be used. The next cycle finds the same and reports it.
    PutOff(SyncError),
}

impl Syncer {
    /// Removes trees that are no longer needed and keeps the store small, within the budget.
    ///
    /// A cycle that failed at the disk has closed the volume. It is opened again here, because a
    /// full disk may need old trees to be removed.
    ///
    /// # Errors
    /// Stage `prune`; nothing that readers see has changed.
    pub(super) fn keep_tidy(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<Housekeeping, SyncError> {
        if let Err(error) = self.open_within(Duration::ZERO, context) {
            return Ok(Housekeeping::PutOff(error));
        }
        let irrelevant = self.irrelevant;
        let trees = self.opened()?;
        match tidy(trees, irrelevant, context) {
            Err(error) if !trees.volume.is_current() => Ok(Housekeeping::PutOff(error)),
            other => other,
        }
    }

    /// Bytes that the root occupies on its file system; `None` when they were counted less than a
    /// minute ago, because counting looks at every file.
    pub(super) fn measure(&mut self, budget: &Budget) -> Option<u64> {
        if self
            .measured
            .is_some_and(|measured| measured.elapsed() < MEASURE_EVERY)
        {
            return None;
        }
        let trees = self.trees.as_ref()?;
        // Also when it fails, because a count that takes too long now would take too long again.
        self.measured = Some(Instant::now());
        trees
            .volume
            .bytes(budget)
            .inspect_err(|error| debug!(error = error.chain(), "the volume is not measured"))
            .ok()
    }
}

fn tidy(
    trees: &mut Trees,
    irrelevant: Option<(Commit, u64)>,
    context: &Context<'_>,
) -> Result<Housekeeping, SyncError> {
    let (settings, budget) = (context.settings, context.budget);
    trees.drop_old_spares();
    let syncing = sync_in_background(trees, settings);
    let policy = Prune {
        keep: settings.keep,
        stale_timeout: settings.stale_timeout,
    };
    let pruned = trees.volume.prune(policy, &Moment::now(), budget)?;
    trees.refresh()?;
    let unfinished = match shrink_store(settings, trees, irrelevant, budget) {
        // Readers do not need the store, and the next fetch starts it afresh.
        Err(error) if error.remedy == Remedy::RebuildStore => {
            warn!(
                error = error.chain(),
                "the object store is damaged; the next fetch mends it"
            );
            false
        }
        other => other?,
    };
    Ok(Housekeeping::Done {
        revisions: trees.known.len(),
        again_in: if unfinished || (pruned.pending && budget.gives_way()) {
            Some(Duration::ZERO)
        } else if syncing {
            Some(SYNC_CHECK)
        } else if pruned.pending {
            Some(TRASH_RETRY)
        } else {
            pruned.next
        },
    })
}

/// Begins to make new trees durable; returns whether that is under way. A process that ends after one
/// sync leaves it to the next one.
fn sync_in_background(trees: &Trees, settings: &Target) -> bool {
    !settings.schedule.one_time
        && trees.volume.sync_in_background().unwrap_or_else(|error| {
            debug!(%error, "the newest tree is not synced yet");
            false
        })
}

/// Removes objects from the store, except those of the trees on the volume and of the commit that
/// the next fetch builds on. Returns whether something is left to do.
fn shrink_store(
    target: &Target,
    trees: &Trees,
    irrelevant: Option<(Commit, u64)>,
    budget: &Budget,
) -> Result<bool, SyncError> {
    let mut retained = Vec::new();
    for known in &trees.known {
        let commit = known.revision.commit;
        retained.push(commit);
        let listed = each_submodule(target, &trees.store, commit, budget, &mut |submodule| {
            retained.push(submodule.commit);
            Ok(())
        });
        match listed {
            // The tree was built with other settings, for example without submodules.
            Err(error) if matches!(error.reason, Reason::Limit | Reason::Hostile) => {
                debug!(error = error.chain(), %commit, "its submodules are not kept");
            }
            listed => listed?,
        }
    }
    // No tree shows the irrelevant tip, but the next fetch builds on it.
    retained.extend(irrelevant.map(|(tip, _)| tip));
    let borrowers: Vec<_> = trees
        .known
        .iter()
        .filter(|known| known.revision.path.join(".git").is_dir())
        .map(|known| Borrower {
            commit: known.revision.commit,
            boundary: store::boundary_of(&known.revision.path.join(".git")),
        })
        .collect();
    let maintained = trees.store.maintain_for(&retained, &borrowers, budget)?;
    Ok(maintained.pending)
}
