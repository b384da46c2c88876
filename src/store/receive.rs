//! Receives a pack into the store.
//!
//! The bytes are indexed as they arrive; a large thin pack is spooled to a file first, until the
//! bases of its deltas are known. Until [`Receiving::finish`] nothing refers to the pack, and
//! dropping a `Receiving` removes it. Objects are not checked for hostile content.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use git2::{ErrorCode, Odb};

use super::indexing::{Indexing, is_disk_failure, system_error};
use super::objects::has_root;
use super::thin::Spool;
use super::{Store, packs};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError, shortage};
use crate::base::transfer::{Fetched, PackSink};

/// The writing end of a fetch.
#[must_use = "nothing is kept before finish()"]
pub struct Receiving<'s> {
    store: &'s Store,
    /// Declared before `bases`, and so dropped before it, because it points into that database.
    intake: Intake,
    bases: Odb<'static>,
    budget: Budget,
    max_bytes: u64,
    thin: bool,
    bytes: u64,
    header: Vec<u8>,
    progress: FetchProgress,
}

/// Where the received bytes go.
enum Intake {
    Indexing(Indexing),
    Spool(Spool),
    /// Nowhere: the pack has failed.
    Failed,
}

/// When the progress of a long fetch was logged last.
struct FetchProgress {
    started: Instant,
    logged: Instant,
    bytes_logged: u64,
}

const HEADER: usize = 12;
/// A thin pack with more objects than this is completed by [`Spool`], which reads it twice. libgit2
/// reads it once, but takes time that grows with the square of the number of deltas without a base.
const FEW_OBJECTS: u32 = 3000;
/// Bytes that are allocated and freed untouched to find out whether memory is short: more than an
/// allocator keeps in reserve, and little for a process that is not short of memory.
const PROBE: usize = 64 << 20;
/// The time between two log lines about the progress of a fetch, and before the first.
const LOG_EVERY: Duration = Duration::from_secs(5);

impl Store {
    /// Begins to receive a pack of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// Stage `fetch`: a new file cannot be created.
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
            progress: FetchProgress {
                started: now,
                logged: now,
                bytes_logged: 0,
            },
        })
    }

    /// Translates an error of libgit2 about a pack.
    fn pack_error(&self, cause: git2::Error) -> SyncError {
        let text = cause.message().to_owned();
        let error = |reason, message: String| SyncError::new(Stage::Fetch, reason, message);
        let unindexed = || format!("cannot index a pack for {}", self.path.display());
        if shortage(&cause).is_some() {
            return error(Reason::Resources, unindexed()).with_source(cause);
        }
        if is_disk_failure(&cause) {
            let cause = system_error(cause, &self.path);
            return SyncError::disk(Stage::Fetch, "write a pack into", &self.path, cause);
        }
        // libgit2 may report a pack that it could not map into memory as damaged.
        if out_of_memory() {
            let error = error(Reason::Resources, unindexed()).with_source(cause);
            return error.with_hint("out of memory: raise the memory limit of the container");
        }
        // The server sent a delta whose base the store claimed to have and does not have.
        if cause.code() == ErrorCode::NotFound
            || text.contains("delta base")
            || text.contains("thin pack")
        {
            return error(
                Reason::Store,
                format!("{} lacks the base of a delta", self.path.display()),
            )
            .with_hint("no action is needed: the store is rebuilt from the remote")
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

/// Whether the system refuses memory to this process.
fn out_of_memory() -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let refused = probe.try_reserve_exact(PROBE).is_err();
    // Without this the compiler may remove the allocation, because nothing uses it.
    std::hint::black_box(&probe);
    refused
}

impl Receiving<'_> {
    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Announces that the pack may lack the bases of its deltas. A thin pack is completed without
    /// this too, but a large one then takes long.
    pub fn expect_thin(&mut self) {
        self.thin = true;
    }

    /// Completes the pack (the bases of a thin one are added), then records the shallow boundary
    /// and `commits`. A kill between any two of these steps is harmless: it leaves a boundary for
    /// commits that are not in the store, or a pack that nothing refers to.
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
        let checksum = match intake {
            _ if self.objects() == Some(0) => None,
            Intake::Indexing(indexing) => {
                Some(indexing.commit().map_err(|cause| self.error(cause))?)
            }
            Intake::Spool(spool) => Some(self.complete(&spool)?),
            Intake::Failed => None,
        };
        if let Some(checksum) = checksum {
            packs::sync(&store.pack_dir(), &checksum).map_err(disk)?;
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

    /// Completes a spooled thin pack; returns its checksum.
    fn complete(&self, spool: &Spool) -> Result<String, SyncError> {
        let directory = self.store.pack_dir();
        let completed = spool.complete(&self.bases, &directory, &self.budget);
        let cause = match completed {
            Ok(checksum) => return Ok(checksum),
            Err(cause) => cause,
        };
        if is_disk_failure(&cause) || self.budget.check().is_err() {
            return Err(self.error(cause));
        }
        tracing::debug!(%cause, "libgit2 completes the thin pack instead");
        Indexing::new(Some(&self.bases), &directory, &self.budget)
            .and_then(|mut indexing| {
                spool.read_back(|piece| indexing.write(piece))?;
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

    fn log_progress(&mut self) {
        let since = self.progress.logged.elapsed();
        if since < LOG_EVERY {
            return;
        }
        let fresh = self.bytes - self.progress.bytes_logged;
        let rate = fresh as f64 / since.as_secs_f64();
        self.progress.logged = Instant::now();
        self.progress.bytes_logged = self.bytes;
        // A lower bound, because deltas are indexed at the end.
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
                "the pack has already failed",
            )),
        };
        if let Some(error) = failed {
            self.intake = Intake::Failed;
            return Err(error);
        }
        self.log_progress();
        Ok(())
    }
}
