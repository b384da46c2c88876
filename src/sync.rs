//! One cycle: poll, decide, fetch, build, publish, notify; and the housekeeping between cycles.
//!
//! [`decide`] is pure; everything else does what it says, in the one order that keeps the promise
//! to readers: nothing they see changes before a whole tree is on the disk. This module does not
//! loop, wait or count failures; the supervisor does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::budget::Budget;
use crate::commit::Commit;
use crate::config::Target;
use crate::error::{Reason, Stage, SyncError, printable};
use crate::hooks;
use crate::manifest::{self, Header};
use crate::remote::{self, Advertised, FetchRequest, RefName, Remote, Tip};
use crate::store::{self, Borrower, CommitInfo, Store};
use crate::tree::{self, Base, BuildRequest, Submodule, SubmoduleMode, TreeOptions};
use crate::volume::{Moment, Prune, Revision, Volume};

/// How often a cycle polls again because the remote moved between its poll and its fetch.
const MOVED_ATTEMPTS: usize = 3;

/// When trash that could not be deleted (an open NFS file, say) is tried again.
const TRASH_RETRY: Duration = Duration::from_secs(10);

/// How many shortcomings of each kind are remembered, so that the log does not repeat them.
const SAID: usize = 100;

/// How often the bytes on the volume are counted at most.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// How deep submodules may nest: git has no limit, a loop of them has no end.
const SUBMODULE_DEPTH: usize = 16;

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

/// What the log was told about shortcomings, so as not to repeat it for every tree.
#[derive(Default)]
struct Said {
    cannot_share: bool,
    unfiltered: Vec<String>,
    unpopulated: Vec<String>,
}

/// The volume while it is open and locked, and its complete trees.
struct Disk {
    volume: Volume,
    store: Store,
    known: Vec<Known>,
}

/// A complete tree on the volume.
#[derive(Clone, Debug)]
struct Known {
    revision: Revision,
    settings: String,
    /// Whether it is as it was published, as far as anyone looked.
    sound: bool,
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

/// What a cycle did on its way, whether or not it succeeded.
#[derive(Debug, Default)]
pub struct Report {
    /// How long each step took in all; a cycle may seal and flip, or poll again.
    pub stages: Vec<(Stage, Duration)>,
    /// Bytes of packs received.
    pub fetched_bytes: u64,
    /// Files written from the object store.
    pub files_written: u64,
    /// Files taken over from an earlier tree.
    pub files_shared: u64,
}

/// What housekeeping found.
#[derive(Debug)]
pub struct Upkeep {
    /// Complete trees on the volume.
    pub revisions: usize,
    /// When there will be something to remove, if anything is waiting.
    pub again_in: Option<Duration>,
}

/// What to do about the tip.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    /// The link is on it.
    Nothing,
    /// A tree of it is on the disk: the link only has to be flipped to revision `n`.
    Flip(u64),
    /// A tree has to be built.
    Build,
}

/// What `decide` knows of a complete tree.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    n: u64,
    commit: Commit,
    settings: &'a str,
    sound: bool,
    live: bool,
}

