//! The life of the process: threads, the watchdog over them, shutdown, the last words.
//!
//! Crash-only: the disk is sound at every instruction, so a thread that does not end in time, or
//! panics, is answered by ending the process. This module does not know what the threads do.

pub mod healthcheck;
pub mod logging;
pub mod signals;

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tracing::{error_span, info};

use crate::base::error::SyncError;
use crate::base::wake::Wake;
use crate::config::{Config, Target};
use crate::notify::files;
use crate::observe::metrics::{self, Metrics};
use crate::observe::status::{Board, GRACE, Identity};
use crate::serve::{self, Shared};
use crate::target::Sync;
use crate::target::follow::{Ended, Supervisor};

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
    let watched = panic::catch_unwind(AssertUnwindSafe(|| match start(config) {
        Ok(running) => running.watch(),
        Err(error) => last_words(GAVE_UP, &crate::base::text::printable(&error.to_string())),
    }));
    watched.unwrap_or_else(|_| panicked("main"))
}

/// Writes the last line of a failing run, also to where Kubernetes looks for it.
pub fn last_words(code: u8, line: &str) -> ExitCode {
    complain(line);
    files::write_termination_message(Path::new(files::TERMINATION_LOG), line);
    ExitCode::from(code)
}

/// Writes a line for people to standard error; nobody is left to hear that it is closed.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "git-volume-reloader: {line}");
}

/// The end of a process of which a part is gone: half alive it would be believed.
fn panicked(thread: &str) -> ExitCode {
    let line = format!("the {thread} thread panicked; a restart recovers");
    last_words(GAVE_UP, &line)
}

/// The process while its threads run.
struct Running {
    wake: Arc<Wake>,
    board: Arc<Board>,
    ended: mpsc::Receiver<Option<Ended>>,
    signals: JoinHandle<()>,
    server: Option<serve::Server>,
}

fn start(config: Config) -> Result<Running, StartError> {
    crate::tree::tune_libgit2();
    let wake = Wake::new();
    let signals = signals::install(&wake, config.sync_on_signal).map_err(no_thread)?;

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
        })
        .map_err(no_thread)?;
    Ok(Running {
        wake,
        board,
        ended,
        signals,
        server,
    })
}

/// Without one of its threads the process does not begin.
fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread: {error}; raise the limit on threads (pids limit, ulimit -u)")
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
                    return panicked("sync");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(thread) = self.fallen() {
                return panicked(thread);
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

    /// A thread that has ended, of those that never do.
    fn fallen(&self) -> Option<&'static str> {
        if self.signals.is_finished() {
            return Some("signals");
        }
        let served = self
            .server
            .as_ref()
            .is_none_or(|server| !server.has_ended());
        (!served).then_some("serve")
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

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::DescriptorEncoder;

    use super::*;
    use crate::serve::bind::Bind;

    /// A metric whose collection panics, on the thread that answers a scrape.
    #[derive(Debug)]
    struct Mine;

    impl Collector for Mine {
        fn encode(&self, _encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            panic!("for the test");
        }
    }

    /// A process whose sync goes on for ever.
    fn running(
        signals: JoinHandle<()>,
        server: Option<serve::Server>,
    ) -> (mpsc::Sender<Option<Ended>>, Running) {
        let (sender, ended) = mpsc::channel();
        let identity = Identity {
            target: "current".to_owned(),
            repo: String::new(),
            reference: String::new(),
            link: String::new(),
            version: String::new(),
        };
        let board = Board::new(identity, None);
        board.heartbeat(Duration::from_secs(3600));
        let running = Running {
            wake: Wake::new(),
            board,
            ended,
            signals,
            server,
        };
        (sender, running)
    }

    fn assert_falls(running: Running, thread: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while running.fallen() != Some(thread) {
            assert!(Instant::now() < deadline, "the end of {thread} is not seen");
            std::thread::yield_now();
        }
        assert_eq!(running.watch(), ExitCode::from(GAVE_UP));
    }

    #[test]
    fn a_panic_of_the_thread_that_serves_ends_the_process() {
        let for_ever = std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
        let (_sync, mut running) = running(for_ever, None);
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "current");
        registry.register_collector(Box::new(Mine));
        let shared = Shared {
            board: running.board.clone(),
            registry,
            metrics,
            wake: running.wake.clone(),
            nudge: None,
        };
        let bind: Bind = "127.0.0.1:0".parse().unwrap();
        let server = serve::start(bind, Arc::new(shared)).unwrap();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        running.server = Some(server);
        assert_eq!(running.fallen(), None);
        client
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert_falls(running, "serve");
    }

    #[test]
    fn a_panic_of_the_thread_that_hears_signals_ends_the_process() {
        let signals = std::thread::spawn(|| panic!("for the test"));
        let (_sync, running) = running(signals, None);
        assert_falls(running, "signals");
    }
}
