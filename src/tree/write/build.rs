//! The state of one build, shared by its workers: the stack of tasks, counts, limits, remarks.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use git2::Oid;
use rustix::fs::CWD;

use super::base::BaseRevision;
use super::directory::Roots;
use super::locking::{into_inner, lock};
use super::paths::as_bytes;
use super::remarks::Remarks;
use super::task::{Task, TreeWork, Work};
use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::manifest::{Header, Manifest, ManifestWriter};
use crate::tree::{BuildRequest, Built, Share, TreeOptions, files};

/// What the workers of a build share.
pub(super) struct Build<'a> {
    pub(super) request: &'a BuildRequest<'a>,
    pub(super) options: &'a TreeOptions,
    budget: &'a Budget,
    pub(super) roots: Arc<Roots>,
    pub(super) base: Option<BaseRevision>,
    queue: Mutex<Queue>,
    /// Signalled when the queue changes.
    changed: Condvar,
    stopped: AtomicBool,
    pub(super) manifest: Mutex<ManifestWriter>,
    next_block: AtomicU32,
    /// Held while a large blob is in memory.
    pub(super) large: Mutex<()>,
    /// Whether the file system can share files with the base, as far as is known.
    pub(super) sharing: AtomicBool,
    pub(super) counts: Counts,
    pub(super) remarks: Mutex<Remarks>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Task>,
    /// Tasks that are waiting or being worked on.
    unfinished: usize,
    error: Option<SyncError>,
}

#[derive(Default)]
pub(super) struct Counts {
    entries: AtomicU64,
    /// Populated submodules that are written and not copied from the base.
    pub(super) submodules: AtomicU64,
    bytes: AtomicU64,
    pub(super) files_written: AtomicU64,
    pub(super) files_shared: AtomicU64,
    pub(super) bytes_written: AtomicU64,
}

impl<'a> Build<'a> {
    /// Opens the directories and manifests of a request; `root` is the tree of its commit.
    pub(super) fn prepare(
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
        let destination = files::open_directory(CWD, as_bytes(request.destination))
            .map_err(Into::into)
            .map_err(disk("open", request.destination.to_owned()))?;
        let mut remarks = Remarks::default();
        let mut base = None;
        let mut base_root = None;
        if options.share != Share::None
            && let Some(revision) = request.base
        {
            let opened = Manifest::open(revision.manifest).and_then(|manifest| {
                let directory = files::open_directory(CWD, as_bytes(revision.tree))?;
                Ok((manifest, directory))
            });
            match opened {
                // Files with other permissions need other inodes, so none can be shared.
                Ok((manifest, _)) if manifest.header.modes != header.modes => {}
                Ok((manifest, directory)) => {
                    base_root = Some(directory);
                    base = Some(BaseRevision::new(
                        manifest,
                        revision.manifest,
                        &header.selection,
                    ));
                }
                Err(error) => {
                    remarks.sharing_fallback =
                        Some(format!("the previous revision cannot be used: {error}"));
                }
            }
        }
        let spare = match (request.spare, &base) {
            // Without a spare tree the build takes longer, and the result is the same.
            (Some(spare), Some(_)) if options.share == Share::Hardlink => {
                files::open_directory(CWD, as_bytes(spare)).ok()
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
            stopped: AtomicBool::new(false),
            manifest: Mutex::new(manifest),
            next_block: AtomicU32::new(1),
            large: Mutex::new(()),
            sharing: AtomicBool::new(true),
            counts: Counts::default(),
            remarks: Mutex::new(remarks),
        })
    }

    /// The first task, which writes the top directory.
    pub(super) fn root_task(&self, tree: Oid) -> Task {
        let unchanged = self
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection && base.tree() == tree);
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
        Task {
            block: 0,
            path: Vec::new(),
            parent: None,
            work,
        }
    }

    pub(super) fn push(&self, tasks: Vec<Task>) {
        if tasks.is_empty() {
            return;
        }
        let mut queue = lock(&self.queue);
        queue.unfinished += tasks.len();
        queue.waiting.extend(tasks);
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits for the next task; `None` when all are done or the build has stopped.
    pub(super) fn take(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.unfinished == 0 || self.is_stopped() {
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

    /// Counts a taken task as done.
    pub(super) fn done(&self) {
        let mut queue = lock(&self.queue);
        queue.unfinished -= 1;
        if queue.unfinished == 0 {
            self.changed.notify_all();
        }
    }

    /// Stops the build. The first error is the one that is reported.
    pub(super) fn fail(&self, error: SyncError) {
        let mut queue = lock(&self.queue);
        queue.error.get_or_insert(error);
        queue.waiting.clear();
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Reserves consecutive numbers for `count` blocks; returns the first.
    pub(super) fn blocks(&self, count: u32) -> u32 {
        self.next_block.fetch_add(count, Ordering::Relaxed)
    }

    pub(super) fn check_budget(&self) -> Result<(), SyncError> {
        self.budget
            .check()
            .map_err(|cause| SyncError::interrupted(Stage::Build, "writing the tree", cause))
    }

    /// Counts an entry of `size` bytes before it is written; fails beyond the limits.
    pub(super) fn admit(&self, size: u64) -> Result<(), SyncError> {
        let entries = self.counts.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(limit) = self.options.max_files
            && entries > limit
        {
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("the tree has more than {limit} files, links and directories"),
            )
            .with_hint("raise --max-files if you trust this repository"));
        }
        self.admit_bytes(size)
    }

    /// Counts bytes of a file before they are written; fails beyond the limit.
    pub(super) fn admit_bytes(&self, size: u64) -> Result<(), SyncError> {
        let bytes = self.counts.bytes.fetch_add(size, Ordering::Relaxed) + size;
        if let Some(limit) = self.options.max_bytes
            && bytes > limit
        {
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("the files of the tree have more than {limit} bytes"),
            )
            .with_hint("raise --max-tree-bytes if you trust this repository"));
        }
        Ok(())
    }

    /// Completes the manifest after all workers have ended.
    pub(super) fn finish(self) -> Result<Built, SyncError> {
        if let Some(error) = into_inner(self.queue).error {
            return Err(error);
        }
        let counts = self.counts;
        let (entries, bytes) = (counts.entries.into_inner(), counts.bytes.into_inner());
        into_inner(self.manifest)
            .finish(entries, bytes)
            .map_err(|error| {
                SyncError::disk(Stage::Build, "write", self.request.manifest, error)
            })?;
        let mut remarks = into_inner(self.remarks);
        Ok(Built {
            files_written: counts.files_written.into_inner(),
            files_shared: counts.files_shared.into_inner(),
            bytes_written: counts.bytes_written.into_inner(),
            bytes,
            entries,
            shared_fallback: remarks.sharing_fallback.take(),
            unfiltered: remarks.unapplied(),
            unpopulated: remarks.into_unpopulated(),
        })
    }
}
