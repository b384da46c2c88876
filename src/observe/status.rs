//! The observer behind `/status` and the health probes.
//!
//! The sync thread writes, other threads read; the lock is held only to copy. Lateness is judged
//! on the monotonic clock, so a jump of the wall clock changes only the times that are displayed.
//! This module does not decide what follows from its answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::base::commit::Commit;
use crate::base::heartbeat::Heartbeat;
use crate::base::text::excerpt;
use crate::notify::event::{Rejection, ShownCommit};
use crate::notify::{Event, Observer};

/// The longest subject, author or message shown, in characters: a repository sets no limit.
const MAX_SHOWN: usize = 1024;

/// The longest reason for a rejection shown, in characters.
const MAX_REASON: usize = 8192;

/// The last second that RFC 3339 can express: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The state of one target, shared between the thread that observes and those that answer.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    max_staleness: Option<Duration>,
    heartbeat: Arc<Heartbeat>,
    state: Mutex<State>,
}

/// What does not change while the process runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Identity {
    /// The `target` label.
    pub target: String,
    /// The repository as [`RepoUrl`](crate::base::repo_url::RepoUrl) displays it: without credentials.
    pub repo: String,
    /// The ref as it was configured.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The link that readers follow.
    pub link: String,
    /// The version of this program.
    pub version: String,
}

/// Answers for probes and alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The loop is running: false only if it is stuck.
    pub live: bool,
    /// Readers have a tree, and it is as fresh as `--max-staleness` wants it.
    pub ready: bool,
    /// The last success is longer ago than `--max-staleness` allows.
    pub stale: bool,
}

/// A copy of the state, in the form that `/status` shows. Times are RFC 3339, in UTC.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// What does not change.
    #[serde(flatten)]
    pub identity: Identity,
    /// Health as of now.
    #[serde(flatten)]
    pub health: Health,
    /// The commit that the link shows.
    pub commit: Option<CommitShown>,
    /// The commit that the ref was on at the last poll.
    pub upstream: Option<String>,
    /// What readers are held on; nothing while they follow the ref.
    pub pinned: Option<PinShown>,
    /// When the link was flipped to it.
    pub published_at: Option<String>,
    /// When the last cycle began.
    pub last_attempt: Option<String>,
    /// When the last cycle that did not fail ended.
    pub last_success: Option<String>,
    /// The last failure; kept after a success, as `consecutive_failures` tells which came last.
    pub last_error: Option<ErrorShown>,
    /// Failed cycles since the last that did not fail.
    pub consecutive_failures: u64,
    /// When the next poll is due.
    pub next_poll: Option<String>,
    /// Complete trees on the volume.
    pub revisions_kept: usize,
    /// The remote's commit, if it was rejected; readers keep an older one.
    pub rejected: Option<RejectedShown>,
    /// Whether the loop of this target runs. Of interest in `--status-file`, which outlives it.
    pub running: bool,
}

/// A rejected commit in a [`Snapshot`].
#[derive(Clone, Debug, Serialize)]
pub struct RejectedShown {
    /// Its full id.
    pub commit: String,
    /// Why: the words of the check, with the last lines of its output.
    pub reason: String,
    /// When this process first saw that it is rejected.
    pub at: String,
}

/// A commit in a [`Snapshot`].
#[derive(Clone, Debug, Serialize)]
pub struct CommitShown {
    /// Its full id.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
    /// The author's name.
    pub author: String,
    /// The committer's time.
    pub time: String,
}

/// A pin in a [`Snapshot`].
#[derive(Clone, Debug, Serialize)]
pub struct PinShown {
    /// The full id of the commit.
    pub commit: String,
    /// Since when.
    pub since: String,
}

/// A failure in a [`Snapshot`].
#[derive(Clone, Debug, Serialize)]
pub struct ErrorShown {
    /// Which stage failed.
    pub stage: &'static str,
    /// The class of the failure.
    pub reason: &'static str,
    /// The whole chain of causes.
    pub message: String,
    /// What the operator can do.
    pub hint: Option<String>,
    /// When.
    pub at: String,
}

#[derive(Debug)]
struct State {
    commit: Option<CommitShown>,
    /// What the last poll found: the commit, and the full name of the ref.
    upstream: Option<(Commit, String)>,
    pinned: Option<PinShown>,
    published_at: Option<SystemTime>,
    last_attempt: Option<SystemTime>,
    last_success: Option<SystemTime>,
    /// What staleness counts from: the last success, or the start.
    fresh_since: Instant,
    last_error: Option<ErrorShown>,
    consecutive_failures: u64,
    next_poll: Option<SystemTime>,
    revisions_kept: usize,
    rejected: Option<RejectedShown>,
    running: bool,
}

