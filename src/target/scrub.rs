//! Scrubbing: reads every file of the live tree from time to time, and compares it with its hash.
//!
//! It finds damage that sizes and times do not show: bit rot, and edits in place that restored both. A
//! thread of its own reads at idle priority; the next cycle after it takes up the result and builds the
//! tree again. Trees that readers do not see are not read. This module does not decide what is live
//! and does not repair.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::base::budget::Budget;
use crate::base::error::SyncError;
use crate::manifest::{self, Damage};
use crate::volume::Revision;

/// The longest that one scrub may take.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How long the thread rests for each unit of time that it works.
const REST: u32 = 4;

/// The nice value of the thread: the lowest priority.
const NICEST: i32 = 19;

/// The scrubs of one target.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    running: Option<Running>,
    /// When the last one ended, or was first asked for.
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    n: u64,
    thread: JoinHandle<Result<Option<Damage>, SyncError>>,
}

/// A scrub that came to its end.
pub(super) struct Scrubbed {
    /// The revision that was read.
    pub n: u64,
    /// The first damage, if there is any.
    pub damage: Option<Damage>,
}

impl Scrub {
    /// The result of a scrub that has ended since the last call.
    pub fn take(&mut self) -> Option<Scrubbed> {
        let running = self.running.take_if(|it| it.thread.is_finished())?;
        self.ended = Some(Instant::now());
        match running.thread.join() {
            Ok(Ok(damage)) => Some(Scrubbed {
                n: running.n,
                damage,
            }),
            Ok(Err(error)) => {
                debug!(error = error.chain(), "a scrub did not come to its end");
                None
            }
            Err(_) => {
                debug!("a scrub ended in a panic");
                None
            }
        }
    }

    /// Whether a scrub is to begin: none is running, and the last one ended this long ago.
    pub fn is_due(&mut self, period: Duration) -> bool {
        let since = *self.ended.get_or_insert_with(Instant::now);
        self.running.is_none() && since.elapsed() >= period
    }

    /// Begins to read a revision; `cancelled` ends that early.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn begin(&mut self, revision: Revision, cancelled: Arc<AtomicBool>) -> io::Result<()> {
        let n = revision.n;
        let thread = std::thread::Builder::new()
            .name("scrub".to_owned())
            .spawn(move || scrub(&revision.path, &revision.manifest, cancelled))?;
        self.running = Some(Running { n, thread });
        Ok(())
    }
}

fn scrub(
    tree: &Path,
    manifest: &Path,
    cancelled: Arc<AtomicBool>,
) -> Result<Option<Damage>, SyncError> {
    lower_priority();
    let budget = Budget::new(LIMIT, LIMIT, cancelled);
    manifest::verify_contents(tree, manifest, &budget, &|worked| {
        std::thread::sleep(worked * REST);
    })
}

/// Gives this thread the lowest priority for the CPU and the disk.
fn lower_priority() {
    const WHO_PROCESS: libc::c_int = 1;
    const IDLE_CLASS: libc::c_int = 3 << 13;
    let own = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(own), NICEST) {
        debug!(%error, "scrubbing at the usual CPU priority");
    }
    // SAFETY: ioprio_set(2) takes three integers and touches no memory; 0 is the calling thread.
    let set = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE_CLASS) };
    if set != 0 {
        debug!("scrubbing at the usual disk priority");
    }
}
