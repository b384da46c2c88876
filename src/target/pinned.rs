//! Holding readers on a revision, and following the ref again.
//!
//! The pin is a file on the volume, so that it outlives the process. While it is there, polls go on
//! and show what is upstream, and no cycle flips the link to anything else. Which revision is meant
//! is decided in [`decide`].

use std::time::{Duration, SystemTime};

use super::context::Context;
use super::cycle::{Outcome, Syncer};
use super::decide::{self, Hold, NotPinned};
use super::trees::Validity;
use crate::base::commit::Commit;
use crate::base::error::SyncError;
use crate::base::transfer::Advertised;
use crate::base::wake::PinChange;
use crate::notify::event::{Published, PublishedTree};
use crate::volume::{Observed, Pin};

impl Syncer {
    /// Puts readers on the pinned revision, if there is a pin and a sound tree for it. Needs no
    /// remote. Returns the pin, and the flip if one was made.
    ///
    /// # Errors
    /// When the volume is not open, the pin cannot be read, or the disk refuses the flip.
    pub(super) fn hold(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<(Option<Pin>, Option<Box<Published>>), SyncError> {
        let Some(pin) = self.opened()?.volume.pin()? else {
            return Ok((None, None));
        };
        let observed = self.opened()?.volume.observe()?;
        let Hold::Flip(n) = self.held(pin, &observed, context)? else {
            return Ok((Some(pin), None));
        };
        let published = self.flip_to_pinned(n, &observed, &self.advertised(pin.commit), context)?;
        Ok((Some(pin), published))
    }

    /// One cycle while readers are held: polls, and mends what they are held on.
    pub(super) fn stay_pinned(
        &mut self,
        pin: Pin,
        context: &mut Context<'_>,
    ) -> Result<Outcome, SyncError> {
        self.poll(context)?;
        let observed = self.opened()?.volume.observe()?;
        let pinned = self.advertised(pin.commit);
        match self.held(pin, &observed, context)? {
            Hold::Stay => Ok(Outcome::Unchanged),
            Hold::Flip(n) => {
                let published = self.flip_to_pinned(n, &observed, &pinned, context)?;
                Ok(published.map_or(Outcome::Unchanged, Outcome::Published))
            }
            Hold::Build => self.build_and_publish(&pinned, &observed, context),
        }
    }

    /// Sets or removes the pin, durably. Returns the commit that is pinned now. Readers are moved by
    /// [`Syncer::hold`] or by the next cycle.
    ///
    /// # Errors
    /// Why nothing changed, for people.
    pub(super) fn change_pin(
        &mut self,
        change: &PinChange,
        context: &mut Context<'_>,
    ) -> Result<Option<Commit>, String> {
        let chain = |error: SyncError| error.chain();
        self.open_within(Duration::ZERO, context).map_err(chain)?;
        if *change == PinChange::Unpin {
            let trees = self.opened().map_err(chain)?;
            return match trees.volume.clear_pin() {
                Ok(true) => Ok(None),
                Ok(false) => Err("readers are not held: nothing is pinned".to_owned()),
                Err(error) => Err(error.chain()),
            };
        }
        let (n, commit) = self.choose(change, context)?;
        let pin = Pin {
            commit,
            n,
            since: SystemTime::now(),
        };
        let trees = self.opened().map_err(chain)?;
        trees.volume.set_pin(&pin).map_err(chain)?;
        Ok(Some(commit))
    }

    /// The revision that is meant; its tree is compared with its manifest first.
    fn choose(
        &mut self,
        change: &PinChange,
        context: &mut Context<'_>,
    ) -> Result<(u64, Commit), String> {
        let chain = |error: SyncError| error.chain();
        let fingerprint = self.fingerprint.clone();
        let trees = self.opened().map_err(chain)?;
        trees.refresh().map_err(chain)?;
        loop {
            let observed = trees.volume.observe().map_err(chain)?;
            let candidates = trees.candidates(&Validity::default());
            let facts = trees.facts(&fingerprint, &candidates, &observed, None);
            let live = facts.live;
            let seen_before = candidates
                .iter()
                .filter(|candidate| candidate.may_be_shown() && Some(candidate.n) != live);
            let previous = trees.volume.last_live(seen_before.map(|before| before.n));
            let n = decide::choose_pin(change, previous, &facts)
                .map_err(|why| explain(why, candidates.iter().filter(|c| c.may_be_shown())))?;
            if trees.inspect(n, context).map_err(chain)? {
                let known = trees.find(n).ok_or("the tree is gone")?;
                return Ok((n, known.revision.commit));
            }
        }
    }

    fn held(
        &mut self,
        pin: Pin,
        observed: &Observed,
        context: &mut Context<'_>,
    ) -> Result<Hold, SyncError> {
        let fingerprint = self.fingerprint.clone();
        let trees = self.opened()?;
        trees.refresh()?;
        loop {
            let candidates = trees.candidates(&Validity::default());
            let facts = trees.facts(&fingerprint, &candidates, observed, None);
            match decide::hold(pin.n, pin.commit, &facts) {
                Hold::Flip(n) if !trees.inspect(n, context)? => {}
                decided => return Ok(decided),
            }
        }
    }

    fn flip_to_pinned(
        &mut self,
        n: u64,
        observed: &Observed,
        pinned: &Advertised,
        context: &mut Context<'_>,
    ) -> Result<Option<Box<Published>>, SyncError> {
        let accepted = self.opened()?.accepted(n)?;
        match self.publish(pinned, observed, &accepted, PublishedTree::Kept, context)? {
            Outcome::Published(published) => Ok(Some(published)),
            _ => Ok(None),
        }
    }

    /// The pinned commit in the form of a poll's answer.
    fn advertised(&self, commit: Commit) -> Advertised {
        Advertised {
            name: self.settings.reference.to_string(),
            object: commit,
            commit,
        }
    }
}

fn explain<'c>(why: NotPinned, kept: impl Iterator<Item = &'c decide::Candidate<'c>>) -> String {
    let mut commits: Vec<String> = kept.map(|candidate| candidate.commit.to_string()).collect();
    commits.sort_unstable();
    commits.dedup();
    let kept = match commits.is_empty() {
        true => "no revision is kept".to_owned(),
        false => format!("kept are {}", commits.join(", ")),
    };
    match why {
        NotPinned::NoSuch => {
            format!("no sound revision of this commit is kept; {kept} (see --keep)")
        }
        NotPinned::Ambiguous => format!("more than one commit begins like this; {kept}"),
        NotPinned::NoCommit => {
            format!("give 4 digits of a commit or more, or previous, or current; {kept}")
        }
        NotPinned::Nothing => format!("readers have seen no such tree; {kept}"),
    }
}
