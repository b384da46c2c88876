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
//! Histories longer than [`HISTORY`] commits are not searched for garbage: their small packs are
//! rolled up with all they hold.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::{MutexGuard, PoisonError};

use git2::{Oid, Repository};

use super::copy::{Failure, Plan};
use super::packs::{self, Pack};
use super::{Store, each_entry, remove_if_there};
use crate::budget::Budget;
use crate::commit::Commit;
use crate::error::{Reason, Stage, SyncError};
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
/// Rolling up leaves at most this many.
const FEW_PACKS: usize = 8;
/// No more are replaced at a time: each is open meanwhile.
const PACKS_AT_ONCE: usize = 100;
/// Garbage up to this size is not worth any work.
const SLACK: u64 = 1 << 20;
/// A rewrite makes packs of about this size: what fits into one budget on a slow machine.
const SLICE: u64 = 128 << 20;
/// Packs from this size on are not rolled up.
const SMALL: u64 = SLICE / 2;
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
        let small = packs[..open].partition_point(|pack| pack.bytes < SMALL);
        let many = small > MANY_PACKS;
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
            let (garbage, own) = plan(&packs, &indexes, open, live.as_ref());
            let doomed = if many {
                // Cheap and needed now; if much garbage is left, the next call sees to it.
                roll_up_count(&packs[..small])
            } else {
                garbage
            }
            .min(PACKS_AT_ONCE);
            let mut written = 0;
            if doomed > 0 {
                written = self
                    .rewrite(&packs, &indexes, doomed, live.as_ref(), budget)
                    .map_err(|failure| self.not_rewritten(failure, &packs, doomed))?;
                rewritten = true;
            }
            let mut memory = self.memory();
            if !many {
                memory.finished.clear();
            }
            // What could not be shrunk counts as if it were needed: it is no reason to try again.
            let kept = packs.iter().zip(own).skip(doomed);
            let needed: u64 = kept
                .map(|(pack, own)| match memory.damaged.contains(&pack.name) {
                    true => pack.bytes,
                    false => own,
                })
                .sum();
            memory.live_bytes = (needed + written).max(1);
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

    /// Replaces the first `doomed` packs by new ones with their live objects; returns the size of
    /// those in bytes.
    fn rewrite(
        &self,
        packs: &[Pack],
        indexes: &[Index],
        doomed: usize,
        live: Option<&HashSet<Oid>>,
        budget: &Budget,
    ) -> Result<u64, Failure> {
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
            SLICE,
            budget,
        )?;
        let mut written = BTreeSet::new();
        for slice in 0..plan.slices() {
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
        Ok(new.map(|pack| pack.bytes).sum())
    }

    /// Keeps the slices of a rewrite that failed, unless they fill the disk.
    fn keep_or_drop(&self, failure: &Failure, mut written: BTreeSet<String>, packs: &[Pack]) {
        written.retain(|name| packs.iter().all(|pack| pack.name != *name));
        if !matches!(failure, Failure::Disk(_)) {
            self.memory().finished.extend(written);
            return;
        }
        for name in written {
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

    fn unreadable(&self, cause: git2::Error) -> SyncError {
        SyncError::new(
            Stage::Prune,
            Reason::Store,
            format!("cannot read all objects in {}", self.path.display()),
        )
        .with_source(cause)
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

/// How many of the smallest packs to replace because of garbage, at most the first `open`; and how
/// many bytes the live objects take in each pack.
fn plan(
    packs: &[Pack],
    indexes: &[Index],
    open: usize,
    live: Option<&HashSet<Oid>>,
) -> (usize, Vec<u64>) {
    let bytes = total(packs);
    let Some(live) = live else {
        return (0, packs.iter().map(|pack| pack.bytes).collect());
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
        return (0, own);
    }
    // The fewest packs whose garbage is worth it; often all the small ones and not the large one.
    let mut left = bytes;
    for (i, pack) in packs[..open].iter().enumerate() {
        left -= pack.bytes.saturating_sub(own[i]);
        if 4 * left <= 5 * needed + 2 * SLACK {
            return (i + 1, own);
        }
    }
    (open, own)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::Duration;

    use git2::{Buf, Signature};

    use super::*;
    use crate::remote::{Fetched, PackSink};

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
    fn a_rewrite_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let source = Repository::init_bare(dir.path().join("source")).unwrap();
        let store = Store::open(&dir.path().join("store.git")).unwrap();
        let retained = fill(&store, &source, 40, 100_000);
        fill(&store, &source, 60, 100_000);
        let directory = store.pack_dir();
        let old = packs::list(&directory).unwrap();
        let indexes: Vec<_> = old
            .iter()
            .map(|pack| Index::read(&directory, &pack.name).unwrap())
            .collect();
        // What a rewrite into slices of a megabyte had done when its time was up.
        let plan = Plan::new(
            &directory,
            &old[..1],
            &indexes[..1],
            |_| true,
            1 << 20,
            &budget(),
        )
        .unwrap();
        assert_eq!((plan.slices(), plan.objects()), (4, 42));
        let finished: Vec<_> = (0..3)
            .map(|slice| plan.write(slice, &directory, &budget()).unwrap())
            .collect();
        let inodes: Vec<_> = finished
            .iter()
            .map(|name| inode(&directory, name))
            .collect();
        store.memory().finished.extend(finished.iter().cloned());

        let maintained = store.maintain(&[retained], &budget()).unwrap();
        assert!(maintained.rewritten, "{maintained:?}");
        assert_eq!(maintained.packs, 4);
        for (name, before) in finished.iter().zip(inodes) {
            assert_eq!(inode(&directory, name), before);
        }
        assert!(old.iter().all(|pack| {
            !packs::list(&directory)
                .unwrap()
                .iter()
                .any(|left| left.name == pack.name)
        }));
        assert!(super::super::has_whole_tree(
            &store.repository().unwrap(),
            retained
        ));
        // All of it is needed: nothing is left to do.
        let maintained = store.maintain(&[retained], &budget()).unwrap();
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
