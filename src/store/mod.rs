//! The object store: a bare repository on the volume, as shallow as the remote was asked for.
//!
//! Packs arrive through [`Receiving`]; `refs/gvr/<commit>` says which commits arrived with their
//! whole tree; [`Store::maintain`] keeps packs and `shallow` bounded. Everything in here can be
//! fetched again, so what cannot be read is thrown away rather than repaired.
//!
//! The store does not talk to remotes, does not write trees, and holds no repository open: whoever
//! reads objects opens [`Store::path`] and thereby sees the packs of that moment.

mod copy;
mod doomed;
mod indexing;
mod maintain;
mod needed;
mod output;
mod packs;
mod receive;
mod tags;
mod thin;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};

use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::excerpt;

pub use maintain::{Borrower, Maintained};
pub use receive::Receiving;

/// The store of one root.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    memory: Mutex<maintain::Memory>,
}

/// What a commit says about itself, safe to print and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The first line of the message.
    pub subject: String,
    /// The author's name, without the address.
    pub author: String,
    /// When it was committed.
    pub time: SystemTime,
}

/// The longest subject or author that is shown, in characters: git sets no limit.
const MAX_SHOWN: usize = 256;
const TIPS: &str = "refs/gvr";
/// The remote's tags, where anybody wants them; nothing else is in there.
const PACKED_REFS: &str = "packed-refs";
const SHALLOW: &str = "shallow";
/// The deepest nesting of trees that is walked; the writer of trees has a lower limit.
const MAX_DEPTH: usize = 16_384;

