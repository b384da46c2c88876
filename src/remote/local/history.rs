//! Which commits of a local repository a fetch sends.
//!
//! Commits are parsed by [`CommitObject`] and not by libgit2, which refuses some that `git clone`
//! accepts. Nothing here looks at trees.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};

use git2::{Error, ErrorClass, ErrorCode, ObjectType, Odb, Oid};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::pack::CommitObject;
use crate::remote::upstream::FetchRequest;

/// The part of the history that a request asks for.
pub(super) struct Chosen {
    /// Parents before children. Includes commits that the store has.
    pub commits: Vec<Oid>,
    /// Commits whose parents are left out.
    pub boundary: Vec<Commit>,
}

/// What the walks need of a commit.
#[derive(Clone, Debug)]
pub(super) struct Links {
    pub tree: Oid,
    pub parents: Vec<Oid>,
    /// Seconds since 1970.
    time: i64,
}

/// Reads a commit; fails also when the budget ends.
pub(super) fn links(odb: &Odb<'_>, id: Oid, budget: &Budget) -> Result<Links, Error> {
    if budget.check().is_err() {
        return Err(Error::from_str("interrupted"));
    }
    let object = odb.read(id)?;
    let parsed = match object.kind() {
        ObjectType::Commit => CommitObject::parse(object.data()),
        _ => None,
    };
    parsed
        .map(|commit| Links {
            tree: commit.tree,
            time: commit.time.seconds(),
            parents: commit.parents,
        })
        .ok_or_else(|| {
            let text = format!("{id} is not a commit or is malformed");
            Error::new(ErrorCode::Invalid, ErrorClass::Object, text)
        })
}

/// The commits at most `depth - 1` steps from the tip.
pub(super) fn within_depth(
    odb: &Odb<'_>,
    tip: Oid,
    request: &FetchRequest<'_>,
    source_boundary: &HashSet<Oid>,
    budget: &Budget,
) -> Result<Chosen, Error> {
    let mut seen = HashSet::from([tip]);
    let mut commits = Vec::new();
    let mut boundary = Vec::new();
    let mut level = vec![tip];
    let mut left = request.depth;
    // The depth may be 2^31 and the history short.
    while left > 0 && !level.is_empty() {
        left -= 1;
        let mut next = Vec::new();
        for id in level {
            commits.push(id);
            let parents = links(odb, id, budget)?.parents;
            let cut = source_boundary.contains(&id) || parents.iter().any(|p| !odb.exists(*p));
            if cut || (left == 0 && !parents.is_empty()) {
                boundary.push(id.into());
            } else {
                next.extend(parents.into_iter().filter(|parent| seen.insert(*parent)));
            }
        }
        level = next;
    }
    commits.reverse();
    Ok(Chosen { commits, boundary })
}

/// All commits that the store does not have; all commits at all if the store is shallow.
pub(super) fn whole_history(
    odb: &Odb<'_>,
    tip: Oid,
    request: &FetchRequest<'_>,
    source_boundary: &HashSet<Oid>,
    budget: &Budget,
) -> Result<Chosen, Error> {
    let haves: Vec<Oid> = match request.shallow.is_empty() {
        true => request.haves.iter().map(Commit::oid).collect(),
        false => Vec::new(),
    };
    let new = new_commits(odb, tip, &haves, source_boundary, budget)?;
    let commits = parents_first(&new, tip);
    let boundary = commits
        .iter()
        .filter(|id| source_boundary.contains(id))
        .map(|id| Commit::from(*id))
        .collect();
    Ok(Chosen { commits, boundary })
}

/// The commits that lead to `tip` and to none of `haves`, and their links.
///
/// As git does, walks from the newest commit to the oldest, until only commits that the store has
/// are left. Where dates are wrong, a few commits that the store has may be among the result.
fn new_commits(
    odb: &Odb<'_>,
    tip: Oid,
    haves: &[Oid],
    source_boundary: &HashSet<Oid>,
    budget: &Budget,
) -> Result<HashMap<Oid, Links>, Error> {
    let mut held: HashSet<Oid> = HashSet::new();
    let mut known: HashMap<Oid, Links> = HashMap::new();
    let mut queue: BinaryHeap<(i64, Oid)> = BinaryHeap::new();
    for have in haves.iter().filter(|have| odb.exists(**have)) {
        held.insert(*have);
        let found = links(odb, *have, budget)?;
        queue.push((found.time, *have));
        known.insert(*have, found);
    }
    // Commits in the queue that the store is not known to have.
    let mut new_in_queue = 0;
    if !held.contains(&tip) {
        let found = links(odb, tip, budget)?;
        queue.push((found.time, tip));
        known.insert(tip, found);
        new_in_queue = 1;
    }
    let mut done = HashSet::new();
    while new_in_queue > 0 {
        let Some((_, id)) = queue.pop() else { break };
        let is_held = held.contains(&id);
        new_in_queue -= usize::from(!is_held);
        done.insert(id);
        if source_boundary.contains(&id) {
            continue;
        }
        let parents = known.get(&id).map(|links| links.parents.clone());
        for parent in parents.unwrap_or_default() {
            if is_held && held.insert(parent) {
                match (known.contains_key(&parent), done.contains(&parent)) {
                    // It was passed as a new one, so what is above it is marked, too.
                    (true, true) => {
                        queue.push((known[&parent].time, parent));
                        continue;
                    }
                    (true, false) => {
                        new_in_queue -= 1;
                        continue;
                    }
                    _ => {}
                }
            }
            if let Entry::Vacant(entry) = known.entry(parent) {
                let found = links(odb, parent, budget)?;
                queue.push((found.time, parent));
                entry.insert(found);
                new_in_queue += usize::from(!held.contains(&parent));
            }
        }
    }
    known.retain(|id, _| !held.contains(id));
    Ok(known)
}

