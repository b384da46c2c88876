//! The tasks of the workers: each writes one directory, or a part of a large one.

use std::ops::Range;
use std::sync::Arc;

use git2::Oid;

use super::base::BaseDirectory;
use super::directory::Directory;
use crate::manifest::Block;
use crate::tree::attributes::Rules;
use crate::tree::submodules::Modules;

/// A directory to be written.
pub(super) struct Task {
    /// The number of its block in the manifest.
    pub(super) block: u32,
    pub(super) path: Vec<u8>,
    pub(super) parent: Option<Arc<Directory>>,
    pub(super) work: Work,
}

/// How a directory is written.
pub(super) enum Work {
    /// From its tree object.
    Tree(TreeWork),
    /// Some entries of a large tree object.
    Part(Arc<DirectoryPlan>, Part),
    /// Like the directory of the base, whose first block is `base`.
    Copy {
        base: u32,
        submodule: bool,
        /// Whether a directory above this one was moved here from the spare tree.
        prelinked: bool,
    },
    /// The next block of a large directory of the base.
    CopyPart {
        directory: Arc<Directory>,
        base: u32,
    },
}

/// A directory that is written from its tree object.
pub(super) struct TreeWork {
    pub(super) tree: Oid,
    /// `None` for the top directory of a repository.
    pub(super) repository: Option<Arc<RepositoryContext>>,
    /// How many superprojects the repository has.
    pub(super) level: usize,
    pub(super) rules: Option<Arc<Rules>>,
    pub(super) context: Oid,
    pub(super) included: bool,
    /// The first block of the same directory in the base.
    pub(super) base: Option<u32>,
}

/// The repository that a directory belongs to: the superproject or a submodule.
pub(super) struct RepositoryContext {
    pub(super) modules: Modules,
    /// Length of the path of its top directory, with a slash.
    pub(super) prefix: usize,
    /// How many superprojects it has.
    pub(super) level: usize,
}

/// A directory whose tree object was read.
pub(super) struct DirectoryPlan {
    pub(super) directory: Arc<Directory>,
    pub(super) tree: Vec<u8>,
    pub(super) repository: Arc<RepositoryContext>,
    pub(super) rules: Option<Arc<Rules>>,
    /// A hash of what sub-directories inherit.
    pub(super) context: Oid,
    /// Whether the sparse patterns include the directory itself.
    pub(super) included: bool,
    pub(super) base: Option<BaseDirectory>,
}

/// A range of a tree object that one task writes.
pub(super) struct Part {
    pub(super) bytes: Range<usize>,
    /// The block of the next part; zero for the last.
    pub(super) next: u32,
}

/// What a task produces besides files: records for the manifest, and tasks for sub-directories.
pub(super) struct TaskOutput {
    pub(super) block: Block,
    pub(super) tasks: Vec<Task>,
}
