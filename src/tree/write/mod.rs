//! The parallel writer: a stack of directories, and workers that take from it.
//!
//! A directory is one task, or several if it is large; its sub-directories become tasks of their
//! own. The stack is last in, first out, so that the work that waits is bounded by the depth of
//! the tree times the width of a task. A directory comes into being with its first file: as in
//! git, an empty tree leaves nothing.

mod base;
mod child;
mod copy;
mod directory;
mod leaf;
mod plan;
mod spare;
mod task;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use git2::Oid;
use rustix::fs::CWD;

use super::files;
use super::objects::{self, Objects};
use super::{BuildRequest, Built, Share, TreeOptions};
use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::manifest::{Header, Manifest, ManifestWriter};
use directory::Roots;
pub use spare::Spare;
use task::Task;
use worker::Worker;

/// Most remarks of one kind that are kept.
const REMARKS: usize = 20;

/// Builds the tree of a request.
pub(super) fn run(request: &BuildRequest<'_>, budget: &Budget) -> Result<Built, SyncError> {
    let first = Objects::open(request.store)?;
    let root = {
        let odb = first.odb()?;
        objects::tree_of_commit(&odb, request.commit.oid())?
    };
    let build = Build::prepare(request, budget, root)?;
    build.push(vec![build.root_task(root)?]);
    let jobs = match request.options.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            let worker = || match Objects::open(request.store) {
                Ok(objects) => Worker::new(&build, &objects).run(),
                Err(error) => build.fail(error),
            };
            // A pod's limit on threads is no reason to fail: this thread works in any case.
            if std::thread::Builder::new()
                .name("tree".to_owned())
                .spawn_scoped(scope, worker)
                .is_err()
            {
                break;
            }
        }
        Worker::new(&build, &first).run();
    });
    build.finish()
}

/// What the workers share.
struct Build<'a> {
    request: &'a BuildRequest<'a>,
    options: &'a TreeOptions,
    budget: &'a Budget,
    roots: Arc<Roots>,
    base: Option<BaseRevision>,
    queue: Mutex<Queue>,
    changed: Condvar,
    stop: AtomicBool,
    manifest: Mutex<ManifestWriter>,
    next_block: AtomicU32,
    /// Held while a large blob is in memory.
    large: Mutex<()>,
    sharing: AtomicBool,
    counts: Counts,
    remarks: Mutex<Remarks>,
}

struct BaseRevision {
    manifest: Manifest,
    /// Whether it was made with the same choice of paths.
    same_selection: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Task>,
    /// Tasks that wait or are being worked on.
    open: usize,
    error: Option<SyncError>,
}

#[derive(Default)]
struct Counts {
    entries: AtomicU64,
    bytes: AtomicU64,
    files_written: AtomicU64,
    files_shared: AtomicU64,
    bytes_written: AtomicU64,
}

#[derive(Default)]
struct Remarks {
    fallback: Option<String>,
    /// By what was asked for: the first path, and how many there are.
    unfiltered: BTreeMap<String, (String, u64)>,
    unpopulated: BTreeSet<String>,
}

