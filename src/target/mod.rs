//! One cycle: poll, decide, fetch, build, publish, notify; and the housekeeping between cycles.
//!
//! `decide` is pure; everything else does what it says, in the one order that keeps the promise
//! to readers: nothing they see changes before a whole tree is on the disk. This module does not
//! loop, wait or count failures; the supervisor does.

mod ahead;
mod building;
mod decide;
mod disk;
mod fetching;
pub mod follow;
mod report;
mod said;
mod upkeep;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;
use crate::config::Target;
use crate::notify::files;
use crate::remote::{self, Advertised, RefName, Remote, Tip};
use crate::store::{CommitInfo, Store};
use crate::tree;
use crate::volume::{Observed, Volume};

use decide::{Action, Candidate, decide};
use disk::Disk;
pub use report::Report;
use said::Said;
pub use upkeep::Upkeep;

/// How often a cycle polls again because the remote moved between its poll and its fetch.
const MOVED_ATTEMPTS: usize = 3;

/// A target with its connection and its volume, from one cycle to the next.
///
/// What it remembers only saves work: every decision is checked against the disk.
pub struct Sync {
    target: Target,
    remote: Box<dyn Remote>,
    settings: String,
    disk: Option<Disk>,
    /// The tip that was found to change nothing under the watched paths, and the revision that it
    /// was compared with.
    irrelevant: Option<(Commit, u64)>,
    said: Said,
    /// When the bytes on the volume were counted last.
    measured: Option<Instant>,
}

/// What a cycle came to.
#[derive(Debug)]
pub enum Outcome {
    /// The link is where it should be, and was.
    Unchanged,
    /// The link was flipped.
    Published(Current),
}

/// The tree that readers see.
#[derive(Clone, Debug)]
pub struct Current {
    /// The commit.
    pub commit: Commit,
    /// Its subject, author and time; unknown when its store was lost.
    pub info: Option<CommitInfo>,
}

impl Sync {
    /// Prepares to sync; touches neither the network nor the disk.
    ///
    /// # Errors
    /// When the remote's settings cannot be used (a bad certificate bundle, say); stage `poll`.
    pub fn new(target: Target) -> Result<Self, SyncError> {
        Ok(Self {
            remote: remote::open(&target.remote)?,
            settings: target.tree.fingerprint(),
            target,
            disk: None,
            irrelevant: None,
            said: Said::default(),
            measured: None,
        })
    }

    /// The target as configured.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Opens the volume and checks what readers see there: the whole manifest, once.
    ///
    /// Does nothing while the volume is open.
    ///
    /// # Errors
    /// Stage `start`: the root cannot be used, or somebody else uses it.
    pub fn open(&mut self, budget: &Budget) -> Result<(), SyncError> {
        let wait = budget
            .remaining()
            .map_err(|cause| SyncError::interrupted(Stage::Start, "opening the volume", cause))?;
        self.open_within(wait, budget)
    }

