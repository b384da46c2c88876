//! The volume while it is open: its complete trees, and what is known of each.

use std::time::Duration;

use tracing::debug;

use super::context::Context;
use super::decide::{self, Candidate, Facts};
use super::settings::SyncWhen;
use super::spare::SpareTree;
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;
use crate::manifest::{self, Damage, Header};
use crate::notify::Event;
use crate::notify::event::DamageKind;
use crate::store::Store;
use crate::tree::{Base, Share, TreeOptions};
use crate::volume::{Accepted, Durability, Observed, Recorded, Revision, Verdict, Volume};

/// The volume while it is open and locked, its object store, its complete trees, and the spare tree
/// that is pre-linked for the next one.
pub(super) struct Trees {
    pub volume: Volume,
    pub store: Store,
    pub known: Vec<KnownTree>,
    pub spare: Option<SpareTree>,
    /// The commit whose damaged tree readers had last, until a sound tree of it is there.
    pub lost: Option<Commit>,
}

/// A complete tree on the volume.
#[derive(Clone, Debug)]
pub(super) struct KnownTree {
    pub revision: Revision,
    /// The fingerprint of the settings that it was built with.
    pub settings: String,
    /// Whether it is as it was built, as far as anybody looked.
    pub sound: bool,
    /// Whether its files are known to be on the disk.
    pub durability: Durability,
    /// Whether a file of it has another content than it should, whatever its size and time say.
    pub corrupt: bool,
    /// Whether it may be published, and what that is based on.
    pub recorded: Recorded,
}

/// Which verdicts of earlier cycles still hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Validity<'a> {
    /// The fingerprint of what is checked now.
    pub checks: &'a str,
    /// After what time a rejected commit is checked again.
    pub recheck_after: Option<Duration>,
    /// Whether somebody asked for a new check of a rejected commit.
    pub recheck: bool,
}

impl Validity<'_> {
    fn holds(&self, recorded: &Recorded) -> bool {
        match recorded.verdict {
            Verdict::Pending => true,
            Verdict::Accepted => recorded.checks == self.checks,
            Verdict::Rejected(_) => {
                let is_old = self.recheck_after.is_some_and(|limit| {
                    let age = recorded.at.and_then(|at| at.elapsed().ok());
                    age.is_none_or(|age| age >= limit)
                });
                recorded.checks == self.checks && !self.recheck && !is_old
            }
        }
    }
}

impl KnownTree {
    /// The tree as a base that a new tree shares files with.
    pub fn as_base(&self) -> Base<'_> {
        Base {
            tree: &self.revision.path,
            manifest: &self.revision.manifest,
        }
    }
}

impl Trees {
    /// Reads again which complete trees there are. What was found to be unsound stays so.
    pub fn refresh(&mut self) -> Result<(), SyncError> {
        let mut known = Vec::new();
        for revision in self.volume.revisions()? {
            let before = self
                .known
                .iter()
                .find(|known| known.revision.n == revision.n);
            known.push(match before {
                Some(before) => KnownTree {
                    recorded: match before.recorded.verdict {
                        Verdict::Pending => self.volume.recorded(&revision),
                        _ => before.recorded.clone(),
                    },
                    durability: self.volume.durability(revision.n),
                    // Publishing by exchange moves trees.
                    revision,
                    ..before.clone()
                },
                None => {
                    let header = Header::read(&revision.manifest);
                    KnownTree {
                        sound: header.is_ok(),
                        settings: header.map(|header| header.fingerprint).unwrap_or_default(),
                        recorded: self.volume.recorded(&revision),
                        durability: self.volume.durability(revision.n),
                        corrupt: false,
                        revision,
                    }
                }
            });
        }
        self.known = known;
        Ok(())
    }

