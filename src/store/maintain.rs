//! Keeping the store small over thousands of fetches.
//!
//! Every fetch adds a pack, and one commit later most of its objects are garbage. If there are many
//! packs, the small ones are rolled into one that holds only the objects that the retained commits
//! need. If there is more garbage than needed data, packs are rewritten without it. Both cost time
//! in proportion to what they remove, so the cost per update does not grow with the number of
//! updates. The new packs are complete before the old ones are removed. A rewrite that exceeds one
//! budget continues in the next: large packs are rewritten in slices, and finished slices are not
//! written again.
//!
//! A pack that cannot be read is kept from then on, together with the packs of the same rewrite. A
//! damaged pack therefore bounds how small the store can get; packs fetched later are still
//! compacted.
//!
//! Histories of more than 1000 commits are not searched for garbage: their small packs are rolled
//! up with every object in them.

use std::collections::{BTreeSet, HashSet};
use std::io;

use git2::Repository;

use super::Store;
use super::directory::remove_if_present;
use super::packs::{self, Pack, total};
use super::selection::{self, SLACK, Selection};
use super::state::PackRank;
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};
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
    /// Whether the rewrite stopped because the budget gives way: call again.
    pub pending: bool,
}

/// A published tree whose git commands read the store's objects.
#[derive(Clone, Debug)]
pub struct Borrower {
    /// The commit that the tree shows.
    pub commit: Commit,
    /// The commits whose parents git does not look for there (the tree's own `shallow` file).
    pub boundary: BTreeSet<Commit>,
}

/// More packs than this are rolled up.
const MANY_PACKS: usize = 16;
/// The most packs that one rewrite replaces, because each of them is open meanwhile.
const PACKS_AT_ONCE: usize = 100;
/// A rewrite writes packs of about this size in bytes, which fits into one budget on a slow
/// machine. Packs of half this size and more are not rolled up.
const SLICE: u64 = 128 << 20;
/// A `shallow` file with more lines than this is shortened.
const MANY_SHALLOW: usize = 32;

/// The packs of the store, and what is to be done about them.
struct Survey {
    /// Replaceable packs first, then those of an unfinished rewrite, then damaged ones.
    packs: Vec<Pack>,
    /// How many of them are replaceable.
    open: usize,
    /// How many of the replaceable ones may be rolled up.
    small: usize,
    /// Whether there are too many small packs.
    many: bool,
    /// Whether the packs hold much more than was needed at the last count.
    large: bool,
}

impl Survey {
    fn wants_rewrite(&self) -> bool {
        self.many || self.large
    }
}

/// What one rewrite came to.
#[derive(Default)]
struct Rewritten {
    rewritten: bool,
    pending: bool,
}

impl Store {
    /// Forgets all commits but `retained`, and shrinks packs and `shallow` if that is worth its
    /// cost. Call it after publishing, off the critical path; most calls only list a directory.
    ///
    /// # Errors
    /// Stage `prune`: the budget ran out, the disk is full, or (reason `store`) a retained commit
    /// cannot be read. The store then still has every object that it needs.
    pub fn maintain(&self, retained: &[Commit], budget: &Budget) -> Result<Maintained, SyncError> {
        self.maintain_for(retained, &[], budget)
    }

    /// Like [`Store::maintain`], and keeps what the borrowers need: their boundary may be further
    /// back than that of the store, which moves with every fetch.
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

    /// Like [`Store::maintain_for`], with packs of about `slice` bytes.
    fn maintain_in_slices(
        &self,
        retained: &[Commit],
        borrowers: &[Borrower],
        slice: u64,
        budget: &Budget,
    ) -> Result<Maintained, SyncError> {
        let (tips, added) = self.update_tips(retained).map_err(|e| self.not_shrunk(e))?;
        let survey = self.survey(slice).map_err(|e| self.not_shrunk(e))?;
        let shallow = self.shallow();
        let due = survey.wants_rewrite() || added || shallow.len() > MANY_SHALLOW;
        if tips.is_empty() || !due {
            return Ok(Maintained {
                packs: survey.packs.len(),
                bytes: total(&survey.packs),
                ..Maintained::default()
            });
        }
        let repository = self.repository().map_err(|cause| self.unreadable(cause))?;
        let boundary: BTreeSet<Commit> = shallow.into_iter().collect();
        let (mut history, cut) = self.history(&repository, &tips, &boundary, budget)?;
        for borrower in borrowers.iter().filter(|b| tips.contains(&b.commit)) {
            let tip = [borrower.commit];
            let own = self.history(&repository, &tip, &borrower.boundary, budget)?;
            history.extend(own.0);
        }
        if boundary != cut {
            self.write_shallow(&cut).map_err(|e| self.not_shrunk(e))?;
        }
        let mut outcome = Rewritten::default();
        if survey.wants_rewrite() {
            outcome = self.rewrite_some(&repository, &survey, &history, slice, budget)?;
        }
        let packs = packs::list(&self.pack_dir()).map_err(|e| self.not_shrunk(e))?;
        Ok(Maintained {
            packs: packs.len(),
            bytes: total(&packs),
            rewritten: outcome.rewritten,
            pending: outcome.pending,
        })
    }

