//! Sharing an unchanged file with the base: by a hard link or a reflink.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::directory::Directory;
use super::job::Job;
use super::locking::lock;
use super::paths::{join, printable_path};
use crate::base::error::SyncError;
use crate::manifest::{Kind, Record, Stat};
use crate::tree::{Share, files};

impl Job<'_> {
    /// Shares the file of a record of the base; `None` if it must be written instead.
    pub(super) fn share(
        &self,
        directory: &Directory,
        record: &Record<'_>,
    ) -> Result<Option<Stat>, SyncError> {
        if directory.is_prelinked() && self.keep_prelinked(directory, record)? {
            return self.count_shared(record.stat).map(Some);
        }
        if !self.build.sharing.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(base) = directory.base() else {
            return Ok(None);
        };
        if !files::is_unaltered(base, record.name, record.kind, &record.stat) {
            return Ok(None);
        }
        let at = self.destination(directory)?;
        let shared = match self.build.options.share {
            Share::Hardlink => files::link(base, at, record.name).map(|()| record.stat),
            Share::Reflink if record.kind != Kind::Symlink => {
                files::reflink(base, at, record.name, record.kind == Kind::Executable)
                    .and_then(|copy| files::finish(copy, self.build.options.group_write))
            }
            Share::Reflink | Share::None => return Ok(None),
        };
        match shared {
            Ok(stat) => self.count_shared(stat).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error @ (Errno::EXIST | Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS)) => {
                Err(self.failed(&join(&directory.path, record.name), error))
            }
            Err(error) => {
                self.note_not_shared(directory, record, error);
                Ok(None)
            }
        }
    }

    /// Remembers why a file cannot be shared, and whether that holds for all files.
    fn note_not_shared(&self, directory: &Directory, record: &Record<'_>, error: Errno) {
        // These errors concern one file; all others concern the file system.
        if !matches!(error, Errno::PERM | Errno::MLINK | Errno::ACCESS) {
            self.build.sharing.store(false, Ordering::Relaxed);
        }
        let path = printable_path(&join(&directory.path, record.name));
        let how = match self.build.options.share {
            Share::Reflink => "cloned",
            Share::Hardlink | Share::None => "hard-linked",
        };
        lock(&self.build.remarks)
            .sharing_fallback
            .get_or_insert_with(|| {
                format!("{path} cannot be {how} from the previous revision: {error}")
            });
    }

    /// Whether a directory from the spare tree has a link to the file, and the file is as recorded.
    /// Removes the name if not.
    fn keep_prelinked(
        &self,
        directory: &Directory,
        record: &Record<'_>,
    ) -> Result<bool, SyncError> {
        let at = self.destination(directory)?;
        if files::is_unaltered(at, record.name, record.kind, &record.stat) {
            return Ok(true);
        }
        match files::remove(at, record.name) {
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed(&join(&directory.path, record.name), error)),
        }
    }

    fn count_shared(&self, stat: Stat) -> Result<Stat, SyncError> {
        self.build.admit(stat.size)?;
        self.build
            .counts
            .files_shared
            .fetch_add(1, Ordering::Relaxed);
        Ok(stat)
    }
}
