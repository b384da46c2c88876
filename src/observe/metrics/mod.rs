//! Every series that Prometheus may scrape, and the observer that moves those of one target.
//!
//! [`Families::register`] names every family once per process. [`Families::target`] resolves every
//! child of one target, so that each series exists at 0 before its first event. Units are
//! Prometheus's base units. No label is unbounded, and no label holds a repository's URL. This
//! module does not serve the series, and it does not decide what is ready or stale.

mod process;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::base::error::{Reason, Stage};
use crate::notify::event::{CheckOutcome, DamageKind, Failure, Outcome, ShownCommit, Work};
use crate::notify::hook::{HookKind, HookOutcome};
use crate::notify::{Event, Observer};

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The name of every series, as a scrape shows it; histograms without `_bucket`, `_sum` and
/// `_count`. All of them exist from the start, but for `gvr_revision_info`, which needs a revision.
pub const NAMES: [&str; 35] = [
    "gvr_build_info",
    "gvr_syncs_total",
    "gvr_sync_duration_seconds",
    "gvr_stage_duration_seconds",
    "gvr_sync_failures_total",
    "gvr_last_attempt_timestamp_seconds",
    "gvr_last_success_timestamp_seconds",
    "gvr_last_publish_timestamp_seconds",
    "gvr_commit_timestamp_seconds",
    "gvr_revision_info",
    "gvr_consecutive_failures",
    "gvr_poll_interval_seconds",
    "gvr_ready",
    "gvr_stale",
    "gvr_pinned",
    "gvr_pinned_timestamp_seconds",
    "gvr_fetched_bytes_total",
    "gvr_files_written_total",
    "gvr_files_shared_total",
    "gvr_revisions",
    "gvr_volume_bytes",
    "gvr_damage_total",
    "gvr_last_scrub_timestamp_seconds",
    "gvr_nudges_total",
    "gvr_nudge_to_publish_seconds",
    "gvr_rejected",
    "gvr_checks_total",
    "gvr_hook_runs_total",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
];

/// Upper bounds of every histogram's buckets, in seconds.
const BUCKETS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// A publish this long after a nudge was not brought about by it.
const NUDGE_WINDOW: Duration = Duration::from_secs(60);

/// Who asked for a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Whoever sends a bearer token.
    Token,
    /// Whoever sends `X-Signature`, such as a sender for Flux's `generic-hmac`.
    Hmac,
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea.
    Gitea,
    /// Forgejo.
    Forgejo,
    /// Gogs.
    Gogs,
    /// Bitbucket Cloud.
    BitbucketCloud,
    /// Bitbucket Data Center.
    BitbucketDc,
    /// Azure DevOps.
    AzureDevops,
    /// AWS SNS.
    Sns,
    /// The command line, through the control socket.
    Local,
    /// Somebody who sends no proof of anything.
    Unknown,
}

/// What became of a request to poll now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NudgeOutcome {
    /// It led to a poll at once.
    Accepted,
    /// It came too soon after another, and shares one later poll with its like.
    Coalesced,
    /// `--nudge-rate` is used up: the next poll serves it.
    Held,
    /// It is authentic, and not about the target's ref.
    Ignored,
    /// It came before, or it was signed too long ago.
    Replayed,
    /// It was not authenticated.
    Refused,
    /// It had to wait, because of failures to authenticate before it.
    Delayed,
}

/// The families of series, each of which has children per target. One per process.
#[derive(Clone, Debug)]
pub struct Families {
    syncs: Family<Labels, Counter>,
    sync_duration: HistogramFamily,
    stage_duration: HistogramFamily,
    failures: Family<Labels, Counter>,
    last_attempt: Family<Labels, Seconds>,
    last_success: Family<Labels, Seconds>,
    last_publish: Family<Labels, Seconds>,
    commit_time: Family<Labels, Seconds>,
    revision_info: Family<Labels, Gauge>,
    consecutive_failures: Family<Labels, Gauge>,
    poll_interval: Family<Labels, Seconds>,
    ready: Family<Labels, Gauge>,
    pinned: Family<Labels, Gauge>,
    pinned_since: Family<Labels, Seconds>,
    stale: Family<Labels, Gauge>,
    fetched_bytes: Family<Labels, Counter>,
    files_written: Family<Labels, Counter>,
    files_shared: Family<Labels, Counter>,
    revisions: Family<Labels, Gauge>,
    volume_bytes: Family<Labels, Gauge>,
    damage: Family<Labels, Counter>,
    last_scrub: Family<Labels, Seconds>,
    nudges: Family<Labels, Counter>,
    nudge_to_publish: HistogramFamily,
    rejected: Family<Labels, Gauge>,
    checks: Family<Labels, Counter>,
    hook_runs: Family<Labels, Counter>,
}