impl<'a> Build<'a> {
    fn prepare(
        request: &'a BuildRequest<'a>,
        budget: &'a Budget,
        root: Oid,
    ) -> Result<Self, SyncError> {
        let options = request.options;
        let header = Header {
            commit: request.commit,
            tree: root,
            fingerprint: options.fingerprint(),
            selection: options.selection(),
            modes: options.modes(),
        };
        let disk = |action: &'static str, path: PathBuf| {
            move |error: std::io::Error| SyncError::disk(Stage::Build, action, &path, error)
        };
        let destination = files::open_directory(CWD, path_bytes(request.destination))
            .map_err(Into::into)
            .map_err(disk("open", request.destination.to_owned()))?;
        let mut remarks = Remarks::default();
        let mut base = None;
        let mut base_root = None;
        if options.share != Share::None
            && let Some(revision) = request.base
        {
            let opened = Manifest::open(revision.manifest).and_then(|manifest| {
                let directory = files::open_directory(CWD, path_bytes(revision.tree))?;
                Ok((manifest, directory))
            });
            match opened {
                // Other permissions need other inodes.
                Ok((manifest, _)) if manifest.header.modes != header.modes => {}
                Ok((manifest, directory)) => {
                    base_root = Some(directory);
                    base = Some(BaseRevision {
                        same_selection: manifest.header.selection == header.selection,
                        manifest,
                    });
                }
                Err(error) => {
                    remarks.fallback =
                        Some(format!("the previous revision cannot be used: {error}"));
                }
            }
        }
        let spare = match (request.spare, &base) {
            // Without it there is more to do, and nothing else is lost.
            (Some(spare), Some(_)) if options.share == Share::Hardlink => {
                files::open_directory(CWD, path_bytes(spare)).ok()
            }
            _ => None,
        };
        let manifest = ManifestWriter::create(request.manifest, &header)
            .map_err(disk("create", request.manifest.to_owned()))?;
        Ok(Self {
            request,
            options,
            budget,
            roots: Arc::new(Roots {
                destination,
                base: base_root,
                spare,
                group_write: options.group_write,
                open: AtomicUsize::new(0),
            }),
            base,
            queue: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            manifest: Mutex::new(manifest),
            next_block: AtomicU32::new(1),
            large: Mutex::new(()),
            sharing: AtomicBool::new(true),
            counts: Counts::default(),
            remarks: Mutex::new(remarks),
        })
    }

    fn push(&self, tasks: Vec<Task>) {
        if tasks.is_empty() {
            return;
        }
        let mut queue = lock(&self.queue);
        queue.open += tasks.len();
        queue.waiting.extend(tasks);
        drop(queue);
        self.changed.notify_all();
    }

    /// The next task; `None` when all is done, or nothing more must be done.
    fn take(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.open == 0 || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(task) = queue.waiting.pop() {
                return Some(task);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self) {
        let mut queue = lock(&self.queue);
        queue.open -= 1;
        if queue.open == 0 {
            self.changed.notify_all();
        }
    }

    fn fail(&self, error: SyncError) {
        let mut queue = lock(&self.queue);
        queue.error.get_or_insert(error);
        queue.waiting.clear();
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Numbers for `count` blocks in a row.
    fn blocks(&self, count: u32) -> u32 {
        self.next_block.fetch_add(count, Ordering::Relaxed)
    }

    fn proceed(&self) -> Result<(), SyncError> {
        self.budget
            .check()
            .map_err(|cause| SyncError::interrupted(Stage::Build, "writing the tree", cause))
    }

    /// Counts an entry before it is written.
    fn admit(&self, size: u64) -> Result<(), SyncError> {
        let entries = self.counts.entries.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.counts.bytes.fetch_add(size, Ordering::Relaxed) + size;
        if let Some(limit) = self.options.max_files
            && entries > limit
        {
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("the tree has more than {limit} files, links and directories"),
            )
            .with_hint("raise --max-files if this repository is to be trusted"));
        }
        if let Some(limit) = self.options.max_bytes
            && bytes > limit
        {
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("the files of the tree have more than {limit} bytes"),
            )
            .with_hint("raise --max-tree-bytes if this repository is to be trusted"));
        }
        Ok(())
    }

    /// Notes what attributes asked for and could not be done.
    fn note_unfiltered(&self, what: &str, path: String) {
        let what = crate::base::text::printable(what);
        let noted = &mut lock(&self.remarks).unfiltered;
        if noted.len() < REMARKS || noted.contains_key(&what) {
            noted.entry(what).or_insert((path, 0)).1 += 1;
        }
    }

    /// Notes a submodule that `.gitmodules` does not know.
    fn note_unpopulated(&self, path: String) {
        let noted = &mut lock(&self.remarks).unpopulated;
        if noted.len() < REMARKS {
            noted.insert(path);
        }
    }

    fn finish(self) -> Result<Built, SyncError> {
        let queue = self
            .queue
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = queue.error {
            return Err(error);
        }
        let counts = self.counts;
        let (entries, bytes) = (counts.entries.into_inner(), counts.bytes.into_inner());
        self.manifest
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .finish(entries, bytes)
            .map_err(|error| {
                SyncError::disk(Stage::Build, "write", self.request.manifest, error)
            })?;
        let remarks = self
            .remarks
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(Built {
            files_written: counts.files_written.into_inner(),
            files_shared: counts.files_shared.into_inner(),
            bytes_written: counts.bytes_written.into_inner(),
            bytes,
            entries,
            shared_fallback: remarks.fallback,
            unfiltered: remarks
                .unfiltered
                .into_iter()
                .map(|(what, (path, count))| match count {
                    1 => format!("{what}: {path}"),
                    _ => format!("{what}: {path} and {} more", count - 1),
                })
                .collect(),
            unpopulated: remarks.unpopulated.into_iter().collect(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panics ends the build through the scope; nothing half-done is used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path_bytes(path: &std::path::Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
