//! The HTTP side: probes, metrics, status and nudges, for clients that may mean harm.
//!
//! One thread with one `poll(2)` owns the listener and every client, so that the cost of a client
//! is a descriptor and at most [`limits::MAX_HEAD`] bytes, however slow it is. When all places are
//! taken, a newcomer gets the place of the client that deserves it least: a probe is always
//! accepted, and its request has come long before it could be the oldest. Requests are answered on
//! the same thread: the longest answer, a scrape, is formatted in less than a millisecond, and
//! nothing waits for the sync thread.
//!
//! tiny_http formats the answers. Its own server is not used: it gives each client a thread and
//! reads a head without bounds or deadline, and no limit in front of it could be simpler than
//! reading the request here.
//!
//! This module speaks no TLS, keeps no connection alive, and serves nothing from the volume.

pub mod bind;
mod connection;
mod guesses;
pub mod hosts;
pub mod limits;
pub mod nudge;
pub mod routes;
pub mod webhooks;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::base::error::{Reason, Stage, SyncError};
use crate::base::wake::Wake;
use crate::observe::metrics::TargetMetrics;
use crate::observe::status::TargetStatus;
use crate::remote::RefName;
use bind::Bind;
use connection::{Connection, Context, Next, Rank};
use hosts::AllowedHosts;
use limits::{MAX_CONNECTIONS, MAX_HEAD};
use nudge::{Gate, NudgeConfig};

/// A client that is younger is not evicted: its request may be on the way.
const TENURE: Duration = Duration::from_millis(50);

/// How long to leave new clients in the kernel's queue when there is no descriptor for them.
const BREATHER: Duration = Duration::from_millis(100);

/// What the routes answer from.
pub struct Shared {
    /// The targets of this process, in the order in which they were configured.
    pub targets: Vec<Served>,
    /// Every series.
    pub registry: Arc<Registry>,
    /// Which routes there are.
    pub routes: Routes,
    /// Who may nudge; `None` hides the routes for that.
    pub nudge: Option<NudgeConfig>,
    /// Host names that may be asked for.
    pub hosts: AllowedHosts,
}

/// Which routes a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Every one.
    All,
    /// Those that only tell.
    Observe,
    /// Those that ask for a poll.
    Nudge,
}

/// One target as the routes see it.
#[derive(Clone, Debug)]
pub struct Served {
    /// Health and status, with the name.
    pub status: TargetStatus,
    /// The series that serving moves itself.
    pub metrics: TargetMetrics,
    /// Ends the wait for the next poll.
    pub wake: Arc<Wake>,
    /// The ref to follow: a push to another one is not worth a poll.
    pub reference: RefName,
}

/// A running server; dropping it ends it, with all its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Serves on `bind` from now on.
///
/// # Errors
/// Stage `start`: when the address cannot be listened on, or the thread cannot be started.
pub fn start(bind: Bind, shared: Arc<Shared>) -> Result<Server, SyncError> {
    let routes = shared.routes;
    let listen = || {
        let listener = bind.listen()?;
        let address = listener.local_addr()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let front = Listener {
            listener,
            stop: stop.clone(),
            gate: shared
                .nudge
                .clone()
                .map(|config| Gate::new(config, &shared.targets)),
            shared,
            connections: Vec::with_capacity(MAX_CONNECTIONS),
            accept_after: None,
        };
        // So that its lines name the target as well.
        let span = tracing::Span::current();
        let thread = std::thread::Builder::new()
            .name("serve".to_owned())
            .spawn(move || span.in_scope(|| front.run()))?;
        Ok(Server {
            address,
            stop,
            thread: Some(thread),
        })
    };
    listen().map_err(|error: io::Error| {
        let flag = match routes {
            Routes::Nudge => "--nudge-bind",
            Routes::All | Routes::Observe => "--http-bind",
        };
        let hint = match error.kind() {
            ErrorKind::AddrInUse => format!("stop what listens there, or choose another {flag}"),
            ErrorKind::PermissionDenied => format!("choose a port above 1023 for {flag}"),
            _ => format!("choose another {flag}"),
        };
        SyncError::new(
            Stage::Start,
            Reason::Other,
            format!("cannot serve on {bind}"),
        )
        .with_hint(hint)
        .with_source(error)
    })
}

