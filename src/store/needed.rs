//! What the retained commits need: their histories, and every object in those.
//!
//! Nothing here writes, or looks at packs.

use std::collections::{BTreeSet, HashSet};

use git2::{Oid, Repository};

use super::{Store, each_entry};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

/// The longest history whose every tree is looked at.
const HISTORY: usize = 1000;

impl Store {
    /// The retained commits and their ancestors as far as the store has them, and those of them
    /// whose parents it does not have.
    pub(super) fn history(
        &self,
        repository: &Repository,
        retained: &[Commit],
        boundary: &BTreeSet<Commit>,
        budget: &Budget,
    ) -> Result<(HashSet<Commit>, BTreeSet<Commit>), SyncError> {
        let odb = repository.odb().map_err(|cause| self.unreadable(cause))?;
        let mut history = HashSet::new();
        let mut cut = BTreeSet::new();
        let mut waiting = retained.to_vec();
        while let Some(commit) = waiting.pop() {
            if !history.insert(commit) {
                continue;
            }
            check(budget)?;
            let found = repository
                .find_commit(commit.oid())
                .map_err(|cause| self.unreadable(cause))?;
            if boundary.contains(&commit) || found.parent_ids().any(|id| !odb.exists(id)) {
                cut.insert(commit);
            } else {
                waiting.extend(found.parent_ids().map(Commit::from));
            }
        }
        Ok((history, cut))
    }

    /// Every object that the history needs; none when it is too long to look.
    pub(super) fn live(
        &self,
        repository: &Repository,
        history: &HashSet<Commit>,
        budget: &Budget,
    ) -> Result<Option<HashSet<Oid>>, SyncError> {
        if history.len() > HISTORY {
            return Ok(None);
        }
        let mut live = HashSet::new();
        let mut trees = HashSet::new();
        for commit in history {
            check(budget)?;
            let read = |cause| self.unreadable(cause);
            live.insert(commit.oid());
            let root = repository
                .find_commit(commit.oid())
                .map_err(read)?
                .tree_id();
            each_entry(repository, root, &mut trees, &mut |id, _| {
                live.insert(id);
                Ok(())
            })
            .map_err(read)?;
        }
        self.add_tags(repository, history, &mut live)?;
        Ok(Some(live))
    }

    pub(super) fn unreadable(&self, cause: git2::Error) -> SyncError {
        SyncError::new(
            Stage::Prune,
            Reason::Store,
            format!("cannot read all objects in {}", self.path.display()),
        )
        .with_source(cause)
    }
}

fn check(budget: &Budget) -> Result<(), SyncError> {
    budget
        .check()
        .map_err(|cause| SyncError::interrupted(Stage::Prune, "shrinking the store", cause))
}
