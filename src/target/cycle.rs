//! One cycle: poll, decide, acquire, build, accept, publish.
//!
//! Nothing that readers see changes before a complete, accepted tree is on the disk. This module does
//! not loop over cycles, wait or count failures; [`super::follow`] does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::debug;

use super::accept::{Acceptor, Judged, fingerprint, judge};
use super::context::Context;
use super::decide::{self, Action, Mend, Repeat, Tries, decide};
use super::scrub::{Scrub, Scrubbed};
use super::settings::Target;
use super::trees::{Trees, Validity, gone};
use super::{acquire, build};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Remedy, Stage, SyncError};
use crate::base::text::printable;
use crate::notify::Event;
use crate::notify::event::{
    DamageKind, Found, Published, PublishedTree, Rejection, Shortcomings, ShownCommit,
};
use crate::remote::{self, Advertised, RefName, Remote, Tip};
use crate::store::Store;
use crate::volume::{Accepted, Observed, Verdict, Volume};

/// A target with its connection and its volume, from one cycle to the next.
///
/// What it remembers only saves work: every decision is checked against the disk.
pub struct Syncer {
    pub(super) settings: Arc<Target>,
    pub(super) remote: Box<dyn Remote>,
    /// Of the settings that shape a tree.
    pub(super) fingerprint: String,
    pub(super) acceptors: Vec<Box<dyn Acceptor>>,
    /// Of what the acceptors check.
    pub(super) checks: String,
    pub(super) trees: Option<Trees>,
    /// The tip that was found to change nothing under the watched paths, and the revision that it
    /// was compared with.
    pub(super) irrelevant: Option<(Commit, u64)>,
    /// When the bytes on the volume were counted last.
    pub(super) measured: Option<Instant>,
    /// The commit that the last poll found.
    pub(super) tip: Option<Commit>,
    pub(super) scrub: Scrub,
}

/// How a cycle that did not fail ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The link is where it should be, and was.
    Unchanged,
    /// The link was flipped.
    Published(Box<Published>),
    /// The remote's commit is rejected. Readers keep the tree that they have.
    Rejected(Rejection),
}

impl Syncer {
    /// Prepares to sync; touches neither the network nor the disk.
    ///
    /// # Errors
    /// When the remote's settings cannot be used; stage `poll`.
    pub fn new(
        settings: Arc<Target>,
        acceptors: Vec<Box<dyn Acceptor>>,
    ) -> Result<Self, SyncError> {
        Ok(Self {
            remote: remote::open(&settings.remote)?,
            fingerprint: settings.tree.fingerprint(),
            settings,
            checks: fingerprint(&acceptors)?,
            acceptors,
            trees: None,
            irrelevant: None,
            measured: None,
            tip: None,
            scrub: Scrub::default(),
        })
    }

    /// Opens the volume and checks the tree that readers see against its whole manifest, once.
    ///
    /// Does nothing while the volume is open.
    ///
    /// # Errors
    /// Stage `start`: the root cannot be used, or another process uses it.
    pub(super) fn open(&mut self, context: &mut Context<'_>) -> Result<(), SyncError> {
        let wait = context
            .budget
            .remaining()
            .map_err(|cause| SyncError::interrupted(Stage::Start, "opening the volume", cause))?;
        self.open_within(wait, context)
    }

    /// The same, waiting at most `wait` for another process to release the root.
    pub(super) fn open_within(
        &mut self,
        wait: Duration,
        context: &mut Context<'_>,
    ) -> Result<(), SyncError> {
        if self.trees.is_some() {
            return Ok(());
        }
        let layout = context.settings.layout.clone();
        let volume = Volume::open(layout, &context.settings.name, wait, context.budget)?;
        let mut trees = Trees {
            known: Vec::new(),
            spare: None,
            lost: None,
            store: Store::open(volume.store_path())?,
            volume,
        };
        trees.refresh()?;
        if let Some(live) = trees.volume.observe()?.live {
            trees.inspect(live.n, context)?;
        }
        self.trees = Some(trees);
        Ok(())
    }

    /// Whether the volume is open.
    pub(super) fn is_open(&self) -> bool {
        self.trees.is_some()
    }

    /// The published tree, if it is sound: its commit, its place and its manifest.
    pub(super) fn current(&self) -> Option<(ShownCommit, PathBuf, PathBuf)> {
        let trees = self.trees.as_ref()?;
        let observed = trees.volume.observe().ok()?;
        let live = trees.live(&observed)?;
        let (path, manifest) = (live.revision.path.clone(), live.revision.manifest.clone());
        live.sound
            .then(|| (describe(&trees.store, live.revision.commit), path, manifest))
    }

