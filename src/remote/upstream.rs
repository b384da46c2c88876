//! The questions to a remote and its answers, the same for every transport.

use std::fmt;

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::SyncError;
use crate::base::transfer::{Advertised, Fetched, PackSink};

/// What `--ref` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefName {
    /// The remote's default branch.
    Head,
    /// A full name: `refs/…`.
    Full(String),
    /// A short name: `refs/heads/<name>` first, then `refs/tags/<name>`, then `refs/<name>`, as
    /// `git clone --branch` prefers branches.
    Short(String),
    /// A full commit id: nothing to poll.
    Commit(Commit),
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Full(name) | Self::Short(name) => f.write_str(name),
            Self::Commit(commit) => commit.fmt(f),
        }
    }
}

/// The remote's answer to a poll. That a ref does not exist is an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tip {
    /// The ref exists.
    At(Advertised),
    /// The repository answered, and it has no such ref.
    Missing {
        /// Whether it has no ref at all that we asked about because it is empty (no HEAD either),
        /// as far as one request can tell.
        empty: bool,
    },
}

/// What to ask of a fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest<'a> {
    /// The object to bring, with all that its commits' trees need.
    pub want: Commit,
    /// Other objects to bring in the same way: tags that stand for what the store holds.
    pub also: &'a [Commit],
    /// The ref that held it, for servers that only serve advertised refs.
    pub name: Option<&'a str>,
    /// Commits whose trees (and, but for `shallow`, history) the store already holds.
    pub haves: &'a [Commit],
    /// The store's shallow boundary: commits whose parents it does not hold.
    pub shallow: &'a [Commit],
    /// How many commits of history to bring; 0 for all.
    pub depth: u32,
    /// Whether deltas may refer to objects that only the receiver has.
    ///
    /// With a depth, git's servers take the trees of `haves` for known only then: without it, the
    /// smallest change brings everything. The receiver has to complete such a pack.
    pub thin: bool,
}

/// A connection to one upstream repository. Connections are opened when needed and kept.
pub trait Remote: Send {
    /// Asks for the one ref: no store access, no fetch.
    ///
    /// # Errors
    /// When the remote cannot be reached or does not answer the question; stage `poll`.
    fn tip(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, SyncError>;

    /// Asks for all tags. None where the server only speaks version 0 of the protocol.
    ///
    /// # Errors
    /// When the remote cannot be reached or does not answer the question; stage `fetch`.
    fn tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, SyncError>;

    /// Streams the pack that a request needs into `pack`.
    ///
    /// # Errors
    /// Stage `fetch`. Reason `ref_missing` means that the remote no longer serves the object,
    /// as after a force push: the answer is to poll again.
    fn fetch(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, SyncError>;
}