    /// The trees as the decisions look at them.
    pub fn candidates(&self, validity: &Validity<'_>) -> Vec<Candidate<'_>> {
        self.known
            .iter()
            .map(|known| Candidate {
                n: known.revision.n,
                commit: known.revision.commit,
                settings: &known.settings,
                sound: known.sound,
                proven: known.durability != Durability::Unproven,
                corrupt: known.corrupt,
                verdict: &known.recorded.verdict,
                holds: validity.holds(&known.recorded),
            })
            .collect()
    }

    /// What the decisions need to know, with [`Trees::candidates`].
    pub fn facts<'a>(
        &self,
        settings: &'a str,
        candidates: &'a [Candidate<'a>],
        observed: &Observed,
        irrelevant: Option<(Commit, u64)>,
    ) -> Facts<'a> {
        Facts {
            settings,
            candidates,
            live: observed.live.as_ref().map(|live| live.n),
            misplaced: observed.live_takes_the_links_place(),
            damaged: observed.damage.is_some(),
            last_seen: (observed.damage.is_some()
                || self.live(observed).is_some_and(|live| !live.sound))
            .then(|| self.last_seen().map(|tree| tree.revision.n))
            .flatten(),
            lost: self.lost,
            irrelevant,
        }
    }

    /// Links the files of the newest tree for the tree after it, until the budget gives way. Returns
    /// whether something is left to do, which begins with housekeeping.
    pub fn fill_spare(&mut self, options: &TreeOptions, budget: &Budget) -> bool {
        if options.share != Share::Hardlink {
            return false;
        }
        let spare = self.spare.take();
        let Some(newest) = self.newest() else {
            return false;
        };
        let of = newest.revision.n;
        let go_on = || budget.check().is_ok() && !budget.gives_way();
        let filled = match spare {
            Some(spare) if spare.of() == of => spare.fill(&go_on),
            None => SpareTree::begin(&self.volume, of, &newest.as_base(), options)
                .and_then(|spare| spare.fill(&go_on)),
            // The revision was removed, and its files take up the disk until the links to them are
            // removed as well.
            stale => {
                self.spare = stale;
                return true;
            }
        };
        let (spare, more) = match filled {
            Ok(spare) => {
                let more = spare.is_begun();
                (spare, more)
            }
            Err(error) => {
                debug!(%error, "not linked ahead");
                // On a full disk, the next tree needs the last blocks more than the spare does.
                self.drop_spares();
                (SpareTree::impossible(of), true)
            }
        };
        self.spare = Some(spare);
        more
    }

    /// Deletes a spare tree that was made for an older newest tree, or by an earlier process.
    pub fn drop_old_spares(&mut self) {
        let newest = self.newest().map(|newest| newest.revision.n);
        if self.spare.as_ref().map(SpareTree::of) != newest {
            self.spare = None;
            self.drop_spares();
        }
    }

    /// Moves every spare tree to the trash.
    pub fn drop_spares(&self) {
        if let Err(error) = self.volume.drop_spares() {
            debug!(%error, "the pre-linked spare tree stays for now");
        }
    }

    /// Deletes the pre-linked spare tree, so that the next tree can have its disk space; whether there
    /// was one.
    pub fn make_room(&mut self, budget: &Budget) -> bool {
        self.spare = None;
        match self.volume.delete_spares(budget) {
            Ok(made) => made && self.refresh().is_ok(),
            Err(error) => {
                debug!(%error, "the pre-linked spare tree cannot be deleted");
                false
            }
        }
    }

    /// Points readers at an accepted tree. With `--durability flip` it is on the disk before.
    pub fn publish(&mut self, tree: &Accepted, context: &mut Context<'_>) -> Result<(), SyncError> {
        let sync = context.settings.sync_when == SyncWhen::Flip;
        context.time(Stage::Publish, |_| {
            if sync {
                self.volume.sync()?;
            }
            self.volume.publish(tree)?;
            match sync {
                true => self.volume.sync_link(),
                false => Ok(()),
            }
        })?;
        context.report.flipped = true;
        self.refresh()
    }

    /// Whether the history in the store may have another depth than a new tree of the commit is to
    /// show: the commit came, or the last fetch was made, under other settings.
    pub fn lacks_history(&self, commit: Commit, options: &TreeOptions, settings: &str) -> bool {
        let differs = |known: &KnownTree| known.settings != settings;
        options.git_dir
            && !(options.depth == 0 && self.store.shallow().is_empty())
            && (self.newest().is_none_or(differs)
                || self
                    .known
                    .iter()
                    .any(|known| known.revision.commit == commit && differs(known)))
    }

    /// The tree that readers were seen to have.
    pub fn live(&self, observed: &Observed) -> Option<&KnownTree> {
        self.find(observed.live.as_ref()?.n)
    }

    /// The complete tree of that revision.
    pub fn find(&self, n: u64) -> Option<&KnownTree> {
        self.known.iter().find(|known| known.revision.n == n)
    }

    /// Compares a whole tree with its manifest; remembers and returns whether it is sound. Files of
    /// a tree that a power cut may have damaged are compared with their hashes.
    pub fn inspect(&mut self, n: u64, context: &mut Context<'_>) -> Result<bool, SyncError> {
        let Some(known) = self.find(n).filter(|known| known.sound) else {
            return Ok(false);
        };
        let unproven = known.durability == Durability::Unproven;
        let (tree, manifest) = (&known.revision.path, &known.revision.manifest);
        let damage = match unproven {
            true => manifest::verify_contents(tree, manifest, context.budget, &|_| {})?,
            false => manifest::verify(tree, manifest, context.budget)?.map(Damage::Recorded),
        };
        match damage {
            Some(damage) => {
                self.note_damage(n, damage, context);
                Ok(false)
            }
            None => {
                if unproven {
                    self.volume.record_verified(n);
                    self.refresh()?;
                }
                Ok(true)
            }
        }
    }

    /// Like [`Trees::note_damage`] for a tree that was altered while it was live: no file of it is
    /// shared, because the others may be altered at this moment.
    pub fn note_altered(&mut self, n: u64, damage: Damage, context: &mut Context<'_>) {
        self.note_damage(n, damage, context);
        if let Some(known) = self.known.iter_mut().find(|known| known.revision.n == n) {
            known.corrupt = true;
        }
    }

    /// Remembers that a tree is damaged, and tells.
    fn note_damage(&mut self, n: u64, damage: Damage, context: &mut Context<'_>) {
        let Some(known) = self.known.iter_mut().find(|known| known.revision.n == n) else {
            return;
        };
        let (kind, what) = match damage {
            Damage::Recorded(what) => (DamageKind::File, what),
            Damage::Content(what) => (DamageKind::Content, what),
        };
        known.sound = false;
        known.corrupt |= kind == DamageKind::Content;
        context.emit(&Event::Damaged {
            kind,
            what: printable(&what),
            commit: Some(known.revision.commit),
        });
    }

    /// The newest tree that may be shared from.
    pub fn newest(&self) -> Option<&KnownTree> {
        self.find(decide::base(&self.candidates(&Validity::default()))?)
    }

    /// The sound tree that readers saw last, which need not be the newest after a force push.
    fn last_seen(&self) -> Option<&KnownTree> {
        let shown = |known: &&KnownTree| known.sound && known.recorded.verdict == Verdict::Accepted;
        let among = self.known.iter().filter(shown).map(|k| k.revision.n);
        let n = self.volume.last_live(among)?;
        self.find(n)
    }

    /// An accepted tree that is on the volume.
    pub fn accepted(&self, n: u64) -> Result<Accepted, SyncError> {
        self.find(n)
            .and_then(|known| self.volume.accepted(&known.revision))
            .ok_or_else(|| gone(n))
    }
}

/// The error for a tree that somebody deleted since it was chosen.
pub(super) fn gone(n: u64) -> SyncError {
    SyncError::new(
        Stage::Publish,
        Reason::Other,
        format!("the tree of revision {n} is gone"),
    )
}
