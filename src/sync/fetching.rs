//! Bringing commits into the store: the target's own, and those of its submodules.
//!
//! It fetches what it is told to; whether anything is missing is for the caller to say.

use crate::budget::Budget;
use crate::commit::Commit;
use crate::config::Target;
use crate::error::{Reason, Stage, SyncError, printable};
use crate::remote::{self, FetchRequest, Remote};
use crate::store::Store;
use crate::tree::{self, Submodule, SubmoduleMode, TreeOptions};

use super::Report;

/// The most objects of a pack that is worth completing here: libgit2 needs time that grows with the
/// square of the deltas without a base. More are fetched again, whole.
const MAX_THIN_OBJECTS: u32 = 3000;

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
            let mut attempt = |thin: bool| {
                let max_bytes = target.tree.max_bytes.unwrap_or(u64::MAX);
                let mut receiving = store.receive(budget, max_bytes)?;
                if thin {
                    receiving.refuse_above(MAX_THIN_OBJECTS);
                }
                let request = FetchRequest {
                    want: self.object,
                    name: self.name,
                    haves: &haves,
                    shallow: &shallow,
                    depth: self.depth,
                    thin,
                };
                match remote.fetch(&request, &mut receiving, budget) {
                    Err(_) if receiving.refused() => Ok(None),
                    Err(error) => Err(error),
                    Ok(fetched) => receiving
                        .finish(&fetched, &[self.commit])
                        .map_err(|error| self.check_kind(store).err().unwrap_or(error))
                        .map(|()| Some(fetched)),
                }
            };
            if !haves.is_empty()
                && let Some(fetched) = attempt(true)?
            {
                return Ok(fetched);
            }
            attempt(false)?.ok_or_else(|| {
                SyncError::new(Stage::Fetch, Reason::Other, "a whole pack was refused")
            })
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