    /// Runs one cycle. A failure that its [`Remedy`] may end is repeated here, a few times at most.
    ///
    /// # Errors
    /// The first step that failed. The link is then where it was, or, if it had been damaged, on
    /// the sound tree that readers saw last.
    pub fn cycle(&mut self, context: &mut Context<'_>) -> Result<Outcome, SyncError> {
        self.open(context)?;
        self.scrub(context)?;
        let mut tries = Tries::default();
        loop {
            let error = match self.attempt(context) {
                Err(error) => error,
                done => return done,
            };
            let again = match decide::repeat(error.remedy, &mut tries, self.ref_may_move()) {
                Repeat::No => false,
                Repeat::Poll => true,
                Repeat::MakeRoom => self.opened()?.make_room(context.budget),
                Repeat::RebuildStore => {
                    self.opened()?.store.wipe()?;
                    true
                }
            };
            if !again {
                if error.remedy == Remedy::MakeRoom {
                    // Start from the disk next time, because somebody may have deleted, remounted or
                    // filled it.
                    self.trees = None;
                }
                return Err(error);
            }
            debug!(error = error.chain(), "trying again at once");
        }
    }

    /// Takes up what a scrub found, and begins the next one when it is due.
    fn scrub(&mut self, context: &mut Context<'_>) -> Result<(), SyncError> {
        let Some(period) = self.settings.scrub_period else {
            return Ok(());
        };
        let trees = opened(&mut self.trees)?;
        let observed = trees.volume.observe()?;
        if let Some(Scrubbed { n, damage }) = self.scrub.take() {
            match damage {
                None => context.emit(&Event::Scrubbed {
                    at: SystemTime::now(),
                }),
                // The files of a tree that is being removed disappear.
                Some(_) if observed.live.as_ref().is_none_or(|live| live.n != n) => {
                    debug!("the tree was replaced while it was scrubbed");
                }
                Some(damage) => trees.note_altered(n, damage, context),
            }
        }
        if self.scrub.is_due(period)
            && let Some(live) = trees.live(&observed).filter(|live| live.sound)
        {
            let cancelled = context.budget.cancelled().clone();
            if let Err(error) = self.scrub.begin(live.revision.clone(), cancelled) {
                debug!(%error, "no thread to scrub with; the next cycle tries again");
            }
        }
        Ok(())
    }

    /// The steps of a cycle, in the one order that keeps the promise to readers.
    fn attempt(&mut self, context: &mut Context<'_>) -> Result<Outcome, SyncError> {
        let observed = self.mend(context)?;
        if let Some(pin) = self.opened()?.volume.pin()? {
            return self.stay_pinned(pin, context);
        }
        let tip = self.poll(context)?;
        // From now on the tip decides what readers get.
        self.opened()?.lost = None;
        match self.decide(&tip, &observed, context)? {
            Action::Nothing => Ok(Outcome::Unchanged),
            Action::Reject(n) => self.still_rejected(n),
            Action::Flip(n) => {
                let accepted = self.opened()?.accepted(n)?;
                self.publish(&tip, &observed, &accepted, PublishedTree::Kept, context)
            }
            Action::Judge(n) => self.judge_kept(n, &tip, &observed, context),
            Action::Build => self.build_and_publish(&tip, &observed, context),
        }
    }

    /// Gives readers of a lost link or a damaged tree a sound one before the poll, so that they have
    /// it even while the remote is away. Returns what readers see then.
    fn mend(&mut self, context: &mut Context<'_>) -> Result<Observed, SyncError> {
        let trees = self.opened()?;
        let mut observed = trees.volume.observe()?;
        if observed.live_takes_the_links_place() {
            return Ok(observed);
        }
        if let Some(what) = &observed.damage {
            context.emit(&Event::Damaged {
                kind: DamageKind::Link,
                what: what.clone(),
                commit: None,
            });
            trees.refresh()?;
        }
        let mut may_build = true;
        loop {
            let trees = opened(&mut self.trees)?;
            let candidates = trees.candidates(&Validity::default());
            let facts = trees.facts(&self.fingerprint, &candidates, &observed, None);
            match decide::mend(&facts, may_build) {
                Mend::Nothing => return Ok(observed),
                Mend::Flip(n) if trees.inspect(n, context)? => {
                    let accepted = trees.accepted(n)?;
                    // The damaged tree that this one replaces is built again afterwards.
                    let damaged = trees.live(&observed).filter(|live| !live.sound);
                    let lost = damaged.map(|live| live.revision.commit);
                    trees.publish(&accepted, context)?;
                    trees.lost = lost.or(trees.lost);
                    let commit = accepted.revision().commit;
                    self.restored(commit, Shortcomings::default(), context)?;
                }
                Mend::Flip(_) => {}
                Mend::Rebuild(commit) => {
                    may_build = false;
                    self.rebuild(commit, context)?;
                }
            }
            observed = self.opened()?.volume.observe()?;
        }
    }