/// The handles to one target's series, and the observer that moves them.
///
/// Cheap to clone; clones move the same series.
#[derive(Clone, Debug)]
pub struct TargetMetrics {
    target: Arc<str>,
    /// The ref as it was configured.
    reference: Arc<str>,
    syncs: [Counter; OUTCOMES.len()],
    sync_duration: [Histogram; OUTCOMES.len()],
    stage_duration: [Histogram; Stage::ALL.len()],
    failures: Vec<Counter>,
    last_attempt: Seconds,
    last_success: Seconds,
    last_publish: Seconds,
    commit_time: Seconds,
    revision_info: Family<Labels, Gauge>,
    consecutive_failures: Gauge,
    poll_interval: Seconds,
    ready: Gauge,
    pinned: Gauge,
    pinned_since: Seconds,
    stale: Gauge,
    fetched_bytes: Counter,
    files_written: Counter,
    files_shared: Counter,
    revisions: Gauge,
    volume_bytes: Gauge,
    damage: [Counter; DamageKind::ALL.len()],
    last_scrub: Seconds,
    nudges: [Counter; Provider::ALL.len() * NudgeOutcome::ALL.len()],
    nudge_to_publish: Histogram,
    rejected: Gauge,
    checks: [Counter; CHECKS.len()],
    hook_runs: [Counter; HookKind::ALL.len() * HookOutcome::ALL.len()],
    /// When the first nudge arrived that no publish has followed yet.
    nudged: Arc<Mutex<Option<Instant>>>,
    /// The labels of the commit that `revision_info` shows.
    shown: Arc<Mutex<Option<Labels>>>,
}

type Seconds = Gauge<f64, AtomicU64>;
type Labels = Vec<(&'static str, Cow<'static, str>)>;
type HistogramFamily = Family<Labels, Histogram, fn() -> Histogram>;

/// The outcomes that are counted, with their label values.
const OUTCOMES: [(Outcome, &str); 3] = [
    (Outcome::Changed, "changed"),
    (Outcome::Unchanged, "unchanged"),
    (Outcome::Error, "error"),
];

/// How checks end, with the label values.
const CHECKS: [(CheckOutcome, &str); 3] = [
    (CheckOutcome::Accepted, "accepted"),
    (CheckOutcome::Rejected, "rejected"),
    (CheckOutcome::NoVerdict, "no_verdict"),
];

/// Registers what describes the process and no target: `gvr_build_info` and `process_*`.
///
/// `version` and `commit` are those that `--version` prints.
pub fn register_process(registry: &mut Registry, version: &str, commit: &str) {
    let labels = [("version", version), ("commit", commit)].map(|(k, v)| (k, v.to_owned()));
    registry.register(
        "gvr_build",
        "The version that runs, and the commit it was built from",
        Info::new(labels.to_vec()),
    );
    registry.register_collector(Box::new(process::Process::new()));
}

/// The registry's series in the OpenMetrics text format, complete with `# EOF`.
///
/// # Errors
/// When a collector fails to format its own values.
pub fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut page = String::with_capacity(32 << 10);
    text::encode(&mut page, registry)?;
    Ok(page)
}