/// Chooses what brings the link to the tip, from what is on the disk.
fn decide(tip: Commit, settings: &str, candidates: &[Candidate<'_>]) -> Action {
    let fits = |candidate: &&Candidate<'_>| {
        candidate.sound && candidate.commit == tip && candidate.settings == settings
    };
    if candidates.iter().filter(fits).any(|c| c.live) {
        return Action::Nothing;
    }
    match candidates.iter().filter(fits).map(|c| c.n).max() {
        Some(n) => Action::Flip(n),
        None => Action::Build,
    }
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
        let live = disk.live().ok()??;
        let manifest = live.revision.manifest.clone();
        live.sound
            .then(|| (self.describe(live.revision.commit), manifest))
    }

    /// Runs one cycle.
    ///
    /// # Errors
    /// The first step that failed. The link is then where it was, or, if it had been damaged, on
    /// the newest sound tree.
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
        self.relink(budget, report)?;
        for attempt in 1.. {
            let tip = report.time(Stage::Poll, || {
                self.remote.tip(&self.target.reference, budget)
            })?;
            let tip = match tip {
                Tip::At(tip) => tip,
                Tip::Missing { empty } => return Err(self.missing(empty)),
            };
            match self.bring_to(&tip, budget, report) {
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
                other => return other,
            }
        }
        unreachable!("the loop ends by returning at its last attempt")
    }

    /// Points the link at the newest sound tree when it was deleted or leads nowhere.
    ///
    /// Before the poll, so that readers have their tree back even while the remote is away.
    fn relink(&mut self, budget: &Budget, report: &mut Report) -> Result<(), SyncError> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        let observed = disk.volume.observe()?;
        let Some(damage) = observed.damage else {
            return Ok(());
        };
        if disk.live_takes_the_links_place()? {
            return Ok(());
        }
        warn!(
            damage = printable(&damage),
            "what readers see was damaged; mending it"
        );
        disk.refresh()?;
        loop {
            // Readers who still have a tree keep that one, even if a newer one was flipped back.
            let live = observed.live.as_ref().map(|live| live.n);
            let Some(best) = disk
                .known
                .iter()
                .find(|known| known.sound && Some(known.revision.n) == live)
                .cloned()
                .or_else(|| disk.newest_sound(&self.settings))
            else {
                return Ok(());
            };
            if disk.inspect(best.revision.n, budget)? {
                report.time(Stage::Publish, || disk.volume.publish(&best.revision))?;
                disk.refresh()?;
                info!(commit = %best.revision.commit, "the link is back on a sound tree");
                return Ok(());
            }
        }
    }

    fn bring_to(
        &mut self,
        tip: &Advertised,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Outcome, SyncError> {
        let disk = opened(&mut self.disk)?;
        let live = disk.live()?;
        let misplaced = disk.live_takes_the_links_place()?;
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
                let revision = disk.revision(n)?;
                report.time(Stage::Publish, || disk.volume.publish(&revision))?;
                disk.refresh()?;
                self.announce(tip, None)
            }
            Action::Flip(_) | Action::Build => self.build_and_publish(tip, budget, report),
        }
    }

    fn build_and_publish(
        &mut self,
        tip: &Advertised,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Outcome, SyncError> {
        let started = Instant::now();
        let built = match self.obtain_and_build(tip, budget, report) {
            // A damaged store is rebuilt from the remote, once; the published tree stays up.
            Err(error) if error.reason == Reason::Store => {
                warn!(
                    error = error.chain(),
                    "the object store is damaged; fetching it anew"
                );
                opened(&mut self.disk)?.store.wipe()?;
                self.obtain_and_build(tip, budget, report)?
            }
            other => other?,
        };
        let Some((revision, tree)) = built else {
            let live = opened(&mut self.disk)?.live()?.map(|live| live.revision.n);
            self.irrelevant = live.map(|n| (tip.commit, n));
            debug!(commit = %tip.commit, "nothing changed under the watched paths");
            return Ok(Outcome::Unchanged);
        };
        let disk = opened(&mut self.disk)?;
        report.time(Stage::Publish, || disk.volume.publish(&revision))?;
        disk.refresh()?;
        self.irrelevant = None;
        self.announce(tip, Some((tree, started.elapsed())))
    }

    /// Fetches what is missing, writes the tree and seals it; `None` when it is not worth a flip.
    fn obtain_and_build(
        &mut self,
        tip: &Advertised,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Option<(Revision, tree::Built)>, SyncError> {
        let Self {
            target,
            remote,
            settings,
            disk,
            ..
        } = self;
        let disk = opened(disk)?;
        let store = &disk.store;
        if !store.contains(tip.commit) {
            let want = Wanted {
                object: tip.object,
                name: Some(&tip.name),
                commit: tip.commit,
                depth: target.depth,
            };
            report.fetch(&mut **remote, store, &want, target, budget)?;
        }
        fetch_submodules(target, store, tip.commit, budget, report)?;
        if target.tree.git_dir {
            let tags = report.time(Stage::Fetch, || remote.tags(budget))?;
            report.fetch_tags(&mut **remote, store, &tags, budget)?;
            store.set_tags(&tags)?;
        }

        if target.publish_on_paths
            && let Some(sparse) = &target.tree.sparse
            && let Some(live) = disk.live()?
            && live.sound
            && !disk.live_takes_the_links_place()?
            && live.settings == *settings
            && store.contains(live.revision.commit)
            && !tree::changed_under(store.path(), live.revision.commit, tip.commit, sparse)?
        {
            return Ok(None);
        }

        let staged = disk.volume.stage(tip.commit)?;
        let tree = report.time(Stage::Build, || {
            tree::build(
                &BuildRequest {
                    store: store.path(),
                    commit: tip.commit,
                    destination: staged.tree(),
                    manifest: staged.manifest(),
                    base: disk.newest().map(|base| Base {
                        tree: &base.revision.path,
                        manifest: &base.revision.manifest,
                    }),
                    options: &target.tree,
                },
                budget,
            )
        })?;
        report.files_written += tree.files_written;
        report.files_shared += tree.files_shared;
        let revision = report.time(Stage::Publish, || staged.seal())?;
        Ok(Some((revision, tree)))
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
        if let Err(error) = hooks::touch(&self.target.touch_files) {
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

    /// Removes trees that nobody needs any more and keeps the store small, within the budget.
    ///
    /// A cycle that failed at the disk has closed the volume: it is opened again, since removing
    /// old trees may be what a full disk is waiting for.
    ///
    /// # Errors
    /// Stage `start` when the volume cannot be opened, else `prune`; nothing that readers see has
    /// changed.
    pub fn keep_house(&mut self, budget: &Budget) -> Result<Upkeep, SyncError> {
        self.open_within(Duration::ZERO, budget)?;
        self.tidy_up(budget).map_err(|error| {
            // Somebody removed or replaced the root meanwhile: there is nothing here to keep.
            match &self.disk {
                Some(disk) if !disk.volume.is_current() => error.at(Stage::Start),
                _ => error,
            }
        })
    }

    fn tidy_up(&mut self, budget: &Budget) -> Result<Upkeep, SyncError> {
        let disk = opened(&mut self.disk)?;
        let policy = Prune {
            keep: self.target.keep,
            stale_timeout: self.target.stale_timeout,
        };
        let pruned = disk.volume.prune(policy, &Moment::now(), budget)?;
        disk.refresh()?;
        match shrink_store(&self.target, disk, self.irrelevant, budget) {
            // Readers do not need it; the next fetch starts it afresh.
            Err(error) if error.reason == Reason::Store => warn!(
                error = error.chain(),
                "the object store is damaged; the next fetch mends it"
            ),
            other => other?,
        }
        Ok(Upkeep {
            revisions: disk.known.len(),
            again_in: if pruned.pending {
                Some(TRASH_RETRY)
            } else {
                pruned.next
            },
        })
    }

    /// Bytes that the root occupies on its file system, when it is time to count them: that looks
    /// at every file.
    pub fn measure(&mut self, budget: &Budget) -> Option<u64> {
        if self
            .measured
            .is_some_and(|measured| measured.elapsed() < MEASURE_EVERY)
        {
            return None;
        }
        let disk = self.disk.as_ref()?;
        // Also when it fails: what takes too long now will take too long next time.
        self.measured = Some(Instant::now());
        disk.volume
            .bytes(budget)
            .inspect_err(|error| debug!(error = error.chain(), "the volume is not measured"))
            .ok()
    }
}

/// A commit to bring into the store.
struct Wanted<'a> {
    object: Commit,
    name: Option<&'a str>,
    commit: Commit,
    depth: u32,
}

/// Keeps in the store what the trees on the volume came from, and what the next fetch builds on.
fn shrink_store(
    target: &Target,
    disk: &Disk,
    irrelevant: Option<(Commit, u64)>,
    budget: &Budget,
) -> Result<(), SyncError> {
    let mut retained = Vec::new();
    for known in &disk.known {
        let commit = known.revision.commit;
        retained.push(commit);
        each_submodule(target, &disk.store, commit, &mut |submodule| {
            retained.push(submodule.commit);
            Ok(())
        })?;
    }
    // No tree shows it, but what the remote sends next builds on it.
    retained.extend(irrelevant.map(|(tip, _)| tip));
    let borrowers: Vec<_> = disk
        .known
        .iter()
        .filter(|known| known.revision.path.join(".git").is_dir())
        .map(|known| Borrower {
            commit: known.revision.commit,
            boundary: store::boundary_of(&known.revision.path.join(".git")),
        })
        .collect();
    disk.store.maintain_for(&retained, &borrowers, budget)?;
    Ok(())
}

/// Brings the submodules of a commit, and theirs, into the store.
fn fetch_submodules(
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
        report
            .fetch(&mut *remote, store, &want, target, budget)
            .map_err(|error| in_submodule(error, submodule))
    })
}

