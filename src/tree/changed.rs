//! Whether two commits differ in the watched paths.

use std::path::Path;

use git2::{Odb, Oid};

use super::objects::{self, EntryMode, Objects};
use super::sparse::Sparse;
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};

/// Whether any path that the patterns include differs between two commits of the store.
///
/// A `.gitattributes` above or within the watched paths counts as a difference too, because it may
/// change files without changing their blobs. Sub-trees with the same object id are not read.
/// Submodules are compared by their commit ids.
///
/// # Errors
/// Reason `store`: one of the commits or trees is not in the store. `timeout` or `cancelled`: the
/// budget ended.
pub fn changed_under(
    store: &Path,
    old: Commit,
    new: Commit,
    watched: &Sparse,
    budget: &Budget,
) -> Result<bool, SyncError> {
    let objects = Objects::open(store)?;
    let odb = objects.odb()?;
    let old = objects::tree_of_commit(&odb, old.oid())?;
    let new = objects::tree_of_commit(&odb, new.oid())?;
    let mut waiting = vec![(Vec::new(), Some(old), Some(new), false)];
    while let Some((path, old, new, included)) = waiting.pop() {
        if old == new {
            continue;
        }
        let (old, new) = (tree(&odb, old)?, tree(&odb, new)?);
        for difference in differences(&old, &new)? {
            budget.check().map_err(|cause| {
                SyncError::interrupted(Stage::Build, "comparing two commits", cause)
            })?;
            if difference.name == b".gitattributes" {
                return Ok(true);
            }
            let path = match path.as_slice() {
                [] => difference.name.to_vec(),
                above => [above, b"/", difference.name].concat(),
            };
            let is_tree = |side: Option<(EntryMode, Oid)>| {
                side.filter(|(mode, _)| *mode == EntryMode::Tree)
                    .map(|(_, id)| id)
            };
            let (old_tree, new_tree) = (is_tree(difference.old), is_tree(difference.new));
            if old_tree.is_some() || new_tree.is_some() {
                let below = watched.includes(&path, true, included);
                if below || watched.may_include_below(&path) {
                    waiting.push((path.clone(), old_tree, new_tree, below));
                }
            }
            let file = (difference.old.is_some() && old_tree.is_none())
                || (difference.new.is_some() && new_tree.is_none());
            if file && watched.includes(&path, false, included) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub(super) struct Difference<'a> {
    pub(super) name: &'a [u8],
    pub(super) old: Option<(EntryMode, Oid)>,
    pub(super) new: Option<(EntryMode, Oid)>,
}

pub(super) fn tree(odb: &Odb<'_>, id: Option<Oid>) -> Result<Vec<u8>, SyncError> {
    id.map_or(Ok(Vec::new()), |id| objects::tree(odb, id))
}

pub(super) fn differences<'a>(
    old: &'a [u8],
    new: &'a [u8],
) -> Result<Vec<Difference<'a>>, SyncError> {
    let mut sides = std::collections::BTreeMap::new();
    for (tree, is_new) in [(old, false), (new, true)] {
        let mut at = 0;
        while let Some(entry) = objects::next_entry(tree, &mut at) {
            let entry = entry?;
            let side: &mut (Option<_>, Option<_>) = sides.entry(entry.name).or_default();
            let value = Some((entry.mode, entry.id));
            if is_new {
                side.1 = value;
            } else {
                side.0 = value;
            }
        }
    }
    Ok(sides
        .into_iter()
        .filter(|(_, (old, new))| old != new)
        .map(|(name, (old, new))| Difference { name, old, new })
        .collect())
}
