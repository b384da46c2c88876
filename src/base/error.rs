//! The error type of a sync cycle: which step failed, why, and what to do about it.
//!
//! `Stage` and `Reason` are metric labels, log fields and values in `/status`. Display does not repeat
//! the source: [`SyncError::chain`] prints the whole chain, once, at the boundary. `Remedy` decides
//! what the program does after an error; the labels do not.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use git2::ErrorClass;
use rustix::io::Errno;

use super::budget::Interrupted;
use super::text::printable;

/// The step of a cycle that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Opening the root and the store, and deleting what a killed process left.
    Start,
    /// Asking the remote for the ref.
    Poll,
    /// Fetching the commit into the store.
    Fetch,
    /// Writing the tree in the staging directory.
    Build,
    /// Judging the sealed tree before it is published.
    Check,
    /// Sealing the revision and flipping the link.
    Publish,
    /// Touching files and running hooks.
    Notify,
    /// Deleting old trees and compacting the store.
    Prune,
}

/// The class of a failure. The values are few, for a metric label, and distinct, for an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The remote refused the credentials, or required some and got none.
    Auth,
    /// Name resolution failed, connecting failed, or a connection broke.
    Network,
    /// A deadline passed.
    Timeout,
    /// The TLS handshake failed, or the certificate of the server is not valid.
    Tls,
    /// The SSH server's host key is unknown, changed or revoked.
    Hostkey,
    /// The repository does not exist.
    NotFound,
    /// The ref does not exist, or the remote does not serve its objects.
    RefMissing,
    /// The server limits the rate (429) or is failing (5xx).
    Server,
    /// The answer of the remote is not the git protocol.
    Protocol,
    /// A limit of this program is exceeded: size of a pack or a tree, number of files, depth.
    Limit,
    /// The repository holds something that must not be written.
    Hostile,
    /// The local disk: full, read-only, no permission, input/output error.
    Disk,
    /// The system refuses this process more memory or open files.
    Resources,
    /// The local object store is damaged.
    Store,
    /// A check rejected the tree, or had no verdict.
    Check,
    /// Shutting down: never counted as a failure.
    Cancelled,
    /// None of the others.
    Other,
}

/// What the program does about a failure, apart from counting it and trying again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Try again at the next poll.
    Retry,
    /// Ask the remote for the ref again at once: it moved between the poll and the fetch.
    PollAgain,
    /// Delete the pre-linked spare tree and try again at once. If that fails, open the volume again in the next
    /// cycle.
    MakeRoom,
    /// Delete the object store and fetch it again at once.
    RebuildStore,
    /// Stop: the process is shutting down.
    GiveUp,
}

/// Why a cycle, or a step of it, failed.
#[derive(Debug)]
pub struct SyncError {
    /// The step that failed.
    pub stage: Stage,
    /// The class of the failure.
    pub reason: Reason,
    /// What the program does about it. Follows from the reason unless it was set.
    pub remedy: Remedy,
    /// How long the remote asks to wait, if it does (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Stage {
    /// Every stage, for registering metrics at zero.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Poll,
        Self::Fetch,
        Self::Build,
        Self::Check,
        Self::Publish,
        Self::Notify,
        Self::Prune,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Poll => "poll",
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Check => "check",
            Self::Publish => "publish",
            Self::Notify => "notify",
            Self::Prune => "prune",
        }
    }
}

impl Reason {
    /// Every reason that counts as a failure, for registering metrics at zero.
    pub const FAILURES: [Self; 16] = [
        Self::Auth,
        Self::Network,
        Self::Timeout,
        Self::Tls,
        Self::Hostkey,
        Self::NotFound,
        Self::RefMissing,
        Self::Server,
        Self::Protocol,
        Self::Limit,
        Self::Hostile,
        Self::Disk,
        Self::Resources,
        Self::Store,
        Self::Check,
        Self::Other,
    ];

    /// The remedy of an error that does not set its own.
    fn remedy(self) -> Remedy {
        match self {
            Self::RefMissing => Remedy::PollAgain,
            Self::Disk => Remedy::MakeRoom,
            Self::Store => Remedy::RebuildStore,
            Self::Cancelled => Remedy::GiveUp,
            _ => Remedy::Retry,
        }
    }

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Hostkey => "hostkey",
            Self::NotFound => "not_found",
            Self::RefMissing => "ref_missing",
            Self::Server => "server",
            Self::Protocol => "protocol",
            Self::Limit => "limit",
            Self::Hostile => "hostile",
            Self::Disk => "disk",
            Self::Resources => "resources",
            Self::Store => "store",
            Self::Check => "check",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }
}

