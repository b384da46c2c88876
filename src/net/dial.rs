//! Resolves a host name and connects to one of its addresses, within a budget.
//!
//! Addresses are tried as in RFC 8305 (Happy Eyeballs): IPv6 and IPv4 alternate, in the order that
//! the system's resolver prefers; the next attempt starts 250 ms after the last one, or as soon as
//! no attempt is left; the first connection wins and the other sockets are closed. So a dead first
//! address costs 0.25 s.
//!
//! The addresses of both families come from one call of the system's resolver, so a slow AAAA
//! answer also delays the first attempt over IPv4. Nothing is cached. Proxies are the HTTP client's
//! business.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};

use crate::base::budget::{Budget, Interrupted};
use crate::base::error::{Reason, Stage, SyncError};

use super::wait::{self, Stop, Wait};

/// The Connection Attempt Delay of RFC 8305, section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Why there is no connection. Display names the host; the source is the system's error.
#[derive(Debug)]
pub struct DialError {
    /// `host:port`.
    endpoint: String,
    failure: Failure,
}

#[derive(Debug)]
enum Failure {
    Interrupted(Interrupted),
    Stalled(Duration),
    Unresolved(io::Error),
    Unreachable(io::Error),
}

/// A connection attempt whose socket does not block.
enum Attempt {
    Connected(OwnedFd),
    Pending(OwnedFd),
}

/// Connects to `host` (a name or an address, an IPv6 one with or without brackets) at `port`.
///
/// The stream is in blocking mode with `TCP_NODELAY` set. Name resolution and connecting together
/// take no longer than the budget's stall limit.
///
/// # Errors
/// When the name cannot be resolved, no address accepts a connection, or the budget ends first.
pub fn dial(host: &str, port: u16, budget: &Budget) -> Result<TcpStream, DialError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let open = || -> Result<TcpStream, Failure> {
        let wait = Wait::begin(budget)?;
        let addresses = interleaved(resolve(host, port, &wait)?);
        let stream = race(addresses, &wait)?;
        stream
            .set_nonblocking(false)
            .map_err(Failure::Unreachable)?;
        stream.set_nodelay(true).map_err(Failure::Unreachable)?;
        Ok(stream)
    };
    open().map_err(|failure| DialError {
        endpoint: endpoint(host, port),
        failure,
    })
}

/// `host:port`, or `[host]:port` for an IPv6 address.
pub fn endpoint(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Resolves in a thread of its own, because the system's resolver takes no deadline. A thread that
/// is no longer waited for ends with the resolver's own timeout.
fn resolve(host: &str, port: u16, wait: &Wait) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let lookup = move |host: &str| -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    };
    let (sender, receiver) = mpsc::sync_channel(1);
    let owned = host.to_owned();
    let spawned = thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            // Sending fails when the caller's budget ended first; the answer is then of no use.
            let _ = sender.send(lookup(&owned));
        });
    let found = match spawned {
        // Where no more threads can be started, the resolver's own timeout is the only bound.
        Err(_) => lookup(host),
        Ok(_) => loop {
            match receiver.recv_timeout(wait.slice()?) {
                Ok(found) => break found,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(io::Error::other("the thread that resolves panicked"));
                }
            }
        },
    };
    found.map_err(Failure::Unresolved)
}

/// Alternates the address families, beginning with that of the first address (RFC 8305, section 4,
/// with a First Address Family Count of 1).
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = VecDeque::new();
    while ordered.len() < MAX_ADDRESSES && !(preferred.is_empty() && other.is_empty()) {
        ordered.extend(preferred.pop_front());
        ordered.extend(other.pop_front());
    }
    ordered.truncate(MAX_ADDRESSES);
    ordered
}

