//! Every series that Prometheus may scrape, in one constructor: a label's children are resolved
//! when it is registered, so that they exist at 0 before the first event.
//!
//! Units are Prometheus's base units. No label holds anything unbounded, and none a repository's
//! URL. This module does not serve the series, and it does not decide what is ready or stale.

mod process;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The name of every series, as a scrape shows it; histograms without `_bucket`, `_sum` and
/// `_count`. All of them exist from the start, but for `gvr_revision_info`, which needs a revision.
pub const NAMES: [&str; 28] = [
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
    "gvr_fetched_bytes_total",
    "gvr_files_written_total",
    "gvr_files_shared_total",
    "gvr_revisions",
    "gvr_volume_bytes",
    "gvr_nudges_total",
    "gvr_nudge_to_publish_seconds",
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

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another revision was published.
    Changed,
    /// The volume was what the remote names already.
    Unchanged,
    /// It failed.
    Error,
}

/// Who asked for a poll over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Whoever holds the bearer token.
    Token,
}

/// What became of a request to poll now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NudgeOutcome {
    /// It led to a poll at once.
    Accepted,
    /// It came too soon after another, and shares one later poll with its like.
    Coalesced,
    /// It was not authenticated.
    Refused,
}

/// The handles to one target's series.
///
/// Cheap to clone; clones move the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    target: Arc<str>,
    syncs: [Counter; Outcome::ALL.len()],
    sync_duration: [Histogram; Outcome::ALL.len()],
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
    stale: Gauge,
    fetched_bytes: Counter,
    files_written: Counter,
    files_shared: Counter,
    revisions: Gauge,
    volume_bytes: Gauge,
    nudges: [Counter; Provider::ALL.len() * NudgeOutcome::ALL.len()],
    nudge_to_publish: Histogram,
    /// When the first nudge arrived that no publish has followed yet.
    nudged: Arc<Mutex<Option<Instant>>>,
}

type Seconds = Gauge<f64, AtomicU64>;
type Labels = Vec<(&'static str, Cow<'static, str>)>;

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

impl Metrics {
    /// Registers every series of `target`, all at 0. Once per registry.
    pub fn register(registry: &mut Registry, target: &str) -> Self {
        let registry = &mut Scope { registry, target };
        let syncs = registry.family("syncs", None, "Sync cycles, by how they ended");
        let sync_duration =
            registry.histograms("sync_duration", "How long a sync cycle took, by outcome");
        let stage_duration =
            registry.histograms("stage_duration", "How long a stage of a sync cycle took");
        let failures = registry.family(
            "sync_failures",
            None,
            "Failed sync cycles, by the stage that failed and the reason",
        );
        let nudges = registry.family(
            "nudges",
            None,
            "Requests to poll now, by provider and by what became of them",
        );
        let by_outcome = |outcome: Outcome| registry.labels([("outcome", outcome.as_str())]);
        Self {
            target: target.into(),
            syncs: Outcome::ALL.map(|outcome| child(&syncs, by_outcome(outcome))),
            sync_duration: Outcome::ALL
                .map(|outcome| sync_duration.get_or_create_owned(&by_outcome(outcome))),
            stage_duration: Stage::ALL.map(|stage| {
                stage_duration.get_or_create_owned(&registry.labels([("stage", stage.as_str())]))
            }),
            failures: Stage::ALL
                .into_iter()
                .flat_map(|stage| Reason::FAILURES.map(|reason| (stage, reason)))
                .map(|(stage, reason)| {
                    let labels = [("stage", stage.as_str()), ("reason", reason.as_str())];
                    child(&failures, registry.labels(labels))
                })
                .collect(),
            nudges: std::array::from_fn(|index| {
                let (provider, outcome) = (
                    Provider::ALL[index / NudgeOutcome::ALL.len()],
                    NudgeOutcome::ALL[index % NudgeOutcome::ALL.len()],
                );
                let labels = [
                    ("provider", provider.as_str()),
                    ("outcome", outcome.as_str()),
                ];
                child(&nudges, registry.labels(labels))
            }),
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
            consecutive_failures: registry.single(
                "consecutive_failures",
                None,
                "Failed sync cycles since the last that did not fail",
            ),
            poll_interval: registry.seconds(
                "poll_interval",
                "The wait before the next poll, jitter and backoff included",
            ),
            ready: registry.single("ready", None, "Whether /readyz answers 200"),
            stale: registry.single(
                "stale",
                None,
                "Whether the last success is longer ago than --max-staleness allows",
            ),
            fetched_bytes: registry.single("fetched", Some(Unit::Bytes), "Pack data received"),
            files_written: registry.single(
                "files_written",
                None,
                "Files of published trees whose content was written",
            ),
            files_shared: registry.single(
                "files_shared",
                None,
                "Files of published trees that share an earlier tree's content",
            ),
            revisions: registry.single("revisions", None, "Complete trees on the volume"),
            volume_bytes: registry.single(
                "volume",
                Some(Unit::Bytes),
                "What the trees and the object store take up on the volume",
            ),
            nudge_to_publish: {
                let family = registry.histograms(
                    "nudge_to_publish",
                    "From a request to poll now to the publish that followed it",
                );
                family.get_or_create_owned(&registry.labels([]))
            },
            nudged: Arc::default(),
        }
    }

