//! Sockets under ureq that obey a [`Budget`]: dialling, and every read and write, end at the total
//! deadline, at a stall, and at most 100 ms after a cancellation.
//!
//! ureq's own timeouts are not used: they cannot be cancelled, and ureq resolves the name for every
//! request even when a connection is open. This module knows no HTTP and no TLS.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use crate::base::budget::Budget;
use crate::net::dial::dial;
use crate::net::wait::{SLICE, Stop, Wait};

/// The budget of the operation that now uses the connections, and why it was ended.
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

    fn budget(&self) -> io::Result<Budget> {
        let budget = self.state().budget.clone();
        budget.ok_or_else(|| io::Error::other("no operation is under way"))
    }

    /// Begins to wait for the next bytes.
    fn wait(&self) -> io::Result<Wait> {
        Wait::begin(&self.budget()?).map_err(|stop| self.end(stop))
    }

    /// Fails once there is no more time to wait.
    fn check(&self, wait: &Wait) -> io::Result<()> {
        wait.slice().map(drop).map_err(|stop| self.end(stop))
    }

    fn end(&self, stop: Stop) -> io::Error {
        self.state().stop = Some(stop);
        io::Error::new(io::ErrorKind::TimedOut, "interrupted")
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
        let (Some(host), Some(port)) = (details.uri.host(), port(details.uri)) else {
            return Err(Error::BadUri("without a host".to_owned()));
        };
        let stream =
            dial(host, port, &self.0.budget()?).map_err(|error| Error::Other(Box::new(error)))?;
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
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

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    })
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
                Err(error) if is_pause(&error) => self.watch.check(&wait)?,
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
                Err(error) if is_pause(&error) => self.watch.check(&wait)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An idle connection has nothing to read: neither its end nor bytes that were not asked for.
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
