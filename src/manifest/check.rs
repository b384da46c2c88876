//! Comparing a published tree with its manifest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ring::digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::block::Block;
use super::reader::Manifest;
use super::record::{Kind, Record, Stat};
use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};
use crate::base::text::printable;

/// Bytes of a file that are hashed at a time.
const PIECE: usize = 1 << 20;

/// Compares type, size, modification time and permission bits of every file, the target of every
/// symbolic link, and the presence of every directory with the manifest. Returns the first damage as
/// a sentence that names the path, or `None`.
///
/// Files that are not in the manifest are not damage. File contents are not read.
///
/// # Errors
/// Stage `start`: the budget ends first, or the disk fails (reason `disk`).
pub fn verify(tree: &Path, manifest: &Path, budget: &Budget) -> Result<Option<String>, SyncError> {
    let check = Check {
        tree,
        manifest,
        budget,
        contents: None,
    };
    match check.run() {
        Ok(()) => Ok(None),
        Err(Finding::Damage(damage)) => Ok(Some(damage)),
        Err(Finding::Failure(error)) => Err(error),
    }
}

/// Like [`verify`], and compares the content of every file with its object id, or with what it was
/// converted to. `rest` is called after each piece of at most 1 MiB with the time that it took.
///
/// # Errors
/// Stage `start`: the budget ends first, or the disk fails (reason `disk`).
pub fn verify_contents(
    tree: &Path,
    manifest: &Path,
    budget: &Budget,
    rest: &dyn Fn(Duration),
) -> Result<Option<Damage>, SyncError> {
    // Sizes and times first: this finds most damage without reading a file.
    if let Some(what) = verify(tree, manifest, budget)? {
        return Ok(Some(Damage::Recorded(what)));
    }
    let check = Check {
        tree,
        manifest,
        budget,
        contents: Some(rest),
    };
    match check.run() {
        Ok(()) => Ok(None),
        Err(Finding::Damage(damage)) => Ok(Some(Damage::Content(damage))),
        Err(Finding::Failure(error)) => Err(error),
    }
}

/// How a tree differs from its manifest: a sentence that names the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// In what the manifest records of a file: type, size, time, mode.
    Recorded(String),
    /// In the content alone.
    Content(String),
}

/// Why a check ends early.
enum Finding {
    Damage(String),
    Failure(SyncError),
}

struct Check<'a> {
    tree: &'a Path,
    manifest: &'a Path,
    budget: &'a Budget,
    /// What to call between two pieces of content, if contents are compared.
    contents: Option<&'a dyn Fn(Duration)>,
}

/// The directory at a path of the tree.
enum FoundDirectory {
    Open(OwnedFd),
    /// Nothing is there. As in git, an empty tree has no directory, so this is damage only if the
    /// manifest has a file below it.
    Missing,
    /// The path leads to something else.
    OtherType,
}