    /// A cycle begins.
    pub fn attempt(&self) {
        self.last_attempt.set(since_epoch(SystemTime::now()));
    }

    /// A cycle ended after `took`. For [`Outcome::Error`], call [`Metrics::failure`] too.
    pub fn sync(&self, outcome: Outcome, took: Duration) {
        self.syncs[outcome as usize].inc();
        self.sync_duration[outcome as usize].observe(took.as_secs_f64());
        if outcome != Outcome::Error {
            self.last_success.set(since_epoch(SystemTime::now()));
            self.consecutive_failures.set(0);
        }
    }

    /// A stage of a cycle took that long.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stage_duration[stage as usize].observe(took.as_secs_f64());
    }

    /// A cycle failed. A shutdown is no failure and moves nothing.
    pub fn failure(&self, error: &SyncError) {
        if !error.is_cancelled() {
            self.consecutive_failures.inc();
            self.failure_aside(error);
        }
    }

    /// Something beside the cycles failed, such as housekeeping: no cycle in a row.
    pub fn failure_aside(&self, error: &SyncError) {
        let reason = Reason::FAILURES.iter().position(|r| *r == error.reason);
        if let Some(reason) = reason {
            self.failures[error.stage as usize * Reason::FAILURES.len() + reason].inc();
        }
    }

    /// The link shows `commit`, which `reference` named, since `at`: after a publish, and once
    /// after a start that found it published already. `commit_time` is in seconds since the epoch.
    pub fn published(&self, reference: &str, commit: Commit, commit_time: i64, at: SystemTime) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a time beyond 2^52 seconds is nonsense to the second already"
        )]
        self.commit_time.set(commit_time as f64);
        self.last_publish.set(since_epoch(at));
        self.revision_info.clear();
        let labels = vec![
            ("target", Cow::Owned(self.target.to_string())),
            ("ref", Cow::Owned(reference.to_owned())),
            ("revision", Cow::Owned(commit.to_string())),
        ];
        self.revision_info.get_or_create_owned(&labels).set(1);
        if let Some(nudged) = self.nudged().take() {
            let elapsed = nudged.elapsed();
            if elapsed <= NUDGE_WINDOW {
                self.nudge_to_publish.observe(elapsed.as_secs_f64());
            }
        }
    }

    /// The next poll is due in `wait`.
    pub fn next_poll(&self, wait: Duration) {
        self.poll_interval.set(wait.as_secs_f64());
    }

    /// What health is now; whoever serves a scrape says so before it.
    pub fn health(&self, ready: bool, stale: bool) {
        self.ready.set(ready.into());
        self.stale.set(stale.into());
    }

    /// That many bytes of pack data came in.
    pub fn fetched(&self, bytes: u64) {
        self.fetched_bytes.inc_by(bytes);
    }

    /// A published tree has that many files of either kind.
    pub fn files(&self, written: u64, shared: u64) {
        self.files_written.inc_by(written);
        self.files_shared.inc_by(shared);
    }

    /// What is on the volume; bytes only when they were counted.
    pub fn volume(&self, revisions: usize, bytes: Option<u64>) {
        self.revisions
            .set(i64::try_from(revisions).unwrap_or(i64::MAX));
        if let Some(bytes) = bytes {
            self.volume_bytes
                .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Somebody asked for a poll now.
    pub fn nudge(&self, provider: Provider, outcome: NudgeOutcome) {
        self.nudges[provider as usize * NudgeOutcome::ALL.len() + outcome as usize].inc();
        if outcome != NudgeOutcome::Refused {
            let mut nudged = self.nudged();
            if nudged.is_none_or(|since| since.elapsed() > NUDGE_WINDOW) {
                *nudged = Some(Instant::now());
            }
        }
    }

    fn nudged(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.nudged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// Every outcome, in the order of the discriminants.
    const ALL: [Self; 3] = [Self::Changed, Self::Unchanged, Self::Error];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Error => "error",
        }
    }
}

