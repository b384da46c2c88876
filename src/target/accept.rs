//! The last step before readers see a tree: each acceptor judges it.
//!
//! An acceptor reads the sealed tree and must not change it. One that cannot decide returns an
//! error; the tree then stays pending, and the next cycle asks again.

use std::time::Instant;

use git2::{ObjectType, Oid};
use tracing::debug;

use super::context::Context;
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};
use crate::notify::Event;
use crate::notify::event::{CheckOutcome, Checked};
use crate::volume::{Accepted, Revision, Sealed};

/// Judges complete trees before they are published.
pub trait Acceptor: Send {
    /// What it checks, with all settings that a verdict depends on. A verdict that was made under
    /// other settings does not hold.
    fn identity(&self) -> String;

    /// Judges one tree.
    ///
    /// # Errors
    /// When there is no verdict: the acceptor could not run, or not to its end.
    fn judge(
        &mut self,
        proposal: &Proposal<'_>,
        context: &mut Context<'_>,
    ) -> Result<Judgement, SyncError>;
}

/// A tree that is to be published.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// The tree.
    pub revision: &'a Revision,
    /// The commit that readers see now.
    pub live: Option<Commit>,
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

/// The fingerprint of what the acceptors check; empty without acceptors.
pub(super) fn fingerprint(acceptors: &[Box<dyn Acceptor>]) -> Result<String, SyncError> {
    if acceptors.is_empty() {
        return Ok(String::new());
    }
    let all: Vec<_> = acceptors
        .iter()
        .map(|acceptor| acceptor.identity())
        .collect();
    let id = Oid::hash_object(ObjectType::Blob, all.join("\0").as_bytes()).map_err(|cause| {
        let what = "cannot compute the fingerprint of the checks";
        SyncError::new(Stage::Start, crate::base::error::Reason::Other, what).with_source(cause)
    })?;
    Ok(id.to_string())
}

/// Asks every acceptor, until one rejects the tree, and records the verdict.
///
/// # Errors
/// When an acceptor has no verdict, or the verdict cannot be recorded. The tree stays pending.
pub(super) fn judge(
    acceptors: &mut [Box<dyn Acceptor>],
    sealed: Sealed<'_>,
    live: Option<Commit>,
    context: &mut Context<'_>,
) -> Result<Judged, SyncError> {
    if acceptors.is_empty() {
        return context
            .time(Stage::Publish, |_| sealed.accept(""))
            .map(Judged::Accepted);
    }
    let checks = fingerprint(acceptors)?;
    let proposal = Proposal {
        revision: sealed.revision(),
        live,
    };
    let began = Instant::now();
    let judgement: Result<_, SyncError> = context.time(Stage::Check, |context| {
        for acceptor in acceptors {
            if let Judgement::Reject(why) = acceptor.judge(&proposal, context)? {
                return Ok(Judgement::Reject(why));
            }
        }
        Ok(Judgement::Accept)
    });
    let outcome = match &judgement {
        Ok(Judgement::Accept) => Some(CheckOutcome::Accepted),
        Ok(Judgement::Reject(_)) => Some(CheckOutcome::Rejected),
        Err(error) if error.is_cancelled() => None,
        Err(_) => Some(CheckOutcome::NoVerdict),
    };
    if let Some(outcome) = outcome {
        let took = began.elapsed();
        context.emit(&Event::Checked(Checked { outcome, took }));
    }
    match judgement? {
        Judgement::Accept => context
            .time(Stage::Publish, |_| sealed.accept(&checks))
            .map(Judged::Accepted),
        Judgement::Reject(why) => {
            debug!(commit = %sealed.revision().commit, "rejected");
            sealed.reject(&why, &checks)?;
            Ok(Judged::Rejected(why))
        }
    }
}
