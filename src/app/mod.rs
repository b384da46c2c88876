//! The life of the process: threads, the watchdog over them, shutdown, the last words.
//!
//! Crash-only: the disk is sound at every instruction, so the process ends when a thread does not
//! end in time, or panics. This module does not know what the threads do.

mod confirm;
pub mod healthcheck;
pub mod logging;
pub mod signals;
mod termination;

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tracing::{Span, debug, error_span, info};

use crate::base::allowance::Allowance;
use crate::base::error::SyncError;
use crate::base::heartbeat::{GRACE, Heartbeat};
use crate::base::text::printable;
use crate::base::wake::Wake;
use crate::child;
use crate::config::{Config, ServeConfig};
use crate::control::server::Control;
use crate::net::NetConfig;
use crate::notify::exec::{Exec, ExecSettings};
use crate::notify::files::Files;
use crate::notify::hook::Counted;
use crate::notify::process_signal::SendSignal;
use crate::notify::webhook::{Sender, Webhook};
use crate::notify::{Deferred, Hooked, Log, Observers};
use crate::observe::metrics::{self, Families, TargetMetrics};
use crate::observe::status::{Identity, TargetStatus};
use crate::observe::status_file::StatusFile;
use crate::serve::nudge::NudgeConfig;
use crate::serve::{self, Routes, Served, Shared};
use crate::target::{self, Ended, Follower, StoreDifferences, Syncer, Target};

/// How long a shutdown waits for the running cycles; then the process ends all the same.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(1500);

/// How often the watchdog looks.
const WATCH: Duration = Duration::from_millis(500);

/// Gave up: one-time failed, too many failures, or stuck.
const GAVE_UP: u8 = 1;

/// Why the threads could not be started.
type StartError = Box<dyn std::error::Error>;

/// Runs the configured targets to their end.
pub fn run(config: Config) -> ExitCode {
    // With one target, every line names it. At the highest level, so that no --log-level removes
    // the target from a line.
    let span = match &*config.targets {
        [target] => target_span(target),
        _ => Span::none(),
    };
    let _entered = span.enter();
    if let Err(error) = child::adopt_orphans() {
        debug!(%error, "orphans of hooks go to another process");
    }
    let watched = panic::catch_unwind(AssertUnwindSafe(|| match Running::start(config) {
        Ok(running) => running.watch(),
        Err(error) => last_words(GAVE_UP, &printable(&error.to_string())),
    }));
    let code = watched.unwrap_or_else(|_| panicked("main"));
    child::kill_all();
    code
}

/// Writes the last line of a failing run, also to where Kubernetes looks for it.
pub fn last_words(code: u8, line: &str) -> ExitCode {
    complain(line);
    termination::write(Path::new(termination::PATH), line);
    ExitCode::from(code)
}

/// Writes what a command has to say to standard output. A closed standard output is ignored.
pub fn say(text: &str) {
    let text = text.trim_end();
    if !text.is_empty() {
        let _ = writeln!(io::stdout(), "{text}");
    }
}

/// Writes a line for people to standard error. A closed standard error is ignored.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "git-volume-reloader: {line}");
}

/// The end of a process that has lost a thread: half a process would look healthy.
fn panicked(thread: &str) -> ExitCode {
    let line = format!("the {thread} thread panicked; a restart recovers");
    last_words(GAVE_UP, &line)
}

/// The process while its threads run.
pub struct Running {
    targets: Vec<RunningTarget>,
    /// How each target ended, by its index; `None` if its thread panicked.
    ended: mpsc::Receiver<(usize, Option<Ended>)>,
    signals: Option<JoinHandle<()>>,
    servers: Vec<serve::Server>,
}

/// What the process holds of a target that runs on its own thread.
struct RunningTarget {
    name: String,
    wake: Arc<Wake>,
    heartbeat: Arc<Heartbeat>,
    /// Since when the target has been stuck.
    stuck: Option<Instant>,
    ended: bool,
}

