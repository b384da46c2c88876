//! What is known about the target, for `/status`, for health and for the termination message.
//!
//! The sync thread writes, everybody else reads; the lock is held only to copy. Whether something
//! is late is judged on the monotonic clock, so that a clock jump moves only what is displayed.
//! This module does not decide what follows from its answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::base::commit::Commit;
use crate::base::error::SyncError;
use crate::base::text::excerpt;

/// How late a heartbeat may be before the loop counts as stuck.
pub const GRACE: Duration = Duration::from_secs(10);

/// How soon after [`Board::new`] the first heartbeat is expected.
pub const START: Duration = Duration::from_secs(60);

/// The longest subject, author or message shown, in characters: a repository sets no limit.
const MAX_SHOWN: usize = 1024;

/// The last second that RFC 3339 can express: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The state of one target.
#[derive(Debug)]
pub struct Board {
    max_staleness: Option<Duration>,
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

/// The commit that the link shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its full id.
    pub id: Commit,
    /// The first line of its message, as it is in the repository.
    pub subject: String,
    /// The author's name, as it is in the repository.
    pub author: String,
    /// The committer's time, in seconds since the epoch; anything goes.
    pub time: i64,
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

/// A copy of the board, in the form that `/status` shows. Times are RFC 3339, in UTC.
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
    identity: Identity,
    commit: Option<CommitShown>,
    published_at: Option<SystemTime>,
    last_attempt: Option<SystemTime>,
    last_success: Option<SystemTime>,
    /// What staleness counts from: the last success, or the start.
    fresh_since: Instant,
    last_error: Option<ErrorShown>,
    consecutive_failures: u64,
    next_poll: Option<SystemTime>,
    revisions_kept: usize,
    /// When the next heartbeat is overdue; a time that the clock cannot express never comes.
    heartbeat_due: Option<Instant>,
}

impl Board {
    /// The board of a target that has done nothing yet. Its first heartbeat is due within
    /// [`START`].
    pub fn new(identity: Identity, max_staleness: Option<Duration>) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            max_staleness,
            state: Mutex::new(State {
                identity,
                commit: None,
                published_at: None,
                last_attempt: None,
                last_success: None,
                fresh_since: now,
                last_error: None,
                consecutive_failures: 0,
                next_poll: None,
                revisions_kept: 0,
                heartbeat_due: now.checked_add(START),
            }),
        })
    }

    /// The loop is alive, and will say so again within `within`, whatever happens. Liveness fails
    /// when it does not, [`GRACE`] later.
    pub fn heartbeat(&self, within: Duration) {
        self.state().heartbeat_due = Instant::now().checked_add(within);
    }

    /// A cycle begins.
    pub fn attempt_started(&self) {
        let mut state = self.state();
        state.last_attempt = Some(SystemTime::now());
        state.next_poll = None;
    }

    /// A cycle ended without a failure, whether or not it published.
    pub fn succeeded(&self) {
        let mut state = self.state();
        state.last_success = Some(SystemTime::now());
        state.fresh_since = Instant::now();
        state.consecutive_failures = 0;
    }

    /// A cycle failed. A shutdown is no failure and changes nothing.
    pub fn failed(&self, error: &SyncError) {
        if error.is_cancelled() {
            return;
        }
        let shown = ErrorShown {
            stage: error.stage.as_str(),
            reason: error.reason.as_str(),
            message: shown(&error.chain()),
            hint: error.hint().map(shown),
            at: rfc3339(SystemTime::now()),
        };
        let mut state = self.state();
        state.last_error = Some(shown);
        state.consecutive_failures += 1;
    }

    /// The link shows `commit` since `at`: after a publish, and once after a start that found the
    /// link on a complete tree. From now on there is something to be ready with.
    pub fn published(&self, commit: &Shown, at: SystemTime) {
        let commit = CommitShown {
            id: commit.id.to_string(),
            subject: shown(&commit.subject),
            author: shown(&commit.author),
            time: rfc3339(from_epoch(commit.time)),
        };
        let mut state = self.state();
        state.commit = Some(commit);
        state.published_at = Some(at);
    }

    /// That many complete trees are on the volume.
    pub fn revisions_kept(&self, count: usize) {
        self.state().revisions_kept = count;
    }

    /// The next poll is due in `wait`.
    pub fn next_poll(&self, wait: Duration) {
        self.state().next_poll = SystemTime::now().checked_add(wait);
    }

    /// The answers for probes as of now.
    pub fn health(&self) -> Health {
        self.health_at(Instant::now())
    }

    /// The answers for probes as of `now`.
    pub fn health_at(&self, now: Instant) -> Health {
        self.state().health(self.max_staleness, now)
    }

    /// Everything, as of now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            identity: state.identity.clone(),
            health: state.health(self.max_staleness, Instant::now()),
            commit: state.commit.clone(),
            published_at: state.published_at.map(rfc3339),
            last_attempt: state.last_attempt.map(rfc3339),
            last_success: state.last_success.map(rfc3339),
            last_error: state.last_error.clone(),
            consecutive_failures: state.consecutive_failures,
            next_poll: state.next_poll.map(rfc3339),
            revisions_kept: state.revisions_kept,
        }
    }

    /// Each writer leaves the state whole at every step, so a poisoned lock is as good as a sound
    /// one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn health(&self, max_staleness: Option<Duration>, now: Instant) -> Health {
        let late = |due: Instant| now.saturating_duration_since(due) > GRACE;
        let age = now.saturating_duration_since(self.fresh_since);
        let stale = max_staleness.is_some_and(|max| age > max);
        Health {
            live: !self.heartbeat_due.is_some_and(late),
            ready: self.commit.is_some() && !stale,
            stale,
        }
    }
}