impl Families {
    /// Registers every family. Once per registry.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = &mut Scope(registry);
        Self {
            syncs: registry.family("syncs", None, "Sync cycles, by how they ended"),
            sync_duration: registry
                .histograms("sync_duration", "How long a sync cycle took, by outcome"),
            stage_duration: registry
                .histograms("stage_duration", "How long a stage of a sync cycle took"),
            failures: registry.family(
                "sync_failures",
                None,
                "Failed sync cycles, by the stage that failed and the reason",
            ),
            last_attempt: registry.seconds(
                "last_attempt_timestamp",
                "When the last sync cycle began, since the epoch; 0 before the first",
            ),
            last_success: registry.seconds(
                "last_success_timestamp",
                "When the last sync cycle ended without a failure, since the epoch; 0 before one did",
            ),
            last_publish: registry.seconds(
                "last_publish_timestamp",
                "When the link was last flipped, since the epoch; 0 before the first",
            ),
            commit_time: registry.seconds(
                "commit_timestamp",
                "The committer's time of the published commit, since the epoch; 0 before the first",
            ),
            revision_info: registry.family(
                "revision_info",
                None,
                "1 for the published commit and the ref it came from",
            ),
            consecutive_failures: registry.family(
                "consecutive_failures",
                None,
                "Failed sync cycles since the last that did not fail",
            ),
            poll_interval: registry.seconds(
                "poll_interval",
                "The wait before the next poll, jitter and backoff included",
            ),
            ready: registry.family("ready", None, "Whether /readyz answers 200"),
            pinned: registry.family(
                "pinned",
                None,
                "Whether readers are held on a commit by `pin`",
            ),
            pinned_since: registry.seconds(
                "pinned_timestamp",
                "Since when readers are held on a commit, since the epoch; 0 while they are not",
            ),
            stale: registry.family(
                "stale",
                None,
                "Whether the last success is longer ago than --max-staleness allows",
            ),
            fetched_bytes: registry.family("fetched", Some(Unit::Bytes), "Pack data received"),
            files_written: registry.family(
                "files_written",
                None,
                "Files of published trees whose content was written",
            ),
            files_shared: registry.family(
                "files_shared",
                None,
                "Files of published trees that share an earlier tree's content",
            ),
            revisions: registry.family("revisions", None, "Complete trees on the volume"),
            volume_bytes: registry.family(
                "volume",
                Some(Unit::Bytes),
                "What the trees and the object store take up on the volume",
            ),
            damage: registry.family(
                "damage",
                None,
                "Damage that was found to the link or to the live tree, by what was damaged",
            ),
            last_scrub: registry.seconds(
                "last_scrub_timestamp",
                "When a scrub last found every file sound, since the epoch; 0 before one did",
            ),
            nudges: registry.family(
                "nudges",
                None,
                "Requests to poll now, by provider and by what became of them",
            ),
            nudge_to_publish: registry.histograms(
                "nudge_to_publish",
                "From a request to poll now to the publish that followed it",
            ),
            rejected: registry.family(
                "rejected",
                None,
                "Whether the remote's commit was rejected, so that readers keep an older one",
            ),
            checks: registry.family(
                "checks",
                None,
                "Checks of trees that were not published yet, by what they decided",
            ),
            hook_runs: registry.family(
                "hook_runs",
                None,
                "Runs of hooks, by hook and by how they ended",
            ),
        }
    }

    /// The series of one target, all at 0. `reference` is the ref as it was configured.
    pub fn target(&self, target: &str, reference: &str) -> TargetMetrics {
        let labels = |more: &[(&'static str, &'static str)]| -> Labels {
            std::iter::once(("target", Cow::Owned(target.to_owned())))
                .chain(
                    more.iter()
                        .map(|(key, value)| (*key, Cow::Borrowed(*value))),
                )
                .collect()
        };
        let plain = labels(&[]);
        TargetMetrics {
            target: target.into(),
            reference: reference.into(),
            syncs: OUTCOMES.map(|(_, label)| child(&self.syncs, &labels(&[("outcome", label)]))),
            sync_duration: OUTCOMES
                .map(|(_, label)| child(&self.sync_duration, &labels(&[("outcome", label)]))),
            stage_duration: Stage::ALL
                .map(|stage| child(&self.stage_duration, &labels(&[("stage", stage.as_str())]))),
            failures: Stage::ALL
                .into_iter()
                .flat_map(|stage| Reason::FAILURES.map(|reason| (stage, reason)))
                .map(|(stage, reason)| {
                    let more = [("stage", stage.as_str()), ("reason", reason.as_str())];
                    child(&self.failures, &labels(&more))
                })
                .collect(),
            last_attempt: child(&self.last_attempt, &plain),
            last_success: child(&self.last_success, &plain),
            last_publish: child(&self.last_publish, &plain),
            commit_time: child(&self.commit_time, &plain),
            revision_info: self.revision_info.clone(),
            consecutive_failures: child(&self.consecutive_failures, &plain),
            poll_interval: child(&self.poll_interval, &plain),
            ready: child(&self.ready, &plain),
            pinned: child(&self.pinned, &plain),
            pinned_since: child(&self.pinned_since, &plain),
            stale: child(&self.stale, &plain),
            fetched_bytes: child(&self.fetched_bytes, &plain),
            files_written: child(&self.files_written, &plain),
            files_shared: child(&self.files_shared, &plain),
            revisions: child(&self.revisions, &plain),
            volume_bytes: child(&self.volume_bytes, &plain),
            damage: DamageKind::ALL
                .map(|kind| child(&self.damage, &labels(&[("kind", kind.as_str())]))),
            last_scrub: child(&self.last_scrub, &plain),
            nudges: std::array::from_fn(|index| {
                let provider = Provider::ALL[index / NudgeOutcome::ALL.len()];
                let outcome = NudgeOutcome::ALL[index % NudgeOutcome::ALL.len()];
                let more = [
                    ("provider", provider.as_str()),
                    ("outcome", outcome.as_str()),
                ];
                child(&self.nudges, &labels(&more))
            }),
            nudge_to_publish: child(&self.nudge_to_publish, &plain),
            rejected: child(&self.rejected, &plain),
            checks: CHECKS.map(|(_, label)| child(&self.checks, &labels(&[("outcome", label)]))),
            hook_runs: std::array::from_fn(|index| {
                let hook = HookKind::ALL[index / HookOutcome::ALL.len()];
                let outcome = HookOutcome::ALL[index % HookOutcome::ALL.len()];
                let more = [("hook", hook.as_str()), ("outcome", outcome.as_str())];
                child(&self.hook_runs, &labels(&more))
            }),
            nudged: Arc::default(),
            shown: Arc::default(),
        }
    }
}

