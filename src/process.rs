//! The life of the process: threads, the watchdog over them, shutdown, the last words.
//!
//! Crash-only: the disk is sound at every instruction, so a thread that does not end in time, or
//! panics, is answered by ending the process. This module does not know what the threads do.

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tracing::{error_span, info};

use crate::config::{Config, Target};
use crate::error::SyncError;
use crate::hooks;
use crate::metrics::{self, Metrics};
use crate::serve::{self, Shared};
use crate::status::{Board, GRACE, Identity};
use crate::supervisor::{Ended, Supervisor};
use crate::sync::Sync;
use crate::wake::{self, Wake};

/// How long a shutdown waits for the running cycle; then it ends all the same.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(1500);

/// How often the watchdog looks.
const WATCH: Duration = Duration::from_millis(500);

/// Gave up: one-time failed, too many failures, or stuck.
const GAVE_UP: u8 = 1;

/// Why the threads could not be started.
type StartError = Box<dyn std::error::Error>;

/// Runs the configured target to its end.
pub fn run(config: Config) -> ExitCode {
    // At the highest level, so that no --log-level takes the target from a line.
    let span = error_span!("sync", target = config.target.name);
    let _entered = span.enter();
    match start(config) {
        Ok(running) => running.watch(),
        Err(error) => last_words(GAVE_UP, &crate::error::printable(&error.to_string())),
    }
}

/// Writes the last line of a failing run, also to where Kubernetes looks for it.
pub fn last_words(code: u8, line: &str) -> ExitCode {
    complain(line);
    hooks::write_termination_message(Path::new(hooks::TERMINATION_LOG), line);
    ExitCode::from(code)
}

/// Writes a line for people to standard error; nobody is left to hear that it is closed.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "git-volume-reloader: {line}");
}

/// The process while its threads run.
struct Running {
    wake: Arc<Wake>,
    board: Arc<Board>,
    ended: mpsc::Receiver<Option<Ended>>,
    _server: Option<serve::Server>,
}

fn start(config: Config) -> Result<Running, StartError> {
    crate::tree::tune_libgit2();
    let wake = Wake::new();
    wake::install_signals(&wake, config.sync_on_signal)?;

    let mut registry = Registry::default();
    metrics::register_process(
        &mut registry,
        env!("CARGO_PKG_VERSION"),
        env!("GVR_BUILD_COMMIT"),
    );
    let metrics = Metrics::register(&mut registry, &config.target.name);
    let board = Board::new(identity(&config.target), config.max_staleness);
    let server = match config.serve {
        None => None,
        Some(serve) => {
            let shared = Shared {
                board: board.clone(),
                registry,
                metrics: metrics.clone(),
                wake: wake.clone(),
                nudge: serve.nudge,
            };
            let server =
                serve::start(serve.bind, Arc::new(shared)).map_err(|error| advice(&error))?;
            info!(address = %server.local_addr(), "listening");
            Some(server)
        }
    };

    info!(
        version = crate::cli::VERSION,
        repo = %config.target.remote.url,
        reference = %config.target.reference,
        link = %config.target.layout.link.display(),
        "starting"
    );
    let sync = Sync::new(config.target).map_err(|error| advice(&error))?;
    let supervisor = Supervisor::new(sync, config.schedule, wake.clone(), board.clone(), metrics);
    let (sender, ended) = mpsc::channel();
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name("sync".to_owned())
        .spawn(move || {
            let _entered = span.enter();
            let end = panic::catch_unwind(AssertUnwindSafe(|| supervisor.run()));
            // The watcher is there for as long as the process is.
            let _ = sender.send(end.ok());
        })?;
    Ok(Running {
        wake,
        board,
        ended,
        _server: server,
    })
}

impl Running {
    /// Waits for the end, and brings it about when the loop is stuck or does not stop.
    fn watch(self) -> ExitCode {
        let mut stopping: Option<Instant> = None;
        let mut stuck: Option<Instant> = None;
        loop {
            match self.ended.recv_timeout(WATCH) {
                Ok(Some(Ended::Done)) => return ExitCode::SUCCESS,
                Ok(Some(Ended::Shutdown)) => {
                    info!("stopped");
                    return ExitCode::SUCCESS;
                }
                Ok(Some(Ended::GaveUp(error))) => return last_words(GAVE_UP, &advice(&error)),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                    return last_words(GAVE_UP, "the sync thread panicked; a restart recovers");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.wake.is_shutdown()
                && stopping.get_or_insert_with(Instant::now).elapsed() >= SHUTDOWN_GRACE - WATCH
            {
                info!("stopped in the middle of a sync; the next start sweeps up");
                return ExitCode::SUCCESS;
            }
            if self.board.health().live {
                stuck = None;
            } else if stuck.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                return last_words(
                    GAVE_UP,
                    "the sync outlived its deadline and does not react; a restart recovers",
                );
            }
        }
    }
}

/// The error with its causes and what to do about it, on one line.
fn advice(error: &SyncError) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", error.chain()),
        None => error.chain(),
    }
}

fn identity(target: &Target) -> Identity {
    Identity {
        target: target.name.clone(),
        repo: target.remote.url.to_string(),
        reference: target.reference.to_string(),
        link: target.layout.link.display().to_string(),
        version: crate::cli::VERSION.to_owned(),
    }
}
