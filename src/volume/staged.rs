//! Building a revision: the staging directory, and sealing it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::durable::{DURABLE, unsynced};
use super::verdict::{Sealed, VERDICT, Verdict};
use super::{LAST, MANIFEST, REVISIONS, STAGING, TRASH, Volume, dir_name, number};
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};

/// A tree that is being built, which readers do not see. Dropping it removes it; only
/// [`Staged::seal`] makes it a complete tree.
#[must_use = "dropping a staged tree removes it"]
#[derive(Debug)]
pub struct Staged<'v> {
    volume: &'v Volume,
    n: u64,
    commit: Commit,
    tree: PathBuf,
    manifest: PathBuf,
    sealed: bool,
}

impl Volume {
    /// Creates an empty directory for the tree of `commit`.
    ///
    /// # Errors
    /// Stage `build`: the directory cannot be created.
    pub fn stage(&self, commit: Commit) -> Result<Staged<'_>, SyncError> {
        let failed = |cause| {
            SyncError::disk(
                Stage::Build,
                "create a directory in",
                &self.gvr.join(STAGING),
                cause,
            )
        };
        self.create_directories()
            .map_err(|error| error.at(Stage::Build))?;
        let n = self.next_number().map_err(failed)?;
        let dir = self.gvr.join(STAGING).join(dir_name(n));
        let staged = Staged {
            volume: self,
            n,
            commit,
            tree: dir.join(commit.to_string()),
            manifest: dir.join(MANIFEST),
            sealed: false,
        };
        let relative = format!("{STAGING}/{}", dir_name(n));
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(&self.gvr_fd, &relative, mode)
            .and_then(|()| rustix::fs::mkdirat(&self.gvr_fd, format!("{relative}/{commit}"), mode))
            .map_err(|cause| failed(cause.into()))?;
        let verdict = format!("{relative}/{VERDICT}");
        self.write_small(&verdict, &Verdict::Pending.text(""))
            .and_then(|()| {
                let durable = format!("{relative}/{DURABLE}");
                self.write_small(&durable, &unsynced(&self.boot))
            })
            .map_err(failed)?;
        Ok(staged)
    }

    /// A number greater than every number that was used before, as far as the disk records it.
    fn next_number(&self) -> io::Result<u64> {
        let n = self.last_number()? + 1;
        self.cache().last = n;
        // If the disk is full, the names of the directories still record the number.
        if let Err(cause) = self.write_small(LAST, &format!("{n}\n")) {
            tracing::debug!(error = %cause, "the last revision number was not written");
        }
        Ok(n)
    }

    /// The greatest number that was used, as far as the disk records it.
    pub(super) fn last_number(&self) -> io::Result<u64> {
        let mut last = self.cache().last;
        if let Ok(text) = std::fs::read_to_string(self.gvr.join(LAST)) {
            last = last.max(text.trim().parse().unwrap_or(0));
        }
        for directory in [REVISIONS, STAGING, TRASH] {
            let numbers = self.names(directory)?;
            last = last.max(numbers.iter().filter_map(|n| number(n)).max().unwrap_or(0));
        }
        Ok(last)
    }
}

impl<'v> Staged<'v> {
    /// The number that the revision will have.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The commit whose tree is written.
    pub fn commit(&self) -> Commit {
        self.commit
    }

    /// The directory to write the tree into; absolute. It exists and is empty at first.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The path at which the manifest must be before sealing; absolute.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// Declares the tree complete: one rename moves tree and manifest into `revisions`.
    ///
    /// Nothing is synced to the disk: [`Volume::sync`] and [`Volume::sync_in_background`] do that.
    ///
    /// # Errors
    /// Stage `publish`: there is no manifest, or the disk fails. The staged tree is removed.
    pub fn seal(mut self) -> Result<Sealed<'v>, SyncError> {
        let name = dir_name(self.n);
        let failed =
            |action, path: &Path, cause| SyncError::disk(Stage::Publish, action, path, cause);
        std::fs::metadata(&self.manifest)
            .map_err(|cause| failed("seal without the manifest", &self.manifest, cause))?;
        let volume = self.volume;
        let revision = volume.revision(self.n, &name, self.commit);
        volume
            .create_directories()
            .map_err(|error| error.at(Stage::Publish))?;
        rustix::fs::renameat(
            &volume.gvr_fd,
            format!("{STAGING}/{name}"),
            &volume.gvr_fd,
            format!("{REVISIONS}/{name}"),
        )
        .map_err(|cause| failed("seal", &revision.path, cause.into()))?;
        self.sealed = true;
        Ok(Sealed::new(volume, revision))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            self.volume.discard(STAGING, &dir_name(self.n));
            self.volume.delete_trash_briefly();
        }
    }
}
