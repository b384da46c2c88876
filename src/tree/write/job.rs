//! What every task of a worker uses: the build, the objects, directories, errors.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use git2::Odb;
use rustix::io::Errno;

use super::build::Build;
use super::directory::Directory;
use super::locking::lock;
use super::paths::{as_path, printable_path};
use super::task::TaskOutput;
use crate::base::error::{Reason, Stage, SyncError};
use crate::tree::objects::hostile;

/// A worker's view of the build; one per thread.
pub(super) struct Job<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) odb: Odb<'a>,
}

impl Job<'_> {
    /// Writes the block of a finished task to the manifest and queues its sub-directories.
    pub(super) fn finish_block(&self, number: u32, output: TaskOutput) -> Result<(), SyncError> {
        lock(&self.build.manifest)
            .add(number, &output.block)
            .map_err(|error| {
                SyncError::disk(Stage::Build, "write", self.build.request.manifest, error)
            })?;
        self.build.push(output.tasks);
        Ok(())
    }

    /// Fails if the budget is used up or another worker has failed.
    pub(super) fn proceed(&self) -> Result<(), SyncError> {
        if self.build.is_stopped() {
            // The build reports the other worker's error and not this one.
            return Err(SyncError::new(Stage::Build, Reason::Cancelled, "stopped"));
        }
        self.build.check_budget()
    }

    /// The directory `path`; `with_base` says whether the base has it too.
    pub(super) fn directory(
        &self,
        parent: Option<Arc<Directory>>,
        path: Vec<u8>,
        with_base: bool,
    ) -> Result<Arc<Directory>, SyncError> {
        let for_error = path.clone();
        Directory::new(&self.build.roots, parent, path, with_base)
            .map(Arc::new)
            .map_err(|error| self.failed(&for_error, error))
    }

    /// A directory that is copied from the base; `prelinked` if a directory above it was moved here
    /// from the spare tree.
    pub(super) fn copied_directory(
        &self,
        parent: Option<Arc<Directory>>,
        path: Vec<u8>,
        prelinked: bool,
    ) -> Result<Arc<Directory>, SyncError> {
        let for_error = path.clone();
        Directory::new(&self.build.roots, parent, path, true)
            .and_then(|mut directory| {
                if prelinked {
                    directory.find_prelinked()?;
                } else if !for_error.is_empty() {
                    directory.take_from_spare()?;
                }
                Ok(Arc::new(directory))
            })
            .map_err(|error| self.failed(&for_error, error))
    }

    /// The directory in the new tree, which is created if it does not exist.
    pub(super) fn destination<'d>(
        &self,
        directory: &'d Directory,
    ) -> Result<BorrowedFd<'d>, SyncError> {
        directory
            .destination()
            .map_err(|error| self.failed(&directory.path, error))
    }

    /// The error for a path that cannot be written.
    pub(super) fn failed(&self, path: &[u8], error: Errno) -> SyncError {
        match error {
            // The destination was empty, so the commit's tree has the name twice.
            Errno::EXIST | Errno::LOOP | Errno::NOTDIR => hostile(format!(
                "{} or a directory above it is in the tree twice, or differs from another name only in \
                 case and the volume is case-insensitive",
                printable_path(path)
            )),
            error => {
                let full = self.build.request.destination.join(as_path(path));
                SyncError::disk(Stage::Build, "write", &full, error.into())
            }
        }
    }
}