impl SyncError {
    /// An error whose message says what failed, on which path or host, and why.
    ///
    /// Control characters in the message (it may quote a remote) are made visible.
    pub fn new(stage: Stage, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            stage,
            reason,
            remedy: reason.remedy(),
            retry_after: None,
            message: printable(&message.into()),
            hint: None,
            source: None,
        }
    }

    /// A failed operation on a local path: "cannot {action} {path}", with the cause as the source.
    pub fn disk(stage: Stage, action: &str, path: &Path, cause: io::Error) -> Self {
        let hint = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("make the volume larger, or lower --keep and --stale-timeout")
            }
            io::ErrorKind::ReadOnlyFilesystem => Some("mount the volume read-write"),
            io::ErrorKind::PermissionDenied => {
                Some("give the user that runs this process write access (fsGroup, runAsUser)")
            }
            _ => None,
        };
        let error = Self::new(
            stage,
            Reason::Disk,
            format!("cannot {action} {}", path.display()),
        )
        .with_source(cause);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// The error for work that exceeded its deadline or was cancelled.
    pub fn interrupted(stage: Stage, what: &str, cause: Interrupted) -> Self {
        match cause {
            Interrupted::Cancelled => {
                Self::new(stage, Reason::Cancelled, format!("{what} was cancelled"))
            }
            Interrupted::DeadlineExceeded => Self::new(
                stage,
                Reason::Timeout,
                format!("{what} did not finish within its deadline"),
            )
            .with_hint("raise --sync-timeout if the remote is only slow"),
        }
    }

    /// Adds the cause. If the cause is that the system refused memory or open files, it sets the reason
    /// and the hint, because then neither the disk nor the remote is the problem.
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        if let Some(hint) = shortage(&*source) {
            self.reason = Reason::Resources;
            self.remedy = Remedy::Retry;
            self.hint = Some(hint.to_owned());
        }
        self.source = Some(source);
        self
    }

    /// Adds what the operator can do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets what the program does about the failure, if that does not follow from the reason.
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// Adds how long the remote asks to wait.
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The same error, attributed to another stage.
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// What the operator can do, if anything is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether this is a shutdown, which is not a failure.
    pub fn is_cancelled(&self) -> bool {
        self.reason == Reason::Cancelled
    }

    /// The message and its causes on one line.
    pub fn chain(&self) -> String {
        let mut line = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&printable(&error.to_string()));
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for SyncError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The hint for a cause that is a shortage of memory or open files, or has one as its own cause;
/// None for other causes.
pub fn shortage(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    const MEMORY: &str = "out of memory: raise the memory limit of the container";
    const FILES: &str = "too many open files: raise the limit (ulimit -n) of the container";
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match Errno::from_io_error(error) {
                Some(Errno::NOMEM) => return Some(MEMORY),
                Some(Errno::MFILE | Errno::NFILE) => return Some(FILES),
                _ => {}
            }
            // For an I/O error, source() skips the inner error and gives the cause of that.
            next = match error.get_ref() {
                Some(inner) => Some(inner),
                None => error.source(),
            };
            continue;
        }
        if let Some(error) = error.downcast_ref::<git2::Error>() {
            // libgit2 gives the error of the system only as text (strerror(3)).
            let says = |words| error.class() == ErrorClass::Os && error.message().contains(words);
            if error.class() == ErrorClass::NoMemory || says("Cannot allocate memory") {
                return Some(MEMORY);
            }
            if says("Too many open files") {
                return Some(FILES);
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once_on_one_printable_line() {
        let cause = io::Error::other("\u{1b}[31mred\nline");
        let error = SyncError::disk(Stage::Build, "write", Path::new("/v/a\nb"), cause);
        assert_eq!(error.to_string(), "cannot write /v/a\\nb");
        assert_eq!(
            error.chain(),
            "cannot write /v/a\\nb: \\u{1b}[31mred\\nline"
        );
    }

    #[test]
    fn a_shortage_sets_the_reason_at_any_depth() {
        let io = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let git = |class, text| git2::Error::new(git2::ErrorCode::GenericError, class, text);
        let damaged = |cause: Box<dyn Error + Send + Sync>| {
            SyncError::new(Stage::Fetch, Reason::Protocol, "the pack is damaged").with_source(cause)
        };
        let shortages: [Box<dyn Error + Send + Sync>; 5] = [
            Box::new(io(Errno::MFILE)),
            Box::new(io(Errno::NOMEM)),
            Box::new(io::Error::other(io(Errno::NFILE))),
            Box::new(git(ErrorClass::NoMemory, "Out of memory")),
            Box::new(git(ErrorClass::Os, "failed to open x: Too many open files")),
        ];
        for cause in shortages {
            let error = damaged(cause);
            assert_eq!(error.reason, Reason::Resources, "{}", error.chain());
            assert!(error.hint().is_some_and(|hint| hint.contains("raise")));
        }
        let others: [Box<dyn Error + Send + Sync>; 3] = [
            Box::new(io(Errno::NOSPC)),
            Box::new(io::Error::other("Too many open files")),
            Box::new(git(ErrorClass::Indexer, "Cannot allocate memory")),
        ];
        for cause in others {
            assert_eq!(damaged(cause).reason, Reason::Protocol);
        }
    }

    #[test]
    fn every_label_value_is_distinct() {
        let mut labels: Vec<_> = Reason::FAILURES.iter().map(|r| r.as_str()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::FAILURES.len());
    }
}