    /// Makes the recorded tips those of the retained commits that the store has. Returns them, and
    /// whether one was added: a commit that was published without a fetch.
    fn update_tips(&self, retained: &[Commit]) -> io::Result<(Vec<Commit>, bool)> {
        let mut tips = Vec::new();
        for tip in self.tips() {
            if retained.contains(&tip) {
                tips.push(tip);
            } else {
                remove_if_present(&self.tip_path(tip))?;
            }
        }
        let recorded = tips.len();
        for commit in retained {
            if !tips.contains(commit) && self.contains(*commit) {
                self.add_tip(*commit)?;
                tips.push(*commit);
            }
        }
        let added = tips.len() > recorded;
        Ok((tips, added))
    }

    fn survey(&self, slice: u64) -> io::Result<Survey> {
        let mut packs = packs::list(&self.pack_dir())?;
        let state = self.maintenance();
        packs.sort_by_key(|pack| state.rank(pack));
        let open = packs.partition_point(|pack| state.rank(pack) == PackRank::Replaceable);
        let small = packs[..open].partition_point(|pack| pack.bytes < slice / 2);
        Ok(Survey {
            many: small > MANY_PACKS,
            large: packs.len() > 1 && total(&packs) > 2 * state.needed_bytes + SLACK,
            packs,
            open,
            small,
        })
    }

    /// Rewrites the packs that are too many or hold too much garbage.
    fn rewrite_some(
        &self,
        repository: &Repository,
        survey: &Survey,
        history: &HashSet<Commit>,
        slice: u64,
        budget: &Budget,
    ) -> Result<Rewritten, SyncError> {
        let packs = &survey.packs;
        let needed = self.needed_objects(repository, history, budget)?;
        let indexes = packs
            .iter()
            .map(|pack| Index::read(&self.pack_dir(), &pack.name))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| self.not_shrunk(e))?;
        let by_garbage = selection::by_garbage(packs, &indexes, survey.open, needed.as_ref());
        let count = if survey.many {
            // The number of packs slows down reading, so it is reduced first. If much garbage is
            // left, the next call removes it.
            selection::by_number(&packs[..survey.small])
        } else {
            by_garbage.count
        }
        .min(PACKS_AT_ONCE);
        let selection = Selection {
            count,
            ..by_garbage
        };
        let written = match count {
            0 => Some(0),
            _ => self
                .rewrite(packs, &indexes, count, needed.as_ref(), slice, budget)
                .map_err(|failure| self.not_rewritten(failure, packs, count))?,
        };
        if let Some(written) = written {
            self.remember_needed(survey, &selection, written);
        }
        Ok(Rewritten {
            rewritten: count > 0,
            pending: written.is_none(),
        })
    }

    /// Remembers how many bytes are needed after a rewrite that wrote `written` bytes.
    fn remember_needed(&self, survey: &Survey, selection: &Selection, written: u64) {
        let mut state = self.maintenance();
        if !survey.many {
            state.finished.clear();
        }
        let kept = survey.packs.iter().zip(&selection.needed_bytes);
        // A damaged pack counts as needed because it cannot be shrunk: otherwise its garbage would
        // cause a rewrite at every call.
        let needed: u64 = kept
            .skip(selection.count)
            .map(|(pack, own)| match state.damaged.contains(&pack.name) {
                true => pack.bytes,
                false => *own,
            })
            .sum();
        state.needed_bytes = (needed + written).max(1);
    }

    fn not_shrunk(&self, cause: io::Error) -> SyncError {
        SyncError::disk(Stage::Prune, "shrink", &self.path, cause)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use git2::{Buf, Repository, Signature};

    use super::super::copy::CopyPlan;
    use super::super::objects::has_whole_tree;
    use super::*;
    use crate::base::transfer::{Fetched, PackSink};

    fn budget() -> Budget {
        let minute = Duration::from_secs(60);
        Budget::new(minute, minute, Default::default())
    }

    /// Puts a commit of `files` files of 100,000 bytes into the store. The files differ from each
    /// other in their first `differ` bytes.
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
    fn a_rewrite_gives_way_after_each_slice_and_continues_in_the_next_call() {
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
        // The last call writes the last slice.
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
        assert!(has_whole_tree(&store.repository().unwrap(), retained[0]));
        // Everything in the store is needed, so nothing is left to do.
        let maintained = store.maintain(&retained, &budget).unwrap();
        assert!(!maintained.rewritten && store.maintenance().finished.is_empty());
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
        let plan = CopyPlan::new(&directory, &old, &index, |_| true, 1, &budget()).unwrap();
        // Each slice holds the bases that its deltas need.
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
