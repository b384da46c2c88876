//! The types that pass from a remote to the store: a ref, and a pack with its shallow boundary.

use super::commit::Commit;
use super::error::SyncError;

/// A ref as the remote has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The full name: `refs/heads/main` also when `HEAD` was asked for and is symbolic.
    pub name: String,
    /// The object that the ref holds: a commit, or an annotated tag. A fetch must ask for this one.
    pub object: Commit,
    /// The commit that the object leads to, after peeling tags.
    pub commit: Commit,
}

/// The result of a fetch, besides the pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes of pack data received.
    pub bytes: u64,
    /// Commits that are now shallow (gitprotocol-v2, "shallow-info").
    pub shallow: Vec<Commit>,
    /// Commits that are no longer shallow.
    pub unshallow: Vec<Commit>,
}

/// Where a fetched pack goes. Implemented by the store.
pub trait PackSink {
    /// Takes the next bytes of the pack.
    ///
    /// # Errors
    /// When the pack is damaged or too large, or the disk refuses it.
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError>;

    /// A line for the user of the remote (sideband 2), not made printable.
    fn progress(&mut self, _line: &[u8]) {}
}
