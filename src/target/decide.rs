//! The decisions of a cycle. Every function here is pure: values in, a value out.

use crate::base::commit::Commit;
use crate::base::error::Remedy;
use crate::base::wake::PinChange;
use crate::volume::Verdict;

/// How often a cycle polls again because the remote moved between its poll and its fetch.
const MOVED_ATTEMPTS: usize = 3;

/// A complete tree on the volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// The number of its revision.
    pub n: u64,
    /// The commit whose tree it is.
    pub commit: Commit,
    /// The fingerprint of the settings that it was built with.
    pub settings: &'a str,
    /// Whether it is as it was built, as far as anybody looked.
    pub sound: bool,
    /// Whether its files were synced, written or verified in this boot: otherwise a power cut may
    /// have taken their contents.
    pub proven: bool,
    /// Whether a file of it was found with another content than it should have, whatever its size
    /// and time say.
    pub corrupt: bool,
    /// Whether it may be published.
    pub verdict: &'a Verdict,
    /// Whether the verdict still holds: what is checked has not changed since, and nobody wants a
    /// rejected commit to be checked again.
    pub holds: bool,
}

/// What a cycle knows before it decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// The fingerprint of the settings that readers are to have.
    pub settings: &'a str,
    /// The complete trees on the volume.
    pub candidates: &'a [Candidate<'a>],
    /// The revision that readers see.
    pub live: Option<u64>,
    /// Whether the live tree is a directory in the place of the link, so that it cannot stay.
    pub misplaced: bool,
    /// Whether the link is lost or leads nowhere, or readers see an altered tree.
    pub damaged: bool,
    /// The sound revision that readers saw last.
    pub last_seen: Option<u64>,
    /// The commit whose damaged tree readers had before an earlier one, to be built again.
    pub lost: Option<Commit>,
    /// The tip that changes no watched path, and the revision that it was compared with.
    pub irrelevant: Option<(Commit, u64)>,
}

/// What brings the link to the tip.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The link is on it, or it changes nothing that readers watch.
    Nothing,
    /// An accepted tree of it is on the volume: flip the link to this revision.
    Flip(u64),
    /// A tree of it is on the volume, and nobody has decided about it: judge this revision.
    Judge(u64),
    /// A tree of it is on the volume, and it was rejected: keep what readers have.
    Reject(u64),
    /// A tree has to be built.
    Build,
}

/// What keeps readers on a pinned revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// They see it.
    Stay,
    /// Flip the link to this revision.
    Flip(u64),
    /// No sound tree of the commit is left: build it anew.
    Build,
}

/// Why nothing can be pinned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotPinned {
    /// No accepted, sound tree of such a commit is on the volume.
    NoSuch,
    /// The text is the beginning of more than one of their commits.
    Ambiguous,
    /// The text cannot be the beginning of a commit, or is too short.
    NoCommit,
    /// Readers see no tree, or saw none before it.
    Nothing,
}

/// The shortest beginning of a commit that may be given, as git has it.
const SHORTEST_PREFIX: usize = 4;

/// What to do after a failure within the same cycle.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing: the cycle failed.
    No,
    /// Poll again: the remote moved.
    Poll,
    /// Delete the pre-linked spare tree, and try again if there was one.
    MakeRoom,
    /// Delete the object store, and try again.
    RebuildStore,
}

/// What a cycle has tried already.
#[derive(Debug, Default)]
pub(super) struct Tries {
    polls: usize,
    rebuilt: bool,
    made_room: bool,
}

impl Candidate<'_> {
    /// Whether readers may be given it: accepted, and not damaged.
    pub fn may_be_shown(&self) -> bool {
        self.sound && *self.verdict == Verdict::Accepted
    }
}

impl<'a> Facts<'a> {
    fn find(&self, n: u64) -> Option<&'a Candidate<'a>> {
        self.candidates.iter().find(|candidate| candidate.n == n)
    }

    /// The tree that readers see, if it can stay as it is.
    fn good_live(&self) -> Option<&'a Candidate<'a>> {
        self.find(self.live?)
            .filter(|live| live.sound && !self.misplaced)
    }
}

