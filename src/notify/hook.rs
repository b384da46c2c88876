//! Hooks: telling a program about a target in a way that can fail, on a thread of its own.
//!
//! A [`Hook`] tells one [`Notice`] at a time. A failure is logged, counted and retried: after the
//! configured backoff at first, then after twice as long each time, up to ten times the backoff. A
//! newer notice of the same occasion replaces an older one, whether that is waiting or being
//! retried, so that the newest commit wins. The sync thread never waits for a hook, except at the
//! end of `--one-time`.
//!
//! This module does not know how a hook reaches a program.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info};

use super::Event;
use super::event::{AfterFailure, Failure, PublishedTree, Rejection, ShownCommit};
use crate::base::durations;
use crate::base::error::{Reason, SyncError};

/// How many times the backoff the wait between two attempts can get.
const MAX_BACKOFF: u32 = 10;

/// What is added to a hook's own time limit where somebody waits for it.
const SLACK: Duration = Duration::from_secs(5);

/// How often a wait for a hook looks at the cancellation.
const SLICE: Duration = Duration::from_millis(50);

/// Tells a program what happened.
pub trait Hook: Send {
    /// Which hook this is.
    fn kind(&self) -> HookKind;

    /// Whether it tells about this occasion.
    fn tells(&self, occasion: Occasion) -> bool;

    /// The longest time that one attempt takes.
    fn timeout(&self) -> Duration;

    /// The wait after the first failure.
    fn backoff(&self) -> Duration;

    /// Tells it once. Ends early when `cancelled` is set.
    ///
    /// # Errors
    /// When the program did not take it; reason `timeout` when its time was over.
    fn tell(&mut self, notice: &Notice, cancelled: &Arc<AtomicBool>) -> Result<Told, SyncError>;
}

/// What a successful attempt did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It told the program.
    Yes,
    /// There was nothing to tell: no watched path changed.
    NotNeeded,
}

/// The hooks there are, for labels and log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// `--exechook-command`
    Exec,
    /// `--webhook-url`
    Webhook,
    /// `--notify-signal`
    Signal,
}

/// How an attempt ended, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    /// The program took it.
    Success,
    /// There was nothing to tell.
    Skipped,
    /// The program did not take it.
    Error,
    /// It took longer than the time limit.
    Timeout,
}

/// What a hook may tell about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Readers see another commit, or the first one since this process started.
    Published,
    /// The first of a row of failed cycles, and the one after which the process gives up.
    Failed,
    /// The first success after failures.
    Recovered,
    /// A commit was rejected by a check.
    Rejected,
    /// The last success is longer ago than `--max-staleness` allows.
    Stale,
}

/// One piece of news.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What happened.
    pub news: News,
    /// When it happened.
    pub at: SystemTime,
}

/// What happened, with its details.
#[derive(Clone, Debug)]
pub enum News {
    /// Readers see this tree.
    Published(Shown),
    /// A cycle failed.
    Failed(Failure),
    /// A cycle succeeded after this many failures.
    Recovered {
        /// Failed cycles in a row.
        failures: u64,
    },
    /// A commit was rejected.
    Rejected(Rejection),
    /// The last success is this long ago.
    Stale {
        /// How long.
        age: Duration,
    },
}

/// A tree that readers see.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its commit.
    pub commit: ShownCommit,
    /// The commit that readers saw before, as far as this process saw it.
    pub previous: Option<crate::base::commit::Commit>,
    /// The tree; absolute.
    pub path: PathBuf,
    /// Files written and files shared, if it was built in this cycle.
    pub files: Option<(u64, u64)>,
}

/// A hook with its thread. Dropping it ends the thread, and the attempt that it works on.
#[derive(Debug)]
pub struct Hooked {
    shared: Arc<Shared>,
    limit: Duration,
}

/// Called after each attempt.
pub type Counted = Box<dyn Fn(HookKind, HookOutcome) + Send>;

#[derive(Debug)]
struct Shared {
    kind: HookKind,
    state: Mutex<State>,
    changed: Condvar,
    /// Ends the attempt that is being made.
    cancelled: Arc<AtomicBool>,
    told_about: Vec<Occasion>,
}

