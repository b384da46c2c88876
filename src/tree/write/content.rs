//! Writing a file or symbolic link from its blob in the store.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use git2::{ObjectType, Oid};
use ring::digest;

use super::directory::Directory;
use super::job::Job;
use super::locking::lock;
use super::paths::{as_path, join, printable_path};
use crate::base::error::{Stage, SyncError};
use crate::manifest::{Kind, Stat};
use crate::pack::LARGE;
use crate::tree::conversion::Conversion;
use crate::tree::objects::{self, hostile};
use crate::tree::{convert, files};

/// The longest target of a symbolic link, in bytes (symlink(2)).
const TARGET_LIMIT: usize = 4095;

/// A file or symbolic link that was written.
pub(super) struct Written {
    pub(super) stat: Stat,
    /// The id of its content as a blob, if it was converted.
    pub(super) converted: Option<Oid>,
}

/// Why a file was not filled.
enum WriteFailure {
    Stopped(SyncError),
    Store(io::Error),
    Disk(io::Error),
}

impl From<io::Error> for WriteFailure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Job<'_> {
    /// Writes the blob `id` as a file or symbolic link.
    pub(super) fn write(
        &self,
        directory: &Directory,
        name: &[u8],
        kind: Kind,
        id: Oid,
        conversion: &Conversion,
    ) -> Result<Written, SyncError> {
        let (size, object) = objects::header(&self.odb, id)?;
        if object != ObjectType::Blob {
            return Err(hostile(format!(
                "{} is a file in its tree, but object {id} is a {}",
                printable_path(&join(&directory.path, name)),
                object.str()
            )));
        }
        self.build.admit(size as u64)?;
        let counts = &self.build.counts;
        if kind == Kind::Symlink {
            let stat = self.symlink(directory, name, id, size)?;
            counts.files_written.fetch_add(1, Ordering::Relaxed);
            return Ok(Written {
                stat,
                converted: None,
            });
        }
        let written = self.regular_file(
            directory,
            name,
            kind == Kind::Executable,
            (id, size),
            conversion,
        )?;
        counts.files_written.fetch_add(1, Ordering::Relaxed);
        counts
            .bytes_written
            .fetch_add(written.stat.size, Ordering::Relaxed);
        Ok(written)
    }

    /// Writes a blob of `size` bytes as a regular file.
    fn regular_file(
        &self,
        directory: &Directory,
        name: &[u8],
        executable: bool,
        (id, size): (Oid, usize),
        conversion: &Conversion,
    ) -> Result<Written, SyncError> {
        let path = || join(&directory.path, name);
        let at = self.destination(directory)?;
        let create =
            || files::create(at, name, executable).map_err(|error| self.failed(&path(), error));
        let proceed = || self.proceed().map_err(WriteFailure::Stopped);
        let failed = |failure| match failure {
            WriteFailure::Stopped(error) => error,
            WriteFailure::Store(error) => objects::damaged(id, error),
            WriteFailure::Disk(error) => {
                let full = self.build.request.destination.join(as_path(&path()));
                SyncError::disk(Stage::Build, "write", &full, error)
            }
        };
        let is_large = size > LARGE;
        let streamed = match is_large && conversion.is_none() {
            true => objects::stream(self.build.request.store, id, size)?,
            false => None,
        };
        let mut content_id = None;
        let file = if let Some(content) = streamed {
            files::fill_from(create()?, content, WriteFailure::Store, proceed).map_err(failed)?
        } else {
            // Only one large blob is in memory at a time.
            let _large = is_large.then(|| lock(&self.build.large));
            let blob = objects::read(&self.odb, id, ObjectType::Blob)?;
            if conversion.is_none() {
                files::fill(create()?, blob.data(), proceed).map_err(failed)?
            } else {
                let content = blob.data();
                let plan = convert::plan(conversion, id, content, proceed).map_err(failed)?;
                if plan.left_encoding {
                    let encoding = conversion.encoding.as_deref().unwrap_or_default();
                    let attribute = format!("working-tree-encoding={encoding}");
                    lock(&self.build.remarks).note_unapplied(&attribute, printable_path(&path()));
                }
                self.build
                    .admit_bytes(plan.size.saturating_sub(size as u64))?;
                let mut file = File::from(create()?);
                let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
                hash.update(format!("blob {}\0", plan.size).as_bytes());
                convert::write(&plan, conversion, id, content, &mut |piece| {
                    proceed()?;
                    hash.update(piece);
                    file.write_all(piece).map_err(WriteFailure::Disk)
                })
                .map_err(failed)?;
                let hashed = Oid::from_bytes(hash.finish().as_ref());
                content_id = Some(hashed.map_err(|error| objects::damaged(id, error))?);
                OwnedFd::from(file)
            }
        };
        let stat = files::finish(file, self.build.options.group_write)
            .map_err(|error| self.failed(&path(), error))?;
        Ok(Written {
            stat,
            converted: content_id,
        })
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
                "{} is a symbolic link with a target of {size} bytes; Linux allows {TARGET_LIMIT}",
                printable_path(&path)
            )));
        }
        let blob = objects::read(&self.odb, id, ObjectType::Blob)?;
        if blob.data().is_empty() || blob.data().contains(&0) {
            return Err(hostile(format!(
                "{} is a symbolic link without a valid target",
                printable_path(&path)
            )));
        }
        files::symlink(at, name, blob.data()).map_err(|error| self.failed(&path, error))
    }
}