/// Chooses what brings the link to the tip.
pub(super) fn decide(tip: Commit, facts: &Facts<'_>) -> Action {
    let live = facts.good_live();
    if live.is_some_and(|live| facts.irrelevant == Some((tip, live.n))) {
        return Action::Nothing;
    }
    let fits = |candidate: &&Candidate<'_>| {
        let stays = !(facts.misplaced && facts.live == Some(candidate.n));
        candidate.sound && stays && candidate.commit == tip && candidate.settings == facts.settings
    };
    if live.is_some_and(|live| fits(&live)) {
        return Action::Nothing;
    }
    // The newest one: an older verdict on the same tree may have been overruled. A tree whose verdict
    // no longer holds is built again, because the check may have altered the old one.
    match facts.candidates.iter().filter(fits).max_by_key(|c| c.n) {
        None => Action::Build,
        Some(found) if !found.holds => Action::Build,
        Some(found) => match found.verdict {
            Verdict::Accepted => Action::Flip(found.n),
            Verdict::Pending => Action::Judge(found.n),
            Verdict::Rejected(_) => Action::Reject(found.n),
        },
    }
}

/// Chooses what keeps readers on a pinned revision, whatever the remote has and whatever settings
/// the tree was built with.
pub(super) fn hold(n: u64, commit: Commit, facts: &Facts<'_>) -> Hold {
    let live = facts.good_live();
    if live.is_some_and(|live| live.n == n && live.commit == commit) {
        return Hold::Stay;
    }
    let fits = |candidate: &&Candidate<'_>| {
        let stays = !(facts.misplaced && facts.live == Some(candidate.n));
        candidate.may_be_shown() && stays && candidate.commit == commit
    };
    if facts.find(n).as_ref().is_some_and(fits) {
        return Hold::Flip(n);
    }
    if live.is_some_and(|live| live.commit == commit) {
        return Hold::Stay;
    }
    match facts.candidates.iter().filter(fits).max_by_key(|c| c.n) {
        Some(found) => Hold::Flip(found.n),
        None => Hold::Build,
    }
}

/// Chooses the revision to hold readers on. `previous` is the one that they saw before the live one.
pub(super) fn choose_pin(
    change: &PinChange,
    previous: Option<u64>,
    facts: &Facts<'_>,
) -> Result<u64, NotPinned> {
    let usable = |candidate: &&Candidate<'_>| candidate.may_be_shown();
    let prefix = match change {
        PinChange::Commit(prefix) => prefix.to_ascii_lowercase(),
        PinChange::Previous => return previous.ok_or(NotPinned::Nothing),
        PinChange::Current | PinChange::Unpin => {
            let live = facts.good_live().filter(usable);
            return live.map(|live| live.n).ok_or(NotPinned::Nothing);
        }
    };
    let is_hex = prefix.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex || !(SHORTEST_PREFIX..=40).contains(&prefix.len()) {
        return Err(NotPinned::NoCommit);
    }
    let found: Vec<_> = facts
        .candidates
        .iter()
        .filter(usable)
        .filter(|candidate| candidate.commit.to_string().starts_with(&prefix))
        .collect();
    let newest = found.iter().max_by_key(|candidate| candidate.n);
    let newest = newest.ok_or(NotPinned::NoSuch)?;
    if found.iter().any(|other| other.commit != newest.commit) {
        return Err(NotPinned::Ambiguous);
    }
    // What readers see already needs no flip.
    let live = found
        .iter()
        .find(|candidate| facts.live == Some(candidate.n));
    Ok(live.unwrap_or(newest).n)
}

/// What brings readers back to a sound tree before the poll, so that they have one even while the
/// remote is away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// Nothing: their tree is sound, or nothing can be done without the remote.
    Nothing,
    /// Flip the link to this revision.
    Flip(u64),
    /// Build this commit from the object store, and publish it.
    Rebuild(Commit),
}

