//! The one error type of a sync cycle: where it failed, why, and what to do about it.
//!
//! `Stage` and `Reason` are at once metric labels, log fields and keys of `/status`. Display never
//! repeats the source: the chain is printed once, at the boundary, by [`SyncError::chain`].
//! `Remedy` steers what follows an error; labels never do.

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
    /// Opening the root and the store, and sweeping what an earlier life left.
    Start,
    /// Asking the remote for the ref.
    Poll,
    /// Bringing the commit into the store.
    Fetch,
    /// Writing the staged tree.
    Build,
    /// Sealing the revision and flipping the link.
    Publish,
    /// Telling others: touch file, hooks.
    Notify,
    /// Removing what nobody reads any more.
    Prune,
}

/// The class of a failure: small enough for a metric label, distinct enough for an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The remote refused the credentials, or wanted some and had none.
    Auth,
    /// Name resolution, connecting, or a connection that broke.
    Network,
    /// A deadline passed.
    Timeout,
    /// The TLS handshake or the server's certificate.
    Tls,
    /// The SSH server's host key is unknown, changed or revoked.
    Hostkey,
    /// The repository does not exist there.
    NotFound,
    /// The ref does not exist, or its objects are not to be had.
    RefMissing,
    /// The server asks to be left alone (429) or is failing (5xx).
    Server,
    /// The remote answered something that is not the git protocol.
    Protocol,
    /// A limit of ours: size of a pack, a tree, a file count, a depth.
    Limit,
    /// The repository holds something that must not be written.
    Hostile,
    /// The local disk: full, read-only, no permission, input/output error.
    Disk,
    /// What the system grants this process: memory, open files.
    Resources,
    /// The local object store is damaged.
    Store,
    /// A signature or policy rejected the commit.
    Signature,
    /// The pre-publish check rejected the tree.
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
    /// Delete the pre-linked spare tree and try again at once; open the volume anew next time.
    MakeRoom,
    /// Delete the object store and fetch it again at once.
    RebuildStore,
    /// Stop: the process is shutting down.
    GiveUp,
}

/// Why a cycle, or a step of it, came to nothing.
#[derive(Debug)]
pub struct SyncError {
    /// The step that failed.
    pub stage: Stage,
    /// The class of the failure.
    pub reason: Reason,
    /// What the program does about it. Follows from the reason unless it was set.
    pub remedy: Remedy,
    /// How long the remote asked us to wait, if it did (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Stage {
    /// Every stage, for registering metrics at zero.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Poll,
        Self::Fetch,
        Self::Build,
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
            Self::Publish => "publish",
            Self::Notify => "notify",
            Self::Prune => "prune",
        }
    }
}

impl Reason {
    /// Every reason that counts as a failure, for registering metrics at zero.
    pub const FAILURES: [Self; 17] = [
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
        Self::Signature,
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
            Self::Signature => "signature",
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

    /// The error for work that ran out of time, or was told to stop.
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
            .with_hint("raise --sync-timeout if the remote is merely slow"),
        }
    }

    /// Adds the cause. One that is the system's refusal of memory or open files decides the reason
    /// and the hint, whatever was being done: neither the disk nor the remote is to blame.
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

    /// Sets what the program does about it, where that does not follow from the reason.
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// Adds how long the remote asked us to wait.
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

    /// Whether this is a shutdown and no failure.
    pub fn is_cancelled(&self) -> bool {
        self.reason == Reason::Cancelled
    }

    /// The message and its causes on one line, for the one place that prints it.
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

/// What to do about a cause, or a cause of it, that is a shortage of memory or open files; None if
/// it is none.
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
            // An error within an I/O error is not what its source() gives.
            next = match error.get_ref() {
                Some(inner) => Some(inner),
                None => error.source(),
            };
            continue;
        }
        if let Some(error) = error.downcast_ref::<git2::Error>() {
            // libgit2 tells the system's error only in words (strerror(3)).
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
    fn a_shortage_is_the_reason_however_deep_it_lies() {
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
