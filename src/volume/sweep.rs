//! Removing the debris of earlier processes when the volume is opened.

use super::scan::RevisionDir;
use super::{OPENING_SWEEP, REVISIONS, STAGING, Volume};
use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};

impl Volume {
    /// Removes staged trees, temporary links, and revisions without a tree or a manifest. The
    /// revision that the link leads to stays even if it is incomplete. Spare trees are left to
    /// housekeeping, so that the first poll does not wait until a whole tree of links is deleted.
    pub(super) fn sweep(&self, budget: &Budget) -> Result<(), SyncError> {
        let failed = |cause| SyncError::disk(Stage::Start, "sweep", &self.gvr, cause);
        // The number is read before the names that it is derived from are removed.
        let last = self.last_number().map_err(failed)?;
        self.cache().last = last;
        for name in self.names(STAGING).map_err(failed)? {
            self.discard(STAGING, &name);
        }
        if let Err(cause) = self.sweep_beside_link() {
            tracing::warn!(directory = %self.link_parent.display(), error = %cause, "cannot remove temporary links");
        }
        let dirs = self.scan().map_err(failed)?;
        let at_link = self.inode_at_link();
        let linked = self.linked(&dirs);
        for dir in &dirs {
            if self.complete_revision(dir, at_link).is_none() && Some(dir.n) != linked {
                self.discard(REVISIONS, &dir.name);
            }
        }
        let slice = budget
            .remaining()
            .map_err(|cause| SyncError::interrupted(Stage::Start, "sweeping the root", cause))?
            .min(OPENING_SWEEP);
        let slice = Budget::new(slice, slice, budget.cancelled().clone());
        self.delete_trash(&slice).map_err(failed)?;
        Ok(())
    }

    /// The revision that the link leads to, complete or not.
    pub(super) fn linked(&self, dirs: &[RevisionDir]) -> Option<u64> {
        if let Some(inode) = self.inode_at_link() {
            return dirs
                .iter()
                .find(|dir| dir.exchange.is_some_and(|record| record.inode == inode))
                .map(|dir| dir.n);
        }
        let target = rustix::fs::readlink(&self.link, Vec::new()).ok()?;
        self.parse_target(target.as_bytes()).map(|(n, ..)| n)
    }
}
