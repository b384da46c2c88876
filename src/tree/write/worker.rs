//! One thread of the writer, and what all of its tasks need.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use git2::Odb;
use rustix::io::Errno;

use super::directory::Directory;
use super::task::{Task, Work};
use super::{Build, lock};
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;
use crate::manifest::Block;
use crate::tree::objects::{Objects, hostile};

/// A worker, with its own view of the store.
pub(super) struct Worker<'a> {
    build: &'a Build<'a>,
    objects: &'a Objects,
}

/// Marks a task as done however it ends: a panic must not leave the others waiting.
struct Done<'a>(&'a Build<'a>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(SyncError::new(
                Stage::Build,
                Reason::Other,
                "a worker of the tree writer failed",
            ));
        }
        self.0.done();
    }
}

impl<'a> Worker<'a> {
    pub fn new(build: &'a Build<'a>, objects: &'a Objects) -> Self {
        Self { build, objects }
    }

    /// Works until nothing is left.
    pub fn run(&self) {
        let odb = match self.objects.odb() {
            Ok(odb) => odb,
            Err(error) => return self.build.fail(error),
        };
        let job = Job {
            build: self.build,
            odb,
        };
        while let Some(task) = self.build.take() {
            let _done = Done(self.build);
            if let Err(error) = job.run(task) {
                self.build.fail(error);
            }
        }
    }
}

/// One worker at work.
pub(super) struct Job<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) odb: Odb<'a>,
}

impl Job<'_> {
    fn run(&self, task: Task) -> Result<(), SyncError> {
        match task.work {
            Work::Tree(work) => self.tree(task.block, task.parent, task.path, work),
            Work::Part(plan, part) => self.part(task.block, &plan, &part),
            Work::Copy {
                base,
                submodule,
                prelinked,
            } => {
                let directory = self.twin_directory(task.parent, task.path, prelinked)?;
                if submodule {
                    self.destination(&directory)?;
                }
                self.copy(task.block, &directory, base)
            }
            Work::CopyPart { directory, base } => self.copy(task.block, &directory, base),
        }
    }

    pub(super) fn finish_block(
        &self,
        number: u32,
        block: &Block,
        tasks: Vec<Task>,
    ) -> Result<(), SyncError> {
        lock(&self.build.manifest)
            .add(number, block)
            .map_err(|error| {
                SyncError::disk(Stage::Build, "write", self.build.request.manifest, error)
            })?;
        self.build.push(tasks);
        Ok(())
    }

    pub(super) fn proceed(&self) -> Result<(), SyncError> {
        if self.build.stop.load(Ordering::Relaxed) {
            // Another worker's error is the one that is reported.
            return Err(SyncError::new(Stage::Build, Reason::Cancelled, "stopped"));
        }
        self.build.proceed()
    }

    pub(super) fn directory(
        &self,
        parent: Option<Arc<Directory>>,
        path: Vec<u8>,
        with_base: bool,
    ) -> Result<Arc<Directory>, SyncError> {
        let shown = path.clone();
        Directory::new(&self.build.roots, parent, path, with_base)
            .map(Arc::new)
            .map_err(|error| self.failed(&shown, error))
    }

    /// A directory that is to be as the base has it; `prelinked` if one above it came from the spare.
    fn twin_directory(
        &self,
        parent: Option<Arc<Directory>>,
        path: Vec<u8>,
        prelinked: bool,
    ) -> Result<Arc<Directory>, SyncError> {
        let shown = path.clone();
        Directory::new(&self.build.roots, parent, path, true)
            .and_then(|mut directory| {
                if prelinked {
                    directory.find_prelinked()?;
                } else if !shown.is_empty() {
                    directory.take_from_spare()?;
                }
                Ok(Arc::new(directory))
            })
            .map_err(|error| self.failed(&shown, error))
    }

    pub(super) fn destination<'d>(
        &self,
        directory: &'d Directory,
    ) -> Result<BorrowedFd<'d>, SyncError> {
        directory
            .destination()
            .map_err(|error| self.failed(&directory.path, error))
    }

    pub(super) fn failed(&self, path: &[u8], error: Errno) -> SyncError {
        match error {
            // The destination was empty, so the tree itself holds the name twice.
            Errno::EXIST | Errno::LOOP | Errno::NOTDIR => hostile(format!(
                "{} or a directory above it stands in the tree twice",
                shown(path)
            )),
            error => {
                let full = self.build.request.destination.join(as_path(path));
                SyncError::disk(Stage::Build, "write", &full, error.into())
            }
        }
    }
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

pub(super) fn as_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path))
}

pub(super) fn shown(path: &[u8]) -> String {
    printable(&String::from_utf8_lossy(path))
}