/// Chooses what to do about a lost link or a damaged live tree before the poll. `may_build` is false
/// once a commit could not be built from the object store.
///
/// Readers who still have a sound tree keep that one, even if a newer one was flipped back. After a
/// power cut any part of the live tree may be lost, so readers get the last sound tree at once, and
/// the lost one is built afterwards. Other damage is one file, say: readers keep the tree until it is
/// built again, because an older one would be further from what they saw.
pub(super) fn mend(facts: &Facts<'_>, may_build: bool) -> Mend {
    if facts.misplaced {
        return Mend::Nothing;
    }
    let flip = |n: Option<u64>| n.map_or(Mend::Nothing, Mend::Flip);
    let rebuild = |commit: Commit| {
        let fits = |candidate: &&Candidate<'_>| {
            candidate.sound && candidate.commit == commit && candidate.settings == facts.settings
        };
        let there = facts.candidates.iter().filter(fits).max_by_key(|c| c.n);
        match there.map(|found| (found.n, found.verdict)) {
            Some((n, Verdict::Accepted)) => Mend::Flip(n),
            // The poll decides whether that commit is still wanted.
            Some(_) => Mend::Nothing,
            None if may_build => Mend::Rebuild(commit),
            None => Mend::Nothing,
        }
    };
    match facts.live.and_then(|n| facts.find(n)) {
        Some(live) if live.sound && facts.damaged => Mend::Flip(live.n),
        Some(live) if live.sound => match facts.lost {
            Some(lost) if lost != live.commit => rebuild(lost),
            _ => Mend::Nothing,
        },
        Some(live) if !live.proven && facts.last_seen.is_some() => flip(facts.last_seen),
        Some(live) => match rebuild(live.commit) {
            Mend::Nothing if facts.damaged => flip(facts.last_seen),
            chosen => chosen,
        },
        None if facts.damaged => flip(facts.last_seen),
        None => Mend::Nothing,
    }
}

