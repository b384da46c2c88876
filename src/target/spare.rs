//! The spare tree: links to the files of the newest tree, made while nothing happens, which the next
//! build moves into place.
//!
//! It only saves time: without a spare tree, or with half of one, the next tree is built all the
//! same.

use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use super::Syncer;
use super::trees::{KnownTree, Trees};
use crate::base::budget::Budget;
use crate::tree::{self, Share, TreeOptions};

/// The spare tree of one revision.
pub(super) struct SpareTree {
    /// The revision whose files are linked.
    of: u64,
    links: Links,
}

enum Links {
    Begun(PathBuf, tree::Spare),
    Made(PathBuf),
    /// They cannot be made for this revision.
    None,
}

impl Syncer {
    /// Links the files of the newest tree for the tree after it, until the budget gives way. Returns
    /// whether something is left to do, which begins with housekeeping.
    pub(super) fn fill_spare(&mut self, budget: &Budget) -> bool {
        let Some(trees) = &mut self.trees else {
            return false;
        };
        if self.settings.tree.share != Share::Hardlink {
            return false;
        }
        let Some(newest) = trees.newest().cloned() else {
            return false;
        };
        let of = newest.revision.n;
        let links = match trees.spare.take() {
            Some(spare) if spare.of == of => Ok(spare.links),
            None => Links::begin(trees, &newest, &self.settings.tree),
            // The revision was removed, and its files take up the disk until the links to them are
            // removed as well.
            stale => {
                trees.spare = stale;
                return true;
            }
        };
        let go_on = || budget.check().is_ok() && !budget.gives_way();
        let (links, more) = match links.and_then(|links| links.make(&go_on)) {
            Ok(links) => {
                let more = matches!(links, Links::Begun(..));
                (links, more)
            }
            Err(error) => {
                debug!(%error, "not linked ahead");
                // On a full disk, the next tree needs the last blocks more than the spare does.
                trees.drop_spares();
                (Links::None, true)
            }
        };
        trees.spare = Some(SpareTree { of, links });
        more
    }
}

impl SpareTree {
    /// The revision whose files are linked.
    pub fn of(&self) -> u64 {
        self.of
    }

    /// Where the links are, if they lead to the files of `base`.
    pub fn path_for(&self, base: &KnownTree) -> Option<&Path> {
        match &self.links {
            Links::Begun(path, _) | Links::Made(path) if self.of == base.revision.n => Some(path),
            _ => None,
        }
    }
}

impl Links {
    fn begin(trees: &Trees, newest: &KnownTree, options: &TreeOptions) -> io::Result<Self> {
        let path = trees.volume.make_spare(newest.revision.n)?;
        let spare = tree::Spare::begin(&newest.as_base(), &path, options)?;
        Ok(Self::Begun(path, spare))
    }

    fn make(self, go_on: &dyn Fn() -> bool) -> io::Result<Self> {
        let Self::Begun(path, mut spare) = self else {
            return Ok(self);
        };
        if !spare.fill(go_on)? {
            return Ok(Self::Begun(path, spare));
        }
        debug!(path = %path.display(), "linked ahead");
        Ok(Self::Made(path))
    }
}