impl TargetMetrics {
    /// Sets what health is now; the server does so before each scrape.
    pub fn health(&self, ready: bool, stale: bool) {
        self.ready.set(ready.into());
        self.stale.set(stale.into());
    }

    /// Counts a request to poll now.
    pub fn nudge(&self, provider: Provider, outcome: NudgeOutcome) {
        self.nudges[provider as usize * NudgeOutcome::ALL.len() + outcome as usize].inc();
        let polls = [
            NudgeOutcome::Accepted,
            NudgeOutcome::Coalesced,
            NudgeOutcome::Held,
        ];
        if polls.contains(&outcome) {
            let mut nudged = self.nudged();
            if nudged.is_none_or(|since| since.elapsed() > NUDGE_WINDOW) {
                *nudged = Some(Instant::now());
            }
        }
    }

    /// Counts a run of a hook.
    pub fn hook_run(&self, hook: HookKind, outcome: HookOutcome) {
        self.hook_runs[hook as usize * HookOutcome::ALL.len() + outcome as usize].inc();
    }

    fn finished(&self, work: &Work) {
        for (stage, took) in &work.stages {
            self.stage(*stage, *took);
        }
        self.fetched_bytes.inc_by(work.fetched_bytes);
        self.files_written.inc_by(work.files_written);
        self.files_shared.inc_by(work.files_shared);
        let counted = OUTCOMES
            .iter()
            .position(|(known, _)| *known == work.outcome);
        if let Some(index) = counted {
            self.syncs[index].inc();
            self.sync_duration[index].observe(work.took.as_secs_f64());
        }
        if matches!(work.outcome, Outcome::Changed | Outcome::Unchanged) {
            self.last_success.set(since_epoch(SystemTime::now()));
            self.consecutive_failures.set(0);
        }
    }

    fn stage(&self, stage: Stage, took: Duration) {
        self.stage_duration[stage as usize].observe(took.as_secs_f64());
    }

    fn failure(&self, failure: &Failure) {
        let reason = Reason::FAILURES.iter().position(|r| *r == failure.reason);
        if let Some(reason) = reason {
            self.failures[failure.stage as usize * Reason::FAILURES.len() + reason].inc();
        }
    }

