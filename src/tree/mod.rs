//! From a commit in the store to files in a directory: what `git checkout` would write, in parallel.
//!
//! [`build`] fills an empty directory and writes its manifest. What did not change since a base
//! revision is hard-linked from it; a sub-tree with the same object id costs its links and nothing
//! else, because the base's manifest stands in for the objects. A [`Spare`] has even these links made
//! ahead. Everything is written relative to directory descriptors, never through a symbolic link, and a
//! descriptor is held only for the directories being worked on, so that neither depth nor width of a
//! tree exhausts them.
//!
//! Memory: each worker holds the blob that it writes. A blob of more than 8 MiB is streamed out of
//! its pack instead, by pieces of 256 KiB. libgit2 cannot do that, and is left with the large blobs
//! that are stored as deltas, are loose, or are converted: those are in memory whole (a delta with
//! its base), one at a time, whatever `jobs` says.
//!
//! This module fetches nothing, publishes nothing and removes nothing; after an error the
//! directory is debris that its owner sweeps. It does not run filters (`filter=lfs` and others):
//! such files hold what the repository holds, and are reported. It makes nothing durable: whoever
//! seals the revision does.

mod attributes;
mod changed;
mod conversion;
mod convert;
mod encoding;
mod files;
mod git_dir;
mod gitmodules;
mod names;
mod objects;
mod sparse;
pub mod submodules;
mod write;

pub use changed::changed_under;
pub use gitmodules::{BadLine, Module, parse as parse_gitmodules};
pub use sparse::Sparse;
pub use submodules::Submodule;
pub use write::Spare;

use std::path::Path;

use git2::{ConfigLevel, ObjectType, Oid};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::SyncError;

/// How a file that did not change comes from the base revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// By a hard link: no disk space, and one inode for both revisions.
    #[default]
    Hardlink,
    /// By a copy that shares its extents (FICLONE), where the file system has that.
    Reflink,
    /// Not at all: every file is written from the store.
    None,
}

/// Which submodules are populated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubmoduleMode {
    /// All, and theirs.
    #[default]
    Recursive,
    /// Those of the repository itself.
    Shallow,
    /// None: each is an empty directory, as after a plain `git checkout`.
    Off,
}

/// What to write, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// Number of workers; 0 for as many as there are CPUs to use, the quota of the control group
    /// respected.
    pub jobs: usize,
    /// How unchanged files come from the base revision.
    pub share: Share,
    /// Whether the group may write files and directories.
    pub group_write: bool,
    /// Which submodules are populated.
    pub submodules: SubmoduleMode,
    /// The paths to write; all if `None`.
    pub sparse: Option<Sparse>,
    /// Whether to leave a `.git` directory, so that git commands work in the tree.
    pub git_dir: bool,
    /// How many commits of history the `.git` directory shows; 0 for all. Written down only: the
    /// store must hold them.
    pub depth: u32,
    /// Most bytes that the files of the tree may have together.
    pub max_bytes: Option<u64>,
    /// Most files, links and directories that the tree may have.
    pub max_files: Option<u64>,
}

/// One tree to build.
#[derive(Clone, Copy, Debug)]
pub struct BuildRequest<'a> {
    /// The bare repository that holds the objects, those of submodules too.
    pub store: &'a Path,
    /// The commit to show.
    pub commit: Commit,
    /// An existing, empty directory. With `git_dir`, the way from here to the store must still be
    /// the same after the tree has been moved to its final place.
    pub destination: &'a Path,
    /// The manifest to write; must not exist.
    pub manifest: &'a Path,
    /// A complete revision to share from.
    pub base: Option<Base<'a>>,
    /// A directory that a [`Spare`] of the base was made in with the same options, on the file system
    /// of the destination. It is taken apart.
    pub spare: Option<&'a Path>,
    /// What to write, and how.
    pub options: &'a TreeOptions,
}

/// A complete revision that unchanged files can be shared from.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// Its directory.
    pub tree: &'a Path,
    /// Its manifest.
    pub manifest: &'a Path,
}