/// The revision that a new tree shares files with: the newest one that may be published, whose files
/// are proven to be what they should be.
///
/// A corrupt file may be linked into older revisions as well, and its size and time do not tell: they
/// are not shared from either, unless only a power cut can have corrupted it.
pub(super) fn base(candidates: &[Candidate<'_>]) -> Option<u64> {
    let corrupt = candidates
        .iter()
        .filter(|candidate| candidate.corrupt && candidate.proven)
        .map(|candidate| candidate.n)
        .max();
    candidates
        .iter()
        .filter(|candidate| {
            candidate.proven
                && !candidate.corrupt
                && !matches!(candidate.verdict, Verdict::Rejected(_))
        })
        .map(|candidate| candidate.n)
        .filter(|n| corrupt.is_none_or(|corrupt| *n > corrupt))
        .max()
}

/// The revision to compare a commit with, to find out whether it changes a watched path: the tree
/// that readers see, built with the same settings. `None`: build it in any case.
pub(super) fn comparable(facts: &Facts<'_>) -> Option<(u64, Commit)> {
    facts
        .good_live()
        .filter(|live| live.settings == facts.settings)
        .map(|live| (live.n, live.commit))
}

/// Chooses what to do about a failure within the same cycle; at most a few repetitions of each kind.
/// `may_move` says whether the remote's ref can move; a pinned commit cannot.
pub(super) fn repeat(remedy: Remedy, tries: &mut Tries, may_move: bool) -> Repeat {
    match remedy {
        Remedy::PollAgain if may_move && tries.polls + 1 < MOVED_ATTEMPTS => {
            tries.polls += 1;
            Repeat::Poll
        }
        Remedy::MakeRoom if !tries.made_room => {
            tries.made_room = true;
            Repeat::MakeRoom
        }
        Remedy::RebuildStore if !tries.rebuilt => {
            tries.rebuilt = true;
            Repeat::RebuildStore
        }
        _ => Repeat::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJECTED: Verdict = Verdict::Rejected(String::new());

    fn commit(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn candidate(n: u64, digit: char) -> Candidate<'static> {
        Candidate {
            n,
            commit: commit(digit),
            settings: "s",
            sound: true,
            proven: true,
            corrupt: false,
            verdict: &Verdict::Accepted,
            holds: true,
        }
    }

    fn facts<'a>(candidates: &'a [Candidate<'a>], live: Option<u64>) -> Facts<'a> {
        Facts {
            settings: "s",
            candidates,
            live,
            misplaced: false,
            damaged: false,
            last_seen: None,
            lost: None,
            irrelevant: None,
        }
    }

    #[test]
    fn a_live_sound_tree_of_the_tip_needs_nothing() {
        let trees = [candidate(1, 'a'), candidate(2, 'a')];
        assert_eq!(
            decide(commit('a'), &facts(&trees, Some(1))),
            Action::Nothing
        );
    }

    #[test]
    fn the_newest_accepted_tree_of_the_tip_is_flipped_to() {
        let trees = [candidate(1, 'a'), candidate(2, 'a'), candidate(3, 'b')];
        assert_eq!(
            decide(commit('a'), &facts(&trees, Some(3))),
            Action::Flip(2)
        );
    }

    #[test]
    fn another_commit_other_settings_or_damage_need_a_new_tree() {
        let trees = [candidate(1, 'a')];
        let damaged = [Candidate {
            sound: false,
            ..candidate(1, 'a')
        }];
        let other = Facts {
            settings: "t",
            ..facts(&trees, Some(1))
        };
        assert_eq!(decide(commit('b'), &facts(&trees, Some(1))), Action::Build);
        assert_eq!(decide(commit('a'), &other), Action::Build);
        assert_eq!(
            decide(commit('a'), &facts(&damaged, Some(1))),
            Action::Build
        );
        assert_eq!(decide(commit('a'), &facts(&[], None)), Action::Build);
    }

    #[test]
    fn a_rejected_tree_is_neither_flipped_to_nor_built_again() {
        let trees = [
            candidate(1, 'a'),
            Candidate {
                verdict: &REJECTED,
                ..candidate(2, 'b')
            },
        ];
        assert_eq!(
            decide(commit('b'), &facts(&trees, Some(1))),
            Action::Reject(2)
        );
        let lost = Facts {
            damaged: true,
            last_seen: Some(1),
            ..facts(&trees, None)
        };
        assert_eq!(mend(&lost, true), Mend::Flip(1));
    }

    fn outdated(verdict: &Verdict) -> Candidate<'_> {
        Candidate {
            verdict,
            holds: false,
            ..candidate(2, 'b')
        }
    }

    #[test]
    fn a_verdict_that_no_longer_holds_leads_to_a_new_tree_but_never_takes_the_live_one_away() {
        for verdict in [REJECTED, Verdict::Accepted] {
            let trees = [candidate(1, 'a'), outdated(&verdict)];
            assert_eq!(decide(commit('b'), &facts(&trees, Some(1))), Action::Build);
        }
        let trees = [outdated(&Verdict::Accepted)];
        assert_eq!(
            decide(commit('b'), &facts(&trees, Some(2))),
            Action::Nothing
        );
    }

    #[test]
    fn a_pending_tree_is_judged_and_not_built_again() {
        let trees = [
            candidate(1, 'a'),
            Candidate {
                verdict: &Verdict::Pending,
                ..candidate(2, 'b')
            },
        ];
        assert_eq!(
            decide(commit('b'), &facts(&trees, Some(1))),
            Action::Judge(2)
        );
    }

    #[test]
    fn a_tree_in_the_place_of_the_link_cannot_stay() {
        let trees = [candidate(1, 'a')];
        let misplaced = Facts {
            misplaced: true,
            damaged: true,
            last_seen: Some(1),
            ..facts(&trees, Some(1))
        };
        assert_eq!(decide(commit('a'), &misplaced), Action::Build);
        assert_eq!(mend(&misplaced, true), Mend::Nothing);
        assert_eq!(comparable(&misplaced), None);
    }

    #[test]
    fn an_irrelevant_tip_needs_nothing_while_readers_see_what_it_was_compared_with() {
        let trees = [candidate(1, 'a'), candidate(2, 'c')];
        let irrelevant = |live| Facts {
            irrelevant: Some((commit('b'), 1)),
            ..facts(&trees, Some(live))
        };
        assert_eq!(decide(commit('b'), &irrelevant(1)), Action::Nothing);
        assert_eq!(decide(commit('b'), &irrelevant(2)), Action::Build);
    }

    #[test]
    fn a_link_is_mended_with_what_readers_have_or_saw_last() {
        let trees = [candidate(1, 'a'), candidate(2, 'b')];
        let lost = Facts {
            damaged: true,
            last_seen: Some(1),
            ..facts(&trees, None)
        };
        assert_eq!(mend(&lost, true), Mend::Flip(1));
        let with_live = Facts {
            live: Some(2),
            ..lost
        };
        assert_eq!(mend(&with_live, true), Mend::Flip(2));
        let fine = Facts {
            damaged: false,
            ..lost
        };
        assert_eq!(mend(&fine, true), Mend::Nothing);
        let nothing_left = Facts {
            last_seen: None,
            ..lost
        };
        assert_eq!(mend(&nothing_left, true), Mend::Nothing);
    }

    #[test]
    fn after_a_power_cut_readers_get_the_last_sound_tree_and_then_the_lost_one_is_built() {
        let cut = Candidate {
            sound: false,
            proven: false,
            ..candidate(2, 'b')
        };
        let trees = [candidate(1, 'a'), cut];
        let damaged = Facts {
            last_seen: Some(1),
            ..facts(&trees, Some(2))
        };
        assert_eq!(mend(&damaged, true), Mend::Flip(1));
        let flipped = Facts {
            live: Some(1),
            last_seen: None,
            lost: Some(commit('b')),
            ..damaged
        };
        assert_eq!(mend(&flipped, true), Mend::Rebuild(commit('b')));
        assert_eq!(mend(&flipped, false), Mend::Nothing);
        let alone = Facts {
            last_seen: None,
            ..damaged
        };
        assert_eq!(mend(&alone, true), Mend::Rebuild(commit('b')));
    }

    #[test]
    fn a_tree_that_somebody_altered_is_built_again_and_not_traded_for_an_older_one() {
        let altered = Candidate {
            sound: false,
            ..candidate(2, 'b')
        };
        let trees = [candidate(1, 'a'), altered];
        let damaged = Facts {
            last_seen: Some(1),
            ..facts(&trees, Some(2))
        };
        assert_eq!(mend(&damaged, true), Mend::Rebuild(commit('b')));
        assert_eq!(mend(&damaged, false), Mend::Nothing);
    }

    #[test]
    fn a_damaged_tree_whose_commit_has_a_sound_one_is_not_built_again() {
        let damaged = Candidate {
            sound: false,
            ..candidate(1, 'a')
        };
        let rejected = Candidate {
            verdict: &REJECTED,
            ..candidate(2, 'a')
        };
        let trees = [damaged, candidate(2, 'a')];
        assert_eq!(mend(&facts(&trees, Some(1)), true), Mend::Flip(2));
        let trees = [damaged, rejected];
        assert_eq!(mend(&facts(&trees, Some(1)), true), Mend::Nothing);
    }

    #[test]
    fn files_are_shared_only_from_the_newest_tree_whose_contents_are_proven() {
        let cut = Candidate {
            proven: false,
            ..candidate(3, 'c')
        };
        let rejected = Candidate {
            verdict: &REJECTED,
            ..candidate(4, 'd')
        };
        let trees = [candidate(1, 'a'), candidate(2, 'b'), cut, rejected];
        assert_eq!(base(&trees), Some(2));
        assert_eq!(base(&[]), None);
    }

    #[test]
    fn files_are_not_shared_from_trees_that_may_link_to_a_corrupt_file() {
        let corrupt = Candidate {
            sound: false,
            corrupt: true,
            ..candidate(2, 'b')
        };
        assert_eq!(base(&[candidate(1, 'a'), corrupt]), None);
        let trees = [candidate(1, 'a'), corrupt, candidate(3, 'b')];
        assert_eq!(base(&trees), Some(3));
        let cut = Candidate {
            proven: false,
            ..corrupt
        };
        assert_eq!(base(&[candidate(1, 'a'), cut]), Some(1));
    }

    #[test]
    fn a_moving_remote_is_polled_three_times_and_a_pinned_commit_once() {
        let mut tries = Tries::default();
        let mut again = || repeat(Remedy::PollAgain, &mut tries, true);
        assert_eq!(
            [again(), again(), again()],
            [Repeat::Poll, Repeat::Poll, Repeat::No]
        );
        let pinned = repeat(Remedy::PollAgain, &mut Tries::default(), false);
        assert_eq!(pinned, Repeat::No);
    }

    #[test]
    fn room_is_made_once_and_the_store_is_rebuilt_once() {
        let mut tries = Tries::default();
        for (remedy, expected) in [
            (Remedy::MakeRoom, Repeat::MakeRoom),
            (Remedy::RebuildStore, Repeat::RebuildStore),
            (Remedy::MakeRoom, Repeat::No),
            (Remedy::RebuildStore, Repeat::No),
            (Remedy::Retry, Repeat::No),
            (Remedy::GiveUp, Repeat::No),
        ] {
            assert_eq!(repeat(remedy, &mut tries, true), expected, "{remedy:?}");
        }
    }

    #[test]
    fn readers_are_held_on_the_pinned_revision_whatever_its_settings() {
        let other = Candidate {
            settings: "t",
            ..candidate(1, 'a')
        };
        let trees = [other, candidate(2, 'b'), candidate(3, 'a')];
        let held = |n, digit, live| hold(n, commit(digit), &facts(&trees, live));
        assert_eq!(held(1, 'a', Some(1)), Hold::Stay);
        assert_eq!(held(1, 'a', Some(2)), Hold::Flip(1));
        assert_eq!(held(1, 'a', None), Hold::Flip(1));
        // The chosen revision is gone, and another one of the commit is there.
        assert_eq!(held(9, 'a', Some(2)), Hold::Flip(3));
        assert_eq!(held(9, 'a', Some(1)), Hold::Stay);
        assert_eq!(held(9, 'c', Some(1)), Hold::Build);
        // A number that names another commit counts for nothing.
        assert_eq!(held(2, 'a', Some(2)), Hold::Flip(3));
    }

    #[test]
    fn a_pin_never_leads_to_a_damaged_or_rejected_tree() {
        let trees = [
            Candidate {
                sound: false,
                ..candidate(1, 'a')
            },
            Candidate {
                verdict: &REJECTED,
                ..candidate(2, 'a')
            },
        ];
        let facts = facts(&trees, Some(1));
        assert_eq!(hold(1, commit('a'), &facts), Hold::Build);
        assert_eq!(hold(2, commit('a'), &facts), Hold::Build);
        let pin = PinChange::Commit("aaaa".to_owned());
        assert_eq!(choose_pin(&pin, None, &facts), Err(NotPinned::NoSuch));
        assert_eq!(
            choose_pin(&PinChange::Current, None, &facts),
            Err(NotPinned::Nothing)
        );
    }

    #[test]
    fn a_commit_is_pinned_by_its_beginning() {
        let trees = [candidate(1, 'a'), candidate(2, 'a'), candidate(3, 'b')];
        let facts = facts(&trees, Some(3));
        let pin = |text: &str| choose_pin(&PinChange::Commit(text.to_owned()), Some(2), &facts);
        assert_eq!(pin("AAAA"), Ok(2));
        assert_eq!(pin(&"b".repeat(40)), Ok(3));
        assert_eq!(pin("cccc"), Err(NotPinned::NoSuch));
        for bad in ["", "aaa", "main", &"a".repeat(41)] {
            assert_eq!(pin(bad), Err(NotPinned::NoCommit), "{bad}");
        }
        assert_eq!(choose_pin(&PinChange::Previous, Some(2), &facts), Ok(2));
        assert_eq!(
            choose_pin(&PinChange::Previous, None, &facts),
            Err(NotPinned::Nothing)
        );
        assert_eq!(choose_pin(&PinChange::Current, None, &facts), Ok(3));
    }
}