/// For building packs: bounded memory, one thread, no deltas of what is large.
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
    /// Opens the store, creating it when it is missing and starting afresh when it is unusable.
    /// What interrupted fetches left is removed.
    ///
    /// # Errors
    /// Stage `start`: the disk does not take a new store.
    pub fn open(path: &Path) -> Result<Self, SyncError> {
        let store = Self {
            path: path.to_owned(),
            memory: Mutex::default(),
        };
        if fs::symlink_metadata(path).is_err() {
            store.create()?;
        } else if let Err(why) = store.heal() {
            tracing::warn!(store = %path.display(), %why, "the object store is unusable: starting afresh");
            store.wipe()?;
        }
        Ok(store)
    }

    /// The bare repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Throws everything away: for a store that turned out to be damaged.
    ///
    /// # Errors
    /// Stage `start`: the disk does not let go of it, or does not take a new one.
    pub fn wipe(&self) -> Result<(), SyncError> {
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        removed.map_err(|cause| SyncError::disk(Stage::Start, "remove", &self.path, cause))?;
        *self.memory() = maintain::Memory::default();
        self.create()
    }

    /// Whether the commit is here with everything that its tree needs.
    ///
    /// Cheap for commits that were fetched; for others that happen to be here the whole tree is
    /// looked up, since pruning may have taken parts of it.
    pub fn contains(&self, commit: Commit) -> bool {
        let Ok(repository) = self.repository() else {
            return false;
        };
        if !has_root(&repository, commit) {
            return false;
        }
        self.tip_path(commit).is_file() || has_whole_tree(&repository, commit)
    }

    /// The commits whose whole trees are here: what to tell a remote.
    pub fn haves(&self) -> Vec<Commit> {
        let Ok(repository) = self.repository() else {
            return Vec::new();
        };
        let mut haves = self.tips();
        haves.retain(|commit| has_root(&repository, *commit));
        haves
    }

    /// The commits whose parents are not here (gitformat-shallow).
    pub fn shallow(&self) -> Vec<Commit> {
        boundary_of(&self.path).into_iter().collect()
    }

    /// What the commit says about itself.
    ///
    /// # Errors
    /// Stage `build`, reason `store`: it is not here, or damaged.
    pub fn summary(&self, commit: Commit) -> Result<CommitInfo, SyncError> {
        let read = |cause: git2::Error| {
            SyncError::new(
                Stage::Build,
                Reason::Store,
                format!("cannot read commit {commit} in {}", self.path.display()),
            )
            .with_source(cause)
        };
        let repository = self.repository().map_err(read)?;
        let found = repository.find_commit(commit.oid()).map_err(read)?;
        let message = String::from_utf8_lossy(found.message_bytes()).into_owned();
        let seconds = found.time().seconds();
        let since_epoch = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(since_epoch)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(since_epoch)
        };
        Ok(CommitInfo {
            subject: excerpt(
                message.trim_start().lines().next().unwrap_or_default(),
                MAX_SHOWN,
            ),
            author: excerpt(
                &String::from_utf8_lossy(found.author().name_bytes()),
                MAX_SHOWN,
            ),
            time: time.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// A fresh handle: one that is kept would not notice packs that went.
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

    /// Removes leftovers; fails when the store is not fit for use.
    fn heal(&self) -> Result<(), String> {
        let text = |cause: io::Error| cause.to_string();
        for needed in ["objects", "refs"] {
            if !self.path.join(needed).is_dir() {
                return Err(format!("{needed} is missing"));
            }
        }
        // We never write an empty one: this is what a power cut left of it.
        if fs::metadata(self.path.join(SHALLOW)).is_ok_and(|metadata| metadata.len() == 0) {
            return Err("the shallow boundary is lost".to_owned());
        }
        for dir in ["", "objects/info", TIPS] {
            remove_files(&self.path.join(dir), |path, metadata| {
                let is_lock = path.extension().is_some_and(|e| e == "lock");
                is_lock || (dir == TIPS && metadata.len() == 0)
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
            return remove_if_there(&path);
        }
        let lines: String = boundary.iter().map(|c| format!("{c}\n")).collect();
        replace(&path, lines.as_bytes())
    }
}

/// The commits in the `shallow` file of a git directory; none without one.
pub fn boundary_of(git_dir: &Path) -> BTreeSet<Commit> {
    let text = fs::read_to_string(git_dir.join(SHALLOW)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Writes a file by renaming a new one into place. It is not synced: what a power cut makes of it
/// is an empty file, which [`Store::heal`] knows what to do with.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("lock");
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

fn remove_files(dir: &Path, doomed: impl Fn(&Path, &fs::Metadata) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause),
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && doomed(&entry.path(), &metadata) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the commit and its root tree can be read.
fn has_root(repository: &Repository, commit: Commit) -> bool {
    repository
        .find_commit(commit.oid())
        .and_then(|found| found.tree())
        .is_ok()
}

fn has_whole_tree(repository: &Repository, commit: Commit) -> bool {
    let Ok(odb) = repository.odb() else {
        return false;
    };
    let root = repository
        .find_commit(commit.oid())
        .map(|found| found.tree_id());
    let mut seen = HashSet::new();
    root.is_ok_and(|root| {
        each_entry(repository, root, &mut seen, &mut |id, kind| match kind {
            ObjectType::Tree => Ok(()),
            _ if odb.exists(id) => Ok(()),
            _ => Err(git2::Error::from_str("an object is missing")),
        })
        .is_ok()
    })
}

/// Visits a tree and everything below it; trees in `seen` are skipped, others added to it.
fn each_entry(
    repository: &Repository,
    root: Oid,
    seen: &mut HashSet<Oid>,
    visit: &mut dyn FnMut(Oid, ObjectType) -> Result<(), git2::Error>,
) -> Result<(), git2::Error> {
    let mut waiting = vec![(root, 0)];
    while let Some((id, depth)) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        if depth > MAX_DEPTH {
            return Err(git2::Error::from_str("trees are nested too deeply"));
        }
        visit(id, ObjectType::Tree)?;
        for entry in repository.find_tree(id)?.iter() {
            match entry.kind() {
                Some(ObjectType::Tree) => waiting.push((entry.id(), depth + 1)),
                Some(ObjectType::Blob) => visit(entry.id(), ObjectType::Blob)?,
                // A submodule's commit lives elsewhere.
                _ => {}
            }
        }
    }
    Ok(())
}
