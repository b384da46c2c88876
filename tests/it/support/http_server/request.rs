//! What the client asked, as it came.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::Connection;
use super::fault::Scope;

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Lower-case names.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// The number of its connection, from 1.
    pub connection: usize,
    pub(super) answered: Arc<AtomicU64>,
}

impl Request {
    /// Bytes sent in answer so far, the head included (before encryption).
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    pub(super) fn is_fetch(&self) -> bool {
        self.method == "POST" && !self.is_ls_refs()
    }

    pub(super) fn is_ls_refs(&self) -> bool {
        contains(&self.body, b"command=ls-refs")
    }

    pub(super) fn in_scope(&self, scope: Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Post => self.method == "POST",
            Scope::Refs => !self.is_fetch(),
            Scope::Fetch => self.is_fetch(),
            Scope::Under(path) => self.target.starts_with(path),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Connection<'_> {
    /// The next request, or `None` when the client is done.
    pub(super) fn request(&mut self) -> io::Result<Option<Request>> {
        let split = loop {
            if let Some(at) = find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return Ok(None);
            }
            // A TLS handshake on a plain port.
            if self.input.first() == Some(&0x16) {
                self.plain(400, &[("Connection", "close")], b"")?;
                return Ok(None);
            }
        };
        let mut parsed = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut parsed);
        head.parse(&self.input[..split]).map_err(io::Error::other)?;
        let mut request = Request {
            method: head.method.unwrap_or_default().to_owned(),
            target: head.path.unwrap_or_default().to_owned(),
            headers: head
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).into_owned();
                    (header.name.to_ascii_lowercase(), value)
                })
                .collect(),
            body: Vec::new(),
            connection: self.number,
            answered: Arc::default(),
        };
        self.input.drain(..split);
        if request.header("expect").is_some() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if request.header("transfer-encoding").is_some() {
            request.body = self.chunked()?;
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            request.body = self.take(length)?;
        }
        Ok(Some(request))
    }

    pub(super) fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                match find(&self.input, b"\r\n") {
                    Some(at) => break at,
                    None if !self.fill()? => return Err(io::ErrorKind::UnexpectedEof.into()),
                    None => {}
                }
            };
            let line = self.take(at + 2)?;
            let digits = String::from_utf8_lossy(&line[..at]).into_owned();
            let length = usize::from_str_radix(&digits, 16).map_err(io::Error::other)?;
            let piece = self.take(length + 2)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&piece[..length]);
        }
    }

    pub(super) fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.input.drain(..length).collect())
    }
}

pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    find(haystack, needle).is_some()
}
