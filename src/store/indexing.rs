//! A pack is indexed on a thread of its own, while more of it arrives.
//!
//! Hashing and inflating take longer than receiving: done in turn with it they would keep the
//! server waiting. This module does not judge what it is given; libgit2 does.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use git2::{Indexer, Odb};

use crate::budget::Budget;

/// Pieces of pack that wait to be indexed; each is at most a packet of 64 KiB.
const WAITING: usize = 16;

/// A pack being indexed. Dropping it removes what was written.
pub(super) struct Indexing {
    pieces: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<Result<String, Failure>>>,
}

/// What goes wrong while indexing.
pub(super) enum Failure {
    /// What libgit2 says.
    Git(git2::Error),
    /// An error of the thread or of the disk.
    Io(io::Error),
}

enum Piece {
    Bytes(Vec<u8>),
    /// The pack is complete: keep it.
    Commit,
}

impl Indexing {
    /// Begins a pack in `directory`; deltas may refer to what is in the database `objects`.
    /// `indexed` follows the number of objects that are done.
    pub(super) fn start(
        directory: PathBuf,
        objects: String,
        budget: Budget,
        indexed: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let (pieces, arriving) = mpsc::sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || index(&directory, &objects, &budget, indexed, &arriving))?;
        Ok(Self {
            pieces: Some(pieces),
            thread: Some(thread),
        })
    }

    /// Takes the next bytes; waits while too many are waiting.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.send(Piece::Bytes(bytes.to_vec()))
    }

    /// Completes the pack and returns its name.
    pub(super) fn commit(mut self) -> Result<String, Failure> {
        self.send(Piece::Commit)?;
        self.end()
    }

    /// A thread that takes no more has failed, and tells why.
    fn send(&mut self, piece: Piece) -> Result<(), Failure> {
        match &self.pieces {
            Some(pieces) if pieces.send(piece).is_ok() => Ok(()),
            _ => self.end().map(drop),
        }
    }

    fn end(&mut self) -> Result<String, Failure> {
        self.pieces = None;
        let over = || Failure::Io(io::Error::other("the pack has already failed"));
        match self.thread.take() {
            None => Err(over()),
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(Failure::Io(io::Error::other("indexing panicked")))),
        }
    }
}

impl Drop for Indexing {
    fn drop(&mut self) {
        // Only after the thread has ended is the unfinished file gone.
        let _ = self.end();
    }
}

fn index(
    directory: &std::path::Path,
    objects: &str,
    budget: &Budget,
    indexed: Arc<AtomicUsize>,
    arriving: &Receiver<Piece>,
) -> Result<String, Failure> {
    let bases = Odb::new()?;
    bases.add_disk_alternate(objects)?;
    let mut indexer = Indexer::new(Some(&bases), directory, 0o444, false)?;
    let limits = budget.clone();
    indexer.progress(move |progress| {
        indexed.store(progress.indexed_objects(), Ordering::Relaxed);
        limits.check().is_ok()
    });
    loop {
        match arriving.recv() {
            Ok(Piece::Bytes(bytes)) => indexer.write_all(&bytes)?,
            Ok(Piece::Commit) => return Ok(indexer.commit()?),
            Err(_) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl From<git2::Error> for Failure {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.downcast::<git2::Error>() {
            Ok(error) => Self::Git(error),
            Err(error) => Self::Io(error),
        }
    }
}
