//! A pack on its way into the store.
//!
//! Bytes are indexed as they come; those of a large thin pack are put aside until its bases are
//! known. Until [`Receiving::finish`] nothing refers to them, and dropping a `Receiving` removes
//! them. Objects are not checked for what they contain.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use git2::{ErrorClass, ErrorCode, Odb};

use super::indexing::{Indexing, system_error};
use super::thin::Spool;
use super::{Store, has_root, packs};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError, shortage};
use crate::base::transfer::{Fetched, PackSink};

/// The writing end of a fetch.
#[must_use = "nothing is kept before finish()"]
pub struct Receiving<'s> {
    store: &'s Store,
    /// Declared, and so dropped, before the database that it points into.
    intake: Intake,
    bases: Odb<'static>,
    budget: Budget,
    max_bytes: u64,
    thin: bool,
    bytes: u64,
    header: Vec<u8>,
    progress: Progress,
}

/// Where the bytes go.
enum Intake {
    Indexing(Indexing),
    Spool(Spool),
    /// Nowhere, after a failure.
    Failed,
}

/// What a log line about a long fetch needs.
struct Progress {
    started: Instant,
    said: Instant,
    bytes_said: u64,
}

const HEADER: usize = 12;
/// A thin pack of more objects is completed by [`Spool`], which costs reading it twice; libgit2
/// needs time that grows with the square of the deltas without a base.
const FEW_OBJECTS: u32 = 3000;
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
        let indexing = Indexing::new(Some(&bases), &directory, budget).map_err(failed)?;
        let now = Instant::now();
        Ok(Receiving {
            store: self,
            intake: Intake::Indexing(indexing),
            bases,
            budget: budget.clone(),
            max_bytes,
            thin: false,
            bytes: 0,
            header: Vec::with_capacity(HEADER),
            progress: Progress {
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
            let cause = system_error(cause);
            return SyncError::disk(Stage::Fetch, "write a pack into", &self.path, cause);
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

    /// Says that the pack may lack the bases of its deltas. (Without it such a pack is completed,
    /// too; a large one takes long.)
    pub fn expect_thin(&mut self) {
        self.thin = true;
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
        let intake = std::mem::replace(&mut self.intake, Intake::Failed);
        let sum = match intake {
            _ if self.objects() == Some(0) => None,
            Intake::Indexing(indexing) => {
                Some(indexing.commit().map_err(|cause| self.error(cause))?)
            }
            Intake::Spool(spool) => Some(self.complete(&spool)?),
            Intake::Failed => None,
        };
        if let Some(sum) = sum {
            packs::sync(&store.pack_dir(), &sum).map_err(disk)?;
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

    /// Completes a thin pack that was put aside; returns its checksum.
    fn complete(&self, spool: &Spool) -> Result<String, SyncError> {
        let directory = self.store.pack_dir();
        let completed = spool.complete(&self.bases, &directory, &self.budget);
        let cause = match completed {
            Ok(sum) => return Ok(sum),
            Err(cause) => cause,
        };
        if cause.class() == ErrorClass::Os || self.budget.check().is_err() {
            return Err(self.error(cause));
        }
        tracing::debug!(%cause, "completing a thin pack base by base");
        Indexing::new(Some(&self.bases), &directory, &self.budget)
            .and_then(|mut indexing| {
                spool.pour(|piece| indexing.write(piece))?;
                indexing.commit()
            })
            .map_err(|cause| self.error(cause))
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
        // A lower bound, where objects came as deltas.
        let indexed = match &self.intake {
            Intake::Indexing(indexing) => indexing.indexed(),
            Intake::Spool(spool) => spool.objects() as usize,
            Intake::Failed => 0,
        };
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
            self.intake = Intake::Failed;
            return Err(SyncError::new(
                Stage::Fetch,
                Reason::Limit,
                format!("the pack is larger than {} bytes", self.max_bytes),
            ));
        }
        let before = self.header.len();
        let missing = HEADER - before;
        self.header
            .extend_from_slice(&chunk[..missing.min(chunk.len())]);
        let disk = |cause| SyncError::disk(Stage::Fetch, "write into", &self.store.path, cause);
        if before < HEADER
            && self.thin
            && let Some(count) = self.objects().filter(|count| *count > FEW_OBJECTS)
        {
            let mut spool = Spool::new(&self.store.pack_dir(), count).map_err(disk)?;
            spool.write(&self.header[..before]).map_err(disk)?;
            self.intake = Intake::Spool(spool);
        }
        let failed = match &mut self.intake {
            Intake::Indexing(indexing) => match indexing.write(chunk) {
                Ok(()) => None,
                Err(cause) => Some(self.error(cause)),
            },
            Intake::Spool(spool) => spool.write(chunk).map_err(disk).err(),
            Intake::Failed => Some(SyncError::new(
                Stage::Fetch,
                Reason::Other,
                "more of a pack that has already failed",
            )),
        };
        if let Some(error) = failed {
            self.intake = Intake::Failed;
            return Err(error);
        }
        self.talk();
        Ok(())
    }
}
