//! The `healthcheck` subcommand: asks a running instance for its health. It is for exec probes,
//! because the image has no shell and no curl.
//!
//! This module sends one request and reads one answer; it follows no redirects.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::base::text::printable;
use crate::cli::Probe;
use crate::serve::bind::Bind;

/// How many bytes of an answer are read.
const MAX_ANSWER: usize = 4096;

/// Why a probe failed.
#[derive(Debug)]
pub enum Unhealthy {
    /// The connection failed, or no answer came in time.
    Unreachable(SocketAddr, io::Error),
    /// The answer was not 200: the status, and the first line of the body.
    Answered(u16, String),
    /// The answer was not HTTP.
    Stranger(SocketAddr),
}

/// Asks the instance that serves on `bind` in this network namespace. `timeout` is the deadline of the
/// whole call.
///
/// # Errors
/// When the answer is not 200.
pub fn run(bind: Bind, probe: Probe, timeout: Duration) -> Result<(), Unhealthy> {
    let deadline = Instant::now() + timeout;
    let mut outcome = Ok(());
    for address in bind.reachable_at() {
        outcome = match ask(address, probe, deadline) {
            Ok(answer) => return judge(address, &answer),
            Err(error) => Err(Unhealthy::Unreachable(address, error)),
        };
    }
    outcome
}

fn ask(address: SocketAddr, probe: Probe, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&address, left(deadline)?)?;
    socket.set_write_timeout(Some(left(deadline)?))?;
    let path = match probe {
        Probe::Livez => "/livez",
        Probe::Readyz => "/readyz",
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    let mut chunk = [0; 512];
    while answer.len() < MAX_ANSWER {
        socket.set_read_timeout(Some(left(deadline)?))?;
        match socket.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The error of a read timeout (SO_RCVTIMEO, socket(7)).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn judge(address: SocketAddr, answer: &[u8]) -> Result<(), Unhealthy> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let (Ok(httparse::Status::Complete(length)), Some(code)) =
        (response.parse(answer), response.code)
    else {
        return Err(Unhealthy::Stranger(address));
    };
    if code == 200 {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer[length..]);
    let line = body.lines().next().unwrap_or_default();
    Err(Unhealthy::Answered(code, printable(line)))
}

/// The time until the deadline; never zero, which would mean no timeout.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late());
    }
    Ok(left)
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer within the timeout")
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(address, error) => write!(f, "cannot reach {address}: {error}"),
            Self::Answered(code, line) => write!(f, "{line} (HTTP {code})"),
            Self::Stranger(address) => write!(f, "the answer from {address} is not HTTP"),
        }
    }
}

impl std::error::Error for Unhealthy {}
