//! libgit2's indexer, given a pack by large pieces.
//!
//! It verifies every object and writes pack and index. Until [`Indexing::commit`] nothing refers to
//! them, and dropping an `Indexing` removes them. What its errors mean is for the caller to say.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use git2::{Indexer, Odb};

use crate::base::budget::Budget;

/// A pack on its way to the disk.
#[must_use = "nothing is kept before commit()"]
pub(super) struct Indexing {
    indexer: Indexer<'static>,
    /// What the indexer is given next.
    pending: Vec<u8>,
    indexed: Arc<AtomicUsize>,
}

/// Bytes that the indexer is given at a time: each call makes it map the file anew.
const BATCH: usize = 256 << 10;

impl Indexing {
    /// Begins a pack in `directory`; deltas may build on what is in `bases`.
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

    /// How many objects are indexed; those that came as deltas are counted at the end.
    pub(super) fn indexed(&self) -> usize {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Takes what comes next.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), git2::Error> {
        if self.pending.len() + bytes.len() > BATCH {
            self.flush()?;
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Indexes the rest and puts the pack into place; returns its checksum.
    pub(super) fn commit(mut self) -> Result<String, git2::Error> {
        self.flush()?;
        self.indexer.commit()
    }

    fn flush(&mut self) -> Result<(), git2::Error> {
        let written = self.indexer.write_all(&self.pending);
        self.pending.clear();
        written.map_err(|cause| {
            // The indexer has no other errors.
            cause
                .downcast::<git2::Error>()
                .unwrap_or_else(|cause| git2::Error::from_str(&cause.to_string()))
        })
    }
}

/// What the system said, of which libgit2 tells no more than the words (strerror(3)).
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