impl Check<'_> {
    fn run(&self) -> Result<(), Finding> {
        let records = Manifest::open(self.manifest).map_err(|error| self.unreadable(error))?;
        let root = match open_directory(CWD, self.tree.as_os_str().as_encoded_bytes()) {
            Ok(FoundDirectory::Open(root)) => root,
            Ok(_) => return Err(Finding::Damage("its directory is gone".to_owned())),
            Err(error) => return Err(self.disk(error)),
        };
        // Waiting directories are kept as paths, so that neither the depth nor the width of a tree
        // needs descriptors.
        let mut waiting: Vec<(u32, Vec<u8>)> = vec![(0, Vec::new())];
        while let Some((number, path)) = waiting.pop() {
            let directory = self.find_directory(&root, &path)?;
            let mut next = Some(number);
            while let Some(number) = next {
                let block = records
                    .block(number)
                    .map_err(|error| self.unreadable(error))?;
                self.check_block(&block, directory.as_ref(), &path, &mut waiting)?;
                next = Some(block.next).filter(|next| *next != 0);
            }
        }
        Ok(())
    }

    /// Opens a directory of the tree; `None` if it is missing.
    fn find_directory(&self, root: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Finding> {
        let relative = if path.is_empty() { b"." } else { path };
        match open_directory(root, relative) {
            Ok(FoundDirectory::Open(directory)) => Ok(Some(directory)),
            Ok(FoundDirectory::Missing) => Ok(None),
            Ok(FoundDirectory::OtherType) => Err(damaged(path, "is of another type")),
            Err(error) => Err(self.disk(error)),
        }
    }

    /// Compares the files of one block; adds its directories to `waiting`.
    fn check_block(
        &self,
        block: &Block,
        directory: Option<&OwnedFd>,
        path: &[u8],
        waiting: &mut Vec<(u32, Vec<u8>)>,
    ) -> Result<(), Finding> {
        for record in block.records() {
            self.go_on()?;
            let record = record.map_err(unusable)?;
            let mut full = path.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(record.name);
            if record.kind.has_block() {
                waiting.push((record.child, full));
                continue;
            }
            let damage = match directory {
                Some(directory) => {
                    damage_of(directory, &record).map_err(|error| self.disk(error))?
                }
                None => Some("is gone, with its directory"),
            };
            if let Some(damage) = damage {
                return Err(damaged(&full, damage));
            }
            if let (Some(rest), Some(directory)) = (self.contents, directory)
                && matches!(record.kind, Kind::File | Kind::Executable)
                && !self.is_content(directory, &record, rest)?
            {
                return Err(damaged(&full, "has another content"));
            }
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), Finding> {
        self.budget.check().map_err(|cause| {
            let what = "checking the published tree";
            Finding::Failure(SyncError::interrupted(Stage::Start, what, cause))
        })
    }

    /// Whether a file has the recorded content.
    fn is_content(
        &self,
        directory: &OwnedFd,
        record: &Record<'_>,
        rest: &dyn Fn(Duration),
    ) -> Result<bool, Finding> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, record.name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::IO) => return Ok(false),
            Err(error) => return Err(self.disk(error)),
        };
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(format!("blob {}\0", record.stat.size).as_bytes());
        // One byte more, so that a small file ends with the first read that is short of it.
        let length = usize::try_from(record.stat.size).unwrap_or(PIECE);
        let mut piece = vec![0; length.saturating_add(1).min(PIECE)];
        loop {
            self.go_on()?;
            let started = Instant::now();
            match rustix::io::read(&file, &mut piece) {
                Ok(0) => break,
                Ok(length) => hash.update(&piece[..length]),
                Err(Errno::INTR) => {}
                // The disk has lost it, or a file system with checksums says so.
                Err(Errno::IO) => return Ok(false),
                Err(error) => return Err(self.disk(error)),
            }
            rest(started.elapsed());
        }
        let expected = record.converted.unwrap_or(record.id);
        Ok(hash.finish().as_ref() == expected.as_bytes())
    }

    /// A manifest that is missing or malformed is damage; one that the disk fails to read is not.
    fn unreadable(&self, error: io::Error) -> Finding {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                unusable(error)
            }
            _ => Finding::Failure(SyncError::disk(Stage::Start, "read", self.manifest, error)),
        }
    }

    fn disk(&self, error: Errno) -> Finding {
        Finding::Failure(SyncError::disk(
            Stage::Start,
            "check",
            self.tree,
            error.into(),
        ))
    }
}

fn unusable(error: io::Error) -> Finding {
    Finding::Damage(format!("its manifest is not usable: {error}"))
}

fn damaged(path: &[u8], what: &str) -> Finding {
    Finding::Damage(format!(
        "{} {what}",
        printable(&String::from_utf8_lossy(path))
    ))
}

/// How a file, link or empty directory differs from its record.
fn damage_of(directory: &OwnedFd, record: &Record<'_>) -> Result<Option<&'static str>, Errno> {
    let stat = match rustix::fs::statat(directory, record.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Some("is gone")),
        Err(error) => return Err(error),
    };
    let found = FileType::from_raw_mode(stat.st_mode);
    let expected = match record.kind {
        Kind::File | Kind::Executable => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Directory | Kind::Submodule | Kind::Unpopulated => FileType::Directory,
    };
    if found != expected {
        return Ok(Some("is of another type"));
    }
    if !record.kind.is_file() {
        return Ok(None);
    }
    let stat = Stat::from(&stat);
    Ok(if stat.size != record.stat.size {
        Some("has another size")
    } else if record.kind == Kind::Symlink {
        let target = rustix::fs::readlinkat(directory, record.name, Vec::new())?;
        let id = git2::Oid::hash_object(git2::ObjectType::Blob, target.as_bytes());
        (id.ok() != Some(record.id)).then_some("points elsewhere")
    } else if stat.mtime != record.stat.mtime {
        Some("was modified")
    } else if stat.mode != record.stat.mode {
        Some("has other permissions")
    } else {
        None
    })
}

/// Opens a directory. Its parents were opened by this function before, so none of them is a symbolic
/// link.
fn open_directory(at: impl AsFd, path: &[u8]) -> Result<FoundDirectory, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(at, path, flags, Mode::empty()) {
        Ok(directory) => Ok(FoundDirectory::Open(directory)),
        Err(Errno::NOENT) => Ok(FoundDirectory::Missing),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(FoundDirectory::OtherType),
        Err(error) => Err(error),
    }
}
