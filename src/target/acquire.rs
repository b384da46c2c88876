//! Fetches commits into the store: the target's own, its tags, and those of its submodules.

use super::settings::Target;
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Remedy, Stage, SyncError};
use crate::base::repo_url::RepoUrl;
use crate::base::text::printable;
use crate::remote::{self, Advertised, FetchRequest, Remote};
use crate::store::Store;
use crate::tree::{self, Submodule, SubmoduleMode, TreeOptions};

use super::context::Context;
use super::trees::Trees;

/// Fetches everything that a tree of the tip needs and the store lacks. `fingerprint` is that of
/// the settings.
pub(super) fn acquire(
    remote: &mut dyn Remote,
    trees: &Trees,
    tip: &Advertised,
    fingerprint: &str,
    context: &mut Context<'_>,
) -> Result<(), SyncError> {
    let store = &trees.store;
    let options = &context.settings.tree;
    let lacks_history = trees.lacks_history(tip.commit, options, fingerprint);
    if !store.contains(tip.commit) || lacks_history {
        let wanted = Wanted {
            object: tip.object,
            name: Some(&tip.name),
            commit: tip.commit,
        };
        wanted.fetch(remote, store, context)?;
    }
    fetch_submodules(store, tip.commit, context)?;
    if context.settings.tree.git_dir {
        let budget = context.budget;
        let tags = context.time(Stage::Fetch, |_| remote.tags(budget))?;
        fetch_tags(remote, store, &tags, context)?;
        store.set_tags(&tags)?;
    }
    Ok(())
}

/// A commit to fetch.
struct Wanted<'a> {
    object: Commit,
    name: Option<&'a str>,
    commit: Commit,
}

impl Wanted<'_> {
    fn fetch(
        &self,
        remote: &mut dyn Remote,
        store: &Store,
        context: &mut Context<'_>,
    ) -> Result<(), SyncError> {
        // A server does not say what kind of object a ref holds before it sends the object.
        self.check_kind(store)?;
        let fetched = context.time(Stage::Fetch, |context| {
            let haves = store.haves();
            let shallow = store.shallow();
            let thin = !haves.is_empty();
            let mut receiving = store.receive(context.budget, max_bytes(context.settings))?;
            if thin {
                receiving.expect_thin();
            }
            let request = FetchRequest {
                want: self.object,
                also: &[],
                name: self.name,
                haves: &haves,
                shallow: &shallow,
                depth: context.settings.depth,
                thin,
            };
            let fetched = remote.fetch(&request, &mut receiving, context.budget)?;
            receiving
                .finish(&fetched, &[self.commit])
                .map_err(|error| self.check_kind(store).err().unwrap_or(error))
                .map(|()| fetched)
        })?;
        context.report.fetched_bytes += fetched.bytes;
        Ok(())
    }

    /// Fails if the store holds the object and it is not a commit.
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

/// Fetches the objects of annotated tags that were made after their commits were fetched.
fn fetch_tags(
    remote: &mut dyn Remote,
    store: &Store,
    tags: &[Advertised],
    context: &mut Context<'_>,
) -> Result<(), SyncError> {
    let missing = store.missing_tags(tags);
    let Some((first, others)) = missing.split_first() else {
        return Ok(());
    };
    let fetched = context.time(Stage::Fetch, |context| {
        let also: Vec<Commit> = others.iter().map(|tag| tag.object).collect();
        let haves: Vec<Commit> = missing.iter().map(|tag| tag.commit).collect();
        let request = FetchRequest {
            want: first.object,
            also: &also,
            name: Some(&first.name),
            haves: &haves,
            // As if all history were here, because only the tag objects are wanted.
            shallow: &[],
            depth: 0,
            thin: false,
        };
        let mut receiving = store.receive(context.budget, max_bytes(context.settings))?;
        let fetched = remote.fetch(&request, &mut receiving, context.budget)?;
        receiving.finish(&fetched, &[])?;
        Ok(fetched)
    })?;
    context.report.fetched_bytes += fetched.bytes;
    Ok(())
}

/// Fetches the submodules of a commit, and theirs.
fn fetch_submodules(
    store: &Store,
    commit: Commit,
    context: &mut Context<'_>,
) -> Result<(), SyncError> {
    let (settings, budget) = (context.settings, context.budget);
    each_submodule(settings, store, commit, budget, &mut |submodule| {
        if store.contains(submodule.commit) {
            return Ok(());
        }
        let mut remote = remote::open(&settings.remote_for(&submodule.url))?;
        let wanted = Wanted {
            object: submodule.commit,
            name: None,
            commit: submodule.commit,
        };
        wanted
            .fetch(&mut *remote, store, context)
            .map_err(|error| in_submodule(error, submodule))
    })
}

/// Visits the submodules of a commit, each before its own, as far as the settings want them. A commit
/// that is at several paths is visited once.
///
/// A commit that the store does not hold counts as one without submodules.
pub(super) fn each_submodule(
    target: &Target,
    store: &Store,
    commit: Commit,
    budget: &Budget,
    visit: &mut dyn FnMut(&Submodule) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let recursive = match target.tree.submodules {
        SubmoduleMode::Off => return Ok(()),
        SubmoduleMode::Shallow => false,
        SubmoduleMode::Recursive => true,
    };
    let list = |commit: Commit, url: &RepoUrl, options: &TreeOptions| match store.contains(commit) {
        true => tree::submodules::list(store.path(), commit, options, url, budget),
        false => Ok(Vec::new()),
    };
    // Sparse patterns speak of the superproject's paths: a submodule is there whole or not at all.
    let whole = TreeOptions {
        sparse: None,
        ..target.tree.clone()
    };
    let top = list(commit, &target.remote.url, &target.tree)?;
    tree::nested::walk(top, &mut |submodule| {
        visit(submodule)?;
        match recursive {
            true => list(submodule.commit, &submodule.url, &whole),
            false => Ok(Vec::new()),
        }
    })
}

/// The largest pack that is received, in bytes.
fn max_bytes(target: &Target) -> u64 {
    target.tree.max_bytes.unwrap_or(u64::MAX)
}

/// Names the submodule. Polling the superproject again would not bring the commit, so a missing one
/// is retried at the next poll.
fn in_submodule(error: SyncError, submodule: &Submodule) -> SyncError {
    let remedy = match error.remedy {
        Remedy::PollAgain => Remedy::Retry,
        other => other,
    };
    let path = printable(&submodule.path.to_string_lossy());
    let mut outer = SyncError::new(
        error.stage,
        error.reason,
        format!(
            "submodule {path} at {} ({})",
            submodule.commit, submodule.url
        ),
    )
    .with_remedy(remedy);
    if let Some(hint) = error.hint() {
        outer = outer.with_hint(hint);
    }
    if let Some(delay) = error.retry_after {
        outer = outer.with_retry_after(delay);
    }
    outer.with_source(error)
}