    fn shows(&self, commit: &ShownCommit, at: SystemTime) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a time beyond 2^52 seconds is nonsense to the second already"
        )]
        self.commit_time.set(commit.time.seconds() as f64);
        self.last_publish.set(since_epoch(at));
        let label = |key, value: &str| (key, Cow::Owned(value.to_owned()));
        let labels = vec![
            label("target", &self.target),
            label("ref", &self.reference),
            label("revision", &commit.id.to_string()),
        ];
        let mut shown = self.shown();
        if let Some(previous) = shown.replace(labels.clone()) {
            self.revision_info.remove(&previous);
        }
        self.revision_info.get_or_create_owned(&labels).set(1);
    }

    /// Credits a publish to the nudge that came before it.
    fn credit_nudge(&self) {
        if let Some(nudged) = self.nudged().take() {
            let elapsed = nudged.elapsed();
            if elapsed <= NUDGE_WINDOW {
                self.nudge_to_publish.observe(elapsed.as_secs_f64());
            }
        }
    }

    fn nudged(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.nudged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Option<Labels>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for TargetMetrics {
    fn observe(&mut self, event: &Event) {
        match event {
            Event::Attempt => {
                self.last_attempt.set(since_epoch(SystemTime::now()));
            }
            Event::Finished(work) => self.finished(work),
            Event::Found(found) | Event::Restored { tree: found, .. } => {
                self.shows(&found.commit, found.since)
            }
            Event::Published(published) => {
                self.shows(&published.to, published.at);
                self.credit_nudge();
                self.rejected.set(0);
            }
            Event::Unchanged => {
                self.rejected.set(0);
            }
            Event::Rejected(_) => {
                self.rejected.set(1);
            }
            Event::Checked(checked) => {
                let counted = CHECKS
                    .iter()
                    .position(|(known, _)| *known == checked.outcome);
                if let Some(index) = counted {
                    self.checks[index].inc();
                }
            }
            Event::Failed(failure) => {
                self.failure(failure);
                self.consecutive_failures
                    .set(i64::try_from(failure.consecutive).unwrap_or(i64::MAX));
            }
            Event::HousekeepingFailed(failure) => self.failure(failure),
            Event::Damaged { kind, .. } => {
                self.damage[*kind as usize].inc();
            }
            Event::Scrubbed { at } => {
                self.last_scrub.set(since_epoch(*at));
            }
            Event::Pruned(pruned) => {
                self.stage(Stage::Prune, pruned.took);
                self.revisions
                    .set(i64::try_from(pruned.revisions).unwrap_or(i64::MAX));
                if let Some(bytes) = pruned.bytes {
                    self.volume_bytes
                        .set(i64::try_from(bytes).unwrap_or(i64::MAX));
                }
            }
            Event::Waiting { next_poll } => {
                self.poll_interval.set(next_poll.as_secs_f64());
            }
            Event::Pinned { since, .. } => {
                self.pinned.set(1);
                self.pinned_since.set(since_epoch(*since));
            }
            Event::Unpinned => {
                self.pinned.set(0);
                self.pinned_since.set(0.0);
            }
            Event::Started
            | Event::Opened
            | Event::Polled { .. }
            | Event::Stale { .. }
            | Event::Recovered { .. }
            | Event::Stopped => {}
        }
    }
}

impl Provider {
    /// Every provider, in the order of the discriminants.
    const ALL: [Self; 13] = [
        Self::Token,
        Self::Hmac,
        Self::Github,
        Self::Gitlab,
        Self::Gitea,
        Self::Forgejo,
        Self::Gogs,
        Self::BitbucketCloud,
        Self::BitbucketDc,
        Self::AzureDevops,
        Self::Sns,
        Self::Local,
        Self::Unknown,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Hmac => "hmac",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Gogs => "gogs",
            Self::BitbucketCloud => "bitbucket_cloud",
            Self::BitbucketDc => "bitbucket_dc",
            Self::AzureDevops => "azure_devops",
            Self::Sns => "sns",
            Self::Local => "local",
            Self::Unknown => "unknown",
        }
    }
}

impl NudgeOutcome {
    /// Every outcome, in the order of the discriminants.
    const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Coalesced,
        Self::Held,
        Self::Ignored,
        Self::Replayed,
        Self::Refused,
        Self::Delayed,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Coalesced => "coalesced",
            Self::Held => "held",
            Self::Ignored => "ignored",
            Self::Replayed => "replayed",
            Self::Refused => "refused",
            Self::Delayed => "delayed",
        }
    }
}

/// Registers families under the prefix that all of them have.
struct Scope<'a>(&'a mut Registry);

