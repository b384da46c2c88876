//! The object store: a bare repository on the volume with as much history as the configured depth.
//!
//! Packs arrive through [`Receiving`]. A file `refs/gvr/<commit>` records that a commit arrived with
//! its whole tree. [`Store::maintain`] bounds the number and size of the packs and the length of
//! `shallow`. Everything in the store can be fetched again, so a damaged store is deleted and not
//! repaired.
//!
//! The store does not talk to remotes and does not write trees. It keeps no repository open: each
//! reader opens [`Store::path`] and sees the packs that exist at that time.

mod copy;
mod directory;
mod indexing;
mod maintain;
mod needed;
mod objects;
mod pack_writer;
mod packs;
mod receive;
mod rewrite;
mod selection;
mod state;
mod summary;
mod tags;
mod thin;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use git2::{Repository, RepositoryInitOptions};

use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

use directory::{remove_files, remove_if_present, replace};
use objects::{has_root, has_whole_tree};
use state::MaintenanceState;

pub use maintain::{Borrower, Maintained};
pub use receive::Receiving;
pub use summary::CommitInfo;

/// The store of one root.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    maintenance: Mutex<MaintenanceState>,
}

const TIPS: &str = "refs/gvr";
/// The remote's tags, if `.git` directories need them; the store writes no other packed refs.
const PACKED_REFS: &str = "packed-refs";
const SHALLOW: &str = "shallow";

/// For building packs: bounded memory, one thread, no deltas of large objects.
const SETTINGS: [(&str, &str); 7] = [
    ("core.bigFileThreshold", "8388608"),
    ("core.logAllRefUpdates", "false"),
    ("gc.auto", "0"),
    ("pack.deltaCacheSize", "8388608"),
    ("pack.threads", "1"),
    ("pack.windowMemory", "33554432"),
    ("receive.autogc", "false"),
];

impl Store {
    /// Opens the store. Creates it if it is missing, replaces it by an empty one if it is unusable,
    /// and removes the leftovers of interrupted fetches.
    ///
    /// # Errors
    /// Stage `start`: a new store cannot be written.
    pub fn open(path: &Path) -> Result<Self, SyncError> {
        let store = Self {
            path: path.to_owned(),
            maintenance: Mutex::default(),
        };
        if fs::symlink_metadata(path).is_err() {
            store.create()?;
        } else if let Err(why) = store.heal() {
            tracing::warn!(
                store = %path.display(),
                %why,
                "the object store is unusable; replacing it by an empty one"
            );
            store.wipe()?;
        }
        Ok(store)
    }

    /// The bare repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes a damaged store and creates an empty one.
    ///
    /// # Errors
    /// Stage `start`: the old store cannot be removed, or the new one cannot be written.
    pub fn wipe(&self) -> Result<(), SyncError> {
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        removed.map_err(|cause| SyncError::disk(Stage::Start, "remove", &self.path, cause))?;
        *self.maintenance() = MaintenanceState::default();
        self.create()
    }

    /// Whether the store has the commit and every object of its tree.
    ///
    /// This is cheap for commits that were fetched. For a commit that arrived as part of another
    /// one's history every object of its tree is looked up, because maintenance may have dropped
    /// some.
    pub fn contains(&self, commit: Commit) -> bool {
        let Ok(repository) = self.repository() else {
            return false;
        };
        if !has_root(&repository, commit) {
            return false;
        }
        self.tip_path(commit).is_file() || has_whole_tree(&repository, commit)
    }

