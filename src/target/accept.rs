//! The last step before readers see a tree: each acceptor judges it.
//!
//! An acceptor reads the sealed tree and must not change it. One that cannot decide returns an
//! error; the tree then stays pending, and the next cycle asks again.

use tracing::debug;

use super::context::Context;
use crate::base::error::{Stage, SyncError};
use crate::volume::{Accepted, Revision, Sealed};

/// Judges complete trees before they are published.
pub trait Acceptor: Send {
    /// Judges one tree.
    ///
    /// # Errors
    /// When there is no verdict: the acceptor could not run, or not to its end.
    fn judge(&mut self, tree: &Revision, context: &Context<'_>) -> Result<Judgement, SyncError>;
}

/// What an acceptor decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The tree may be published.
    Accept,
    /// The tree must not be published; why.
    Reject(String),
}

/// What became of a sealed tree.
#[derive(Debug)]
pub(super) enum Judged {
    Accepted(Accepted),
    Rejected(String),
}

/// Asks every acceptor, until one rejects the tree, and records the verdict.
///
/// # Errors
/// When an acceptor has no verdict, or the verdict cannot be recorded. The tree stays pending.
pub(super) fn judge(
    acceptors: &mut [Box<dyn Acceptor>],
    sealed: Sealed<'_>,
    context: &mut Context<'_>,
) -> Result<Judged, SyncError> {
    context.time(Stage::Publish, |context| {
        for acceptor in acceptors {
            if let Judgement::Reject(why) = acceptor.judge(sealed.revision(), context)? {
                debug!(commit = %sealed.revision().commit, "rejected");
                sealed.reject(&why)?;
                return Ok(Judged::Rejected(why));
            }
        }
        sealed.accept().map(Judged::Accepted)
    })
}