    /// Builds the tree of a commit from the object store alone, and publishes it. What the store lacks
    /// is left to the poll and the fetch that follow.
    fn rebuild(&mut self, commit: Commit, context: &mut Context<'_>) -> Result<(), SyncError> {
        let trees = opened(&mut self.trees)?;
        // libgit2 does not compare objects with their ids when it reads them, so the checksums of the
        // packs are what tells that the objects are those that were fetched.
        if !trees.store.contains(commit) || !trees.store.has_whole_packs(context.budget)? {
            debug!(%commit, "the object store cannot rebuild the damaged tree");
            return Ok(());
        }
        let live = trees.volume.observe()?.live.map(|live| live.commit);
        let judged = build::build(trees, commit, context).and_then(|(sealed, built)| {
            let judged = judge(&mut self.acceptors, sealed, live, context)?;
            Ok((judged, built))
        });
        let trees = opened(&mut self.trees)?;
        match judged {
            Ok((Judged::Accepted(accepted), built)) => {
                trees.publish(&accepted, context)?;
                trees.lost = None;
                self.restored(commit, build::shortcomings(&built), context)
            }
            Ok((Judged::Rejected(reason), _)) => {
                debug!(%commit, reason, "the rebuilt tree is rejected");
                trees.lost = None;
                trees.refresh()
            }
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => {
                debug!(%commit, error = error.chain(), "the damaged tree cannot be rebuilt yet");
                trees.refresh()
            }
        }
    }

