//! The links of the next tree, made before anybody knows what it will be.
//!
//! It only saves time: without them, or with half of them, the next tree is built all the same.

use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::base::budget::Budget;
use crate::tree::{self, Share, TreeOptions};

use super::Sync;
use super::disk::{Disk, Known};

/// Links to the files of a tree, for the one after it.
pub(super) struct Ahead {
    /// The revision of the files.
    of: u64,
    links: Links,
}

enum Links {
    Begun(PathBuf, tree::Spare),
    Made(PathBuf),
    /// They cannot be made for this revision.
    None,
}

impl Sync {
    /// Links the files of the newest tree for the tree after it, until the budget gives way. Returns
    /// whether something is left to do, which begins with housekeeping.
    pub fn link_ahead(&mut self, budget: &Budget) -> bool {
        let Some(disk) = &mut self.disk else {
            return false;
        };
        if self.target.tree.share != Share::Hardlink {
            return false;
        }
        let Some(newest) = disk.newest().cloned() else {
            return false;
        };
        let of = newest.revision.n;
        let links = match disk.ahead.take() {
            Some(ahead) if ahead.of == of => Ok(ahead.links),
            None => Links::begin(disk, &newest, &self.target.tree),
            // The revision was removed just now, and its files are on the disk until the links are
            // gone as well.
            stale => {
                disk.ahead = stale;
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
                // A full disk has better uses for its last blocks.
                disk.drop_spares();
                (Links::None, true)
            }
        };
        disk.ahead = Some(Ahead { of, links });
        more
    }
}

impl Ahead {
    /// The revision whose files are linked.
    pub fn of(&self) -> u64 {
        self.of
    }

    /// The spare, if its files are those of the revision that is built from.
    pub fn spare_of(&self, base: &Known) -> Option<&Path> {
        match &self.links {
            Links::Begun(path, _) | Links::Made(path) if self.of == base.revision.n => Some(path),
            _ => None,
        }
    }
}

impl Links {
    fn begin(disk: &Disk, newest: &Known, options: &TreeOptions) -> io::Result<Self> {
        let path = disk.volume.make_spare(newest.revision.n)?;
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
