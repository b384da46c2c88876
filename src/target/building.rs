//! From a tip to a tree on the disk: fetch, build, seal, publish.
//!
//! It writes what it is told to; whether that is called for was decided before.

use std::time::Instant;

use tracing::{debug, warn};

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::remote::Advertised;
use crate::tree::{self, BuildRequest};
use crate::volume::{Accepted, Observed};

use super::disk::Known;
use super::fetching::{Wanted, fetch_submodules, fetch_tags};
use super::{Outcome, Report, Sync, opened};

impl Sync {
    /// Publishes a tree of the tip that has to be written first.
    pub(super) fn build_and_publish(
        &mut self,
        tip: &Advertised,
        observed: &Observed,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Outcome, SyncError> {
        let started = Instant::now();
        let built = match self.obtain_and_build(tip, observed, budget, report) {
            // A damaged store is rebuilt from the remote, once; the published tree stays up.
            Err(error) if error.reason == Reason::Store => {
                warn!(
                    error = error.chain(),
                    "the object store is damaged; fetching it anew"
                );
                opened(&mut self.disk)?.store.wipe()?;
                self.obtain_and_build(tip, observed, budget, report)?
            }
            other => other?,
        };
        let Some((revision, tree)) = built else {
            self.irrelevant = observed.live.as_ref().map(|live| (tip.commit, live.n));
            debug!(commit = %tip.commit, "nothing changed under the watched paths");
            return Ok(Outcome::Unchanged);
        };
        opened(&mut self.disk)?.publish(&revision, report)?;
        self.irrelevant = None;
        self.announce(tip, Some((tree, started.elapsed())))
    }

    /// Fetches what is missing, writes the tree and seals it; `None` when it is not worth a flip.
    fn obtain_and_build(
        &mut self,
        tip: &Advertised,
        observed: &Observed,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Option<(Accepted, tree::Built)>, SyncError> {
        let Self {
            target,
            remote,
            settings,
            disk,
            ..
        } = self;
        let disk = opened(disk)?;
        let store = &disk.store;
        if !store.contains(tip.commit) || disk.lacks_history(tip.commit, &target.tree, settings) {
            let want = Wanted {
                object: tip.object,
                name: Some(&tip.name),
                commit: tip.commit,
                depth: target.depth,
            };
            want.fetch(&mut **remote, store, target, budget, report)?;
        }
        fetch_submodules(target, store, tip.commit, budget, report)?;
        if target.tree.git_dir {
            let tags = report.time(Stage::Fetch, || remote.tags(budget))?;
            fetch_tags(&mut **remote, store, &tags, target, budget, report)?;
            store.set_tags(&tags)?;
        }

        if target.publish_on_paths
            && let Some(sparse) = &target.tree.sparse
            && let Some(live) = disk.live(observed)
            && live.sound
            && !observed.live_takes_the_links_place()
            && live.settings == *settings
            && store.contains(live.revision.commit)
            && !tree::changed_under(store.path(), live.revision.commit, tip.commit, sparse)?
        {
            return Ok(None);
        }

        let staged = disk.volume.stage(tip.commit)?;
        // Whatever comes of this, the spare will not be what it was.
        let ahead = disk.ahead.take();
        let newest = disk.newest();
        let tree = report.time(Stage::Build, || {
            tree::build(
                &BuildRequest {
                    store: store.path(),
                    commit: tip.commit,
                    destination: staged.tree(),
                    manifest: staged.manifest(),
                    base: newest.map(Known::as_base),
                    spare: newest.and_then(|base| ahead.as_ref()?.spare_of(base)),
                    options: &target.tree,
                },
                budget,
            )
        })?;
        report.files_written += tree.files_written;
        report.files_shared += tree.files_shared;
        let revision = report.time(Stage::Publish, || staged.seal()?.accept())?;
        Ok(Some((revision, tree)))
    }
}
