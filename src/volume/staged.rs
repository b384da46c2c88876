//! A revision while it is being built.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::verdict::{Sealed, VERDICT, Verdict};
use super::{LAST, MANIFEST, REVISIONS, STAGING, TRASH, Volume, dir_name, number};
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};
use crate::base::files;

/// A directory under construction, invisible to readers. Dropping it removes it; only
/// [`Staged::seal`] makes a complete tree of it.
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
    /// A new, empty directory for the tree of `commit`.
    ///
    /// # Errors
    /// Stage `build`: the disk does not take it.
    pub fn stage(&self, commit: Commit) -> Result<Staged<'_>, SyncError> {
        let failed = |cause| {
            SyncError::disk(
                Stage::Build,
                "make a directory in",
                &self.gvr.join(STAGING),
                cause,
            )
        };
        self.make_rooms().map_err(|error| error.at(Stage::Build))?;
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
        self.write_small(&verdict, &Verdict::Pending.text())
            .map_err(failed)?;
        Ok(staged)
    }

    /// A number greater than every one that was ever handed out, as far as the disk remembers.
    fn next_number(&self) -> io::Result<u64> {
        let n = self.last_number()? + 1;
        self.memory().last = n;
        // On a full disk the directories themselves remember well enough.
        if let Err(cause) = self.write_small(LAST, &format!("{n}\n")) {
            tracing::debug!(error = %cause, "the last revision number is not written down");
        }
        Ok(n)
    }

    /// The greatest number that was handed out, as far as the disk remembers.
    pub(super) fn last_number(&self) -> io::Result<u64> {
        let mut last = self.memory().last;
        if let Ok(text) = std::fs::read_to_string(self.gvr.join(LAST)) {
            last = last.max(text.trim().parse().unwrap_or(0));
        }
        for room in [REVISIONS, STAGING, TRASH] {
            let numbers = self.names(room)?;
            last = last.max(numbers.iter().filter_map(|n| number(n)).max().unwrap_or(0));
        }
        Ok(last)
    }

    /// Replaces a small file under `.gvr` by renaming it from `staging`, which a start sweeps.
    pub(super) fn write_small(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = format!("{STAGING}/{}.new", name.replace('/', "-"));
        files::replace_by(
            &self.gvr_fd,
            Path::new(&temporary),
            &self.gvr_fd,
            Path::new(name),
            text.as_bytes(),
        )
    }
}

impl<'v> Staged<'v> {
    /// The number that the revision will have.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The commit whose tree is to be written.
    pub fn commit(&self) -> Commit {
        self.commit
    }

    /// The directory to write the tree into; absolute, exists, empty at first.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Where the manifest must be before sealing; absolute.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// Declares the tree complete: one rename carries tree and manifest into `revisions`.
    ///
    /// The manifest is on disk before that; the files are not waited for, since the manifest is
    /// what finds out after a power cut which of them did not make it.
    ///
    /// # Errors
    /// Stage `publish`: no manifest was written, or the disk refuses. The staged tree is removed.
    pub fn seal(mut self) -> Result<Sealed<'v>, SyncError> {
        let name = dir_name(self.n);
        let failed =
            |action, path: &Path, cause| SyncError::disk(Stage::Publish, action, path, cause);
        let manifest = std::fs::File::open(&self.manifest)
            .map_err(|cause| failed("seal without the manifest", &self.manifest, cause))?;
        sync(&manifest).map_err(|cause| failed("write", &self.manifest, cause.into()))?;
        let volume = self.volume;
        let revision = volume.revision(self.n, &name, self.commit);
        volume
            .make_rooms()
            .map_err(|error| error.at(Stage::Publish))?;
        rustix::fs::renameat(
            &volume.gvr_fd,
            format!("{STAGING}/{name}"),
            &volume.gvr_fd,
            format!("{REVISIONS}/{name}"),
        )
        .map_err(|cause| failed("seal", &revision.path, cause.into()))?;
        self.sealed = true;
        volume
            .sync_directory(&volume.gvr.join(REVISIONS))
            .map_err(|cause| failed("write", &revision.path, cause))?;
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

impl Volume {
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let fd = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(sync(&fd)?)
    }
}

/// fsync(2), where the file system knows it.
fn sync(fd: impl std::os::fd::AsFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(fd) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}