/// Visits the submodules of a commit, each before its own, as far as the settings want them.
///
/// A commit that the store does not hold has none.
fn each_submodule(
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

impl Said {
    /// Says what is not as a tree's reader may expect, unless it was said of an earlier tree.
    fn warn_of_shortcomings(&mut self, tree: &tree::Built) {
        if let Some(why) = &tree.shared_fallback
            && !std::mem::replace(&mut self.cannot_share, true)
        {
            warn!(
                why = printable(why),
                "unchanged files are written again: they cannot be shared"
            );
        }
        let news = |said: &mut Vec<String>, now: &[String]| {
            let before = said.len();
            for item in now {
                if !said.contains(item) {
                    said.push(item.clone());
                }
            }
            let news = said.len() > before;
            said.drain(..said.len().saturating_sub(SAID));
            news
        };
        if news(&mut self.unfiltered, &tree.unfiltered) {
            let files = printable(&tree.unfiltered.join(", "));
            warn!(
                files,
                "filters are not run: these files are as the repository holds them"
            );
        }
        if news(&mut self.unpopulated, &tree.unpopulated) {
            let paths = printable(&tree.unpopulated.join(", "));
            warn!(
                paths,
                "submodules without an entry in .gitmodules stay empty"
            );
        }
    }
}

fn opened(disk: &mut Option<Disk>) -> Result<&mut Disk, SyncError> {
    disk.as_mut()
        .ok_or_else(|| SyncError::new(Stage::Start, Reason::Other, "the volume is not open"))
}

impl Report {
    /// Runs one step and adds up how long it took.
    fn time<T>(&mut self, stage: Stage, step: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        match self.stages.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, total)) => *total += took,
            None => self.stages.push((stage, took)),
        }
        result
    }

    fn fetch(
        &mut self,
        remote: &mut dyn Remote,
        store: &Store,
        want: &Wanted<'_>,
        target: &Target,
        budget: &Budget,
    ) -> Result<(), SyncError> {
        let fetched = self.time(Stage::Fetch, || {
            let haves = store.haves();
            let shallow = store.shallow();
            let thin = !haves.is_empty();
            let max_bytes = target.tree.max_bytes.unwrap_or(u64::MAX);
            let mut receiving = store.receive(budget, max_bytes)?;
            if thin {
                receiving.expect_thin();
            }
            let request = FetchRequest {
                want: want.object,
                also: &[],
                name: want.name,
                haves: &haves,
                shallow: &shallow,
                depth: want.depth,
                thin,
            };
            let fetched = remote.fetch(&request, &mut receiving, budget)?;
            receiving.finish(&fetched, &[want.commit]).map(|()| fetched)
        })?;
        self.fetched_bytes += fetched.bytes;
        Ok(())
    }

    /// Brings the objects of tags that were made after the commits that they stand for had come.
    fn fetch_tags(
        &mut self,
        remote: &mut dyn Remote,
        store: &Store,
        tags: &[Advertised],
        budget: &Budget,
    ) -> Result<(), SyncError> {
        let missing = store.missing_tags(tags);
        let Some((first, others)) = missing.split_first() else {
            return Ok(());
        };
        let fetched = self.time(Stage::Fetch, || {
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
            let mut receiving = store.receive(budget, u64::MAX)?;
            let fetched = remote.fetch(&request, &mut receiving, budget)?;
            receiving.finish(&fetched, &[])?;
            Ok(fetched)
        })?;
        self.fetched_bytes += fetched.bytes;
        Ok(())
    }
}

