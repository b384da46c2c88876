//! Bringing commits into the store: the target's own, and those of its submodules.
//!
//! It fetches what it is told to; whether anything is missing is for the caller to say.

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;
use crate::config::Target;
use crate::remote::{self, Advertised, FetchRequest, Remote};
use crate::store::Store;
use crate::tree::{self, Submodule, SubmoduleMode, TreeOptions};

use super::Report;

/// How deep submodules may nest: git has no limit, a loop of them has no end.
const SUBMODULE_DEPTH: usize = 16;

/// A commit to bring into the store.
pub(super) struct Wanted<'a> {
    pub object: Commit,
    pub name: Option<&'a str>,
    pub commit: Commit,
    pub depth: u32,
}

impl Wanted<'_> {
    /// Fetches it, with what the store has told to the remote.
    pub fn fetch(
        &self,
        remote: &mut dyn Remote,
        store: &Store,
        target: &Target,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<(), SyncError> {
        // A server does not tell what a ref holds before it is sent.
        self.check_kind(store)?;
        let fetched = report.time(Stage::Fetch, || {
            let haves = store.haves();
            let shallow = store.shallow();
            let thin = !haves.is_empty();
            let mut receiving = store.receive(budget, max_bytes(target))?;
            if thin {
                receiving.expect_thin();
            }
            let request = FetchRequest {
                want: self.object,
                also: &[],
                name: self.name,
                haves: &haves,
                shallow: &shallow,
                depth: self.depth,
                thin,
            };
            let fetched = remote.fetch(&request, &mut receiving, budget)?;
            receiving
                .finish(&fetched, &[self.commit])
                .map_err(|error| self.check_kind(store).err().unwrap_or(error))
                .map(|()| fetched)
        })?;
        report.fetched_bytes += fetched.bytes;
        Ok(())
    }

    /// Refuses what the store knows to be no commit.
    fn check_kind(&self, store: &Store) -> Result<(), SyncError> {
        match tree::other_than_commit(store.path(), self.commit) {
            None => Ok(()),
            Some(kind) => {
                let id = self.commit.to_string();
                let what = printable(self.name.unwrap_or(&id));
                Err(remote::no_commit(Stage::Fetch, &what, kind))
            }
        }
    }
}

/// Brings the objects of tags that were made after the commits that they stand for had come.
pub(super) fn fetch_tags(
    remote: &mut dyn Remote,
    store: &Store,
    tags: &[Advertised],
    target: &Target,
    budget: &Budget,
    report: &mut Report,
) -> Result<(), SyncError> {
    let missing = store.missing_tags(tags);
    let Some((first, others)) = missing.split_first() else {
        return Ok(());
    };
    let fetched = report.time(Stage::Fetch, || {
        let also: Vec<Commit> = others.iter().map(|tag| tag.object).collect();
        let haves: Vec<Commit> = missing.iter().map(|tag| tag.commit).collect();
        let request = FetchRequest {
            want: first.object,
            also: &also,
            name: Some(&first.name),
            haves: &haves,
            // As if all history were here: only the tags themselves are of interest.
            shallow: &[],
            depth: 0,
            thin: false,
        };
        let mut receiving = store.receive(budget, max_bytes(target))?;
        let fetched = remote.fetch(&request, &mut receiving, budget)?;
        receiving.finish(&fetched, &[])?;
        Ok(fetched)
    })?;
    report.fetched_bytes += fetched.bytes;
    Ok(())
}

/// Brings the submodules of a commit, and theirs, into the store.
pub(super) fn fetch_submodules(
    target: &Target,
    store: &Store,
    commit: Commit,
    budget: &Budget,
    report: &mut Report,
) -> Result<(), SyncError> {
    each_submodule(target, store, commit, &mut |submodule| {
        if store.contains(submodule.commit) {
            return Ok(());
        }
        let mut remote = remote::open(&target.remote_for(&submodule.url))?;
        let want = Wanted {
            object: submodule.commit,
            name: None,
            commit: submodule.commit,
            depth: target.depth,
        };
        want.fetch(&mut *remote, store, target, budget, report)
            .map_err(|error| in_submodule(error, submodule))
    })
}

/// Visits the submodules of a commit, each before its own, as far as the settings want them.
///
/// A commit that the store does not hold has none.
pub(super) fn each_submodule(
    target: &Target,
    store: &Store,
    commit: Commit,
    visit: &mut dyn FnMut(&Submodule) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let depth = match target.tree.submodules {
        SubmoduleMode::Off => return Ok(()),
        SubmoduleMode::Shallow => 1,
        SubmoduleMode::Recursive => SUBMODULE_DEPTH,
    };
    // Sparse patterns speak of the superproject's paths: a submodule is there whole or not at all.
    let whole = TreeOptions {
        sparse: None,
        ..target.tree.clone()
    };
    let mut pending = vec![(commit, target.remote.url.clone(), depth, &target.tree)];
    while let Some((parent, parent_url, depth, options)) = pending.pop() {
        if !store.contains(parent) {
            continue;
        }
        for submodule in tree::submodules::list(store.path(), parent, options, &parent_url)? {
            visit(&submodule)?;
            if depth > 1 {
                pending.push((submodule.commit, submodule.url, depth - 1, &whole));
            }
        }
    }
    Ok(())
}

/// The largest pack that is taken.
fn max_bytes(target: &Target) -> u64 {
    target.tree.max_bytes.unwrap_or(u64::MAX)
}

/// Names the submodule, and keeps a missing commit from looking like a moved ref.
fn in_submodule(error: SyncError, submodule: &Submodule) -> SyncError {
    let reason = match error.reason {
        Reason::RefMissing => Reason::NotFound,
        other => other,
    };
    let path = printable(&submodule.path.to_string_lossy());
    let mut outer = SyncError::new(
        error.stage,
        reason,
        format!(
            "submodule {path} at {} ({})",
            submodule.commit, submodule.url
        ),
    );
    if let Some(hint) = error.hint() {
        outer = outer.with_hint(hint);
    }
    if let Some(delay) = error.retry_after {
        outer = outer.with_retry_after(delay);
    }
    outer.with_source(error)
}
