//! libgit2's indexer, fed with large pieces of a pack.
//!
//! It verifies every object and writes the pack and its index. Until [`Indexing::commit`] nothing
//! refers to them, and dropping an `Indexing` removes them. Callers translate its errors.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use git2::{ErrorClass, Indexer, Odb};

use crate::base::budget::Budget;

/// A pack that is being indexed.
#[must_use = "nothing is kept before commit()"]
pub(super) struct Indexing {
    indexer: Indexer<'static>,
    /// Bytes that the indexer was not given yet.
    pending: Vec<u8>,
    indexed: Arc<AtomicUsize>,
}

/// Bytes that the indexer is given at a time. Each call makes it map the file again.
const BATCH: usize = 256 << 10;

impl Indexing {
    /// Begins a pack in `directory`; the bases of its deltas may be in `bases`.
    pub(super) fn new(
        bases: Option<&Odb<'static>>,
        directory: &Path,
        budget: &Budget,
    ) -> Result<Self, git2::Error> {
        let mut indexer = Indexer::new(bases, directory, 0o444, false)?;
        let indexed = Arc::new(AtomicUsize::new(0));
        let (count, limits) = (indexed.clone(), budget.clone());
        indexer.progress(move |progress| {
            count.store(progress.indexed_objects(), Ordering::Relaxed);
            limits.check().is_ok()
        });
        Ok(Self {
            indexer,
            pending: Vec::with_capacity(BATCH),
            indexed,
        })
    }

    /// How many objects are indexed. Deltas are resolved, and so counted, in [`Indexing::commit`].
    pub(super) fn indexed(&self) -> usize {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Takes the next bytes of the pack.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), git2::Error> {
        if self.pending.len() + bytes.len() > BATCH {
            self.flush()?;
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Indexes the rest and renames the pack to its final name; returns its checksum in hexadecimal.
    pub(super) fn commit(mut self) -> Result<String, git2::Error> {
        self.flush()?;
        self.indexer.commit()
    }

    fn flush(&mut self) -> Result<(), git2::Error> {
        let written = self.indexer.write_all(&self.pending);
        self.pending.clear();
        written.map_err(|cause| {
            // git2's Write implementation wraps only git2::Error.
            cause
                .downcast::<git2::Error>()
                .unwrap_or_else(|cause| git2::Error::from_str(&cause.to_string()))
        })
    }
}

/// Whether an error of libgit2's indexer means that a file could not be written.
///
/// `git_indexer_commit` ignores the results of most of its writes to the index. If one fails, the
/// last one fails too, but sets no error: libgit2 then reports "no error" of no class.
pub(super) fn is_disk_failure(cause: &git2::Error) -> bool {
    cause.class() == ErrorClass::Os
        || (cause.class() == ErrorClass::None && cause.message() == "no error")
}

/// The system's error behind an error of libgit2 about a file in `directory`. libgit2 passes on only
/// its text (strerror(3)), or nothing at all.
pub(super) fn system_error(cause: git2::Error, directory: &Path) -> io::Error {
    let says = |words| cause.message().contains(words);
    let is_silent = cause.class() == ErrorClass::None;
    let kind = if says("No space left") || says("quota") || (is_silent && is_full(directory)) {
        io::ErrorKind::StorageFull
    } else if says("Read-only") {
        io::ErrorKind::ReadOnlyFilesystem
    } else {
        io::ErrorKind::Other
    };
    match is_silent {
        true => io::Error::new(kind, "the index of a pack cannot be written"),
        false => io::Error::new(kind, cause),
    }
}

/// Whether a file system has less space left than an index may take: 28 bytes per object.
fn is_full(directory: &Path) -> bool {
    const LITTLE: u64 = 1 << 20;
    rustix::fs::statvfs(directory).is_ok_and(|stat| stat.f_bavail * stat.f_frsize < LITTLE)
}