impl Provider {
    /// Every provider, in the order of the discriminants.
    const ALL: [Self; 1] = [Self::Token];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
        }
    }
}

impl NudgeOutcome {
    /// Every outcome, in the order of the discriminants.
    const ALL: [Self; 3] = [Self::Accepted, Self::Coalesced, Self::Refused];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Coalesced => "coalesced",
            Self::Refused => "refused",
        }
    }
}

/// Registers under the prefix and with the label that every series of a target has.
struct Scope<'a> {
    registry: &'a mut Registry,
    target: &'a str,
}

impl Scope<'_> {
    fn labels<const N: usize>(&self, more: [(&'static str, &'static str); N]) -> Labels {
        let target = ("target", Cow::Owned(self.target.to_owned()));
        std::iter::once(target)
            .chain(more.map(|(key, value)| (key, Cow::Borrowed(value))))
            .collect()
    }

    fn family<M>(&mut self, name: &str, unit: Option<Unit>, help: &str) -> Family<Labels, M>
    where
        Family<Labels, M>: Metric + Default + Clone,
    {
        let family = Family::default();
        self.register(name, unit, help, family.clone());
        family
    }

    fn single<M: Default + Clone>(&mut self, name: &str, unit: Option<Unit>, help: &str) -> M
    where
        Family<Labels, M>: Metric,
    {
        child(&self.family(name, unit, help), self.labels([]))
    }

    fn seconds(&mut self, name: &str, help: &str) -> Seconds {
        self.single(name, Some(Unit::Seconds), help)
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
    ) -> Family<Labels, Histogram, fn() -> Histogram> {
        let family =
            Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        self.register(name, Some(Unit::Seconds), help, family.clone());
        family
    }

    fn register(&mut self, name: &str, unit: Option<Unit>, help: &str, metric: impl Metric) {
        let name = format!("gvr_{name}");
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }
}

fn child<M: Default + Clone>(family: &Family<Labels, M>, labels: Labels) -> M {
    family.get_or_create_owned(&labels)
}

/// A time before the epoch counts as the epoch.
fn since_epoch(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_of_a_label_are_found_by_discriminant() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        for (index, outcome) in NudgeOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn a_failure_moves_its_own_series_and_a_shutdown_none() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "docs");
        metrics.failure(&SyncError::new(Stage::Fetch, Reason::Tls, "no"));
        metrics.failure(&SyncError::new(Stage::Fetch, Reason::Cancelled, "bye"));
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
    fn only_the_published_revision_has_a_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "docs");
        for digit in ["a", "b"] {
            let commit = digit.repeat(40).parse().unwrap();
            metrics.published("refs/heads/ma\"in", commit, -5, UNIX_EPOCH);
        }
        let page = encode(&registry).unwrap();
        let shown: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("gvr_revision_info{"))
            .collect();
        let expected = format!(
            r#"gvr_revision_info{{target="docs",ref="refs/heads/ma\"in",revision="{}"}} 1"#,
            "b".repeat(40)
        );
        assert_eq!(shown, [expected]);
    }

    #[test]
    fn a_publish_is_credited_to_the_first_nudge_and_only_once() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "docs");
        let count = |n| format!("gvr_nudge_to_publish_seconds_count{{target=\"docs\"}} {n}\n");
        let commit = "a".repeat(40).parse().unwrap();
        metrics.published("HEAD", commit, 0, UNIX_EPOCH);
        metrics.nudge(Provider::Token, NudgeOutcome::Refused);
        metrics.published("HEAD", commit, 0, UNIX_EPOCH);
        assert!(encode(&registry).unwrap().contains(&count(0)));
        metrics.nudge(Provider::Token, NudgeOutcome::Accepted);
        metrics.nudge(Provider::Token, NudgeOutcome::Coalesced);
        metrics.published("HEAD", commit, 0, UNIX_EPOCH);
        metrics.published("HEAD", commit, 0, UNIX_EPOCH);
        assert!(encode(&registry).unwrap().contains(&count(1)));
    }
}
