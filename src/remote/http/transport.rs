//! Sockets under ureq that obey a [`Budget`]: name resolution, connecting, and every read and write
//! end at the total deadline, at a stall, and shortly after a cancellation.
//!
//! ureq's own timeouts are not used: they know no cancellation, and they look a name up for every
//! request even when a connection is open. This module knows no HTTP and no TLS.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use crate::base::budget::{Budget, Interrupted};

/// How long a blocking call may go without asking the budget.
const SLICE: Duration = Duration::from_millis(100);

/// Why the watch ended an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The budget was used up or cancelled.
    Interrupted(Interrupted),
    /// Nothing moved for this long.
    Stalled(Duration),
}

/// The budget of the operation that now uses the connections, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Mutex<WatchState>,
    dialled: AtomicU64,
}

#[derive(Debug, Default)]
struct WatchState {
    budget: Option<Budget>,
    stop: Option<Stop>,
}

/// One wait for progress.
struct Wait<'a> {
    watch: &'a Watch,
    budget: Budget,
    since: Instant,
    limit: Duration,
}

/// Why no connection came about: says the host, the source says why.
#[derive(Debug)]
pub(super) struct Unreachable {
    what: String,
    cause: io::Error,
}

/// Opens sockets. Resolves names itself, and only when it opens one.
pub(super) struct SocketConnector(pub(super) Arc<Watch>);

/// Satisfies ureq, which resolves before it knows whether it needs a connection.
#[derive(Debug)]
pub(super) struct LateResolver;

/// A connected socket.
pub(super) struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    watch: Arc<Watch>,
}

impl Watch {
    /// Begins an operation.
    pub(super) fn begin(&self, budget: &Budget) {
        let mut state = self.state();
        state.budget = Some(budget.clone());
        state.stop = None;
    }

    /// Why the operation was ended, if the watch ended it.
    pub(super) fn stop(&self) -> Option<Stop> {
        self.state().stop
    }

    /// How often a new connection was attempted so far.
    pub(super) fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> io::Result<Wait<'_>> {
        let budget = self
            .state()
            .budget
            .clone()
            .ok_or_else(|| io::Error::other("no operation is under way"))?;
        let limit = budget
            .step()
            .map_err(|cause| self.end(Stop::Interrupted(cause)))?;
        Ok(Wait {
            watch: self,
            budget,
            since: Instant::now(),
            limit,
        })
    }

    fn end(&self, stop: Stop) -> io::Error {
        self.state().stop = Some(stop);
        io::Error::new(io::ErrorKind::TimedOut, "interrupted")
    }
}

impl Wait<'_> {
    /// Fails once there is no more time to wait.
    fn check(&self) -> io::Result<()> {
        match self.budget.check() {
            Err(cause) => Err(self.watch.end(Stop::Interrupted(cause))),
            Ok(()) if self.since.elapsed() >= self.limit => {
                Err(self.watch.end(Stop::Stalled(self.limit)))
            }
            Ok(()) => Ok(()),
        }
    }
}

impl<In: Transport> Connector<In> for SocketConnector {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        self.0.dialled.fetch_add(1, Ordering::Relaxed);
        let stream = open(&self.0, details.uri)?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(Socket {
            stream,
            buffers,
            watch: self.0.clone(),
        })))
    }
}

/// Resolves and connects in a thread of its own, since the system's resolver takes no deadline.
/// A thread that is given up ends with the resolver's own timeout.
fn open(watch: &Watch, uri: &Uri) -> Result<TcpStream, Error> {
    let (Some(host), Some(port)) = (uri.host(), port(uri)) else {
        return Err(Error::BadUri("without a host".to_owned()));
    };
    let address = format!("{host}:{port}");
    let wait = watch.wait()?;
    let limit = wait.limit;
    let (sender, receiver) = mpsc::sync_channel(1);
    let connect = address.clone();
    let spawned = thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || {
            // Nobody listens any more if the budget ended first.
            let _ = sender.send(resolve_and_connect(&connect, limit));
        });
    let found = match spawned {
        // A limit on threads is no reason to fail, though the resolver is not bounded then.
        Err(_) => resolve_and_connect(&address, limit),
        Ok(_) => loop {
            match receiver.recv_timeout(SLICE.min(limit)) {
                Ok(found) => break found,
                Err(RecvTimeoutError::Timeout) => wait.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that connects panicked").into());
                }
            }
        },
    };
    let stream = found.map_err(|cause| Error::Other(Box::new(cause)))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_write_timeout(Some(SLICE))?;
    Ok(stream)
}

fn resolve_and_connect(address: &str, limit: Duration) -> Result<TcpStream, Unreachable> {
    let started = Instant::now();
    let unresolved = |cause| Unreachable {
        what: format!("cannot resolve the host name of {address}"),
        cause,
    };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(unresolved)?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for (at, candidate) in found.iter().enumerate() {
        // An address that swallows packets must leave time for the others.
        let left = limit.saturating_sub(started.elapsed());
        let share = left / u32::try_from(found.len() - at).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(candidate, share.max(Duration::from_millis(10))) {
            Ok(stream) => return Ok(stream),
            Err(cause) => last = cause,
        }
    }
    Err(Unreachable {
        what: format!("cannot connect to {address}"),
        cause: last,
    })
}

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    })
}

impl Unreachable {
    /// Whether connecting itself timed out.
    pub(super) fn timed_out(&self) -> bool {
        self.cause.kind() == io::ErrorKind::TimedOut
    }

    /// The system's own words.
    pub(super) fn into_cause(self) -> io::Error {
        self.cause
    }
}

impl Resolver for LateResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut placeholder = self.empty();
        placeholder.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Ok(placeholder)
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let mut rest = &self.buffers.output()[..amount];
        let mut wait = self.watch.wait()?;
        while !rest.is_empty() {
            match (&self.stream).write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => {
                    rest = &rest[written..];
                    wait = self.watch.wait()?;
                }
                Err(error) if is_pause(&error) => wait.check()?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let wait = self.watch.wait()?;
        let input = self.buffers.input_append_buf();
        loop {
            match (&self.stream).read(input) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if is_pause(&error) => wait.check()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An idle connection has nothing to read: neither an end nor bytes nobody asked for.
    fn is_open(&mut self) -> bool {
        use rustix::io::Errno;
        use rustix::net::{RecvFlags, recv};
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.stream, &mut byte[..], flags), Err(Errno::AGAIN))
    }
}

/// A slice went by, or a signal came.
fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Unreachable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

impl fmt::Debug for SocketConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketConnector")
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.stream).finish()
    }
}