/// The time in RFC 3339 with milliseconds; what that cannot express becomes the nearest that it
/// can. A commit's time is whatever its author wrote.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let since = since.min(Duration::from_secs(LAST_SECOND));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

fn from_epoch(seconds: i64) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_SECOND);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn shown(text: &str) -> String {
    excerpt(text, MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Reason, Stage};

    fn commit() -> Shown {
        Shown {
            id: "a".repeat(40).parse().unwrap(),
            subject: "Say \u{1b}[31mhello".to_owned(),
            author: "A. U. Thor".to_owned(),
            time: i64::MAX,
        }
    }

    #[test]
    fn ready_means_published_once() {
        let board = Board::new(Identity::default(), None);
        board.succeeded();
        assert!(!board.health().ready);
        board.published(&commit(), SystemTime::now());
        board.failed(&SyncError::new(Stage::Poll, Reason::Network, "gone"));
        let next_year = Instant::now() + Duration::from_secs(365 * 86_400);
        assert!(board.health_at(next_year).ready);
        assert!(!board.health_at(next_year).stale);
    }

    #[test]
    fn staleness_counts_from_the_last_success_and_takes_readiness_away() {
        let max = Duration::from_secs(60);
        let board = Board::new(Identity::default(), Some(max));
        let start = Instant::now();
        assert!(board.health_at(start + max * 2).stale, "it never succeeded");
        board.published(&commit(), SystemTime::now());
        board.succeeded();
        let fresh = board.health_at(start + max);
        assert!(fresh.ready && !fresh.stale);
        let stale = board.health_at(Instant::now() + max + Duration::from_millis(1));
        assert!(!stale.ready && stale.stale && stale.live == fresh.live);
    }

    #[test]
    fn only_an_overdue_heartbeat_is_not_live() {
        let board = Board::new(Identity::default(), None);
        let start = Instant::now();
        let moment = Duration::from_secs(1);
        assert!(board.health_at(start + START + GRACE - moment).live);
        assert!(!board.health_at(start + START + GRACE + moment).live);
        let within = Duration::from_secs(3600);
        board.heartbeat(within);
        assert!(board.health_at(start + within + GRACE).live);
        assert!(!board.health_at(start + within + GRACE + moment).live);
        board.heartbeat(Duration::MAX);
        assert!(board.health_at(start + within * 1000).live);
    }

    #[test]
    fn failures_count_until_a_success_and_a_shutdown_is_none() {
        let board = Board::new(Identity::default(), None);
        board.failed(&SyncError::new(Stage::Poll, Reason::Auth, "no").with_hint("log in"));
        board.failed(&SyncError::new(Stage::Fetch, Reason::Cancelled, "bye"));
        let snapshot = board.snapshot();
        assert_eq!(snapshot.consecutive_failures, 1);
        let error = snapshot.last_error.unwrap();
        assert_eq!((error.stage, error.reason), ("poll", "auth"));
        assert_eq!(error.hint.as_deref(), Some("log in"));
        board.succeeded();
        assert_eq!(board.snapshot().consecutive_failures, 0);
        assert!(board.snapshot().last_error.is_some());
    }

    #[test]
    fn a_commit_may_say_anything_of_itself() {
        let board = Board::new(Identity::default(), None);
        let mut commit = commit();
        board.published(&commit, SystemTime::now());
        let shown = board.snapshot().commit.unwrap();
        assert_eq!(shown.time, "9999-12-31T23:59:59.000Z");
        assert_eq!(shown.subject, "Say \\u{1b}[31mhello");
        commit.time = i64::MIN;
        commit.subject = "é".repeat(1 << 20);
        board.published(&commit, UNIX_EPOCH - Duration::from_secs(1));
        let snapshot = board.snapshot();
        assert_eq!(
            snapshot.published_at.as_deref(),
            Some("1970-01-01T00:00:00.000Z")
        );
        let shown = snapshot.commit.unwrap();
        assert_eq!(shown.time, "1970-01-01T00:00:00.000Z");
        assert_eq!(shown.subject.chars().count(), MAX_SHOWN + 1);
    }
}
