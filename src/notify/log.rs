//! The observer that writes log lines.

use tracing::{debug, error, info, warn};

use super::event::{AfterFailure, Failure, Published, PublishedTree, Shortcomings};
use super::{Event, Observer};
use crate::base::durations;
use crate::base::text::printable;

/// How many shortcomings of each kind are remembered.
const REMEMBERED: usize = 100;

/// Writes a line for each event that an operator wants to read about.
#[derive(Debug, Default)]
pub struct Log {
    reported: Reported,
}

/// Shortcomings that were reported before: each is logged once, not for every tree.
#[derive(Debug, Default)]
struct Reported {
    not_shared: bool,
    unfiltered: Vec<String>,
    unpopulated: Vec<String>,
}

impl Observer for Log {
    fn observe(&mut self, event: &Event) {
        match event {
            Event::Started
            | Event::Opened
            | Event::Attempt
            | Event::Polled { .. }
            | Event::Finished(_)
            | Event::Unchanged
            | Event::Pruned(_)
            | Event::Waiting { .. }
            | Event::Stopped => {}
            Event::Checked(checked) => debug!(
                outcome = ?checked.outcome,
                took = %durations::shown(checked.took),
                "the tree was checked"
            ),
            Event::Stale { age } => warn!(
                age = %durations::shown_roughly(*age),
                "the last success is longer ago than --max-staleness allows"
            ),
            Event::Found(found) => {
                info!(commit = %found.commit.id, "readers have a complete tree from an earlier start");
            }
            Event::Published(published) => self.published(published),
            Event::Rejected(rejection) => {
                if rejection.is_new {
                    error!(
                        commit = %rejection.commit,
                        why = printable(&rejection.reason),
                        "the commit was rejected; readers keep the tree that they have"
                    );
                }
            }
            Event::Failed(failure) => failed(failure),
            Event::Recovered { failures } => info!(failures, "syncing again"),
            Event::Damaged {
                what, commit: None, ..
            } => warn!(
                damage = printable(what),
                "what readers see was damaged; mending it"
            ),
            Event::Damaged {
                what,
                commit: Some(commit),
                ..
            } => warn!(
                %commit,
                damage = printable(what),
                "a published tree was altered; it will be built anew"
            ),
            Event::Pinned { commit, .. } => {
                info!(%commit, "pinned: readers are held on this commit until `unpin`");
            }
            Event::Unpinned => info!("unpinned: readers follow the ref again"),
            Event::Restored { tree, shortcomings } => {
                info!(commit = %tree.commit.id, "the link is back on a sound tree");
                self.reported.report(shortcomings);
            }
            Event::Scrubbed { .. } => debug!("scrubbed: every file has its content"),
            Event::HousekeepingFailed(failure) => warn!(
                stage = failure.stage.as_str(),
                reason = failure.reason.as_str(),
                error = failure.message,
                hint = failure.hint,
                "housekeeping failed; it will be tried again"
            ),
        }
    }
}

impl Log {
    fn published(&mut self, published: &Published) {
        let commit = &published.to.id;
        let subject = printable(&published.to.subject);
        match &published.tree {
            PublishedTree::Built {
                files_written,
                files_shared,
                took,
                shortcomings,
            } => {
                info!(
                    %commit,
                    reference = printable(&published.reference),
                    subject,
                    files_written,
                    files_shared,
                    took = %durations::shown(*took),
                    "published"
                );
                self.reported.report(shortcomings);
            }
            PublishedTree::Kept => info!(
                %commit,
                reference = printable(&published.reference),
                subject,
                "published a tree that was still there"
            ),
        }
    }
}

fn failed(failure: &Failure) {
    let (stage, reason) = (failure.stage.as_str(), failure.reason.as_str());
    let (error, hint) = (&failure.message, &failure.hint);
    match failure.next {
        AfterFailure::RetryIn(delay) => error!(
            stage,
            reason,
            error,
            hint,
            failures = failure.consecutive,
            retry_in = %durations::shown(delay),
            "the sync failed"
        ),
        AfterFailure::AcceptStale => warn!(
            stage,
            reason,
            error,
            "the sync failed; the tree that is already there is accepted (--allow-stale)"
        ),
        AfterFailure::GiveUp => error!(
            stage,
            reason,
            error,
            hint,
            failures = failure.consecutive,
            "the sync failed; giving up"
        ),
    }
}

impl Reported {
    fn report(&mut self, shortcomings: &Shortcomings) {
        if let Some(why) = &shortcomings.not_shared
            && !std::mem::replace(&mut self.not_shared, true)
        {
            warn!(
                why = printable(why),
                "unchanged files are written again because they cannot be shared"
            );
        }
        if remember(&mut self.unfiltered, &shortcomings.unfiltered) {
            let files = printable(&shortcomings.unfiltered.join(", "));
            warn!(
                files,
                "filters are not run: these files are as the repository holds them"
            );
        }
        if remember(&mut self.unpopulated, &shortcomings.unpopulated) {
            let paths = printable(&shortcomings.unpopulated.join(", "));
            warn!(
                paths,
                "submodules without an entry in .gitmodules stay empty"
            );
        }
    }
}

/// Adds what is new to the list; whether there was something new.
fn remember(reported: &mut Vec<String>, now: &[String]) -> bool {
    let before = reported.len();
    for item in now {
        if !reported.contains(item) {
            reported.push(item.clone());
        }
    }
    let news = reported.len() > before;
    reported.drain(..reported.len().saturating_sub(REMEMBERED));
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortcoming_is_new_once() {
        let mut reported = Vec::new();
        let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>();
        assert!(remember(&mut reported, &list(&["a", "b"])));
        assert!(!remember(&mut reported, &list(&["b"])));
        assert!(remember(&mut reported, &list(&["b", "c"])));
        let many: Vec<_> = (0..2 * REMEMBERED).map(|n| n.to_string()).collect();
        assert!(remember(&mut reported, &many));
        assert_eq!(reported.len(), REMEMBERED);
    }
}