impl Scope<'_> {
    fn family<M>(&mut self, name: &str, unit: Option<Unit>, help: &str) -> Family<Labels, M>
    where
        Family<Labels, M>: Metric + Default + Clone,
    {
        let family = Family::default();
        self.register(name, unit, help, family.clone());
        family
    }

    fn seconds(&mut self, name: &str, help: &str) -> Family<Labels, Seconds> {
        self.family(name, Some(Unit::Seconds), help)
    }

    fn histograms(&mut self, name: &str, help: &str) -> HistogramFamily {
        let family =
            Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        self.register(name, Some(Unit::Seconds), help, family.clone());
        family
    }

    fn register(&mut self, name: &str, unit: Option<Unit>, help: &str, metric: impl Metric) {
        let name = format!("gvr_{name}");
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }
}

fn child<M: Clone, C: MetricConstructor<M>>(family: &Family<Labels, M, C>, labels: &Labels) -> M {
    family.get_or_create_owned(labels)
}

/// A time before the epoch counts as the epoch.
fn since_epoch(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::commit::Timestamp;
    use crate::base::error::SyncError;
    use crate::notify::event::{AfterFailure, Found, Published, PublishedTree};

    fn metrics() -> (Registry, TargetMetrics) {
        let mut registry = Registry::default();
        let metrics = Families::register(&mut registry).target("docs", "refs/heads/ma\"in");
        (registry, metrics)
    }

    fn commit(digit: &str) -> ShownCommit {
        ShownCommit {
            id: digit.repeat(40).parse().unwrap(),
            subject: String::new(),
            author: String::new(),
            time: Timestamp::from_seconds(-5),
        }
    }

    fn published() -> Event {
        Event::Published(Published {
            from: None,
            to: commit("a"),
            path: std::path::PathBuf::new(),
            reference: "refs/heads/main".to_owned(),
            at: UNIX_EPOCH,
            tree: PublishedTree::Kept,
        })
    }

    #[test]
    fn the_children_of_a_label_are_found_by_discriminant() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
        for (index, hook) in HookKind::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, index);
        }
        for (index, outcome) in HookOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        for (index, outcome) in NudgeOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        for (index, provider) in Provider::ALL.into_iter().enumerate() {
            assert_eq!(provider as usize, index);
        }
    }

    #[test]
    fn a_failure_moves_its_own_series_only() {
        let (registry, mut metrics) = metrics();
        let error = SyncError::new(Stage::Fetch, Reason::Tls, "no");
        metrics.observe(&Event::Failed(Failure::new(
            &error,
            1,
            AfterFailure::GiveUp,
        )));
        let page = encode(&registry).unwrap();
        let moved: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("gvr_sync_failures_total") && !line.ends_with(" 0"))
            .collect();
        assert_eq!(
            moved,
            [r#"gvr_sync_failures_total{target="docs",stage="fetch",reason="tls"} 1"#]
        );
        assert!(page.contains("gvr_consecutive_failures{target=\"docs\"} 1\n"));
    }

    #[test]
    fn only_the_published_revision_of_each_target_has_a_series() {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry);
        let mut docs = families.target("docs", "refs/heads/ma\"in");
        let mut dags = families.target("dags", "main");
        for digit in ["a", "b"] {
            let found = Event::Found(Found {
                commit: commit(digit),
                path: std::path::PathBuf::new(),
                since: UNIX_EPOCH,
            });
            docs.observe(&found);
            dags.observe(&found);
        }
        let page = encode(&registry).unwrap();
        let mut shown: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("gvr_revision_info{"))
            .collect();
        shown.sort_unstable();
        let revision = "b".repeat(40);
        let expected = [
            format!(r#"gvr_revision_info{{target="dags",ref="main",revision="{revision}"}} 1"#),
            format!(
                r#"gvr_revision_info{{target="docs",ref="refs/heads/ma\"in",revision="{revision}"}} 1"#
            ),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_publish_is_credited_to_the_first_nudge_and_only_once() {
        let (registry, mut metrics) = metrics();
        let count = |n| format!("gvr_nudge_to_publish_seconds_count{{target=\"docs\"}} {n}\n");
        metrics.observe(&published());
        metrics.nudge(Provider::Token, NudgeOutcome::Refused);
        metrics.observe(&published());
        assert!(encode(&registry).unwrap().contains(&count(0)));
        metrics.nudge(Provider::Token, NudgeOutcome::Accepted);
        metrics.nudge(Provider::Token, NudgeOutcome::Coalesced);
        metrics.observe(&published());
        metrics.observe(&published());
        assert!(encode(&registry).unwrap().contains(&count(1)));
    }
}