/// Connects to the addresses in order, each attempt beside those before it; the first wins.
fn race(mut addresses: VecDeque<SocketAddr>, wait: &Wait) -> Result<TcpStream, Failure> {
    let mut attempts: Vec<OwnedFd> = Vec::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut next_start = Instant::now();
    loop {
        let slice = wait.slice()?;
        let now = Instant::now();
        if (attempts.is_empty() || now >= next_start)
            && let Some(address) = addresses.pop_front()
        {
            match attempt(address) {
                Ok(Attempt::Connected(socket)) => return Ok(socket.into()),
                Ok(Attempt::Pending(socket)) => attempts.push(socket),
                Err(error) => last_error = error,
            }
            next_start = now + ATTEMPT_DELAY;
            continue;
        }
        if attempts.is_empty() {
            return Err(Failure::Unreachable(last_error));
        }
        let timeout = match addresses.is_empty() {
            true => slice,
            false => slice.min(next_start.saturating_duration_since(now)),
        };
        let ready = ready(&attempts, timeout).map_err(Failure::Unreachable)?;
        // From the end, so that removing one does not move those that are still to be looked at.
        for index in ready.into_iter().rev() {
            let socket = attempts.remove(index);
            match sockopt::socket_error(&socket) {
                Ok(Ok(())) => return Ok(socket.into()),
                Ok(Err(error)) | Err(error) => last_error = error.into(),
            }
        }
    }
}

fn attempt(address: SocketAddr) -> io::Result<Attempt> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &address) {
        Ok(()) => Ok(Attempt::Connected(socket)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(Attempt::Pending(socket)),
        Err(error) => Err(error.into()),
    }
}

/// The indices of the attempts that came to an end, one way or the other, in rising order.
fn ready(attempts: &[OwnedFd], timeout: Duration) -> io::Result<Vec<usize>> {
    let mut polled: Vec<_> = attempts
        .iter()
        .map(|socket| PollFd::new(socket, PollFlags::OUT))
        .collect();
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    Ok((0..polled.len())
        .filter(|&index| !polled[index].revents().is_empty())
        .collect())
}

