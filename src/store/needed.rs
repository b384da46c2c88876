//! The histories of the retained commits, and every object in them.
//!
//! Nothing here writes or looks at packs.

use std::collections::{BTreeSet, HashSet};

use git2::{Oid, Repository};

use super::Store;
use super::objects::{each_entry, with_commit};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

/// The longest history, in commits, whose trees are all read.
const MAX_HISTORY: usize = 1000;

impl Store {
    /// The retained commits with those of their ancestors that the store has, and the commits among
    /// them whose parents it does not have.
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
            let parents = with_commit(&odb, commit, |found| found.parents)
                .map_err(|cause| self.unreadable(cause))?;
            if boundary.contains(&commit) || parents.iter().any(|id| !odb.exists(*id)) {
                cut.insert(commit);
            } else {
                waiting.extend(parents.into_iter().map(Commit::from));
            }
        }
        Ok((history, cut))
    }

    /// Every object that the history needs, tags included; `None` if the history is too long to
    /// read.
    pub(super) fn needed_objects(
        &self,
        repository: &Repository,
        history: &HashSet<Commit>,
        budget: &Budget,
    ) -> Result<Option<HashSet<Oid>>, SyncError> {
        if history.len() > MAX_HISTORY {
            return Ok(None);
        }
        let read = |cause| self.unreadable(cause);
        let odb = repository.odb().map_err(read)?;
        let mut needed = HashSet::new();
        let mut trees = HashSet::new();
        for commit in history {
            check(budget)?;
            needed.insert(commit.oid());
            let root = with_commit(&odb, *commit, |found| found.tree).map_err(read)?;
            each_entry(repository, root, &mut trees, &mut |id, _| {
                needed.insert(id);
                Ok(())
            })
            .map_err(read)?;
        }
        self.add_tags(repository, history, &mut needed)?;
        Ok(Some(needed))
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
