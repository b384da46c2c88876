//! How the server can be made to misbehave.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::request::Request;

/// How the server misbehaves. Positions count bytes of the answer's body.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Reads the request and says nothing.
    NeverAnswer,
    /// Sends half of the head, then nothing.
    StallInHead,
    /// Sends this much of the body, then nothing.
    StallAfter(usize),
    /// Sends one byte of the body each time this passes.
    Drip(Duration),
    /// Sends this much of the body, then resets the connection.
    ResetAfter(usize),
    /// Sends this much of the body, then closes the connection.
    TruncateAfter(usize),
    /// Answers with bytes that are not HTTP.
    Garbage,
    /// Answers 200 with a web page.
    Html,
    /// Answers 200 with these bytes as git's own content type.
    Body(Vec<u8>),
    /// Answers with this status and these headers.
    Status(u16, Vec<(String, String)>),
    /// Redirects with this status to this prefix and the request's path and query.
    Redirect(u16, String),
    /// Redirects to exactly this address.
    RedirectTo(String),
    /// Answers after this long.
    Delay(Duration),
    /// Answers questions about refs as it did before, for this long from the injection on.
    Stale(Duration),
    /// Answers every fetch with git's refusal to serve the object.
    RefuseObjects,
    /// Sends a packet of this text first, for ever.
    Endless(Vec<u8>),
}

/// Which requests a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// `git-upload-pack`.
    Post,
    /// `info/refs` and `ls-refs`.
    Refs,
    /// Requests for a pack.
    Fetch,
    /// Requests whose path begins like this.
    Under(&'static str),
}

impl Connection<'_> {
    pub(super) fn misbehave(
        &mut self,
        request: &Request,
        fault: Fault,
        since: Instant,
    ) -> io::Result<()> {
        let result_type = match request.method.as_str() {
            "GET" => "application/x-git-upload-pack-advertisement",
            _ => "application/x-git-upload-pack-result",
        };
        match fault {
            Fault::NeverAnswer => self.hold(None),
            Fault::StallInHead => {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Ty")?;
                self.hold(None)
            }
            Fault::Garbage => {
                self.write(b"\x00\x01\x02SMTP ready\r\n\r\n\xff\xfe")?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Fault::Html => {
                let page = b"<!DOCTYPE html><html><body>Sign in</body></html>";
                self.plain(200, &[("Content-Type", "text/html; charset=utf-8")], page)
            }
            Fault::Body(body) => self.plain(200, &[("Content-Type", result_type)], &body),
            Fault::Status(status, headers) => {
                let headers: Vec<_> = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                self.plain(status, &headers, b"no")
            }
            Fault::Redirect(status, prefix) => {
                let location = format!("{prefix}{}", request.target);
                self.plain(status, &[("Location", location.as_str())], b"moved")
            }
            Fault::RedirectTo(location) => {
                self.plain(302, &[("Location", location.as_str())], b"moved")
            }
            Fault::Delay(delay) => {
                // Ends early only with the server or the fault.
                let _ = self.hold(Some(delay));
                self.git(request, None)
            }
            Fault::Stale(duration) => {
                let key = (request.target.clone(), request.body.clone());
                let old = self.shared.remembered.lock().unwrap().get(&key).cloned();
                match old {
                    Some(body) if since.elapsed() < duration => {
                        self.plain(200, &[("Content-Type", result_type)], &body)
                    }
                    _ => self.git(request, None),
                }
            }
            Fault::RefuseObjects => {
                let text = "ERR upload-pack: not our ref 0123456789abcdef0123456789abcdef01234567";
                let body = format!("{:04x}{text}", text.len() + 4);
                self.plain(200, &[("Content-Type", result_type)], body.as_bytes())
            }
            Fault::Endless(packet) => {
                self.head(
                    200,
                    &[
                        ("Content-Type", result_type),
                        ("Transfer-Encoding", "chunked"),
                    ],
                )?;
                let piece = packet.repeat((64 << 10) / packet.len().max(1) + 1);
                loop {
                    self.chunk(&piece)?;
                }
            }
            Fault::StallAfter(_)
            | Fault::Drip(_)
            | Fault::ResetAfter(_)
            | Fault::TruncateAfter(_) => self.git(request, Some(fault)),
        }
    }

    /// Sends one piece of a body, or as much of it as the fault lets through.
    pub(super) fn piece(
        &mut self,
        piece: &[u8],
        sent: &mut usize,
        fault: Option<&Fault>,
    ) -> io::Result<()> {
        let limit = match fault {
            Some(
                Fault::StallAfter(limit) | Fault::ResetAfter(limit) | Fault::TruncateAfter(limit),
            ) => *limit,
            Some(Fault::Drip(pause)) => {
                for byte in piece {
                    self.chunk(&[*byte])?;
                    self.hold(Some(*pause))?;
                }
                return Ok(());
            }
            _ => usize::MAX,
        };
        let allowed = piece.len().min(limit - *sent);
        if allowed > 0 {
            self.chunk(&piece[..allowed])?;
            *sent += allowed;
        }
        if *sent < limit {
            return Ok(());
        }
        match fault {
            Some(Fault::StallAfter(_)) => self.hold(None),
            Some(Fault::ResetAfter(_)) => {
                let zero = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(self.socket(), zero)?;
                self.shared.sockets.lock().unwrap().remove(&self.number);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Waits until the time is over, or for ever; ends with an error when the fault is cleared,
    /// the server stops, or the client hangs up.
    pub(super) fn hold(&self, duration: Option<Duration>) -> io::Result<()> {
        let until = duration.map(|duration| Instant::now() + duration);
        let mut faults = self.shared.faults.lock().unwrap();
        loop {
            if faults.is_empty() || self.shared.stopped.load(Ordering::SeqCst) || self.hung_up() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let left = match until {
                Some(until) => until.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(1),
            };
            if left.is_zero() {
                return Ok(());
            }
            let slice = left.min(Duration::from_millis(50));
            faults = self.shared.changed.wait_timeout(faults, slice).unwrap().0;
        }
    }
}
