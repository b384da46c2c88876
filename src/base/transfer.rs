//! What passes from a remote to the store: a ref, and a pack with what belongs to it.

use super::commit::Commit;
use super::error::SyncError;

/// A ref as the remote has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The full name: `refs/heads/main` also when `HEAD` was asked for and is symbolic.
    pub name: String,
    /// What the ref holds: a commit, or an annotated tag. This is what a fetch must want.
    pub object: Commit,
    /// The commit it stands for: the tag peeled.
    pub commit: Commit,
}

/// What a fetch brought, besides the pack.
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
    /// When the pack is damaged or too large, or the disk does not take it.
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError>;

    /// A line that the remote wants its user to see (sideband 2), raw.
    fn progress(&mut self, _line: &[u8]) {}
}