    /// The same, waiting only so long for another instance to let go of the root.
    fn open_within(&mut self, wait: Duration, budget: &Budget) -> Result<(), SyncError> {
        if self.disk.is_some() {
            return Ok(());
        }
        let volume = Volume::open(self.target.layout.clone(), &self.target.name, wait, budget)?;
        let mut disk = Disk {
            known: Vec::new(),
            ahead: None,
            store: Store::open(volume.store_path())?,
            volume,
        };
        disk.refresh()?;
        if let Some(live) = disk.volume.observe()?.live {
            disk.inspect(live.n, budget)?;
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// Gives the volume up, with its lock; the next [`Sync::open`] starts from the disk.
    pub fn close(&mut self) {
        self.disk = None;
    }

    /// The tree that is published, if it is sound, and its manifest.
    pub fn current(&self) -> Option<(Current, PathBuf)> {
        let disk = self.disk.as_ref()?;
        let observed = disk.volume.observe().ok()?;
        let live = disk.live(&observed)?;
        let manifest = live.revision.manifest.clone();
        live.sound
            .then(|| (self.describe(live.revision.commit), manifest))
    }

    /// Runs one cycle.
    ///
    /// # Errors
    /// The first step that failed. The link is then where it was, or, if it had been damaged, on
    /// the sound tree that readers saw last.
    pub fn cycle(&mut self, budget: &Budget, report: &mut Report) -> Result<Outcome, SyncError> {
        self.open(budget)?;
        let outcome = self.cycle_on_open_volume(budget, report);
        // Start again from the disk: it may have been deleted, remounted or filled under us.
        if let Err(error) = &outcome
            && error.reason == Reason::Disk
        {
            self.close();
        }
        outcome
    }

    fn cycle_on_open_volume(
        &mut self,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Outcome, SyncError> {
        // What happens to the link from here on is seen by the next cycle: publishing looks again.
        let observed = self.relink(budget, report)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let tip = report.time(Stage::Poll, || {
                self.remote.tip(&self.target.reference, budget)
            })?;
            let tip = match tip {
                Tip::At(tip) => tip,
                Tip::Missing { empty } => return Err(self.missing(empty)),
            };
            match self.bring_to(&tip, &observed, budget, report) {
                // Force-pushed or deleted since the poll: ask again.
                Err(error)
                    if error.reason == Reason::RefMissing
                        && attempt < MOVED_ATTEMPTS
                        && !matches!(self.target.reference, RefName::Commit(_)) =>
                {
                    debug!(
                        error = error.chain(),
                        "the remote moved since the poll; polling again"
                    );
                }
                // There is nothing of it left to be given up a second time.
                Err(error)
                    if error.reason == Reason::Disk
                        && opened(&mut self.disk)?.make_room(budget) =>
                {
                    debug!(
                        error = error.chain(),
                        "what was linked ahead gives way; trying again"
                    );
                }
                other => return other,
            }
        }
    }

    /// Points the link at the sound tree that readers saw last when it was deleted or leads nowhere,
    /// and returns what readers see then.
    ///
    /// Before the poll, so that readers have their tree back even while the remote is away.
    fn relink(&mut self, budget: &Budget, report: &mut Report) -> Result<Observed, SyncError> {
        let disk = opened(&mut self.disk)?;
        let observed = disk.volume.observe()?;
        let Some(damage) = &observed.damage else {
            return Ok(observed);
        };
        if observed.live_takes_the_links_place() {
            return Ok(observed);
        }
        warn!(
            damage = printable(damage),
            "what readers see was damaged; mending it"
        );
        disk.refresh()?;
        loop {
            // Readers who still have a tree keep that one, even if a newer one was flipped back.
            let Some(best) = disk
                .live(&observed)
                .filter(|live| live.sound)
                .or_else(|| disk.last_seen())
                .cloned()
            else {
                return Ok(observed);
            };
            if disk.inspect(best.revision.n, budget)? {
                let accepted = disk.accepted(best.revision.n)?;
                disk.publish(&accepted, report)?;
                info!(commit = %best.revision.commit, "the link is back on a sound tree");
                return disk.volume.observe();
            }
        }
    }

    fn bring_to(
        &mut self,
        tip: &Advertised,
        observed: &Observed,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Outcome, SyncError> {
        let disk = opened(&mut self.disk)?;
        let live = disk.live(observed);
        let misplaced = observed.live_takes_the_links_place();
        let candidates: Vec<_> = disk
            .known
            .iter()
            .map(|known| {
                let live = live.is_some_and(|live| live.revision.n == known.revision.n);
                Candidate {
                    n: known.revision.n,
                    commit: known.revision.commit,
                    settings: &known.settings,
                    sound: known.sound && !(live && misplaced),
                    live,
                }
            })
            .collect();
        if let Some(live) = live
            && live.sound
            && !misplaced
            && self.irrelevant == Some((tip.commit, live.revision.n))
        {
            return Ok(Outcome::Unchanged);
        }
        match decide(tip.commit, &self.settings, &candidates) {
            Action::Nothing => Ok(Outcome::Unchanged),
            Action::Flip(n) if disk.inspect(n, budget)? => {
                let accepted = disk.accepted(n)?;
                disk.publish(&accepted, report)?;
                self.announce(tip, None)
            }
            Action::Flip(_) | Action::Build => {
                self.build_and_publish(tip, observed, budget, report)
            }
        }
    }

    /// Tells the log and the touch files about a flip.
    fn announce(
        &mut self,
        tip: &Advertised,
        built: Option<(tree::Built, Duration)>,
    ) -> Result<Outcome, SyncError> {
        let current = self.describe(tip.commit);
        let subject = current.info.as_ref().map(|info| printable(&info.subject));
        match built {
            Some((tree, took)) => {
                info!(
                    commit = %tip.commit,
                    reference = printable(&tip.name),
                    subject,
                    files_written = tree.files_written,
                    files_shared = tree.files_shared,
                    took = %humantime::format_duration(Duration::from_millis(took.as_millis() as u64)),
                    "published"
                );
                self.said.warn_of_shortcomings(&tree);
            }
            None => info!(
                commit = %tip.commit,
                reference = printable(&tip.name),
                subject,
                "published a tree that was still there"
            ),
        }
        // The tree is out: a touch file that cannot be touched must not call that a failure.
        if let Err(error) = files::touch(&self.target.touch_files) {
            warn!(
                error = error.chain(),
                hint = error.hint(),
                "readers were not notified"
            );
        }
        Ok(Outcome::Published(current))
    }

    fn describe(&self, commit: Commit) -> Current {
        let info = self
            .disk
            .as_ref()
            .and_then(|disk| disk.store.summary(commit).ok());
        Current { commit, info }
    }

    fn missing(&self, empty: bool) -> SyncError {
        let url = &self.target.remote.url;
        let error = |message, hint: &str| {
            SyncError::new(Stage::Poll, Reason::RefMissing, message).with_hint(hint)
        };
        match &self.target.reference {
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
}

fn opened(disk: &mut Option<Disk>) -> Result<&mut Disk, SyncError> {
    disk.as_mut()
        .ok_or_else(|| SyncError::new(Stage::Start, Reason::Other, "the volume is not open"))
}
