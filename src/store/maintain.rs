//! Keeping the store small over thousands of fetches.
//!
//! Every fetch adds a pack, and most of what it brought is garbage one commit later. When packs
//! become many, the small ones are rolled into one that holds only what the retained commits need;
//! when garbage outweighs the rest, everything is rewritten. Both cost in proportion to what they
//! remove, so the time of an update does not grow with their number. The new pack is complete
//! before the old ones go, so that an interruption costs disk space until the next attempt.
//!
//! Histories longer than [`HISTORY`] commits are not searched for garbage: their small packs are
//! rolled up with all they hold.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::sync::atomic::Ordering;

use git2::{Indexer, Oid, Repository};

use super::packs::{self, Index, Pack};
use super::{Store, each_entry, remove_if_there};
use crate::budget::Budget;
use crate::commit::Commit;
use crate::error::{Reason, Stage, SyncError};

/// The state of the store after maintenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Number of packs.
    pub packs: usize,
    /// Bytes of packs and indexes.
    pub bytes: u64,
    /// Whether packs were rewritten.
    pub rewritten: bool,
}

/// A published tree whose git commands read the store's objects.
#[derive(Clone, Debug)]
pub struct Borrower {
    /// The commit that it shows.
    pub commit: Commit,
    /// The commits whose parents it does not expect (its own `shallow` file).
    pub boundary: BTreeSet<Commit>,
}

/// More packs than this are rolled up.
const MANY_PACKS: usize = 16;
/// Rolling up leaves at most this many.
const FEW_PACKS: usize = 8;
/// Garbage up to this size is not worth any work.
const SLACK: u64 = 1 << 20;
/// The longest history whose every tree is looked at.
const HISTORY: usize = 1000;
/// More lines than this in `shallow` are looked through.
const MANY_SHALLOW: usize = 32;

impl Store {
    /// Forgets all commits but `retained`, and shrinks packs and boundary when it is worth it.
    /// Call it after publishing, off the critical path; most calls only list a directory.
    ///
    /// # Errors
    /// Stage `prune`: the budget ran out, the disk is full, or (reason `store`) a retained commit
    /// cannot be read. The store then is as good as before.
    pub fn maintain(&self, retained: &[Commit], budget: &Budget) -> Result<Maintained, SyncError> {
        self.maintain_for(retained, &[], budget)
    }

    /// The same, keeping what the borrowers need as well: their boundary may lie further back than
    /// that of the store, which moves with every fetch.
    ///
    /// # Errors
    /// As [`Store::maintain`].
    pub fn maintain_for(
        &self,
        retained: &[Commit],
        borrowers: &[Borrower],
        budget: &Budget,
    ) -> Result<Maintained, SyncError> {
        let disk = |cause: io::Error| SyncError::disk(Stage::Prune, "shrink", &self.path, cause);
        let mut needed = Vec::new();
        for tip in self.tips() {
            if retained.contains(&tip) {
                needed.push(tip);
            } else {
                remove_if_there(&self.tip_path(tip)).map_err(disk)?;
            }
        }
        // What was found here and published without a fetch.
        let mut found = false;
        for commit in retained {
            if !needed.contains(commit) && self.contains(*commit) {
                self.add_tip(*commit).map_err(disk)?;
                needed.push(*commit);
                found = true;
            }
        }
        let directory = self.pack_dir();
        let packs = packs::list(&directory).map_err(disk)?;
        let bytes = total(&packs);
        let live = self.live_bytes.load(Ordering::Relaxed);
        let many = packs.len() > MANY_PACKS;
        let large = packs.len() > 1 && bytes > 2 * live + SLACK;
        let shallow = self.shallow();
        if needed.is_empty() || !(many || large || found || shallow.len() > MANY_SHALLOW) {
            return Ok(Maintained {
                packs: packs.len(),
                bytes,
                rewritten: false,
            });
        }
        let repository = self.repository().map_err(|cause| self.unreadable(cause))?;
        let boundary: BTreeSet<Commit> = shallow.into_iter().collect();
        let (mut history, cut) = self.history(&repository, &needed, &boundary, budget)?;
        for borrower in borrowers.iter().filter(|b| needed.contains(&b.commit)) {
            let tip = [borrower.commit];
            let own = self.history(&repository, &tip, &borrower.boundary, budget)?;
            history.extend(own.0);
        }
        if boundary != cut {
            self.write_shallow(&cut).map_err(disk)?;
        }
        let mut rewritten = false;
        if many || large {
            let live = self.live(&repository, &history, budget)?;
            let indexes = packs
                .iter()
                .map(|pack| Index::read(&directory, &pack.name))
                .collect::<io::Result<Vec<_>>>()
                .map_err(disk)?;
            let (garbage, live_bytes) = plan(&packs, &indexes, live.as_ref());
            let doomed = if many {
                // Cheap and needed now; if much garbage is left, the next call sees to it.
                roll_up_count(&packs)
            } else {
                garbage
            };
            if doomed > 0 {
                self.rewrite(&repository, &packs, &indexes, doomed, live.as_ref(), budget)
                    .inspect_err(|_| {
                        // What did not fit into this budget will not fit into the next either:
                        // not again before the store has doubled.
                        self.live_bytes.store(bytes, Ordering::Relaxed);
                    })?;
                rewritten = true;
            }
            let left = total(&packs::list(&directory).map_err(disk)?);
            // After a full rewrite the result is the measure, however well it was compressed.
            let measure = if doomed == packs.len() {
                left
            } else {
                live_bytes
            };
            self.live_bytes.store(measure.max(1), Ordering::Relaxed);
        }
        let packs = packs::list(&directory).map_err(disk)?;
        Ok(Maintained {
            packs: packs.len(),
            bytes: total(&packs),
            rewritten,
        })
    }