impl DialError {
    /// The error as the project reports it.
    pub fn at(self, stage: Stage) -> SyncError {
        let what = self.to_string();
        match self.failure {
            Failure::Interrupted(cause) => {
                SyncError::interrupted(stage, &format!("connecting to {}", self.endpoint), cause)
            }
            Failure::Stalled(_) => SyncError::new(stage, Reason::Timeout, what)
                .with_hint("check host and port, and network policies that drop packets"),
            Failure::Unresolved(cause) => SyncError::new(stage, Reason::Network, what)
                .with_hint("check the host name, and the cluster's DNS")
                .with_source(cause),
            Failure::Unreachable(cause) => {
                let reason = match cause.kind() {
                    io::ErrorKind::TimedOut => Reason::Timeout,
                    _ => Reason::Network,
                };
                SyncError::new(stage, reason, what)
                    .with_hint("check host and port, and network policies")
                    .with_source(cause)
            }
        }
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Interrupted(cause) => Self::Interrupted(cause),
            Stop::Stalled(limit) => Self::Stalled(limit),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = &self.endpoint;
        match &self.failure {
            Failure::Interrupted(cause) => write!(f, "connecting to {endpoint}: {cause}"),
            Failure::Stalled(limit) => write!(
                f,
                "cannot connect to {endpoint}: no answer for {}",
                wait::shown(*limit)
            ),
            Failure::Unresolved(_) => write!(f, "cannot resolve the host name of {endpoint}"),
            Failure::Unreachable(_) => write!(f, "cannot connect to {endpoint}"),
        }
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.failure {
            Failure::Unresolved(cause) | Failure::Unreachable(cause) => Some(cause),
            Failure::Interrupted(_) | Failure::Stalled(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const AMPLE: Duration = Duration::from_secs(30);

    /// A listener that drops every further SYN, because its queue is full.
    struct Swallowing {
        address: SocketAddr,
        _listener: TcpListener,
        _queued: Vec<TcpStream>,
    }

    impl Swallowing {
        fn new() -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            rustix::net::listen(&listener, 0).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = Vec::new();
            while let Ok(stream) = TcpStream::connect_timeout(&address, ATTEMPT_DELAY) {
                queued.push(stream);
            }
            Self {
                address,
                _listener: listener,
                _queued: queued,
            }
        }
    }

    fn wait_for(total: Duration, stall: Duration) -> Wait {
        Wait::begin(&Budget::new(total, stall, Arc::default())).unwrap()
    }

    fn refusing() -> SocketAddr {
        let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        closed.local_addr().unwrap()
    }

    #[test]
    fn a_dead_first_address_costs_a_quarter_of_a_second() {
        let dead = Swallowing::new();
        let alive = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addresses = [dead.address, alive.local_addr().unwrap()];
        let begun = Instant::now();
        let stream = race(addresses.into(), &wait_for(AMPLE, AMPLE)).unwrap();
        let took = begun.elapsed();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(took >= ATTEMPT_DELAY, "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    #[test]
    fn a_refusing_first_address_costs_no_delay() {
        let alive = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addresses = [refusing(), refusing(), alive.local_addr().unwrap()];
        let begun = Instant::now();
        race(addresses.into(), &wait_for(AMPLE, AMPLE)).unwrap();
        assert!(begun.elapsed() < ATTEMPT_DELAY, "{:?}", begun.elapsed());
    }

    #[test]
    fn the_attempt_that_lost_is_closed() {
        let dead = Swallowing::new();
        let alive = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addresses = [dead.address, alive.local_addr().unwrap()];
        let winner = race(addresses.into(), &wait_for(AMPLE, AMPLE)).unwrap();
        assert_eq!(attempts_at(dead.address), 0);
        drop(winner);
        let pending = attempt(dead.address).unwrap();
        assert_eq!(attempts_at(dead.address), 1, "an open attempt is seen");
        drop(pending);
    }

    /// Sockets in the state SYN_SENT (02) to an IPv4 address, from the kernel's table.
    fn attempts_at(address: SocketAddr) -> usize {
        let port = format!(":{:04X}", address.port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let sent = |line: &&str| {
            let mut fields = line.split_whitespace().skip(2);
            fields.next().is_some_and(|peer| peer.ends_with(&port)) && fields.next() == Some("02")
        };
        table.lines().filter(sent).count()
    }

    #[test]
    fn when_no_address_answers_the_stall_limit_or_the_last_refusal_is_the_error() {
        let dead = Swallowing::new();
        let limit = Duration::from_millis(300);
        let error = race([dead.address].into(), &wait_for(AMPLE, limit)).unwrap_err();
        assert!(
            matches!(error, Failure::Stalled(stalled) if stalled == limit),
            "{error:?}"
        );

        let error = race([refusing(), refusing()].into(), &wait_for(AMPLE, AMPLE)).unwrap_err();
        assert!(
            matches!(&error, Failure::Unreachable(e) if e.kind() == io::ErrorKind::ConnectionRefused),
            "{error:?}"
        );
        let error = race(VecDeque::new(), &wait_for(AMPLE, AMPLE)).unwrap_err();
        assert!(matches!(error, Failure::Unreachable(_)), "{error:?}");
    }

    #[test]
    fn a_cancellation_ends_an_attempt() {
        let dead = Swallowing::new();
        let cancelled = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(AMPLE, AMPLE, cancelled.clone());
        let address = dead.address;
        let dialling =
            thread::spawn(move || dial(&address.ip().to_string(), address.port(), &budget));
        let begun = Instant::now();
        cancelled.store(true, Ordering::Relaxed);
        let error = dialling.join().unwrap().unwrap_err();
        assert!(error.at(Stage::Poll).is_cancelled());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn the_families_alternate_beginning_with_the_preferred_one() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(address);
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(address);
        assert_eq!(interleaved(found.to_vec()), expected);
        let many: Vec<_> = (0..100)
            .map(|n| address(&format!("10.0.0.{n}:1")))
            .collect();
        assert_eq!(interleaved(many).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_host_that_does_not_resolve_is_named_with_its_port() {
        let budget = Budget::new(AMPLE, AMPLE, Arc::default());
        let error = dial("no-such-host.invalid", 443, &budget).unwrap_err();
        let error = error.at(Stage::Poll);
        assert_eq!(error.reason, Reason::Network);
        assert!(
            error.to_string().contains("no-such-host.invalid:443"),
            "{error}"
        );
    }
}
