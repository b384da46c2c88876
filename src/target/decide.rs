//! What brings the link to the tip: the one decision of a cycle, made of values alone.

use crate::base::commit::Commit;

/// What to do about the tip.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The link is on it.
    Nothing,
    /// A tree of it is on the disk: the link only has to be flipped to revision `n`.
    Flip(u64),
    /// A tree has to be built.
    Build,
}

/// What `decide` knows of a complete tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub n: u64,
    pub commit: Commit,
    pub settings: &'a str,
    pub sound: bool,
    pub live: bool,
}

/// Chooses what brings the link to the tip, from what is on the disk.
pub(super) fn decide(tip: Commit, settings: &str, candidates: &[Candidate<'_>]) -> Action {
    let fits = |candidate: &&Candidate<'_>| {
        candidate.sound && candidate.commit == tip && candidate.settings == settings
    };
    if candidates.iter().filter(fits).any(|c| c.live) {
        return Action::Nothing;
    }
    match candidates.iter().filter(fits).map(|c| c.n).max() {
        Some(n) => Action::Flip(n),
        None => Action::Build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn candidate(n: u64, digit: char) -> Candidate<'static> {
        Candidate {
            n,
            commit: commit(digit),
            settings: "s",
            sound: true,
            live: false,
        }
    }

    #[test]
    fn a_live_sound_tree_of_the_tip_needs_nothing() {
        let live = Candidate {
            live: true,
            ..candidate(1, 'a')
        };
        assert_eq!(
            decide(commit('a'), "s", &[live, candidate(2, 'a')]),
            Action::Nothing
        );
    }

    #[test]
    fn a_tree_of_the_tip_that_is_still_there_is_flipped_to() {
        let live = Candidate {
            live: true,
            ..candidate(3, 'b')
        };
        let disk = [candidate(1, 'a'), candidate(2, 'a'), live];
        assert_eq!(decide(commit('a'), "s", &disk), Action::Flip(2));
    }

    #[test]
    fn another_commit_other_settings_or_damage_need_a_new_tree() {
        let live = Candidate {
            live: true,
            ..candidate(1, 'a')
        };
        let damaged = Candidate {
            sound: false,
            ..live
        };
        assert_eq!(decide(commit('b'), "s", &[live]), Action::Build);
        assert_eq!(decide(commit('a'), "t", &[live]), Action::Build);
        assert_eq!(decide(commit('a'), "s", &[damaged]), Action::Build);
        assert_eq!(decide(commit('a'), "s", &[]), Action::Build);
    }
}
