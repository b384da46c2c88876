//! Keeping the store small over thousands of fetches.
//!
//! Every fetch adds a pack, and most of what it brought is garbage one commit later. When packs
//! become many, the small ones are rolled into one that holds only what the retained commits need;
//! when garbage outweighs the rest, everything is rewritten. Both cost in proportion to what they
//! remove, so the time of an update does not grow with their number. The new packs are complete
//! before the old ones go. Work that does not fit into one budget goes on where it stopped: what is
//! large is rewritten in slices, and those that are finished are not written again.
//!
//! A pack that cannot be read is left alone from then on, and so are those that were to be
//! rewritten with it: the store is no larger for ever than it was when it was damaged, and what
//! comes after that is kept small as before.
//!
//! Histories that are too long are not searched for garbage: their small packs are rolled up with all
//! they hold.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::{MutexGuard, PoisonError};

use git2::Oid;

use super::copy::{Failure, Plan};
use super::doomed::{self, SLACK};
use super::packs::{self, Pack, total};
use super::{Store, remove_if_there};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::pack::Index;

/// The state of the store after maintenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Number of packs.
    pub packs: usize,
    /// Bytes of packs and indexes.
    pub bytes: u64,
    /// Whether packs were rewritten.
    pub rewritten: bool,
    /// Whether it gave way to something else, and is to be called again.
    pub pending: bool,
}

/// A published tree whose git commands read the store's objects.
#[derive(Clone, Debug)]
pub struct Borrower {
    /// The commit that it shows.
    pub commit: Commit,
    /// The commits whose parents it does not expect (its own `shallow` file).
    pub boundary: BTreeSet<Commit>,
}

/// What this process knows of earlier maintenance; another one finds out again.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes that the retained commits needed when somebody last counted; 0 for not yet.
    live_bytes: u64,
    /// What an unfinished rewrite has written already: not garbage, though other packs hold the
    /// same.
    finished: BTreeSet<String>,
    /// What cannot be rewritten.
    damaged: BTreeSet<String>,
}