    /// Whether every pack has the checksum that it ends with. This reads all of them.
    ///
    /// # Errors
    /// Stage `build`: a pack cannot be read, or the budget ends.
    pub fn has_whole_packs(&self, budget: &Budget) -> Result<bool, SyncError> {
        let directory = self.pack_dir();
        let failed = |cause| SyncError::disk(Stage::Build, "read", &directory, cause);
        for pack in packs::list(&directory).map_err(failed)? {
            let path = directory.join(format!("{}.pack", pack.name));
            let whole = packs::is_whole(&path, budget)
                .map_err(failed)?
                .map_err(|cause| SyncError::interrupted(Stage::Build, "checking packs", cause))?;
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The commits whose whole trees the store has: the `have` lines of a fetch.
    pub fn haves(&self) -> Vec<Commit> {
        let Ok(repository) = self.repository() else {
            return Vec::new();
        };
        let mut haves = self.tips();
        haves.retain(|commit| has_root(&repository, *commit));
        haves
    }

    /// The commits whose parents the store does not have (gitformat-shallow).
    pub fn shallow(&self) -> Vec<Commit> {
        boundary_of(&self.path).into_iter().collect()
    }

    /// Opens the repository anew: a handle that is kept does not notice packs that were removed.
    fn repository(&self) -> Result<Repository, git2::Error> {
        Repository::open_bare(&self.path)
    }

    fn create(&self) -> Result<(), SyncError> {
        let failed = |cause: git2::Error| {
            SyncError::new(
                Stage::Start,
                Reason::Disk,
                format!("cannot create the object store {}", self.path.display()),
            )
            .with_source(cause)
        };
        let mut options = RepositoryInitOptions::new();
        options
            .bare(true)
            .external_template(false)
            .initial_head("main");
        Repository::init_opts(&self.path, &options).map_err(failed)?;
        self.configure().map_err(failed)
    }

    fn configure(&self) -> Result<(), git2::Error> {
        let mut config = git2::Config::open(&self.path.join("config"))?;
        for (key, value) in SETTINGS {
            if config.get_string(key).ok().as_deref() != Some(value) {
                config.set_str(key, value)?;
            }
        }
        Ok(())
    }

    /// Removes leftovers; fails with the reason if the store is unusable.
    fn heal(&self) -> Result<(), String> {
        let text = |cause: io::Error| cause.to_string();
        for needed in ["objects", "refs"] {
            if !self.path.join(needed).is_dir() {
                return Err(format!("{needed} is missing"));
            }
        }
        // The store never writes an empty `shallow`, so a power cut has truncated it.
        if fs::metadata(self.path.join(SHALLOW)).is_ok_and(|metadata| metadata.len() == 0) {
            return Err("the shallow boundary is lost".to_owned());
        }
        for directory in ["", "objects/info", TIPS] {
            remove_files(&self.path.join(directory), |path, metadata| {
                let is_lock = path.extension().is_some_and(|e| e == "lock");
                is_lock || (directory == TIPS && metadata.len() == 0)
            })
            .map_err(text)?;
        }
        packs::sweep(&self.pack_dir()).map_err(text)?;
        self.repository()
            .map_err(|error| error.message().to_owned())?;
        self.configure().map_err(|error| error.message().to_owned())
    }

    fn pack_dir(&self) -> PathBuf {
        self.path.join("objects/pack")
    }

    fn tip_path(&self, commit: Commit) -> PathBuf {
        self.path.join(TIPS).join(commit.to_string())
    }

    fn tips(&self) -> Vec<Commit> {
        let Ok(entries) = fs::read_dir(self.path.join(TIPS)) else {
            return Vec::new();
        };
        let mut tips: Vec<Commit> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        tips.sort_unstable();
        tips
    }

    fn add_tip(&self, commit: Commit) -> io::Result<()> {
        fs::create_dir_all(self.path.join(TIPS))?;
        replace(&self.tip_path(commit), format!("{commit}\n").as_bytes())
    }

    fn write_shallow(&self, boundary: &BTreeSet<Commit>) -> io::Result<()> {
        let path = self.path.join(SHALLOW);
        if boundary.is_empty() {
            return remove_if_present(&path);
        }
        let lines: String = boundary.iter().map(|c| format!("{c}\n")).collect();
        replace(&path, lines.as_bytes())
    }
}

/// The commits in the `shallow` file of a git directory; none if there is no such file.
pub fn boundary_of(git_dir: &Path) -> BTreeSet<Commit> {
    let text = fs::read_to_string(git_dir.join(SHALLOW)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