/// The commits that lead to `tip`, each after its parents.
fn parents_first(commits: &HashMap<Oid, Links>, tip: Oid) -> Vec<Oid> {
    let mut ordered = Vec::with_capacity(commits.len());
    let mut seen = HashSet::new();
    // Each commit with the number of its parents that were looked at.
    let mut path: Vec<(Oid, usize)> = Vec::new();
    if commits.contains_key(&tip) {
        seen.insert(tip);
        path.push((tip, 0));
    }
    while let Some((id, looked_at)) = path.last_mut() {
        let parent = commits
            .get(id)
            .and_then(|links| links.parents.get(*looked_at));
        match parent {
            Some(parent) => {
                *looked_at += 1;
                if commits.contains_key(parent) && seen.insert(*parent) {
                    path.push((*parent, 0));
                }
            }
            None => {
                ordered.push(*id);
                path.pop();
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::Repository;
    use std::time::Duration;

    /// A history whose commits are numbered; each is made from its parents and its time.
    fn history(commits: &[(&[usize], i64)]) -> (tempfile::TempDir, Repository, Vec<Oid>) {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(dir.path()).unwrap();
        let odb = repository.odb().unwrap();
        let mut ids: Vec<Oid> = Vec::new();
        for (n, (parents, time)) in commits.iter().enumerate() {
            let mut text = format!("tree {}\n", Oid::ZERO_SHA1);
            for parent in *parents {
                text += &format!("parent {}\n", ids[*parent]);
            }
            // An author line that libgit2 refuses.
            text += &format!("author A\ncommitter C <c@x> {time} +0000\n\n{n}\n");
            ids.push(odb.write(ObjectType::Commit, text.as_bytes()).unwrap());
        }
        drop(odb);
        (dir, repository, ids)
    }

    fn sent(repository: &Repository, ids: &[Oid], tip: usize, haves: &[usize]) -> Vec<usize> {
        let budget = Budget::new(Duration::MAX, Duration::MAX, std::sync::Arc::default());
        let haves: Vec<Oid> = haves.iter().map(|have| ids[*have]).collect();
        let odb = repository.odb().unwrap();
        let new = new_commits(&odb, ids[tip], &haves, &HashSet::new(), &budget).unwrap();
        parents_first(&new, ids[tip])
            .iter()
            .map(|id| ids.iter().position(|known| known == id).unwrap())
            .collect()
    }

    #[test]
    fn only_commits_that_the_store_lacks_are_sent_and_parents_come_first() {
        // 0 - 1 - 2 - 5 (merge of 2 and 4), and 1 - 3 - 4.
        let graph: [(&[usize], i64); 6] = [
            (&[], 1),
            (&[0], 2),
            (&[1], 3),
            (&[1], 4),
            (&[3], 5),
            (&[2, 4], 6),
        ];
        let (_dir, repository, ids) = history(&graph);
        assert_eq!(sent(&repository, &ids, 5, &[]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(sent(&repository, &ids, 5, &[2]), [3, 4, 5]);
        assert_eq!(sent(&repository, &ids, 5, &[2, 3]), [4, 5]);
        assert_eq!(sent(&repository, &ids, 5, &[5]), [0; 0]);
        assert_eq!(sent(&repository, &ids, 2, &[5]), [0; 0]);
    }

    #[test]
    fn wrong_dates_send_more_and_never_less() {
        let graph: [(&[usize], i64); 5] = [(&[], 9), (&[0], 1), (&[1], 0), (&[2], 50), (&[1], 60)];
        let (_dir, repository, ids) = history(&graph);
        for tip in [3, 4] {
            for have in 0..4 {
                let sent = sent(&repository, &ids, tip, &[have]);
                let without = [&[0][..], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3]][have];
                let all = [&[0, 1, 2, 3][..], &[0, 1, 4]][tip - 3];
                for needed in all.iter().filter(|n| !without.contains(n)) {
                    assert!(sent.contains(needed), "{tip} {have}: {sent:?}");
                }
            }
        }
    }
}
