//! What is left to do: one directory, or a part of one.

use std::ops::Range;
use std::sync::Arc;

use git2::Oid;

use super::Build;
use super::base::BaseDirectory;
use super::directory::Directory;
use crate::base::error::SyncError;
use crate::tree::attributes::Rules;
use crate::tree::submodules::Modules;

/// A directory to be made.
pub(super) struct Task {
    /// The number of its block in the manifest.
    pub(super) block: u32,
    pub(super) path: Vec<u8>,
    pub(super) parent: Option<Arc<Directory>>,
    pub(super) work: Work,
}

pub(super) enum Work {
    Tree(TreeWork),
    Part(Arc<Plan>, Part),
    /// As the base has it, from the base's block.
    Copy {
        base: u32,
        submodule: bool,
        /// Whether a directory around this one came from the spare.
        prelinked: bool,
    },
    /// The rest of a large directory of the base.
    CopyPart {
        directory: Arc<Directory>,
        base: u32,
    },
}

pub(super) struct TreeWork {
    pub(super) tree: Oid,
    /// `None` at the top of a repository.
    pub(super) repository: Option<Arc<Repository>>,
    /// How many repositories are around this one.
    pub(super) level: usize,
    pub(super) rules: Option<Arc<Rules>>,
    pub(super) context: Oid,
    pub(super) included: bool,
    pub(super) base: Option<u32>,
}

/// The repository, of several where there are submodules, that a directory belongs to.
pub(super) struct Repository {
    pub(super) modules: Modules,
    /// Length of the path of its top with a slash.
    pub(super) prefix: usize,
    pub(super) level: usize,
}

/// A directory whose tree is in memory.
pub(super) struct Plan {
    pub(super) directory: Arc<Directory>,
    pub(super) tree: Vec<u8>,
    pub(super) repository: Arc<Repository>,
    pub(super) rules: Option<Arc<Rules>>,
    /// What the directories in this one inherit.
    pub(super) context: Oid,
    pub(super) included: bool,
    pub(super) base: Option<BaseDirectory>,
}

pub(super) struct Part {
    pub(super) bytes: Range<usize>,
    /// The block of the next part; zero for the last.
    pub(super) next: u32,
}

impl Build<'_> {
    /// The task that begins it all.
    pub(super) fn root_task(&self, tree: Oid) -> Result<Task, SyncError> {
        let unchanged = self
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection && base.manifest.header.tree == tree);
        let work = if unchanged {
            Work::Copy {
                base: 0,
                submodule: false,
                prelinked: false,
            }
        } else {
            Work::Tree(TreeWork {
                tree,
                repository: None,
                level: 0,
                rules: None,
                context: Oid::ZERO_SHA1,
                included: self.options.sparse.is_none(),
                base: self.base.as_ref().map(|_| 0),
            })
        };
        Ok(Task {
            block: 0,
            path: Vec::new(),
            parent: None,
            work,
        })
    }
}