    fn restored(
        &mut self,
        commit: Commit,
        shortcomings: Shortcomings,
        context: &mut Context<'_>,
    ) -> Result<(), SyncError> {
        let trees = self.opened()?;
        // Publishing by exchange moves the tree.
        let live = trees.volume.observe()?.live;
        let tree = Found {
            commit: describe(&trees.store, commit),
            path: live.map(|live| live.path).unwrap_or_default(),
            since: SystemTime::now(),
        };
        context.emit(&Event::Restored { tree, shortcomings });
        Ok(())
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Result<Advertised, SyncError> {
        let tip = context
            .time(Stage::Poll, |context| {
                self.remote.tip(&self.settings.reference, context.budget)
            })
            .map_err(|error| match error.remedy {
                // The remote has answered, so asking it again at once brings the same answer.
                Remedy::PollAgain => error.with_remedy(Remedy::Retry),
                _ => error,
            })?;
        match tip {
            Tip::At(tip) => {
                self.tip = Some(tip.commit);
                context.emit(&Event::Polled {
                    commit: tip.commit,
                    reference: tip.name.clone(),
                });
                Ok(tip)
            }
            Tip::Missing { empty } => Err(missing(&self.settings, empty)),
        }
    }

    /// Decides, and checks a tree that is to be flipped to or judged against its manifest.
    fn decide(
        &mut self,
        tip: &Advertised,
        observed: &Observed,
        context: &mut Context<'_>,
    ) -> Result<Action, SyncError> {
        let validity = Validity {
            checks: &self.checks,
            recheck_after: context.settings.gate.recheck_after,
            recheck: context.recheck,
        };
        let trees = opened(&mut self.trees)?;
        loop {
            let candidates = trees.candidates(&validity);
            let facts = trees.facts(&self.fingerprint, &candidates, observed, self.irrelevant);
            let action = decide(tip.commit, &facts);
            match action {
                Action::Flip(n) | Action::Judge(n) if !trees.inspect(n, context)? => {}
                decided => return Ok(decided),
            }
        }
    }

    pub(super) fn build_and_publish(
        &mut self,
        tip: &Advertised,
        observed: &Observed,
        context: &mut Context<'_>,
    ) -> Result<Outcome, SyncError> {
        let started = Instant::now();
        let trees = opened(&mut self.trees)?;
        acquire::acquire(&mut *self.remote, trees, tip, &self.fingerprint, context)?;
        if !build::is_relevant(trees, tip.commit, &self.fingerprint, observed, context)? {
            debug!(commit = %tip.commit, "nothing changed under the watched paths");
            self.irrelevant = observed.live.as_ref().map(|live| (tip.commit, live.n));
            return Ok(Outcome::Unchanged);
        }
        let (sealed, built) = build::build(trees, tip.commit, context)?;
        let live = observed.live.as_ref().map(|live| live.commit);
        let judged = judge(&mut self.acceptors, sealed, live, context);
        if judged.is_err() {
            // The tree is pending, and the next cycle is to find it and not to build another one.
            self.opened()?.refresh()?;
        }
        match judged? {
            Judged::Rejected(reason) => self.rejected(tip.commit, reason),
            Judged::Accepted(accepted) => {
                let tree = PublishedTree::Built {
                    files_written: built.files_written,
                    files_shared: built.files_shared,
                    took: started.elapsed(),
                    shortcomings: build::shortcomings(&built),
                };
                self.publish(tip, observed, &accepted, tree, context)
            }
        }
    }

    /// Judges a tree that an earlier cycle sealed and did not get a verdict for.
    fn judge_kept(
        &mut self,
        n: u64,
        tip: &Advertised,
        observed: &Observed,
        context: &mut Context<'_>,
    ) -> Result<Outcome, SyncError> {
        let trees = opened(&mut self.trees)?;
        let sealed = trees
            .find(n)
            .and_then(|known| trees.volume.pending(&known.revision))
            .ok_or_else(|| gone(n))?;
        let live = observed.live.as_ref().map(|live| live.commit);
        match judge(&mut self.acceptors, sealed, live, context)? {
            Judged::Rejected(reason) => self.rejected(tip.commit, reason),
            Judged::Accepted(accepted) => {
                self.publish(tip, observed, &accepted, PublishedTree::Kept, context)
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        tip: &Advertised,
        observed: &Observed,
        accepted: &Accepted,
        tree: PublishedTree,
        context: &mut Context<'_>,
    ) -> Result<Outcome, SyncError> {
        let trees = self.opened()?;
        trees.publish(accepted, context)?;
        trees.lost = None;
        let to = describe(&trees.store, tip.commit);
        // Publishing by exchange moves the tree.
        let n = accepted.revision().n;
        let path = trees.find(n).ok_or_else(|| gone(n))?.revision.path.clone();
        self.irrelevant = None;
        Ok(Outcome::Published(Box::new(Published {
            from: observed.live.as_ref().map(|live| live.commit),
            to,
            path,
            reference: tip.name.clone(),
            at: SystemTime::now(),
            tree,
        })))
    }

    fn rejected(&mut self, commit: Commit, reason: String) -> Result<Outcome, SyncError> {
        self.opened()?.refresh()?;
        Ok(Outcome::Rejected(Rejection {
            commit,
            reason,
            is_new: true,
        }))
    }

    fn still_rejected(&mut self, n: u64) -> Result<Outcome, SyncError> {
        let known = self.opened()?.find(n).ok_or_else(|| gone(n))?;
        let reason = match &known.recorded.verdict {
            Verdict::Rejected(reason) => reason.clone(),
            _ => String::new(),
        };
        Ok(Outcome::Rejected(Rejection {
            commit: known.revision.commit,
            reason,
            is_new: false,
        }))
    }

    /// Fills the spare tree for the next commit; whether something is left to do.
    pub(super) fn fill_spare(&mut self, budget: &Budget) -> bool {
        let options = &self.settings.tree;
        self.trees
            .as_mut()
            .is_some_and(|trees| trees.fill_spare(options, budget))
    }

    pub(super) fn opened(&mut self) -> Result<&mut Trees, SyncError> {
        opened(&mut self.trees)
    }

    fn ref_may_move(&self) -> bool {
        !matches!(self.settings.reference, RefName::Commit(_))
    }
}

fn opened(trees: &mut Option<Trees>) -> Result<&mut Trees, SyncError> {
    trees
        .as_mut()
        .ok_or_else(|| SyncError::new(Stage::Start, Reason::Other, "the volume is not open"))
}

/// The commit as people read about it; without its texts when the store lost it.
fn describe(store: &Store, commit: Commit) -> ShownCommit {
    let (subject, author, time) = store
        .summary(commit)
        .map(|info| (info.subject, info.author, info.time))
        .unwrap_or_default();
    ShownCommit {
        id: commit,
        subject,
        author,
        time,
    }
}

/// The error for a ref that the remote does not have.
fn missing(settings: &Target, empty: bool) -> SyncError {
    let url = &settings.remote.url;
    let error = |message, hint: &str| {
        // The remote has answered, so asking it again at once brings the same answer.
        SyncError::new(Stage::Poll, Reason::RefMissing, message)
            .with_hint(hint)
            .with_remedy(Remedy::Retry)
    };
    match &settings.reference {
        _ if empty => error(
            format!("{url} is empty, or has lost its default branch"),
            "push a first commit, or name a branch or tag with --ref",
        ),
        RefName::Full(name) | RefName::Short(name) => error(
            format!("{url} has no ref {}", printable(name)),
            "check --ref against `git ls-remote`; a branch may have been renamed or deleted",
        ),
        RefName::Head | RefName::Commit(_) => error(
            format!("{url} has no default branch"),
            "name a branch or tag with --ref",
        ),
    }
}