#[derive(Debug, Default)]
struct State {
    /// The tree that an earlier process published, until the first cycle has ended.
    found: Option<Shown>,
    /// At most one notice of each occasion.
    waiting: VecDeque<Notice>,
    /// Whether the thread works on a notice.
    busy: bool,
    /// The last failure, until a success.
    failure: Option<String>,
    retries: bool,
    closed: bool,
}

impl Hooked {
    /// Starts the thread of a hook. Its log lines name the target of the caller's span.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn spawn(mut hook: impl Hook + 'static, counted: Counted) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            kind: hook.kind(),
            state: Mutex::new(State {
                retries: true,
                ..State::default()
            }),
            changed: Condvar::new(),
            cancelled: Arc::default(),
            told_about: Occasion::ALL
                .into_iter()
                .filter(|occasion| hook.tells(*occasion))
                .collect(),
        });
        // The attempt in progress, and the newest notice.
        let limit = (hook.timeout() + SLACK) * 2;
        let (worker, outer) = (shared.clone(), tracing::Span::current());
        std::thread::Builder::new()
            .name(hook.kind().as_str().to_owned())
            .stack_size(512 << 10)
            .spawn(move || {
                let _entered = outer.enter();
                while let Some(notice) = worker.next() {
                    worker.tell(&mut hook, &notice, &counted);
                }
            })?;
        Ok(Self { shared, limit })
    }

    /// Takes note of an event; never waits for the hook.
    pub(super) fn hear(&self, event: &Event) {
        self.shared.hear(event);
    }

    /// The longest time that [`Hooked::finish`] can need.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// From now on each notice is told once.
    pub(super) fn stop_retrying(&self) {
        self.shared.lock().retries = false;
        self.shared.changed.notify_all();
    }

    /// Waits until the hook has told all its news. Returns why it failed, if it did or took too long.
    pub(super) fn finish(&self, deadline: Instant, cancelled: &AtomicBool) -> Option<String> {
        let mut state = self.shared.lock();
        while state.busy || !state.waiting.is_empty() {
            if cancelled.load(Ordering::Relaxed) {
                return None;
            }
            if Instant::now() >= deadline {
                return Some(format!(
                    "the {} did not end in time",
                    self.shared.kind.as_str()
                ));
            }
            state = self.shared.wait(state, SLICE);
        }
        state.failure.clone()
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn hear(&self, event: &Event) {
        let mut state = self.lock();
        match event {
            Event::Found(found) | Event::Restored { tree: found, .. } => {
                state.found = Some(Shown {
                    commit: found.commit.clone(),
                    previous: None,
                    path: found.path.clone(),
                    files: None,
                });
            }
            Event::Published(published) => {
                state.found = None;
                let news = News::Published(Shown {
                    commit: published.to.clone(),
                    previous: published.from,
                    path: published.path.clone(),
                    files: match &published.tree {
                        PublishedTree::Kept => None,
                        PublishedTree::Built {
                            files_written,
                            files_shared,
                            ..
                        } => Some((*files_written, *files_shared)),
                    },
                });
                self.put(&mut state, news);
            }
            Event::Unchanged => self.put_found(&mut state),
            Event::Rejected(rejection) => {
                self.put_found(&mut state);
                if rejection.is_new {
                    self.put(&mut state, News::Rejected(rejection.clone()));
                }
            }
            Event::Failed(failure) => {
                self.put_found(&mut state);
                if failure.consecutive == 1 || failure.next == AfterFailure::GiveUp {
                    self.put(&mut state, News::Failed(failure.clone()));
                }
            }
            Event::Recovered { failures } => {
                let failures = *failures;
                self.put(&mut state, News::Recovered { failures });
            }
            Event::Stale { age } => self.put(&mut state, News::Stale { age: *age }),
            Event::Stopped => {
                drop(state);
                self.close();
                return;
            }
            Event::Started
            | Event::Opened
            | Event::Polled { .. }
            | Event::Pinned { .. }
            | Event::Unpinned
            | Event::Attempt
            | Event::Finished(_)
            | Event::Checked(_)
            | Event::Damaged { .. }
            | Event::Scrubbed { .. }
            | Event::Pruned(_)
            | Event::HousekeepingFailed(_)
            | Event::Waiting { .. } => return,
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What an earlier process published is told once the first cycle has ended, because that cycle
    /// may publish something newer.
    fn put_found(&self, state: &mut State) {
        if let Some(found) = state.found.take() {
            self.put(state, News::Published(found));
        }
    }

    fn put(&self, state: &mut State, news: News) {
        let occasion = news.occasion();
        if !self.told_about.contains(&occasion) {
            return;
        }
        state
            .waiting
            .retain(|waiting| waiting.news.occasion() != occasion);
        state.waiting.push_back(Notice {
            news,
            at: SystemTime::now(),
        });
    }

    /// The next notice; `None` once the hook is closed.
    fn next(&self) -> Option<Notice> {
        let mut state = self.lock();
        state.busy = false;
        self.changed.notify_all();
        loop {
            if state.closed {
                return None;
            }
            if let Some(notice) = state.waiting.pop_front() {
                state.busy = true;
                return Some(notice);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells a notice until it is told, a newer one replaces it, or the hook is closed.
    fn tell(&self, hook: &mut impl Hook, notice: &Notice, counted: &Counted) {
        let name = self.kind.as_str();
        let occasion = notice.news.occasion();
        let mut backoff = hook.backoff();
        let longest = backoff.saturating_mul(MAX_BACKOFF);
        loop {
            let began = Instant::now();
            let result = hook.tell(notice, &self.cancelled);
            if self.cancelled.load(Ordering::Relaxed) {
                return;
            }
            let failed = match result {
                Ok(told) => {
                    let outcome = match told {
                        Told::Yes => HookOutcome::Success,
                        Told::NotNeeded => HookOutcome::Skipped,
                    };
                    counted(self.kind, outcome);
                    info!(
                        hook = name,
                        occasion = occasion.as_str(),
                        outcome = outcome.as_str(),
                        took = %durations::shown(began.elapsed()),
                        "the hook has run"
                    );
                    self.lock().failure = None;
                    return;
                }
                Err(failed) => failed,
            };
            counted(
                self.kind,
                match failed.reason {
                    Reason::Timeout => HookOutcome::Timeout,
                    _ => HookOutcome::Error,
                },
            );
            error!(
                hook = name,
                occasion = occasion.as_str(),
                error = failed.chain(),
                hint = failed.hint(),
                retry_in = %durations::shown(backoff),
                "the hook failed"
            );
            let mut state = self.lock();
            state.failure = Some(failed.chain());
            let until = Instant::now().checked_add(backoff);
            loop {
                let replaced = state
                    .waiting
                    .iter()
                    .any(|waiting| waiting.news.occasion() == occasion);
                if state.closed || !state.retries || replaced {
                    return;
                }
                let left = until.map_or(backoff, |until| {
                    until.saturating_duration_since(Instant::now())
                });
                if left.is_zero() {
                    break;
                }
                state = self.wait(state, left);
            }
            backoff = backoff.saturating_mul(2).min(longest);
        }
    }

    fn close(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Each use leaves the state whole, so a poisoned lock is as good as a sound one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    /// The occasion without the details.
    pub fn occasion(&self) -> Occasion {
        match self {
            Self::Published(_) => Occasion::Published,
            Self::Failed(_) => Occasion::Failed,
            Self::Recovered { .. } => Occasion::Recovered,
            Self::Rejected(_) => Occasion::Rejected,
            Self::Stale { .. } => Occasion::Stale,
        }
    }
}

impl Occasion {
    /// Every occasion.
    pub const ALL: [Self; 5] = [
        Self::Published,
        Self::Failed,
        Self::Recovered,
        Self::Rejected,
        Self::Stale,
    ];

    /// The word in flags, log lines and requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Recovered => "recovered",
            Self::Rejected => "rejected",
            Self::Stale => "stale",
        }
    }
}

impl HookKind {
    /// Every hook, in the order of the discriminants.
    pub const ALL: [Self; 3] = [Self::Exec, Self::Webhook, Self::Signal];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exechook",
            Self::Webhook => "webhook",
            Self::Signal => "signal",
        }
    }
}

impl HookOutcome {
    /// Every outcome, in the order of the discriminants.
    pub const ALL: [Self; 4] = [Self::Success, Self::Skipped, Self::Error, Self::Timeout];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Skipped => "skipped",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::base::error::Stage;
    use crate::notify::event::{Found, Published};

    const MINUTE: Duration = Duration::from_secs(60);

    /// Forwards what it is told, and answers as the test says.
    struct Scripted {
        told: mpsc::Sender<String>,
        answers: mpsc::Receiver<Result<Told, ()>>,
    }

    impl Hook for Scripted {
        fn kind(&self) -> HookKind {
            HookKind::Exec
        }
        fn tells(&self, occasion: Occasion) -> bool {
            occasion != Occasion::Stale
        }
        fn timeout(&self) -> Duration {
            MINUTE
        }
        fn backoff(&self) -> Duration {
            Duration::from_millis(1)
        }
        fn tell(&mut self, notice: &Notice, _: &Arc<AtomicBool>) -> Result<Told, SyncError> {
            let what = match &notice.news {
                News::Published(shown) => shown.commit.id.to_string()[..1].to_owned(),
                other => other.occasion().as_str().to_owned(),
            };
            // The test may be over.
            let _ = self.told.send(what);
            let answer = self.answers.recv().unwrap_or(Ok(Told::Yes));
            answer.map_err(|()| SyncError::new(Stage::Notify, Reason::Other, "no"))
        }
    }

    type Ends = (
        Hooked,
        mpsc::Receiver<String>,
        mpsc::Sender<Result<Told, ()>>,
    );

    fn scripted() -> Ends {
        let (told, hears) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let hook = Scripted { told, answers };
        let hooked = Hooked::spawn(hook, Box::new(|_, _| {})).unwrap();
        (hooked, hears, answer)
    }

    fn commit(digit: &str) -> ShownCommit {
        ShownCommit {
            id: digit.repeat(40).parse().unwrap(),
            subject: String::new(),
            author: String::new(),
            time: crate::base::commit::Timestamp::from_seconds(0),
        }
    }

    fn published(digit: &str) -> Event {
        Event::Published(Published {
            from: None,
            to: commit(digit),
            path: PathBuf::new(),
            reference: String::new(),
            at: SystemTime::now(),
            tree: PublishedTree::Kept,
        })
    }

    fn found(digit: &str) -> Event {
        Event::Found(Found {
            commit: commit(digit),
            path: PathBuf::new(),
            since: SystemTime::now(),
        })
    }

    #[test]
    fn of_several_commits_only_the_newest_is_told_after_the_one_being_told() {
        let (hooked, told, answer) = scripted();
        hooked.hear(&published("a"));
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "a");
        for digit in ["b", "c", "d"] {
            hooked.hear(&published(digit));
        }
        answer.send(Ok(Told::Yes)).unwrap();
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "d");
    }

    #[test]
    fn a_failure_is_retried_until_it_succeeds_or_a_newer_commit_comes() {
        let (hooked, told, answer) = scripted();
        hooked.hear(&published("a"));
        for _ in 0..3 {
            assert_eq!(told.recv_timeout(MINUTE).unwrap(), "a");
            answer.send(Err(())).unwrap();
        }
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "a");
        hooked.hear(&published("b"));
        answer.send(Err(())).unwrap();
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "b");
    }

    #[test]
    fn a_tree_of_an_earlier_process_is_told_when_the_first_cycle_has_ended() {
        let (hooked, told, answer) = scripted();
        hooked.hear(&found("a"));
        hooked.hear(&Event::Attempt);
        assert!(told.recv_timeout(SLICE).is_err());
        hooked.hear(&Event::Unchanged);
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "a");
        answer.send(Ok(Told::Yes)).unwrap();
        hooked.hear(&Event::Unchanged);
        hooked.hear(&Event::Recovered { failures: 1 });
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "recovered");

        let (hooked, told, _answer) = scripted();
        hooked.hear(&found("a"));
        hooked.hear(&published("b"));
        hooked.hear(&Event::Unchanged);
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "b");
    }

    #[test]
    fn finishing_waits_for_one_attempt_and_reports_its_failure() {
        let (hooked, told, answer) = scripted();
        hooked.hear(&published("a"));
        answer.send(Err(())).unwrap();
        hooked.stop_retrying();
        let failure = hooked.finish(Instant::now() + MINUTE, &AtomicBool::new(false));
        assert_eq!(failure.as_deref(), Some("no"));
        assert_eq!(told.try_iter().count(), 1);
    }

    #[test]
    fn an_occasion_that_the_hook_does_not_tell_is_dropped() {
        let (hooked, told, _answer) = scripted();
        hooked.hear(&Event::Stale { age: MINUTE });
        hooked.hear(&published("a"));
        assert_eq!(told.recv_timeout(MINUTE).unwrap(), "a");
    }
}
