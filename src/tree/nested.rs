//! The walk through nested submodules, each repository and commit once.
//!
//! A few small commits can name each other so that the tree has 10^14 submodules. The walk takes time
//! in proportion to the distinct commits and not to the paths, and counts the paths. It does not
//! fetch or list: its caller does.

use std::collections::HashMap;

use super::Submodule;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;

/// How deep submodules may nest; git has no limit.
pub const SUBMODULE_LEVELS: usize = 16;

/// The most submodules that a tree may have, nested ones included; git has no limit.
pub const SUBMODULE_LIMIT: u64 = 100_000;

/// What is below a submodule.
#[derive(Clone, Copy, Default)]
struct Below {
    submodules: u64,
    levels: usize,
}

/// Walks through `top`, the submodules of a commit, and theirs. `enter` is called once for each
/// commit of each URL, before those that it names, and returns the submodules of that commit.
///
/// # Errors
/// Reason `limit`: more than [`SUBMODULE_LEVELS`] levels, or more than [`SUBMODULE_LIMIT`]
/// submodules. Otherwise the error of `enter`.
pub fn walk(
    top: Vec<Submodule>,
    enter: &mut dyn FnMut(&Submodule) -> Result<Vec<Submodule>, SyncError>,
) -> Result<(), SyncError> {
    let mut walk = Walk {
        enter,
        known: HashMap::new(),
    };
    walk.below(top, 1).map(drop)
}

struct Walk<'a> {
    enter: &'a mut dyn FnMut(&Submodule) -> Result<Vec<Submodule>, SyncError>,
    /// By commit and printed URL: a printed URL lacks passwords and queries, which do not change what
    /// is in a commit.
    known: HashMap<(Commit, String), Below>,
}

impl Walk<'_> {
    /// Visits submodules at a level, counted from 1. The recursion ends at [`SUBMODULE_LEVELS`].
    fn below(&mut self, submodules: Vec<Submodule>, level: usize) -> Result<Below, SyncError> {
        let mut total = Below::default();
        for submodule in submodules {
            let path = submodule.path.to_string_lossy().into_owned();
            check_level(&path, level)?;
            let key = (submodule.commit, submodule.url.to_string());
            let below = match self.known.get(&key) {
                Some(below) => *below,
                None => {
                    let children = (self.enter)(&submodule)?;
                    let below = self.below(children, level + 1)?;
                    self.known.insert(key, below);
                    below
                }
            };
            check_level(&path, level + below.levels)?;
            total.levels = total.levels.max(below.levels + 1);
            total.submodules = total.submodules.saturating_add(below.submodules + 1);
            check_count(total.submodules)?;
        }
        Ok(total)
    }
}

/// Fails if a submodule is nested too deeply; a level is the number of superprojects above it.
pub(super) fn check_level(path: &str, level: usize) -> Result<(), SyncError> {
    if level <= SUBMODULE_LEVELS {
        return Ok(());
    }
    Err(refused(format!(
        "the submodules at {} are nested more than {SUBMODULE_LEVELS} levels deep",
        printable(path)
    )))
}

/// Fails if a tree has too many submodules.
pub(super) fn check_count(submodules: u64) -> Result<(), SyncError> {
    if submodules <= SUBMODULE_LIMIT {
        return Ok(());
    }
    Err(refused(format!(
        "the commit has more than {SUBMODULE_LIMIT} submodules, nested ones included"
    )))
}

fn refused(message: String) -> SyncError {
    SyncError::new(Stage::Build, Reason::Limit, message)
        .with_hint("set --submodules shallow or off, or exclude paths with --sparse-checkout-file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::repo_url::RepoUrl;

    fn submodules(count: usize, level: usize) -> Vec<Submodule> {
        (0..count)
            .map(|n| Submodule {
                path: format!("{n}").into(),
                url: RepoUrl::parse("https://h/x").unwrap(),
                commit: format!("{level:040x}").parse().unwrap(),
            })
            .collect()
    }

    /// Walks through levels of so many submodules each; returns how many were entered.
    fn entered(count: usize, levels: usize) -> (usize, Result<(), SyncError>) {
        let mut entered = 0;
        let mut level = 1;
        let result = walk(submodules(count, 1), &mut |_| {
            entered += 1;
            level += 1;
            Ok(match level <= levels {
                true => submodules(count, level),
                false => Vec::new(),
            })
        });
        (entered, result)
    }

    #[test]
    fn each_commit_is_entered_once_and_every_path_is_counted() {
        let (count, result) = entered(10, 4);
        assert_eq!(count, 4);
        result.unwrap();
        let (count, result) = entered(10, 14);
        assert_eq!(count, 14);
        let error = result.unwrap_err();
        assert_eq!(error.reason, Reason::Limit);
        assert!(error.to_string().contains("more than 100000"), "{error}");
    }

    #[test]
    fn sixteen_levels_are_walked_and_seventeen_are_refused() {
        entered(1, 16).1.unwrap();
        let (count, result) = entered(1, 1000);
        assert_eq!(count, 16);
        let error = result.unwrap_err();
        assert_eq!(error.reason, Reason::Limit);
        assert!(error.to_string().contains("16 levels"), "{error}");
    }

    #[test]
    fn random_graphs_are_entered_once_and_refused_exactly_beyond_the_limits() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..500 {
            // Edges lead to higher numbers, because no commit can name itself.
            let edges: Vec<(usize, usize)> = (0..random.usize(1..500))
                .map(|_| (random.usize(..24), random.usize(..24)))
                .filter(|(from, to)| from < to)
                .collect();
            let below = |commit: usize| -> Vec<Submodule> {
                let named = edges.iter().filter(|(from, _)| *from == commit);
                named.flat_map(|(_, to)| submodules(1, *to)).collect()
            };
            let mut entered = HashMap::new();
            let result = walk(below(0), &mut |submodule| {
                let id = submodule.commit.to_string();
                let number = usize::from_str_radix(&id[24..], 16).unwrap();
                *entered.entry(number).or_insert(0) += 1;
                Ok(below(number))
            });
            assert!(entered.values().all(|times| *times == 1));
            let (mut paths, mut levels) = ([0_u64; 24], [0; 24]);
            for from in (0..24).rev() {
                for (_, to) in edges.iter().filter(|edge| edge.0 == from) {
                    paths[from] += paths[*to] + 1;
                    levels[from] = levels[from].max(levels[*to] + 1);
                }
            }
            let fits = paths[0] <= SUBMODULE_LIMIT && levels[0] <= SUBMODULE_LEVELS;
            assert_eq!(result.is_ok(), fits, "{paths:?} {levels:?}");
            accepted += u32::from(fits);
            refused += u32::from(!fits);
        }
        assert!(accepted > 50 && refused > 5, "{accepted} {refused}");
    }
}
