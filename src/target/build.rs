//! Writes the tree of a commit that is in the store, and seals it.

use super::context::Context;
use super::decide::comparable;
use super::settings::PublishOn;
use super::trees::{KnownTree, Trees, Validity};
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};
use crate::notify::event::Shortcomings;
use crate::tree::{self, BuildRequest, Built};
use crate::volume::{Observed, Sealed};

/// Whether the commit changes something that readers watch. With `--publish-on paths` a commit that
/// changes no watched path is not built.
pub(super) fn is_relevant(
    trees: &Trees,
    commit: Commit,
    fingerprint: &str,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<bool, SyncError> {
    let PublishOn::Paths(watched) = &context.settings.publish_on else {
        return Ok(true);
    };
    let candidates = trees.candidates(&Validity::default());
    let facts = trees.facts(fingerprint, &candidates, observed, None);
    match comparable(&facts) {
        Some((_, live)) if trees.store.contains(live) => {
            tree::changed_under(trees.store.path(), live, commit, watched, context.budget)
        }
        _ => Ok(true),
    }
}

/// Writes the tree and seals it. Takes the spare tree, if there is one.
pub(super) fn build<'t>(
    trees: &'t mut Trees,
    commit: Commit,
    context: &mut Context<'_>,
) -> Result<(Sealed<'t>, Built), SyncError> {
    // The build takes the spare tree apart, whether it succeeds or not.
    let spare = trees.spare.take();
    let trees = &*trees;
    let staged = trees.volume.stage(commit)?;
    let newest = trees.newest();
    let built = context.time(Stage::Build, |context| {
        tree::build(
            &BuildRequest {
                store: trees.store.path(),
                commit,
                destination: staged.tree(),
                manifest: staged.manifest(),
                base: newest.map(KnownTree::as_base),
                spare: newest.and_then(|base| spare.as_ref()?.path_for(base.revision.n)),
                options: &context.settings.tree,
            },
            context.budget,
        )
    })?;
    context.report.files_written += built.files_written;
    context.report.files_shared += built.files_shared;
    let sealed = context.time(Stage::Publish, |_| staged.seal())?;
    Ok((sealed, built))
}

/// What differs in the tree from what a reader may expect.
pub(super) fn shortcomings(built: &Built) -> Shortcomings {
    Shortcomings {
        not_shared: built.shared_fallback.clone(),
        unfiltered: built.unfiltered.clone(),
        unpopulated: built.unpopulated.clone(),
    }
}
