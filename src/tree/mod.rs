//! Writes the files of a commit into a directory, as `git checkout` does, in parallel.
//!
//! [`build`] fills an empty directory and writes its manifest. Files that did not change since a base
//! revision are hard-linked from it. A sub-tree with the same object id costs only its links, because
//! the base's manifest has everything that its objects would tell. A [`Spare`] makes these links
//! before the update. All paths are relative to directory descriptors and no symbolic link is
//! followed. Only directories that are being worked on have open descriptors, so neither the depth
//! nor the width of a tree exhausts them.
//!
//! Memory: each worker holds the blob that it writes. A blob of more than 8 MiB is streamed out of
//! its pack in pieces of 256 KiB, if a pack holds it whole and it is written unconverted. Other large
//! blobs (deltas, loose objects, converted files) are read by libgit2, which holds the whole blob and
//! for a delta its base; of these only one is in memory at a time, for any number of workers. A
//! converted file is not held: it is written in pieces while its blob is converted.
//!
//! This module does not fetch, publish or remove anything; after an error the caller removes the
//! directory. It does not run filters (`filter=lfs` and others): such files are written as they are
//! in the repository, and are reported. It does not sync files; sealing the revision does that.

pub mod attributes;
mod changed;
mod changes;
mod conversion;
mod convert;
mod effort;
mod encoding;
mod files;
mod git_dir;
mod gitmodules;
mod glob;
mod names;
pub mod nested;
mod objects;
mod sparse;
pub mod submodules;
mod write;

pub use changed::changed_under;
pub use changes::{Change, changes};
pub use effort::Effort;
pub use gitmodules::{BadLine, Module, parse as parse_gitmodules};
pub use sparse::Sparse;
pub use submodules::Submodule;
pub use write::Spare;

use std::path::Path;

use git2::{ConfigLevel, ObjectType, Oid};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::SyncError;

/// How an unchanged file is taken from the base revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// By a hard link: no disk space, and one inode for both revisions.
    #[default]
    Hardlink,
    /// By a copy that shares its extents (FICLONE), if the file system supports that.
    Reflink,
    /// Not at all: every file is written from the store.
    None,
}

/// Which submodules are populated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubmoduleMode {
    /// All submodules, and their submodules.
    #[default]
    Recursive,
    /// Only the submodules of the repository itself.
    Shallow,
    /// None: each is an empty directory, as after a plain `git checkout`.
    Off,
}

/// Which files to write, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// Number of workers; 0 for the number of CPUs, limited by the quota of the control group.
    pub jobs: usize,
    /// How unchanged files are taken from the base revision.
    pub share: Share,
    /// Whether the group may write files and directories.
    pub group_write: bool,
    /// Which submodules are populated.
    pub submodules: SubmoduleMode,
    /// The paths to write; all if `None`.
    pub sparse: Option<Sparse>,
    /// Whether to write a `.git` directory, so that git commands work in the tree.
    pub git_dir: bool,
    /// How many commits of history the `.git` directory shows; 0 for all. Only the fingerprint
    /// depends on it: the store must hold these commits.
    pub depth: u32,
    /// The most bytes that all files of the tree may have together.
    pub max_bytes: Option<u64>,
    /// The most files, links and directories that the tree may have.
    pub max_files: Option<u64>,
}

/// One tree to build.
#[derive(Clone, Copy, Debug)]
pub struct BuildRequest<'a> {
    /// The bare repository with the objects, including those of submodules.
    pub store: &'a Path,
    /// The commit whose tree is written.
    pub commit: Commit,
    /// An existing, empty directory. With `git_dir`, the relative path from here to the store must
    /// not change when the tree is moved to its final place.
    pub destination: &'a Path,
    /// The manifest to write; must not exist.
    pub manifest: &'a Path,
    /// A complete revision to share from.
    pub base: Option<Base<'a>>,
    /// A directory that a [`Spare`] filled from the same base with the same options, on the file
    /// system of the destination. The build moves directories out of it.
    pub spare: Option<&'a Path>,
    /// Which files to write, and how.
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
    /// Files and links shared with the base.
    pub files_shared: u64,
    /// Bytes of the files written.
    pub bytes_written: u64,
    /// Bytes of all files of the tree.
    pub bytes: u64,
    /// Files, links, directories and submodules of the tree.
    pub entries: u64,
    /// Why unchanged files could not be shared, if that happened.
    pub shared_fallback: Option<String>,
    /// Attributes that were not applied, at most 20: a filter or an encoding, the first path, and the
    /// number of further paths. Files in sub-trees that are shared whole were reported when they were
    /// written.
    pub unfiltered: Vec<String>,
    /// Submodules without an entry in `.gitmodules`, at most 20. Their directories are empty.
    pub unpopulated: Vec<String>,
}

/// Sets libgit2's process-wide options: objects are not hashed on every read (they were hashed when
/// their pack arrived, and zlib's checksum is still verified), objects are not cached (they are read
/// once), the owner of a repository is not checked (the volume may belong to another uid), and no
/// configuration from outside a repository is read (there may be no HOME).
///
/// Call it once, before any thread uses libgit2.
pub fn tune_libgit2() {
    git2::opts::strict_hash_verification(false);
    git2::opts::enable_caching(false);
    // SAFETY: these write libgit2's globals without locking; the caller promises that no other
    // thread uses libgit2 yet.
    unsafe {
        // Both calls only store a value, so they cannot fail.
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
/// Stage `build`. Reason `hostile`: git would refuse to check the tree out; `limit`: the tree exceeds
/// the options; `store`: an object is missing or damaged (fetching again may help); `disk`: the file
/// system failed; `timeout` or `cancelled`: the budget ended.
pub fn build(request: &BuildRequest<'_>, budget: &Budget) -> Result<Built, SyncError> {
    let built = write::run(request, budget)?;
    if request.options.git_dir {
        git_dir::write(request, budget)?;
    }
    Ok(built)
}

/// The type of an object in the store, if it exists and is not a commit: `tree`, `blob` or `tag`.
pub fn other_than_commit(store: &Path, object: Commit) -> Option<&'static str> {
    let objects = objects::Objects::open(store).ok()?;
    let (_, kind) = objects::header(&objects.odb().ok()?, object.oid()).ok()?;
    (kind != ObjectType::Commit).then(|| kind.str())
}

impl TreeOptions {
    /// A hash of the options that affect what readers see of a commit.
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

    /// The options that decide which paths exist.
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

    /// The options that decide the permission bits.
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

/// A hash in the form of an object id, for comparing settings and contexts.
fn hash(bytes: &[u8]) -> Oid {
    // hash_object() fails only for object types that cannot be stored.
    Oid::hash_object(ObjectType::Blob, bytes).unwrap_or(Oid::ZERO_SHA1)
}
