//! libgit2's indexer, fed with large pieces of a pack.
//!
//! It verifies every object and writes the pack and its index. Until [`Indexing::commit`] nothing
//! refers to them, and dropping an `Indexing` removes them. Callers translate its errors.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use git2::{Indexer, Odb};

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

/// The system's error behind an error of libgit2, which passes on only its text (strerror(3)).
pub(super) fn system_error(cause: git2::Error) -> io::Error {
    let says = |words| cause.message().contains(words);
    let kind = if says("No space left") || says("quota") {
        io::ErrorKind::StorageFull
    } else if says("Read-only") {
        io::ErrorKind::ReadOnlyFilesystem
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, cause)
}