/// More packs than this are rolled up.
const MANY_PACKS: usize = 16;
/// No more are replaced at a time: each is open meanwhile.
const PACKS_AT_ONCE: usize = 100;
/// A rewrite makes packs of about this size: what fits into one budget on a slow machine. Those of
/// half the size and more are not rolled up.
const SLICE: u64 = 128 << 20;
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
        self.maintain_in_slices(retained, borrowers, SLICE, budget)
    }

    fn maintain_in_slices(
        &self,
        retained: &[Commit],
        borrowers: &[Borrower],
        slice: u64,
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
        let mut packs = packs::list(&directory).map_err(disk)?;
        let bytes = total(&packs);
        // What is left alone comes last.
        let (live, spared) = {
            let memory = self.memory();
            packs.sort_by_key(|pack| memory.rank(pack));
            let spared = packs.iter().filter(|pack| memory.rank(pack) > 0).count();
            (memory.live_bytes, spared)
        };
        let open = packs.len() - spared;
        let small = packs[..open].partition_point(|pack| pack.bytes < slice / 2);
        let many = small > MANY_PACKS;
        let large = packs.len() > 1 && bytes > 2 * live + SLACK;
        let shallow = self.shallow();
        if needed.is_empty() || !(many || large || found || shallow.len() > MANY_SHALLOW) {
            return Ok(Maintained {
                packs: packs.len(),
                bytes,
                ..Maintained::default()
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
        let (mut rewritten, mut pending) = (false, false);
        if many || large {
            let live = self.live(&repository, &history, budget)?;
            let indexes = packs
                .iter()
                .map(|pack| Index::read(&directory, &pack.name))
                .collect::<io::Result<Vec<_>>>()
                .map_err(disk)?;
            let (garbage, own) = doomed::because_of_garbage(&packs, &indexes, open, live.as_ref());
            let doomed = if many {
                // Cheap and needed now; if much garbage is left, the next call sees to it.
                doomed::because_of_number(&packs[..small])
            } else {
                garbage
            }
            .min(PACKS_AT_ONCE);
            let mut written = Some(0);
            if doomed > 0 {
                written = self
                    .rewrite(&packs, &indexes, doomed, live.as_ref(), slice, budget)
                    .map_err(|failure| self.not_rewritten(failure, &packs, doomed))?;
                rewritten = true;
            }
            let mut memory = self.memory();
            match written {
                None => pending = true,
                Some(written) => {
                    if !many {
                        memory.finished.clear();
                    }
                    // What could not be shrunk counts as if it were needed: it is no reason to try
                    // again.
                    let kept = packs.iter().zip(own).skip(doomed);
                    let needed: u64 = kept
                        .map(|(pack, own)| match memory.damaged.contains(&pack.name) {
                            true => pack.bytes,
                            false => own,
                        })
                        .sum();
                    memory.live_bytes = (needed + written).max(1);
                }
            }
        }
        let packs = packs::list(&directory).map_err(disk)?;
        Ok(Maintained {
            packs: packs.len(),
            bytes: total(&packs),
            rewritten,
            pending,
        })
    }

    /// Replaces the first `doomed` packs by new ones with their live objects; returns the size of
    /// those in bytes, or nothing if it gave way to something else after some of them.
    fn rewrite(
        &self,
        packs: &[Pack],
        indexes: &[Index],
        doomed: usize,
        live: Option<&HashSet<Oid>>,
        slice: u64,
        budget: &Budget,
    ) -> Result<Option<u64>, Failure> {
        let sound = {
            let memory = self.memory();
            let is_sound = |pack: &&Pack| !memory.damaged.contains(&pack.name);
            packs.iter().take_while(is_sound).count().max(doomed)
        };
        // What is damaged comes last, and is not relied on.
        let kept = &indexes[doomed..sound];
        let needed = |id| {
            live.is_none_or(|live| live.contains(&id))
                && !kept.iter().any(|index| index.contains(id))
        };
        let directory = self.pack_dir();
        let plan = Plan::new(
            &directory,
            &packs[..doomed],
            &indexes[..doomed],
            needed,
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
                    self.keep_or_drop(&failure, written, packs);
                    return Err(failure);
                }
            };
        }
        for pack in &packs[..doomed] {
            if !written.contains(&pack.name) {
                packs::remove(&directory, &pack.name).map_err(Failure::Disk)?;
            }
        }
        tracing::debug!(
            packs = doomed,
            objects = plan.objects(),
            slices = plan.slices(),
            "rewrote packs"
        );
        let left = packs::list(&directory).map_err(Failure::Disk)?;
        let new = left.iter().filter(|pack| written.contains(&pack.name));
        Ok(Some(new.map(|pack| pack.bytes).sum()))
    }

    /// Remembers the finished slices of a rewrite of `packs` that is not at its end.
    fn keep(&self, mut written: BTreeSet<String>, packs: &[Pack]) {
        written.retain(|name| packs.iter().all(|pack| pack.name != *name));
        self.memory().finished.extend(written);
    }

    /// Keeps the slices of a rewrite that failed, unless they fill the disk.
    fn keep_or_drop(&self, failure: &Failure, written: BTreeSet<String>, packs: &[Pack]) {
        if !matches!(failure, Failure::Disk(_)) {
            return self.keep(written, packs);
        }
        let old = |name: &String| packs.iter().any(|pack| pack.name == *name);
        for name in written.into_iter().filter(|name| !old(name)) {
            // What stays is garbage, and goes with the next rewrite.
            let _ = packs::remove(&self.pack_dir(), &name);
        }
    }

    /// The error for a rewrite of the first `doomed` packs that failed; the next is to do better.
    fn not_rewritten(&self, failure: Failure, packs: &[Pack], doomed: usize) -> SyncError {
        let mut memory = self.memory();
        match failure {
            Failure::Interrupted(cause) => {
                if memory.finished.is_empty() {
                    // Nothing came of it, and more time there will not be: not again before the
                    // store has doubled.
                    memory.live_bytes = total(packs);
                }
                SyncError::interrupted(Stage::Prune, "rewriting packs", cause)
                    .with_hint("no action is needed: it goes on with the next housekeeping")
            }
            Failure::Disk(cause) => {
                memory.live_bytes = total(packs);
                SyncError::disk(Stage::Prune, "rewrite packs in", &self.path, cause)
            }
            Failure::Damaged(cause) => {
                let names = packs[..doomed].iter().map(|pack| pack.name.clone());
                memory.damaged.extend(names);
                memory.live_bytes = total(packs);
                SyncError::new(
                    Stage::Prune,
                    Reason::Store,
                    format!("a pack in {} is damaged", self.path.display()),
                )
                .with_source(cause)
            }
        }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Whoever panicked left nothing half done in it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Whether a pack may be rewritten (0), is the result of doing so (1), or is damaged (2).
    fn rank(&self, pack: &Pack) -> u8 {
        if self.damaged.contains(&pack.name) {
            2
        } else {
            u8::from(self.finished.contains(&pack.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use git2::{Buf, Repository, Signature};

    use super::*;
    use crate::base::transfer::{Fetched, PackSink};

    fn budget() -> Budget {
        let minute = Duration::from_secs(60);
        Budget::new(minute, minute, Default::default())
    }

    /// Puts a commit of some files into the store, of which all or only the first bytes differ.
    fn fill(store: &Store, source: &Repository, files: usize, differ: usize) -> Commit {
        let mut tree = source.treebuilder(None).unwrap();
        let mut builder = source.packbuilder().unwrap();
        let mut noise: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
        for n in 0..files {
            noise[..differ].fill_with(|| fastrand::u8(..));
            let blob = source.blob(&noise).unwrap();
            tree.insert(format!("f{n}"), blob, 0o100_644).unwrap();
        }
        let tree = source.find_tree(tree.write().unwrap()).unwrap();
        let by = Signature::now("T", "t@example.org").unwrap();
        let commit = source.commit(None, &by, &by, "m", &tree, &[]).unwrap();
        builder.insert_commit(commit).unwrap();
        let mut pack = Buf::new();
        builder.write_buf(&mut pack).unwrap();
        let mut receiving = store.receive(&budget(), u64::MAX).unwrap();
        receiving.write(&pack).unwrap();
        let commit = Commit::from(commit);
        receiving.finish(&Fetched::default(), &[commit]).unwrap();
        commit
    }

    fn inode(directory: &Path, name: &str) -> u64 {
        let path = directory.join(format!("{name}.pack"));
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_rewrite_gives_way_after_each_slice_and_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let source = Repository::init_bare(dir.path().join("source")).unwrap();
        let store = Store::open(&dir.path().join("store.git")).unwrap();
        let retained = [fill(&store, &source, 40, 100_000)];
        fill(&store, &source, 60, 100_000);
        let directory = store.pack_dir();
        let names = || -> BTreeSet<_> {
            let packs = packs::list(&directory).unwrap();
            packs.into_iter().map(|pack| pack.name).collect()
        };
        let old = names();
        let mut finished = Vec::new();
        for slices in 1..=3 {
            let budget = budget().giving_way(Instant::now(), Default::default());
            let maintained = store
                .maintain_in_slices(&retained, &[], 1 << 20, &budget)
                .unwrap();
            assert!(maintained.rewritten && maintained.pending, "{maintained:?}");
            assert_eq!(maintained.packs, old.len() + slices);
            let known: BTreeSet<_> = finished.iter().map(|(name, _)| name).cloned().collect();
            let new = names()
                .into_iter()
                .filter(|n| !old.contains(n) && !known.contains(n));
            let new: Vec<_> = new
                .map(|name| (name.clone(), inode(&directory, &name)))
                .collect();
            finished.extend(new);
        }
        // The last one takes no more than a slice.
        let budget = budget().giving_way(Instant::now(), Default::default());
        let maintained = store
            .maintain_in_slices(&retained, &[], 1 << 20, &budget)
            .unwrap();
        assert!(
            maintained.rewritten && !maintained.pending,
            "{maintained:?}"
        );
        assert_eq!(maintained.packs, 4);
        assert!(names().is_disjoint(&old));
        for (name, before) in finished {
            assert_eq!(inode(&directory, &name), before);
        }
        assert!(super::super::has_whole_tree(
            &store.repository().unwrap(),
            retained[0]
        ));
        // All of it is needed: nothing is left to do.
        let maintained = store.maintain(&retained, &budget).unwrap();
        assert!(!maintained.rewritten && store.memory().finished.is_empty());
    }

    #[test]
    fn slices_of_a_rewrite_are_complete_in_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let source = Repository::init_bare(dir.path().join("source")).unwrap();
        let store = Store::open(&dir.path().join("store.git")).unwrap();
        fill(&store, &source, 30, 50);
        let directory = store.pack_dir();
        let old = packs::list(&directory).unwrap();
        let index = [Index::read(&directory, &old[0].name).unwrap()];
        let plan = Plan::new(&directory, &old, &index, |_| true, 1, &budget()).unwrap();
        // Bases are in each slice that needs them.
        assert!(plan.slices() > 10 && plan.objects() > index[0].len());
        for slice in 0..plan.slices() {
            plan.write(slice, &directory, &budget()).unwrap();
        }
        packs::remove(&directory, &old[0].name).unwrap();
        let repository = store.repository().unwrap();
        let odb = repository.odb().unwrap();
        assert!(index[0].ids().all(|id| odb.read(id).is_ok()));
    }
}
