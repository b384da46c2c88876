//! What happens to a target, as values that observers can keep.
//!
//! An event holds no handle to the target, so an observer on another thread may take its time.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::base::commit::{Commit, Timestamp};
use crate::base::error::{Reason, Stage, SyncError};

/// Something that happened to one target.
#[derive(Clone, Debug)]
pub enum Event {
    /// The loop begins.
    Started,
    /// A sync cycle begins.
    Attempt,
    /// The remote answered: the ref is on this commit.
    Polled {
        /// The commit.
        commit: Commit,
        /// The full name of the ref.
        reference: String,
    },
    /// The loop found a complete tree that an earlier process published.
    Found(Found),
    /// A sync cycle ended, however it ended. The event that says how follows.
    Finished(Work),
    /// The link was on the remote's commit already, or no watched path changed.
    Unchanged,
    /// The link was flipped.
    Published(Published),
    /// A sealed tree was judged.
    Checked(Checked),
    /// A commit was rejected by a check or a policy. Readers keep the tree that they have.
    Rejected(Rejection),
    /// A sync cycle failed.
    Failed(Failure),
    /// A sync cycle succeeded after failures.
    Recovered {
        /// How many cycles failed in a row.
        failures: u64,
    },
    /// The last success is longer ago than `--max-staleness` allows; told once, until a success.
    Stale {
        /// How long ago it was.
        age: Duration,
    },
    /// Somebody else altered the link or a published tree.
    Damaged {
        /// What was damaged.
        kind: DamageKind,
        /// What is wrong.
        what: String,
        /// The commit whose tree it is, if that is known.
        commit: Option<Commit>,
    },
    /// Readers have a sound tree again, although the remote was not asked.
    Restored {
        /// The tree that they have.
        tree: Found,
        /// What differs in it from what a reader may expect, if it was built.
        shortcomings: Shortcomings,
    },
    /// All files of the live tree were compared with their hashes, and none was damaged.
    Scrubbed {
        /// When that ended.
        at: SystemTime,
    },
    /// Readers are held on a commit, whatever the remote has.
    Pinned {
        /// The commit.
        commit: Commit,
        /// Since when.
        since: SystemTime,
    },
    /// Readers follow the ref again.
    Unpinned,
    /// The volume is open, and its lock is held.
    Opened,
    /// Housekeeping ended.
    Pruned(Pruned),
    /// Housekeeping failed. It does not count as a failed cycle.
    HousekeepingFailed(Failure),
    /// The loop waits for its next poll.
    Waiting {
        /// How long, unless a nudge comes.
        next_poll: Duration,
    },
    /// The loop ended.
    Stopped,
}

/// What was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The link, or the directory that it leads to.
    Link,
    /// A file's type, size, time or mode, or the manifest.
    File,
    /// Only the content of a file: bit rot, an edit that restored size and time, or a power cut.
    Content,
}

impl DamageKind {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 3] = [Self::Link, Self::File, Self::Content];

    /// Its value of the label `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::File => "file",
            Self::Content => "content",
        }
    }
}

/// A commit as people read about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCommit {
    /// The full id.
    pub id: Commit,
    /// The first line of its message as it is in the repository; empty when the store lost it.
    pub subject: String,
    /// The author's name as it is in the repository; empty when the store lost it.
    pub author: String,
    /// The committer's time.
    pub time: Timestamp,
}

/// A tree that an earlier process published.
#[derive(Clone, Debug)]
pub struct Found {
    /// What readers see.
    pub commit: ShownCommit,
    /// The tree; absolute.
    pub path: PathBuf,
    /// When it was published, as far as the volume tells.
    pub since: SystemTime,
}

/// What a cycle did on its way, whether or not it succeeded.
#[derive(Clone, Debug)]
pub struct Work {
    /// How it ended.
    pub outcome: Outcome,
    /// How long the whole cycle took.
    pub took: Duration,
    /// How long each step took in all; a cycle may run a step more than once.
    pub stages: Vec<(Stage, Duration)>,
    /// Bytes of packs received.
    pub fetched_bytes: u64,
    /// Files written from the object store.
    pub files_written: u64,
    /// Files shared with an earlier tree.
    pub files_shared: u64,
}

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another tree was published.
    Changed,
    /// Nothing was published, and nothing failed.
    Unchanged,
    /// It failed.
    Error,
    /// The process is shutting down; this counts as nothing.
    Cancelled,
}

/// A flip of the link.
#[derive(Clone, Debug)]
pub struct Published {
    /// The commit that readers saw before, if they saw one.
    pub from: Option<Commit>,
    /// The commit that they see now.
    pub to: ShownCommit,
    /// Its tree; absolute.
    pub path: PathBuf,
    /// The full name of the ref that the commit came from.
    pub reference: String,
    /// When the link was flipped.
    pub at: SystemTime,
    /// How the tree came to be.
    pub tree: PublishedTree,
}

/// Where a published tree came from.
#[derive(Clone, Debug)]
pub enum PublishedTree {
    /// It was still on the volume.
    Kept,
    /// It was built in this cycle.
    Built {
        /// Files written from the object store.
        files_written: u64,
        /// Files shared with an earlier tree.
        files_shared: u64,
        /// From the end of the poll to the flip.
        took: Duration,
        /// What differs from what a reader may expect.
        shortcomings: Shortcomings,
    },
}

/// What differs in a tree from what a reader may expect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shortcomings {
    /// Why unchanged files were written again.
    pub not_shared: Option<String>,
    /// Filters and encodings that were not applied, with the paths.
    pub unfiltered: Vec<String>,
    /// Paths of submodules that `.gitmodules` does not name.
    pub unpopulated: Vec<String>,
}

/// How the checks of a tree ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What they decided.
    pub outcome: CheckOutcome,
    /// How long they took.
    pub took: Duration,
}

/// What the checks of a tree decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The tree may be published.
    Accepted,
    /// It must not be published.
    Rejected,
    /// A check could not run, or not to its end. It is asked again later.
    NoVerdict,
}

/// A commit that must not be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The commit.
    pub commit: Commit,
    /// Why, in the words of the check.
    pub reason: String,
    /// Whether it was rejected in this cycle; otherwise an earlier verdict holds.
    pub is_new: bool,
}

/// A failure, in words.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// The class of the failure.
    pub reason: Reason,
    /// The message with its causes, on one line.
    pub message: String,
    /// What the operator can do, if anything is known.
    pub hint: Option<String>,
    /// When it happened.
    pub at: SystemTime,
    /// Failed cycles in a row, this one included; 0 for housekeeping.
    pub consecutive: u64,
    /// What happens next.
    pub next: AfterFailure,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Another attempt after this time.
    RetryIn(Duration),
    /// The process ends with success, because `--allow-stale` accepts the tree that is there.
    AcceptStale,
    /// The process ends.
    GiveUp,
}

/// What housekeeping left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Complete trees on the volume.
    pub revisions: usize,
    /// Bytes that the root occupies, when they were counted.
    pub bytes: Option<u64>,
    /// How long it took.
    pub took: Duration,
}

impl Rejection {
    /// What the operator can do.
    pub const HINT: &str =
        "push a commit that passes the check; readers keep the tree that they have";
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the commit {} was rejected: {}",
            self.commit, self.reason
        )
    }
}

impl Failure {
    /// The failure that an error describes, as of now.
    pub fn new(error: &SyncError, consecutive: u64, next: AfterFailure) -> Self {
        Self {
            stage: error.stage,
            reason: error.reason,
            message: error.chain(),
            hint: error.hint().map(str::to_owned),
            at: SystemTime::now(),
            consecutive,
            next,
        }
    }
}
