//! A pack on its way into the store.
//!
//! Bytes are indexed as they come; until [`Receiving::finish`] nothing refers to them, and
//! dropping a `Receiving` removes them. Objects are not checked for what they contain.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use git2::{ErrorClass, ErrorCode, Indexer, Odb};

use super::{Store, has_root, packs};
use crate::budget::Budget;
use crate::commit::Commit;
use crate::error::{Reason, Stage, SyncError, shortage};
use crate::remote::{Fetched, PackSink};

/// The writing end of a fetch.
#[must_use = "nothing is kept before finish()"]
pub struct Receiving<'s> {
    store: &'s Store,
    /// Gone after a failure. Declared, and so dropped, before the database that it points into.
    indexer: Option<Indexer<'static>>,
    _bases: Odb<'static>,
    budget: Budget,
    max_bytes: u64,
    max_objects: u32,
    bytes: u64,
    header: Vec<u8>,
    progress: Progress,
}

/// What a log line about a long fetch needs.
struct Progress {
    indexed: Arc<AtomicUsize>,
    started: Instant,
    said: Instant,
    bytes_said: u64,
}

const HEADER: usize = 12;
/// Bytes that a process which is not short of memory can have at any time, and that no allocator
/// has in reserve; asked for, and given back untouched.
const PROBE: usize = 64 << 20;
/// Fetches shorter than this are not talked about, nor others more often.
const TALK_EVERY: Duration = Duration::from_secs(5);

impl Store {
    /// Begins to take a pack of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// Stage `fetch`: the disk does not take a new file.
    pub fn receive(&self, budget: &Budget, max_bytes: u64) -> Result<Receiving<'_>, SyncError> {
        let failed = |cause: git2::Error| self.pack_error(cause);
        let directory = self.pack_dir();
        std::fs::create_dir_all(&directory)
            .map_err(|cause| SyncError::disk(Stage::Fetch, "create", &directory, cause))?;
        let bases = Odb::new().map_err(failed)?;
        let objects = self.path.join("objects");
        let objects = objects.to_str().ok_or_else(|| {
            SyncError::new(
                Stage::Fetch,
                Reason::Other,
                format!("the path {} is not UTF-8", self.path.display()),
            )
        })?;
        bases.add_disk_alternate(objects).map_err(failed)?;
        let mut indexer = Indexer::new(Some(&bases), &directory, 0o444, false).map_err(failed)?;
        let indexed = Arc::new(AtomicUsize::new(0));
        let (count, limits) = (indexed.clone(), budget.clone());
        indexer.progress(move |progress| {
            count.store(progress.indexed_objects(), Ordering::Relaxed);
            limits.check().is_ok()
        });
        let now = Instant::now();
        Ok(Receiving {
            store: self,
            indexer: Some(indexer),
            _bases: bases,
            budget: budget.clone(),
            max_bytes,
            max_objects: u32::MAX,
            bytes: 0,
            header: Vec::with_capacity(HEADER),
            progress: Progress {
                indexed,
                started: now,
                said: now,
                bytes_said: 0,
            },
        })
    }

    /// The error for what libgit2 says about a pack.
    fn pack_error(&self, cause: git2::Error) -> SyncError {
        let text = cause.message().to_owned();
        let error = |reason, message: String| SyncError::new(Stage::Fetch, reason, message);
        let unindexed = || format!("cannot index a pack for {}", self.path.display());
        if shortage(&cause).is_some() {
            return error(Reason::Resources, unindexed()).with_source(cause);
        }
        if cause.class() == ErrorClass::Os {
            let full = ["No space left", "quota"];
            let error = error(
                Reason::Disk,
                format!("cannot write a pack into {}", self.path.display()),
            );
            let error = if full.iter().any(|word| text.contains(word)) {
                error.with_hint("make the volume larger, or lower --keep and --stale-timeout")
            } else if text.contains("Read-only") {
                error.with_hint("mount the volume read-write")
            } else {
                error
            };
            return error.with_source(cause);
        }
        // What libgit2 could not map into memory it may call damaged.
        if out_of_memory() {
            let error = error(Reason::Resources, unindexed()).with_source(cause);
            return error.with_hint("out of memory: raise the memory limit of the container");
        }
        // Deltas whose base we claimed to have, and do not.
        if cause.code() == ErrorCode::NotFound
            || text.contains("delta base")
            || text.contains("thin pack")
        {
            return error(
                Reason::Store,
                format!("{} lacks the base of a delta", self.path.display()),
            )
            .with_hint("the store is rebuilt from the remote")
            .with_source(cause);
        }
        let truncated = ["early EOF", "missing trailer", "incomplete pack header"];
        if truncated.iter().any(|words| text.contains(words)) {
            return error(Reason::Network, "the pack ended too early".to_owned())
                .with_source(cause);
        }
        error(Reason::Protocol, "the pack is damaged".to_owned()).with_source(cause)
    }
}