    /// The retained commits and their ancestors as far as the store has them, and those of them
    /// whose parents it does not have.
    fn history(
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
    fn live(
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

    /// Adds the tag objects that stand for commits of the history.
    fn add_tags(
        &self,
        repository: &Repository,
        history: &HashSet<Commit>,
        live: &mut HashSet<Oid>,
    ) -> Result<(), SyncError> {
        let read = |cause| self.unreadable(cause);
        for reference in repository.references_glob("refs/tags/*").map_err(read)? {
            let mut chain = Vec::new();
            let target = reference.map_err(read)?.target();
            let mut object = target.and_then(|id| repository.find_object(id, None).ok());
            while let Some(tag) = object.as_ref().and_then(|object| object.as_tag().cloned()) {
                chain.push(tag.id());
                object = tag.target().ok();
            }
            if object.is_some_and(|commit| history.contains(&commit.id().into())) {
                live.extend(chain);
            }
        }
        Ok(())
    }

    /// Replaces the first `doomed` packs by one with their live objects.
    fn rewrite(
        &self,
        repository: &Repository,
        packs: &[Pack],
        indexes: &[Index],
        doomed: usize,
        live: Option<&HashSet<Oid>>,
        budget: &Budget,
    ) -> Result<(), SyncError> {
        let disk =
            |cause: io::Error| SyncError::disk(Stage::Prune, "rewrite packs in", &self.path, cause);
        let read = |cause: git2::Error| match budget.check() {
            Err(cause) => SyncError::interrupted(Stage::Prune, "rewriting packs", cause),
            Ok(()) => self.unreadable(cause),
        };
        let (old, kept) = indexes.split_at(doomed);
        let mut builder = repository.packbuilder().map_err(read)?;
        builder.set_threads(1);
        let limits = budget.clone();
        builder
            .set_progress_callback(move |_, _, _| limits.check().is_ok())
            .map_err(read)?;
        for id in old.iter().flat_map(Index::ids) {
            let needed = live.is_none_or(|live| live.contains(&id));
            if needed && !kept.iter().any(|index| index.contains(id)) {
                builder.insert_object(id, None).map_err(read)?;
            }
        }
        let directory = self.pack_dir();
        let mut written = None;
        let count = builder.object_count();
        if count > 0 {
            let mut indexer = Indexer::new(None, &directory, 0o444, false).map_err(read)?;
            let mut failed = None;
            let built = builder.foreach(|chunk| {
                if budget.check().is_err() {
                    return false;
                }
                match indexer.write_all(chunk) {
                    Ok(()) => true,
                    Err(cause) => {
                        failed = Some(cause);
                        false
                    }
                }
            });
            if let Some(cause) = failed {
                return Err(disk(cause));
            }
            built.map_err(read)?;
            let checksum = indexer.commit().map_err(read)?;
            packs::sync(&directory, &checksum).map_err(disk)?;
            let name = format!("pack-{checksum}");
            if Index::read(&directory, &name).map_err(disk)?.ids().count() != count {
                return Err(SyncError::new(
                    Stage::Prune,
                    Reason::Store,
                    format!("the new pack {name} lacks objects: the old ones stay"),
                ));
            }
            written = Some(name);
        }
        for pack in &packs[..doomed] {
            if written.as_deref() != Some(&pack.name) {
                packs::remove(&directory, &pack.name).map_err(disk)?;
            }
        }
        tracing::debug!(packs = doomed, objects = count, "rewrote packs");
        Ok(())
    }

    fn unreadable(&self, cause: git2::Error) -> SyncError {
        SyncError::new(
            Stage::Prune,
            Reason::Store,
            format!("cannot read all objects in {}", self.path.display()),
        )
        .with_source(cause)
    }
}

/// How many of the smallest packs to replace because of garbage, or all for a full rewrite; and
/// how many bytes the live objects take.
fn plan(packs: &[Pack], indexes: &[Index], live: Option<&HashSet<Oid>>) -> (usize, u64) {
    let bytes = total(packs);
    let Some(live) = live else {
        return (0, bytes);
    };
    // Of several copies of an object the one in the largest pack counts: the others go first.
    let mut counted = HashSet::new();
    let mut own = vec![0; packs.len()];
    for (i, index) in indexes.iter().enumerate().rev() {
        for (id, size) in index.ids().zip(index.sizes()) {
            if live.contains(&id) && counted.insert(id) {
                // What an entry in the index takes.
                own[i] += size + 28;
            }
        }
    }
    let needed: u64 = own.iter().sum();
    if bytes <= 2 * needed + SLACK {
        return (0, needed);
    }
    // The fewest packs whose garbage is worth it; often all the small ones and not the large one.
    let mut left = bytes;
    for (i, pack) in packs.iter().enumerate() {
        left -= pack.bytes.saturating_sub(own[i]);
        if 4 * left <= 5 * needed + 2 * SLACK {
            return (i + 1, needed);
        }
    }
    (packs.len(), needed)
}

/// How many of the smallest packs to roll into one: enough to leave few, and each that is not
/// larger than those before it together, so that no object is copied often.
fn roll_up_count(packs: &[Pack]) -> usize {
    let mut count = packs.len() - FEW_PACKS + 1;
    let mut sum = total(&packs[..count]);
    while let Some(next) = packs.get(count).filter(|next| next.bytes <= sum) {
        sum += next.bytes;
        count += 1;
    }
    count
}

fn total(packs: &[Pack]) -> u64 {
    packs.iter().map(|pack| pack.bytes).sum()
}

fn check(budget: &Budget) -> Result<(), SyncError> {
    budget
        .check()
        .map_err(|cause| SyncError::interrupted(Stage::Prune, "shrinking the store", cause))
}