impl Disk {
    /// Reads again which complete trees there are; what was found unsound stays so.
    fn refresh(&mut self) -> Result<(), SyncError> {
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

    /// The tree that the link leads to.
    fn live(&self) -> Result<Option<&Known>, SyncError> {
        let live = self.volume.observe()?.live;
        Ok(live.and_then(|live| self.known.iter().find(|known| known.revision.n == live.n)))
    }

    /// Whether the live tree is a directory at the link path, and a symbolic link is wanted there.
    ///
    /// Such a tree cannot be moved to where the link would lead without a moment in which readers
    /// have none: another one has to be built.
    fn live_takes_the_links_place(&self) -> Result<bool, SyncError> {
        let observed = self.volume.observe()?;
        Ok(observed.damage.is_some()
            && observed
                .live
                .is_some_and(|live| live.path == self.volume.link_path()))
    }

    /// Compares a whole tree with its manifest; remembers and returns whether it is sound.
    fn inspect(&mut self, n: u64, budget: &Budget) -> Result<bool, SyncError> {
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

    fn newest(&self) -> Option<&Known> {
        self.known.iter().max_by_key(|known| known.revision.n)
    }

    fn newest_sound(&self, settings: &str) -> Option<Known> {
        let sound = || self.known.iter().filter(|known| known.sound);
        sound()
            .filter(|known| known.settings == settings)
            .max_by_key(|known| known.revision.n)
            .or_else(|| sound().max_by_key(|known| known.revision.n))
            .cloned()
    }

    fn revision(&self, n: u64) -> Result<Revision, SyncError> {
        self.known
            .iter()
            .find(|known| known.revision.n == n)
            .map(|known| known.revision.clone())
            .ok_or_else(|| SyncError::new(Stage::Publish, Reason::Other, "the tree is gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn candidate(n: u64, digit: char) -> Candidate<'static> {
        Candidate {
            n,
            commit: commit(digit),
            settings: "s",
            sound: true,
            live: false,
        }
    }

    #[test]
    fn a_live_sound_tree_of_the_tip_needs_nothing() {
        let live = Candidate {
            live: true,
            ..candidate(1, 'a')
        };
        assert_eq!(
            decide(commit('a'), "s", &[live, candidate(2, 'a')]),
            Action::Nothing
        );
    }

    #[test]
    fn a_tree_of_the_tip_that_is_still_there_is_flipped_to() {
        let live = Candidate {
            live: true,
            ..candidate(3, 'b')
        };
        let disk = [candidate(1, 'a'), candidate(2, 'a'), live];
        assert_eq!(decide(commit('a'), "s", &disk), Action::Flip(2));
    }

    #[test]
    fn another_commit_other_settings_or_damage_need_a_new_tree() {
        let live = Candidate {
            live: true,
            ..candidate(1, 'a')
        };
        let damaged = Candidate {
            sound: false,
            ..live
        };
        assert_eq!(decide(commit('b'), "s", &[live]), Action::Build);
        assert_eq!(decide(commit('a'), "t", &[live]), Action::Build);
        assert_eq!(decide(commit('a'), "s", &[damaged]), Action::Build);
        assert_eq!(decide(commit('a'), "s", &[]), Action::Build);
    }
}