/// What was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Files and links written from the store.
    pub files_written: u64,
    /// Files and links taken over from the base.
    pub files_shared: u64,
    /// Bytes of the files written.
    pub bytes_written: u64,
    /// Bytes of all files of the tree.
    pub bytes: u64,
    /// Files, links, directories and submodules of the tree.
    pub entries: u64,
    /// Why files that did not change could not be shared, if that happened.
    pub shared_fallback: Option<String>,
    /// What attributes asked for and could not be done, the first few: a filter or an encoding, the
    /// path that was met first, and how many more. Files in sub-trees that are shared whole were
    /// reported when they were first written.
    pub unfiltered: Vec<String>,
    /// Submodules that `.gitmodules` does not know: empty directories. The first few.
    pub unpopulated: Vec<String>,
}

/// Sets what libgit2 keeps for the whole process: no hashing of objects again on every read (they
/// were hashed when their pack arrived; zlib's checksum is still verified), no cache of objects
/// that are read once, no ownership checks (the volume may belong to another uid), and no
/// configuration from outside of a repository (there may be no HOME).
///
/// To be called once, before any thread uses libgit2.
pub fn tune_libgit2() {
    git2::opts::strict_hash_verification(false);
    git2::opts::enable_caching(false);
    // SAFETY: these write libgit2's globals without locking; the caller promises that no other
    // thread uses libgit2 yet.
    unsafe {
        // Neither fails: both only store a value.
        let _ = git2::opts::set_verify_owner_validation(false);
        for level in [
            ConfigLevel::ProgramData,
            ConfigLevel::System,
            ConfigLevel::XDG,
            ConfigLevel::Global,
        ] {
            let _ = git2::opts::set_search_path(level, "");
        }
    }
}

/// Fills the destination with the tree of the commit, and writes its manifest.
///
/// # Errors
/// Stage `build`; reason `hostile` for what git would refuse to check out, `limit` for more than
/// the options allow, `store` for an object that is missing or damaged (fetching again may help),
/// `disk` for the file system, `timeout` and `cancelled` for the budget.
pub fn build(request: &BuildRequest<'_>, budget: &Budget) -> Result<Built, SyncError> {
    let built = write::run(request, budget)?;
    if request.options.git_dir {
        git_dir::write(request, budget)?;
    }
    Ok(built)
}

/// What an object in the store is, if it is there and no commit: `tree`, `blob` or `tag`.
pub fn other_than_commit(store: &Path, object: Commit) -> Option<&'static str> {
    let objects = objects::Objects::open(store).ok()?;
    let (_, kind) = objects::header(&objects.odb().ok()?, object.oid()).ok()?;
    (kind != ObjectType::Commit).then(|| kind.str())
}

impl TreeOptions {
    /// Changes if and only if what readers see of a commit changes.
    pub fn fingerprint(&self) -> String {
        let history = match self.git_dir {
            true => format!("depth={}", self.depth),
            false => "none".to_owned(),
        };
        digest(&format!(
            "{} {} history={history}",
            self.selection(),
            self.modes(),
        ))
    }

    /// What decides which paths exist.
    fn selection(&self) -> String {
        let submodules = match self.submodules {
            SubmoduleMode::Recursive => "recursive",
            SubmoduleMode::Shallow => "shallow",
            SubmoduleMode::Off => "off",
        };
        let sparse = match &self.sparse {
            None => "all".to_owned(),
            Some(sparse) => hash(sparse.as_bytes()).to_string(),
        };
        format!("submodules={submodules},paths={sparse}")
    }

    /// What decides the permission bits.
    fn modes(&self) -> String {
        format!(
            "umask={:03o},group_write={}",
            files::umask(),
            self.group_write
        )
    }
}

fn digest(text: &str) -> String {
    hash(text.as_bytes()).to_string()
}

/// A hash in the form of an object id, for comparing what is not an object.
fn hash(bytes: &[u8]) -> Oid {
    // Fails only for object types that cannot be stored.
    Oid::hash_object(ObjectType::Blob, bytes).unwrap_or(Oid::ZERO_SHA1)
}