/// Whether the system refuses this process memory.
fn out_of_memory() -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let refused = probe.try_reserve_exact(PROBE).is_err();
    // Memory that nobody can see need not be asked for.
    std::hint::black_box(&probe);
    refused
}

impl Receiving<'_> {
    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Refuses, once its header has come, a pack of more than `objects` objects.
    pub fn refuse_above(&mut self, objects: u32) {
        self.max_objects = objects;
    }

    /// Whether the pack was refused for the number of its objects.
    pub fn refused(&self) -> bool {
        self.objects().is_some_and(|count| count > self.max_objects)
    }

    /// Completes the pack (the bases of a thin one are added), then records the shallow boundary
    /// and that `commits` are here. A kill between any two of these steps is harmless: a boundary
    /// for what is not here, or a pack that nothing refers to.
    ///
    /// # Errors
    /// Stage `fetch`: the pack is truncated, damaged or lacks a commit, or the disk is full.
    pub fn finish(mut self, fetched: &Fetched, commits: &[Commit]) -> Result<(), SyncError> {
        let store = self.store;
        let disk =
            |cause: io::Error| SyncError::disk(Stage::Fetch, "write into", &store.path, cause);
        let before: BTreeSet<Commit> = store.shallow().into_iter().collect();
        let mut boundary = before.clone();
        boundary.extend(&fetched.shallow);
        if boundary != before {
            store.write_shallow(&boundary).map_err(disk)?;
        }
        if let Some(indexer) = self.indexer.take()
            && self.objects() != Some(0)
        {
            let name = indexer.commit().map_err(|cause| self.error(cause))?;
            packs::sync(&store.pack_dir(), &name).map_err(disk)?;
        }
        let open = boundary.len();
        boundary.retain(|commit| !fetched.unshallow.contains(commit));
        if boundary.len() != open {
            store.write_shallow(&boundary).map_err(disk)?;
        }
        let repository = store.repository().map_err(|e| store.pack_error(e))?;
        for commit in commits {
            if !has_root(&repository, *commit) {
                return Err(SyncError::new(
                    Stage::Fetch,
                    Reason::Protocol,
                    format!("the remote sent a pack without commit {commit}"),
                ));
            }
            store.add_tip(*commit).map_err(disk)?;
        }
        Ok(())
    }

    /// How many objects the header announces (gitformat-pack).
    fn objects(&self) -> Option<u32> {
        let count = self.header.get(8..HEADER)?;
        Some(u32::from_be_bytes(count.try_into().ok()?))
    }

    fn error(&self, cause: git2::Error) -> SyncError {
        match self.budget.check() {
            Err(interrupted) => SyncError::interrupted(Stage::Fetch, "the fetch", interrupted),
            Ok(()) => self.store.pack_error(cause),
        }
    }

    fn talk(&mut self) {
        let since = self.progress.said.elapsed();
        if since < TALK_EVERY {
            return;
        }
        let fresh = self.bytes - self.progress.bytes_said;
        let rate = fresh as f64 / since.as_secs_f64();
        self.progress.said = Instant::now();
        self.progress.bytes_said = self.bytes;
        let indexed = self.progress.indexed.load(Ordering::Relaxed);
        // Objects that came as deltas are only counted at the end: a lower bound.
        let percent = match self.objects() {
            Some(all) if all > 0 => (indexed as f64 / f64::from(all) * 100.0) as u64,
            _ => 0,
        };
        tracing::info!(
            percent,
            bytes = self.bytes,
            bytes_per_second = rate as u64,
            seconds = self.progress.started.elapsed().as_secs(),
            "fetching"
        );
    }
}

impl PackSink for Receiving<'_> {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError> {
        self.budget
            .check()
            .map_err(|cause| SyncError::interrupted(Stage::Fetch, "the fetch", cause))?;
        self.bytes += chunk.len() as u64;
        if self.bytes > self.max_bytes {
            self.indexer = None;
            return Err(SyncError::new(
                Stage::Fetch,
                Reason::Limit,
                format!("the pack is larger than {} bytes", self.max_bytes),
            ));
        }
        let missing = HEADER - self.header.len();
        self.header
            .extend_from_slice(&chunk[..missing.min(chunk.len())]);
        if self.refused() {
            self.indexer = None;
            return Err(SyncError::new(
                Stage::Fetch,
                Reason::Limit,
                format!("the pack has more than {} objects", self.max_objects),
            ));
        }
        let Some(indexer) = &mut self.indexer else {
            return Err(SyncError::new(
                Stage::Fetch,
                Reason::Other,
                "more of a pack that has already failed",
            ));
        };
        if let Err(cause) = indexer.write_all(chunk) {
            self.indexer = None;
            return Err(match cause.downcast::<git2::Error>() {
                Ok(cause) => self.error(cause),
                Err(cause) => SyncError::disk(Stage::Fetch, "write into", &self.store.path, cause),
            });
        }
        self.talk();
        Ok(())
    }
}