impl Server {
    /// Where it listens: with the port that the kernel chose, if that was left to it.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether the thread is gone although nobody ended it: it panicked, and nothing is served.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The counter is far from full, so this neither blocks nor fails.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The thread's state.
struct Listener {
    listener: TcpListener,
    stop: Arc<OwnedFd>,
    shared: Arc<Shared>,
    gate: Option<Gate>,
    /// In the order in which they were accepted.
    connections: Vec<Connection>,
    /// Until when nobody is accepted.
    accept_after: Option<Instant>,
}

impl Listener {
    fn run(mut self) {
        let mut scratch = Box::new([0; MAX_HEAD]);
        loop {
            let now = Instant::now();
            let mut context = Context {
                shared: &self.shared,
                gate: &mut self.gate,
                scratch: &mut scratch,
            };
            self.connections.retain_mut(|connection| {
                now < connection.deadline() || connection.expire(&mut context) == Next::Wait
            });
            if let Some(gate) = &mut self.gate {
                gate.release(now);
            }
            self.accept_after = self.accept_after.filter(|after| now < *after);
            let Some(ready) = self.wait(now) else {
                return;
            };
            let mut context = Context {
                shared: &self.shared,
                gate: &mut self.gate,
                scratch: &mut scratch,
            };
            let mut each = ready.clients.iter();
            self.connections.retain_mut(|connection| {
                let ready = each.next().is_some_and(|ready| *ready);
                !ready || connection.ready(&mut context) == Next::Wait
            });
            if ready.listener {
                self.accept(&mut scratch);
            }
        }
    }

    /// Waits until something is ready or due; `None` means stop.
    fn wait(&self, now: Instant) -> Option<Ready> {
        let deadlines = self.connections.iter().map(Connection::deadline);
        let due = deadlines
            .chain(self.accept_after)
            .chain(self.gate.as_ref().and_then(Gate::due))
            .min()
            .map(|due| due.saturating_duration_since(now));
        let timeout = due.map(|due| Timespec {
            tv_sec: i64::try_from(due.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: due.subsec_nanos().into(),
        });
        let accepting = match self.accept_after {
            None => PollFlags::IN,
            Some(_) => PollFlags::empty(),
        };
        let mut fds = Vec::with_capacity(2 + self.connections.len());
        fds.push(PollFd::new(&*self.stop, PollFlags::IN));
        fds.push(PollFd::new(&self.listener, accepting));
        fds.extend(
            self.connections
                .iter()
                .map(|connection| PollFd::new(connection.socket(), connection.interest())),
        );
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // Interrupted, or out of memory: as if nothing were ready.
            return Some(Ready::default());
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return None;
        }
        Some(Ready {
            listener: ready[1],
            clients: ready[2..].to_vec(),
        })
    }

    /// Accepts whoever waits, and answers those at once who have asked already.
    fn accept(&mut self, scratch: &mut [u8; MAX_HEAD]) {
        for _ in 0..MAX_CONNECTIONS {
            let now = Instant::now();
            if self.connections.len() >= MAX_CONNECTIONS && !self.evict(now) {
                return;
            }
            let (socket, address) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A client that is gone again, or one that a firewall forbids (accept(2)).
                Err(error) if !out_of_resources(&error) => continue,
                Err(_) if self.evict(now) => continue,
                Err(_) => {
                    self.accept_after.get_or_insert(now + BREATHER);
                    return;
                }
            };
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let mut connection = Connection::new(socket, address.ip(), now);
            let mut context = Context {
                shared: &self.shared,
                gate: &mut self.gate,
                scratch,
            };
            if connection.advance(&mut context) == Next::Wait {
                self.connections.push(connection);
            }
        }
    }

    /// Closes the oldest of those who deserve their place least, sparing those that have not had
    /// it for [`TENURE`]; if all are spared, nobody is accepted until one is not.
    fn evict(&mut self, now: Instant) -> bool {
        let spared_until = |connection: &Connection| match connection.rank() {
            Rank::Done => now,
            Rank::Delayed | Rank::Incomplete | Rank::Owed => connection.accepted() + TENURE,
        };
        let least = self
            .connections
            .iter()
            .enumerate()
            .filter(|(_, connection)| spared_until(connection) <= now)
            // The first of equals, which is the oldest.
            .min_by_key(|(_, connection)| connection.rank())
            .map(|(index, _)| index);
        match least {
            Some(index) => {
                self.connections.remove(index);
            }
            None => self.accept_after = self.connections.iter().map(spared_until).min(),
        }
        least.is_some()
    }
}

/// What [`Listener::wait`] found.
#[derive(Default)]
struct Ready {
    listener: bool,
    clients: Vec<bool>,
}

fn out_of_resources(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let resources = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| resources.contains(&errno))
}
