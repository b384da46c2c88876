//! Making a revision the live one.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::exchange::swap;
use super::small_files::sync_directory;
use super::verdict::Accepted;
use super::{PublishMode, RETIRED, REVISIONS, Revision, Volume, dir_name};
use crate::base::error::{Reason, Stage, SyncError};

impl Volume {
    /// Makes an accepted tree the one that readers see, in one atomic step.
    ///
    /// The revision that was live is retired from now on. In exchange mode the paths of both trees
    /// change; [`Volume::observe`] returns the new ones.
    ///
    /// # Errors
    /// Stage `publish`: the revision is not complete, a foreign directory is at the link path, or
    /// the disk fails. Readers then see the same tree as before.
    pub fn publish(&self, accepted: &Accepted) -> Result<(), SyncError> {
        let revision = accepted.revision();
        let before = self.observe().map_err(|error| error.at(Stage::Publish))?;
        let previous = before.live.map(|live| live.n);
        if previous == Some(revision.n) && before.damage.is_none() {
            return Ok(());
        }
        let home = self.revision(revision.n, &dir_name(revision.n), revision.commit);
        let tree =
            rustix::fs::lstat(&home.path).map_err(|cause| disk("publish", &home.path, cause))?;
        if !FileType::from_raw_mode(tree.st_mode).is_dir() || !self.has_manifest(revision.n) {
            return Err(SyncError::new(
                Stage::Publish,
                Reason::Disk,
                format!("the revision {} is no longer complete", home.path.display()),
            ));
        }
        self.clear_retirement(revision.n);
        std::fs::create_dir_all(&self.link_parent)
            .map_err(|cause| SyncError::disk(Stage::Publish, "create", &self.link_parent, cause))?;
        match self.mode {
            PublishMode::Symlink => self.flip(&home)?,
            PublishMode::Exchange => self.exchange(&home, tree.st_ino)?,
        }
        {
            let mut cache = self.cache();
            cache.inodes.clear();
            cache.inodes.insert(home.n, (tree.st_dev, tree.st_ino));
            cache.exchanged = None;
        }
        if let Some(previous) = previous.filter(|n| *n != revision.n) {
            self.retire(previous);
        }
        Ok(())
    }

    /// Syncs the link to the disk.
    ///
    /// # Errors
    /// Stage `publish`: the disk fails. Readers see what was published all the same.
    pub fn sync_link(&self) -> Result<(), SyncError> {
        sync_directory(&self.link_parent)
            .map_err(|cause| SyncError::disk(Stage::Publish, "sync", &self.link, cause))
    }

    /// Replaces the link by a symbolic link to the tree.
    fn flip(&self, home: &Revision) -> Result<(), SyncError> {
        let target = self
            .link_target
            .join(dir_name(home.n))
            .join(home.commit.to_string());
        let temporary = self.link_parent.join(self.temporary_name());
        rustix::fs::symlinkat(&target, CWD, &temporary)
            .map_err(|cause| disk("create", &temporary, cause))?;
        let flipped = if self.inode_at_link().is_some() {
            // `observe` has recognised the directory as a tree that was published by exchange.
            swap(&temporary, &self.link)
        } else {
            rustix::fs::rename(&temporary, &self.link)
        };
        if let Err(cause) = flipped {
            let _ = rustix::fs::unlink(&temporary);
            return Err(disk("flip", &self.link, cause));
        }
        self.complete_exchanges()
            .map_err(|error| error.at(Stage::Publish))
    }

    /// Removes the retirement of a revision that becomes live again.
    fn clear_retirement(&self, n: u64) {
        self.cache().retired.remove(&n);
        let path = format!("{REVISIONS}/{}/{RETIRED}", dir_name(n));
        // If this fails, the file stays. Pruning ignores it on the live revision.
        let _ = rustix::fs::unlinkat(&self.gvr_fd, path, AtFlags::empty());
    }
}

fn disk(action: &str, path: &Path, cause: Errno) -> SyncError {
    SyncError::disk(Stage::Publish, action, path, cause.into())
}
