//! Comparing a published tree with its manifest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::format::{Entry, Kind, Manifest};
use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};
use crate::base::text::printable;

/// Compares type, size, modification time and permission bits of every file, the target of every
/// link, and the presence of every directory with the manifest. Returns the first damage, as a
/// sentence that names the path, or `None`.
///
/// Files that are in no manifest are no damage. Contents are not read.
///
/// # Errors
/// When the budget ends first, or the disk fails (reason `disk`); stage `start`.
pub fn verify(tree: &Path, manifest: &Path, budget: &Budget) -> Result<Option<String>, SyncError> {
    let records = match Manifest::open(manifest) {
        Ok(records) => records,
        Err(error) if means_damage(&error) => {
            return Ok(Some(format!("its manifest is not usable: {error}")));
        }
        Err(error) => return Err(SyncError::disk(Stage::Start, "read", manifest, error)),
    };
    let disk = |error: io::Error| SyncError::disk(Stage::Start, "check", tree, error);
    let root = match open_directory(CWD, tree.as_os_str().as_encoded_bytes()) {
        Ok(Place::Directory(root)) => root,
        Ok(_) => return Ok(Some("its directory is gone".to_owned())),
        Err(error) => return Err(disk(error.into())),
    };
    // Directories wait as paths, so that neither depth nor width costs descriptors.
    let mut waiting: Vec<(u32, Vec<u8>)> = vec![(0, Vec::new())];
    while let Some((number, path)) = waiting.pop() {
        let below = if path.is_empty() {
            b"."
        } else {
            path.as_slice()
        };
        let directory = match open_directory(&root, below) {
            Ok(Place::Directory(directory)) => Some(directory),
            Ok(Place::Absent) => None,
            Ok(Place::Other) => return Ok(Some(damaged(&path, "is of another type"))),
            Err(error) => return Err(disk(error.into())),
        };
        let mut next = Some(number);
        while let Some(number) = next {
            let block = match records.block(number) {
                Ok(block) => block,
                Err(error) if means_damage(&error) => {
                    return Ok(Some(format!("its manifest is not usable: {error}")));
                }
                Err(error) => return Err(SyncError::disk(Stage::Start, "read", manifest, error)),
            };
            for entry in block.entries() {
                budget.check().map_err(|cause| {
                    SyncError::interrupted(Stage::Start, "checking the published tree", cause)
                })?;
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        return Ok(Some(format!("its manifest is not usable: {error}")));
                    }
                };
                let mut full = path.clone();
                if !full.is_empty() {
                    full.push(b'/');
                }
                full.extend_from_slice(entry.name);
                if entry.kind.has_block() {
                    waiting.push((entry.child, full));
                    continue;
                }
                let damage = match &directory {
                    Some(directory) => {
                        damage_of(directory, &entry).map_err(|error| disk(error.into()))?
                    }
                    None => Some("is gone, with its directory"),
                };
                if let Some(damage) = damage {
                    return Ok(Some(damaged(&full, damage)));
                }
            }
            next = Some(block.next).filter(|next| *next != 0);
        }
    }
    Ok(None)
}

fn damaged(path: &[u8], what: &str) -> String {
    format!("{} {what}", printable(&String::from_utf8_lossy(path)))
}

fn means_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

fn damage_of(directory: &OwnedFd, entry: &Entry<'_>) -> Result<Option<&'static str>, Errno> {
    let stat = match rustix::fs::statat(directory, entry.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Some("is gone")),
        Err(error) => return Err(error),
    };
    let found = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    let expected = match entry.kind {
        Kind::File | Kind::Executable => rustix::fs::FileType::RegularFile,
        Kind::Symlink => rustix::fs::FileType::Symlink,
        Kind::Directory | Kind::Submodule | Kind::Unpopulated => rustix::fs::FileType::Directory,
    };
    if found != expected {
        return Ok(Some("is of another type"));
    }
    if !entry.kind.is_file() {
        return Ok(None);
    }
    let stat = super::Stat::from(&stat);
    Ok(if stat.size != entry.stat.size {
        Some("has another size")
    } else if entry.kind == Kind::Symlink {
        let target = rustix::fs::readlinkat(directory, entry.name, Vec::new())?;
        let id = git2::Oid::hash_object(git2::ObjectType::Blob, target.as_bytes());
        (id.ok() != Some(entry.id)).then_some("points elsewhere")
    } else if stat.mtime != entry.stat.mtime {
        Some("was modified")
    } else if stat.mode != entry.stat.mode {
        Some("has other permissions")
    } else {
        None
    })
}

impl From<&rustix::fs::Stat> for super::Stat {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields differ in width between architectures"
    )]
    fn from(stat: &rustix::fs::Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(stat.st_mtime_nsec as i64),
            mode: (stat.st_mode & 0o7777) as u16,
        }
    }
}

/// What stands where a directory should.
enum Place {
    Directory(OwnedFd),
    /// An empty tree has no directory, as in git: damage only if a file should be in it.
    Absent,
    Other,
}

/// Opens a directory. The parents of `path` were opened this way before, so none is a link.
fn open_directory(at: impl AsFd, path: &[u8]) -> Result<Place, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(at, path, flags, Mode::empty()) {
        Ok(directory) => Ok(Place::Directory(directory)),
        Err(Errno::NOENT) => Ok(Place::Absent),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Place::Other),
        Err(error) => Err(error),
    }
}
