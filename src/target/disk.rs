//! The volume while it is open: its complete trees, and what is known of each.

use tracing::{debug, warn};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;
use crate::manifest::{self, Header};
use crate::store::Store;
use crate::tree::{Base, TreeOptions};
use crate::volume::{Accepted, Observed, Revision, Volume};

use super::Report;
use super::ahead::Ahead;

/// The volume while it is open and locked, its complete trees, and what is ready for the next.
pub(super) struct Disk {
    pub volume: Volume,
    pub store: Store,
    pub known: Vec<Known>,
    pub ahead: Option<Ahead>,
}

/// A complete tree on the volume.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub revision: Revision,
    pub settings: String,
    /// Whether it is as it was published, as far as anyone looked.
    pub sound: bool,
}

impl Known {
    /// As what a new tree shares files with.
    pub fn as_base(&self) -> Base<'_> {
        Base {
            tree: &self.revision.path,
            manifest: &self.revision.manifest,
        }
    }
}

impl Disk {
    /// Reads again which complete trees there are; what was found unsound stays so.
    pub fn refresh(&mut self) -> Result<(), SyncError> {
        let mut known = Vec::new();
        for revision in self.volume.revisions()? {
            let before = self
                .known
                .iter()
                .find(|known| known.revision.n == revision.n);
            known.push(match before {
                // Publishing by exchange moves trees.
                Some(before) => Known {
                    revision,
                    ..before.clone()
                },
                None => {
                    let header = Header::read(&revision.manifest);
                    Known {
                        sound: header.is_ok(),
                        settings: header.map(|header| header.fingerprint).unwrap_or_default(),
                        revision,
                    }
                }
            });
        }
        self.known = known;
        Ok(())
    }

    /// Takes away what was made ready for a tree that was built meanwhile, or by an earlier life.
    pub fn drop_old_spares(&mut self) {
        let newest = self.newest().map(|newest| newest.revision.n);
        if self.ahead.as_ref().map(Ahead::of) != newest {
            self.ahead = None;
            self.drop_spares();
        }
    }

    /// Takes away what was made ready for the next tree.
    pub fn drop_spares(&self) {
        if let Err(error) = self.volume.drop_spares() {
            debug!(%error, "what was linked ahead stays for now");
        }
    }

    /// Gives the room of what was made ready for the next tree to the one that needs it now; whether
    /// there was any.
    pub fn make_room(&mut self, budget: &Budget) -> bool {
        self.ahead = None;
        match self.volume.delete_spares(budget) {
            Ok(made) => made && self.refresh().is_ok(),
            Err(error) => {
                debug!(%error, "what was linked ahead makes no room");
                false
            }
        }
    }

    /// Points readers at a complete tree.
    pub fn publish(&mut self, revision: &Accepted, report: &mut Report) -> Result<(), SyncError> {
        report.time(Stage::Publish, || self.volume.publish(revision))?;
        self.refresh()
    }

    /// Whether the history in the store may have another depth than a new tree of the commit is to
    /// show: the commit came, or the last fetch was made, under other settings.
    pub fn lacks_history(&self, commit: Commit, options: &TreeOptions, settings: &str) -> bool {
        let differs = |known: &Known| known.settings != settings;
        options.git_dir
            && !(options.depth == 0 && self.store.shallow().is_empty())
            && (self.newest().is_none_or(differs)
                || self
                    .known
                    .iter()
                    .any(|known| known.revision.commit == commit && differs(known)))
    }

    /// The tree that readers were seen to have.
    pub fn live(&self, observed: &Observed) -> Option<&Known> {
        let live = observed.live.as_ref()?;
        self.known.iter().find(|known| known.revision.n == live.n)
    }

    /// Compares a whole tree with its manifest; remembers and returns whether it is sound.
    pub fn inspect(&mut self, n: u64, budget: &Budget) -> Result<bool, SyncError> {
        let Some(known) = self.known.iter_mut().find(|known| known.revision.n == n) else {
            return Ok(false);
        };
        if known.sound
            && let Some(damage) =
                manifest::verify(&known.revision.path, &known.revision.manifest, budget)?
        {
            warn!(
                commit = %known.revision.commit,
                damage = printable(&damage),
                "a published tree was altered; it will be built anew"
            );
            known.sound = false;
        }
        Ok(known.sound)
    }

    pub fn newest(&self) -> Option<&Known> {
        self.known.iter().max_by_key(|known| known.revision.n)
    }

    /// The sound tree that readers saw last, which after a force push need not be the newest.
    pub fn last_seen(&self) -> Option<&Known> {
        let sound = || self.known.iter().filter(|known| known.sound);
        let n = self
            .volume
            .last_live(sound().map(|known| known.revision.n))?;
        sound().find(|known| known.revision.n == n)
    }

    /// A tree that may be published.
    pub fn accepted(&self, n: u64) -> Result<Accepted, SyncError> {
        self.known
            .iter()
            .find(|known| known.revision.n == n)
            .and_then(|known| self.volume.accepted(&known.revision))
            .ok_or_else(|| SyncError::new(Stage::Publish, Reason::Other, "the tree is gone"))
    }
}