impl Running {
    /// Starts every thread, and handles signals.
    ///
    /// # Errors
    /// When a thread cannot be started, the port cannot be listened on, or a remote's settings
    /// cannot be used.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let wakes = wakes_for(&config);
        let signals = signals::install(wakes.clone(), config.sync_on_signal).map_err(no_thread)?;
        let mut running = Self::start_with(config, wakes)?;
        running.signals = Some(signals);
        Ok(running)
    }

    /// Starts every thread, for a caller that handles signals itself.
    ///
    /// # Errors
    /// See [`Running::start`].
    pub fn start_without_signals(config: Config) -> Result<Self, StartError> {
        let wakes = wakes_for(&config);
        Self::start_with(config, wakes)
    }

    fn start_with(config: Config, wakes: Vec<Arc<Wake>>) -> Result<Self, StartError> {
        crate::tree::tune_libgit2();
        let mut registry = Registry::default();
        metrics::register_process(
            &mut registry,
            env!("CARGO_PKG_VERSION"),
            env!("GVR_BUILD_COMMIT"),
        );
        let families = Families::register(&mut registry);
        let net = config
            .targets
            .first()
            .map(|target| target.remote.net.clone());
        let net = net.unwrap_or_default();
        let mut served = Vec::new();
        let mut prepared = Vec::new();
        for (settings, wake) in config.targets.into_iter().zip(wakes) {
            let settings = Arc::new(settings);
            let heartbeat = Arc::new(Heartbeat::new());
            let status = TargetStatus::new(
                identity(&settings),
                settings.max_staleness,
                heartbeat.clone(),
            );
            let metrics = families.target(&settings.name, &settings.reference.to_string());
            served.push(Served {
                status,
                metrics,
                wake,
                reference: settings.reference.clone(),
            });
            prepared.push((settings, heartbeat));
        }
        let servers = match config.serve {
            None => Vec::new(),
            Some(serve) => start_servers(serve, &served, registry, net)?,
        };
        let (sender, ended) = mpsc::channel();
        let mut targets = Vec::new();
        for (index, (settings, heartbeat)) in prepared.into_iter().enumerate() {
            targets.push(start_target(index, &served, settings, heartbeat, &sender)?);
        }
        Ok(Self {
            targets,
            ended,
            signals: None,
            servers,
        })
    }

    /// Where the process serves HTTP, if it does.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.servers.first().map(serve::Server::local_addr)
    }

    /// Asks every target to end. [`Running::watch`] then returns.
    pub fn shut_down(&self) {
        for target in &self.targets {
            target.wake.shutdown();
        }
    }

    /// Waits until every target has ended. Ends the process's work when a target gives up, a thread
    /// dies, or a target is stuck or does not stop.
    pub fn watch(mut self) -> ExitCode {
        let mut stopping: Option<Instant> = None;
        loop {
            match self.ended.recv_timeout(WATCH) {
                Ok((index, Some(Ended::Done | Ended::Shutdown))) => {
                    self.targets[index].ended = true;
                    if self.targets.iter().all(|target| target.ended) {
                        if self.is_stopping() {
                            info!("stopped");
                        }
                        return ExitCode::SUCCESS;
                    }
                }
                Ok((_, Some(Ended::GaveUp(error)))) => {
                    self.shut_down();
                    return last_words(GAVE_UP, &advice(&error));
                }
                Ok((_, None)) | Err(RecvTimeoutError::Disconnected) => {
                    return panicked("sync");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            child::reap_orphans();
            if let Some(thread) = self.dead_thread() {
                return panicked(thread);
            }
            if self.is_stopping()
                && stopping.get_or_insert_with(Instant::now).elapsed() >= SHUTDOWN_GRACE - WATCH
            {
                info!("stopped in the middle of a sync; the next start sweeps up");
                return ExitCode::SUCCESS;
            }
            if let Some(target) = self.stuck_target() {
                let line = format!(
                    "the sync outlived its deadline and does not react (target {}); a restart \
                     recovers",
                    printable(&target)
                );
                return last_words(GAVE_UP, &line);
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.targets.iter().any(|target| target.wake.is_shutdown())
    }

    /// A thread that has ended although it never does.
    fn dead_thread(&self) -> Option<&'static str> {
        if self.signals.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("signals");
        }
        let serves = !self.servers.iter().any(serve::Server::has_ended);
        (!serves).then_some("serve")
    }

    /// The name of a target whose heartbeat has been overdue for [`GRACE`].
    fn stuck_target(&mut self) -> Option<String> {
        let now = Instant::now();
        for target in &mut self.targets {
            if target.ended || target.heartbeat.is_alive(now) {
                target.stuck = None;
            } else if target.stuck.get_or_insert(now).elapsed() >= GRACE {
                return Some(target.name.clone());
            }
        }
        None
    }
}

/// Serves on every address that is configured.
fn start_servers(
    config: ServeConfig,
    targets: &[Served],
    registry: Registry,
    net: NetConfig,
) -> Result<Vec<serve::Server>, StartError> {
    let registry = Arc::new(registry);
    let nudge = config.nudge.map(|nudge| NudgeConfig {
        confirm: Some(confirm::confirmer(net)),
        ..nudge
    });
    let first = match config.nudge_bind {
        Some(_) => Routes::Observe,
        None => Routes::All,
    };
    let mut servers = Vec::new();
    for (bind, routes) in [(config.bind, first), (config.nudge_bind, Routes::Nudge)] {
        let Some(bind) = bind else {
            continue;
        };
        let shared = Shared {
            targets: targets.to_vec(),
            registry: registry.clone(),
            routes,
            nudge: nudge.clone().filter(|_| routes != Routes::Observe),
            hosts: config.hosts.clone(),
        };
        let server = serve::start(bind, Arc::new(shared)).map_err(|error| advice(&error))?;
        let address = server.local_addr();
        match routes {
            Routes::Nudge => info!(%address, "listening for nudges"),
            Routes::All | Routes::Observe => info!(%address, "listening"),
        }
        servers.push(server);
    }
    Ok(servers)
}

/// Starts the thread of the target in the place `index` of all that are served.
fn start_target(
    index: usize,
    served: &[Served],
    settings: Arc<Target>,
    heartbeat: Arc<Heartbeat>,
    sender: &mpsc::Sender<(usize, Option<Ended>)>,
) -> Result<RunningTarget, StartError> {
    // With one target, the caller's span names it already.
    let span = match Span::current() {
        none if none.is_none() => target_span(&settings),
        named => named,
    };
    let _entered = span.enter();
    info!(
        version = crate::cli::VERSION,
        repo = %settings.remote.url,
        reference = %settings.reference,
        link = %settings.layout.link.display(),
        "starting"
    );
    let Served {
        status,
        metrics,
        wake,
        ..
    } = served[index].clone();
    let mut observers = Observers::default();
    let (counted, shown) = (metrics.clone(), status.clone());
    observers.add(metrics);
    observers.add(status);
    observers.add(Log::default());
    if !settings.files.is_empty() {
        let files = Files::new(&settings.name, settings.files.clone());
        let files = Deferred::spawn("files", files).map_err(no_thread)?;
        observers.add_deferred(files);
    }
    if !settings.schedule.one_time {
        let root = settings.layout.root.clone();
        observers.add(Control::new(root, index, served.to_vec()));
    }
    if let Some(path) = &settings.status_file {
        let file = StatusFile::new(shown, path.clone());
        let file = Deferred::spawn("status-file", file).map_err(no_thread)?;
        observers.add_deferred(file);
    }
    add_hooks(&mut observers, &settings, &counted)?;
    let acceptors = target::acceptors(&settings);
    let syncer = Syncer::new(settings.clone(), acceptors).map_err(|error| advice(&error))?;
    let target = RunningTarget {
        name: settings.name.clone(),
        wake: wake.clone(),
        heartbeat: heartbeat.clone(),
        stuck: None,
        ended: false,
    };
    let follower = Follower::new(settings, syncer, wake, heartbeat, observers);
    let sender = sender.clone();
    let span = span.clone();
    std::thread::Builder::new()
        .name("sync".to_owned())
        .spawn(move || {
            let _entered = span.enter();
            let end = panic::catch_unwind(AssertUnwindSafe(|| follower.run()));
            // The watcher is there for as long as the process is.
            let _ = sender.send((index, end.ok()));
        })
        .map_err(no_thread)?;
    Ok(target)
}

/// Starts the threads of the hooks that are configured.
fn add_hooks(
    observers: &mut Observers,
    settings: &Target,
    metrics: &TargetMetrics,
) -> Result<(), StartError> {
    let counted = || -> Counted {
        let metrics = metrics.clone();
        Box::new(move |hook, outcome| metrics.hook_run(hook, outcome))
    };
    let hooks = &settings.hooks;
    if let Some(exec) = &hooks.exec {
        let layout = &settings.layout;
        let exec_settings = ExecSettings {
            command: exec.command.clone(),
            backoff: exec.backoff,
            reference: settings.reference.to_string(),
            link: layout.link.clone(),
            changed_files: layout.changed_files(),
        };
        let differences = StoreDifferences {
            store: layout.store(),
            selection: settings.tree.sparse.clone(),
            watched: exec.watched.clone(),
        };
        let hook = Exec::new(exec_settings, differences);
        observers.add_hook(Hooked::spawn(hook, counted()).map_err(no_thread)?);
    }
    if let Some(webhook) = &hooks.webhook {
        let sender = Sender {
            target: settings.name.clone(),
            repo: settings.remote.url.to_string(),
            reference: settings.reference.to_string(),
            link: settings.layout.link.display().to_string(),
        };
        let hook = Webhook::new(webhook.clone(), sender);
        observers.add_hook(Hooked::spawn(hook, counted()).map_err(no_thread)?);
    }
    if let Some(signal) = &hooks.signal {
        let hook = SendSignal::new(signal.clone());
        observers.add_hook(Hooked::spawn(hook, counted()).map_err(no_thread)?);
    }
    Ok(())
}

fn wakes_for(config: &Config) -> Vec<Arc<Wake>> {
    let serve = config.serve.as_ref();
    let allowance = serve.map_or_else(Allowance::unlimited, |serve| serve.allowance.clone());
    let targets = config.targets.iter();
    targets
        .map(|_| Wake::with_allowance(allowance.clone()))
        .collect()
}

fn target_span(target: &Target) -> Span {
    error_span!("sync", target = target.name)
}

/// Without one of its threads the process does not begin.
fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread: {error}; raise the limit on threads (pids limit, ulimit -u)")
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
    use crate::serve::hosts::AllowedHosts;

    /// A metric whose collection panics, on the thread that answers a scrape.
    #[derive(Debug)]
    struct Panicking;

    impl Collector for Panicking {
        fn encode(&self, _encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            panic!("for the test");
        }
    }

    /// A process whose sync thread never returns.
    fn running(signals: JoinHandle<()>) -> (mpsc::Sender<(usize, Option<Ended>)>, Running) {
        let (sender, ended) = mpsc::channel();
        let heartbeat = Arc::new(Heartbeat::new());
        heartbeat.beat(Duration::from_secs(3600));
        let running = Running {
            targets: vec![RunningTarget {
                name: "current".to_owned(),
                wake: Wake::new(),
                heartbeat,
                stuck: None,
                ended: false,
            }],
            ended,
            signals: Some(signals),
            servers: Vec::new(),
        };
        (sender, running)
    }

    fn assert_dies(running: Running, thread: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while running.dead_thread() != Some(thread) {
            assert!(Instant::now() < deadline, "the end of {thread} is not seen");
            std::thread::yield_now();
        }
        assert_eq!(running.watch(), ExitCode::from(GAVE_UP));
    }

    #[test]
    fn a_panic_of_the_thread_that_serves_ends_the_process() {
        let parked = std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
        let (_sync, mut running) = running(parked);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Panicking));
        let shared = Shared {
            targets: Vec::new(),
            registry: Arc::new(registry),
            routes: Routes::All,
            nudge: None,
            hosts: AllowedHosts::default(),
        };
        let bind: Bind = "127.0.0.1:0".parse().unwrap();
        let server = serve::start(bind, Arc::new(shared)).unwrap();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        running.servers.push(server);
        assert_eq!(running.dead_thread(), None);
        client
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert_dies(running, "serve");
    }

    #[test]
    fn a_panic_of_the_thread_that_hears_signals_ends_the_process() {
        let signals = std::thread::spawn(|| panic!("for the test"));
        let (_sync, running) = running(signals);
        assert_dies(running, "signals");
    }
}
