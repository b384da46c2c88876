//! The links of the next tree, made before anybody knows what it will be.
//!
//! It only saves time: without them, or with half of them, the next tree is built all the same.

use std::path::{Path, PathBuf};

use tracing::debug;

use crate::budget::Budget;
use crate::tree::{self, Share, TreeOptions};

use super::Sync;
use super::disk::{Disk, Known};

/// Links to the files of a tree, for the one after it.
pub(super) struct Ahead {
    /// The revision of the files.
    of: u64,
    path: PathBuf,
    progress: Progress,
}

enum Progress {
    Filling(tree::Spare),
    Full,
    /// Not to be tried again for this revision.
    GivenUp,
}

impl Sync {
    /// Links the files of the newest tree for the tree after it, until the budget gives way. Returns
    /// whether something is left to do, which begins with housekeeping.
    pub fn link_ahead(&mut self, budget: &Budget) -> bool {
        let options = &self.target.tree;
        let Some(disk) = &mut self.disk else {
            return false;
        };
        if options.share != Share::Hardlink {
            return false;
        }
        let Some(newest) = disk.newest().cloned() else {
            return false;
        };
        let n = newest.revision.n;
        if disk.ahead.as_ref().is_some_and(|ahead| ahead.of != n) {
            // Its revision was removed just now. To leave it to make_spare() would leave the files
            // in the trash, on the disk, until something else needs housekeeping.
            return true;
        }
        if disk.ahead.is_none() {
            disk.ahead = match Ahead::begin(disk, &newest, options) {
                Ok(ahead) => Some(ahead),
                Err(error) => {
                    debug!(%error, "nothing is linked ahead");
                    return false;
                }
            };
        }
        let Some(ahead) = &mut disk.ahead else {
            return false;
        };
        let Progress::Filling(spare) = &mut ahead.progress else {
            return false;
        };
        match spare.fill(&|| budget.check().is_ok() && !budget.gives_way()) {
            Ok(false) => true,
            Ok(true) => {
                debug!(commit = %newest.revision.commit, "linked ahead");
                ahead.progress = Progress::Full;
                false
            }
            Err(error) => {
                debug!(%error, "not linked ahead");
                ahead.progress = Progress::GivenUp;
                // A full disk has better uses for its last blocks.
                disk.drop_spares();
                true
            }
        }
    }
}

impl Ahead {
    fn begin(disk: &Disk, newest: &Known, options: &TreeOptions) -> std::io::Result<Self> {
        let path = disk.volume.make_spare(newest.revision.n)?;
        let spare = tree::Spare::begin(&newest.as_base(), &path, options)?;
        Ok(Self {
            of: newest.revision.n,
            path,
            progress: Progress::Filling(spare),
        })
    }

    /// The revision whose files are linked.
    pub fn of(&self) -> u64 {
        self.of
    }

    /// The spare, if its files are those of the revision that is built from.
    pub fn spare_of(&self, base: &Known) -> Option<&Path> {
        (self.of == base.revision.n).then_some(&*self.path)
    }
}