impl TargetStatus {
    /// The status of a target that has done nothing yet.
    pub fn new(
        identity: Identity,
        max_staleness: Option<Duration>,
        heartbeat: Arc<Heartbeat>,
    ) -> Self {
        let state = State {
            commit: None,
            upstream: None,
            pinned: None,
            published_at: None,
            last_attempt: None,
            last_success: None,
            fresh_since: Instant::now(),
            last_error: None,
            consecutive_failures: 0,
            next_poll: None,
            revisions_kept: 0,
            rejected: None,
            running: true,
        };
        Self {
            shared: Arc::new(Shared {
                identity,
                max_staleness,
                heartbeat,
                state: Mutex::new(state),
            }),
        }
    }

    /// The name of the target.
    pub fn target(&self) -> &str {
        &self.shared.identity.target
    }

    /// The full name of the ref that the last poll found.
    pub fn polled_ref(&self) -> Option<String> {
        let state = self.state();
        state.upstream.as_ref().map(|(_, name)| name.clone())
    }

    /// The answers for probes as of now.
    pub fn health(&self) -> Health {
        self.health_at(Instant::now())
    }

    /// The answers for probes as of `now`.
    pub fn health_at(&self, now: Instant) -> Health {
        self.health_of(&self.state(), now)
    }

    /// Everything, as of now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            identity: self.shared.identity.clone(),
            health: self.health_of(&state, Instant::now()),
            commit: state.commit.clone(),
            upstream: state.upstream.as_ref().map(|(id, _)| id.to_string()),
            pinned: state.pinned.clone(),
            published_at: state.published_at.map(rfc3339),
            last_attempt: state.last_attempt.map(rfc3339),
            last_success: state.last_success.map(rfc3339),
            last_error: state.last_error.clone(),
            consecutive_failures: state.consecutive_failures,
            next_poll: state.next_poll.map(rfc3339),
            revisions_kept: state.revisions_kept,
            rejected: state.rejected.clone(),
            running: state.running,
        }
    }

    fn health_of(&self, state: &State, now: Instant) -> Health {
        let age = now.saturating_duration_since(state.fresh_since);
        let stale = self.shared.max_staleness.is_some_and(|max| age > max);
        Health {
            live: self.shared.heartbeat.is_alive(now),
            ready: state.commit.is_some() && !stale,
            stale,
        }
    }

    /// Each writer leaves the state whole at every step, so a poisoned lock is as good as a sound
    /// one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for TargetStatus {
    fn observe(&mut self, event: &Event) {
        let mut state = self.state();
        match event {
            Event::Attempt => {
                state.last_attempt = Some(SystemTime::now());
                state.next_poll = None;
            }
            Event::Polled { commit, reference } => {
                state.upstream = Some((*commit, reference.clone()));
            }
            Event::Pinned { commit, since } => {
                state.pinned = Some(PinShown {
                    commit: commit.to_string(),
                    since: rfc3339(*since),
                });
            }
            Event::Unpinned => state.pinned = None,
            Event::Found(found) | Event::Restored { tree: found, .. } => {
                state.shows(&found.commit, found.since);
            }
            Event::Published(published) => {
                state.shows(&published.to, published.at);
                state.succeeded();
                state.rejected = None;
            }
            Event::Unchanged => {
                state.succeeded();
                state.rejected = None;
            }
            Event::Rejected(rejection) => {
                state.succeeded();
                state.rejects(rejection);
            }
            Event::Stopped => {
                state.running = false;
                state.next_poll = None;
            }
            Event::Failed(failure) => {
                state.last_error = Some(ErrorShown {
                    stage: failure.stage.as_str(),
                    reason: failure.reason.as_str(),
                    message: shown(&failure.message),
                    hint: failure.hint.as_deref().map(shown),
                    at: rfc3339(failure.at),
                });
                state.consecutive_failures = failure.consecutive;
            }
            Event::Pruned(pruned) => state.revisions_kept = pruned.revisions,
            Event::Waiting { next_poll } => {
                state.next_poll = SystemTime::now().checked_add(*next_poll);
            }
            Event::Started
            | Event::Opened
            | Event::Finished(_)
            | Event::Checked(_)
            | Event::Stale { .. }
            | Event::Recovered { .. }
            | Event::Damaged { .. }
            | Event::Scrubbed { .. }
            | Event::HousekeepingFailed(_) => {}
        }
    }
}

impl State {
    fn shows(&mut self, commit: &ShownCommit, since: SystemTime) {
        self.commit = Some(CommitShown {
            id: commit.id.to_string(),
            subject: shown(&commit.subject),
            author: shown(&commit.author),
            time: rfc3339(commit.time.to_system_time()),
        });
        self.published_at = Some(since);
    }

