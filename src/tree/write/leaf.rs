//! Files and links: taken over from the base, or written from the store.

use std::sync::atomic::Ordering;

use git2::{ObjectType, Oid};
use rustix::io::Errno;

use super::directory::Directory;
use super::lock;
use super::task::Plan;
use super::worker::{Job, as_path, join, shown};
use crate::base::error::{Stage, SyncError};
use crate::manifest::{Block, Entry, Kind, Stat};
use crate::pack::LARGE;
use crate::tree::attributes::Conversion;
use crate::tree::objects::{self, TreeEntry, hostile};
use crate::tree::{Share, convert, files};

/// Longest target of a symbolic link, in bytes (symlink(2)).
const TARGET_LIMIT: usize = 4095;

impl Job<'_> {
    pub(super) fn file(
        &self,
        plan: &Plan,
        entry: &TreeEntry<'_>,
        kind: Kind,
        path: &[u8],
        done: &mut Block,
    ) -> Result<(), SyncError> {
        if !self.includes(plan, path, false) {
            return Ok(());
        }
        let mut conversion = Conversion::default();
        if let Some(rules) = &plan.rules
            && kind != Kind::Symlink
        {
            let wanted = rules.wanted(&path[plan.repository.prefix..]);
            conversion = wanted.conversion;
            if let Some(filter) = wanted.filter {
                self.build
                    .note_unfiltered(&format!("filter={filter}"), shown(path));
            }
        }
        let recorded = conversion.to_bytes();
        let twin = plan
            .base
            .as_ref()
            .and_then(|base| base.find(entry.name, false))
            .filter(|twin| twin.kind == kind && twin.id == entry.id && twin.conversion == recorded);
        if let Some(twin) = twin
            && let Some(stat) = self.share(&plan.directory, &twin)?
        {
            done.push(&Entry { stat, ..twin });
            return Ok(());
        }
        let stat = self.write(&plan.directory, entry.name, kind, entry.id, &conversion)?;
        done.push(&Entry {
            name: entry.name,
            kind,
            id: entry.id,
            stat,
            conversion: &recorded,
            child: 0,
        });
        Ok(())
    }

    /// Takes a file over from the base; `None` if it must be written instead.
    pub(super) fn share(
        &self,
        directory: &Directory,
        twin: &Entry<'_>,
    ) -> Result<Option<Stat>, SyncError> {
        if directory.is_prelinked() && self.linked_ahead(directory, twin)? {
            return self.shared(twin.stat).map(Some);
        }
        if !self.build.sharing.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(base) = directory.base() else {
            return Ok(None);
        };
        if !files::is_unaltered(base, twin.name, twin.kind, &twin.stat) {
            return Ok(None);
        }
        let at = self.destination(directory)?;
        let shared = match self.build.options.share {
            Share::Hardlink => files::link(base, at, twin.name).map(|()| twin.stat),
            Share::Reflink if twin.kind != Kind::Symlink => {
                files::reflink(base, at, twin.name, twin.kind == Kind::Executable)
                    .and_then(|copy| files::finish(copy, self.build.options.group_write))
            }
            Share::Reflink | Share::None => return Ok(None),
        };
        match shared {
            Ok(stat) => self.shared(stat).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error @ (Errno::EXIST | Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS)) => {
                Err(self.failed(&join(&directory.path, twin.name), error))
            }
            Err(error) => {
                // These say something about one file; the others about the file system.
                if !matches!(error, Errno::PERM | Errno::MLINK | Errno::ACCESS) {
                    self.build.sharing.store(false, Ordering::Relaxed);
                }
                let path = shown(&join(&directory.path, twin.name));
                let how = match self.build.options.share {
                    Share::Reflink => "cloned",
                    Share::Hardlink | Share::None => "hard-linked",
                };
                lock(&self.build.remarks).fallback.get_or_insert_with(|| {
                    format!("{path} cannot be {how} from the previous revision: {error}")
                });
                Ok(None)
            }
        }
    }

    /// Whether a file that was linked ahead is there and still as it was recorded. Makes room for
    /// another one if it is not.
    fn linked_ahead(&self, directory: &Directory, twin: &Entry<'_>) -> Result<bool, SyncError> {
        let at = self.destination(directory)?;
        if files::is_unaltered(at, twin.name, twin.kind, &twin.stat) {
            return Ok(true);
        }
        match files::remove(at, twin.name) {
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed(&join(&directory.path, twin.name), error)),
        }
    }

    fn shared(&self, stat: Stat) -> Result<Stat, SyncError> {
        self.build.admit(stat.size)?;
        self.build
            .counts
            .files_shared
            .fetch_add(1, Ordering::Relaxed);
        Ok(stat)
    }

    pub(super) fn write(
        &self,
        directory: &Directory,
        name: &[u8],
        kind: Kind,
        id: Oid,
        conversion: &Conversion,
    ) -> Result<Stat, SyncError> {
        let path = || join(&directory.path, name);
        let (size, object) = objects::header(&self.odb, id)?;
        if object != ObjectType::Blob {
            return Err(hostile(format!(
                "{} is to be a file, and object {id} is a {}",
                shown(&path()),
                object.str()
            )));
        }
        self.build.admit(size as u64)?;
        if kind == Kind::Symlink {
            let stat = self.symlink(directory, name, id, size)?;
            self.build
                .counts
                .files_written
                .fetch_add(1, Ordering::Relaxed);
            return Ok(stat);
        }
        let at = self.destination(directory)?;
        let executable = kind == Kind::Executable;
        let create =
            || files::create(at, name, executable).map_err(|error| self.failed(&path(), error));
        let proceed = || self.proceed().map_err(Failure::Stop);
        let failed = |failure| match failure {
            Failure::Stop(error) => error,
            Failure::Store(error) => objects::damaged(id, error),
            Failure::Disk(error) => {
                let full = self.build.request.destination.join(as_path(&path()));
                SyncError::disk(Stage::Build, "write", &full, error)
            }
        };
        // Streamed out of its pack or, where that is not possible, in memory alone.
        let large = size > LARGE;
        let streamed = match large && *conversion == Conversion::default() {
            true => objects::stream(self.build.request.store, id, size)?,
            false => None,
        };
        let file = if let Some(content) = streamed {
            files::fill_from(create()?, content, Failure::Store, proceed).map_err(failed)?
        } else {
            let _large = large.then(|| lock(&self.build.large));
            let blob = objects::read(&self.odb, id, ObjectType::Blob)?;
            let converted = convert::convert(conversion, id, blob.data());
            if converted.left_encoding {
                let encoding = conversion.encoding.as_deref().unwrap_or_default();
                let what = format!("working-tree-encoding={encoding}");
                self.build.note_unfiltered(&what, shown(&path()));
            }
            files::fill(create()?, &converted.bytes, proceed).map_err(failed)?
        };
        let stat = files::finish(file, self.build.options.group_write)
            .map_err(|error| self.failed(&path(), error))?;
        let counts = &self.build.counts;
        counts.files_written.fetch_add(1, Ordering::Relaxed);
        counts.bytes_written.fetch_add(stat.size, Ordering::Relaxed);
        counts
            .bytes
            .fetch_add(stat.size.saturating_sub(size as u64), Ordering::Relaxed);
        Ok(stat)
    }

    fn symlink(
        &self,
        directory: &Directory,
        name: &[u8],
        id: Oid,
        size: usize,
    ) -> Result<Stat, SyncError> {
        let path = join(&directory.path, name);
        let at = self.destination(directory)?;
        if size > TARGET_LIMIT {
            return Err(hostile(format!(
                "{} is to be a symbolic link with a target of {size} bytes",
                shown(&path)
            )));
        }
        let blob = objects::read(&self.odb, id, ObjectType::Blob)?;
        if blob.data().is_empty() || blob.data().contains(&0) {
            return Err(hostile(format!(
                "{} is to be a symbolic link without a valid target",
                shown(&path)
            )));
        }
        files::symlink(at, name, blob.data()).map_err(|error| self.failed(&path, error))
    }
}

enum Failure {
    Stop(SyncError),
    Store(std::io::Error),
    Disk(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}