    fn rejects(&mut self, rejection: &Rejection) {
        let commit = rejection.commit.to_string();
        let known = self.rejected.as_ref().map(|known| &known.commit);
        if rejection.is_new || known != Some(&commit) {
            self.rejected = Some(RejectedShown {
                commit,
                reason: excerpt(&rejection.reason, MAX_REASON),
                at: rfc3339(SystemTime::now()),
            });
        }
    }

    fn succeeded(&mut self) {
        self.last_success = Some(SystemTime::now());
        self.fresh_since = Instant::now();
        self.consecutive_failures = 0;
    }
}

/// The time in RFC 3339 with milliseconds; what that cannot express becomes the nearest that it
/// can. A commit's time is whatever its author wrote.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let since = since.min(Duration::from_secs(LAST_SECOND));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

fn shown(text: &str) -> String {
    excerpt(text, MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::commit::Timestamp;
    use crate::base::error::{Reason, Stage, SyncError};
    use crate::notify::event::{AfterFailure, Failure, Found};

    fn commit() -> ShownCommit {
        ShownCommit {
            id: "a".repeat(40).parse().unwrap(),
            subject: "Say \u{1b}[31mhello".to_owned(),
            author: "A. U. Thor".to_owned(),
            time: Timestamp::from_seconds(i64::MAX),
        }
    }

    fn status(max_staleness: Option<Duration>) -> TargetStatus {
        TargetStatus::new(Identity::default(), max_staleness, Arc::default())
    }

    fn found(commit: ShownCommit, since: SystemTime) -> Event {
        let path = std::path::PathBuf::new();
        Event::Found(Found {
            commit,
            path,
            since,
        })
    }

    fn failed(consecutive: u64) -> Event {
        let error = SyncError::new(Stage::Poll, Reason::Auth, "no").with_hint("log in");
        Event::Failed(Failure::new(&error, consecutive, AfterFailure::GiveUp))
    }

    #[test]
    fn ready_means_published_once() {
        let mut status = status(None);
        status.observe(&Event::Unchanged);
        assert!(!status.health().ready);
        status.observe(&found(commit(), SystemTime::now()));
        status.observe(&failed(1));
        let next_year = Instant::now() + Duration::from_secs(365 * 86_400);
        assert!(status.health_at(next_year).ready);
        assert!(!status.health_at(next_year).stale);
    }

    #[test]
    fn staleness_counts_from_the_last_success_and_takes_readiness_away() {
        let max = Duration::from_secs(60);
        let mut status = status(Some(max));
        let start = Instant::now();
        assert!(
            status.health_at(start + max * 2).stale,
            "it never succeeded"
        );
        status.observe(&found(commit(), SystemTime::now()));
        status.observe(&Event::Unchanged);
        let fresh = status.health_at(start + max);
        assert!(fresh.ready && !fresh.stale);
        let stale = status.health_at(Instant::now() + max + Duration::from_millis(1));
        assert!(!stale.ready && stale.stale && stale.live == fresh.live);
    }

    #[test]
    fn failures_count_until_a_success_and_the_last_error_stays() {
        let mut status = status(None);
        status.observe(&failed(1));
        let snapshot = status.snapshot();
        assert_eq!(snapshot.consecutive_failures, 1);
        let error = snapshot.last_error.unwrap();
        assert_eq!((error.stage, error.reason), ("poll", "auth"));
        assert_eq!(error.hint.as_deref(), Some("log in"));
        status.observe(&Event::Unchanged);
        assert_eq!(status.snapshot().consecutive_failures, 0);
        assert!(status.snapshot().last_error.is_some());
    }

    #[test]
    fn a_commit_may_say_anything_of_itself() {
        let mut status = status(None);
        let mut commit = commit();
        status.observe(&found(commit.clone(), SystemTime::now()));
        let shown = status.snapshot().commit.unwrap();
        assert_eq!(shown.time, "9999-12-31T23:59:59.000Z");
        assert_eq!(shown.subject, "Say \\u{1b}[31mhello");
        commit.time = Timestamp::from_seconds(i64::MIN);
        commit.subject = "é".repeat(1 << 20);
        status.observe(&found(commit, UNIX_EPOCH - Duration::from_secs(1)));
        let snapshot = status.snapshot();
        assert_eq!(
            snapshot.published_at.as_deref(),
            Some("1970-01-01T00:00:00.000Z")
        );
        let shown = snapshot.commit.unwrap();
        assert_eq!(shown.time, "1970-01-01T00:00:00.000Z");
        assert_eq!(shown.subject.chars().count(), MAX_SHOWN + 1);
    }
}
