//! A request as the caller describes it, and the answer as the caller gets it.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ureq::BodyReader;
use ureq::http::header::RETRY_AFTER;
use ureq::http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage};
use crate::base::secret::Secret;

use super::failure::{Failure, Peer};
use super::transport::Watch;

/// How long to wait for the end of a body whose content is complete.
const LINGER: Duration = Duration::from_secs(1);

/// The most bytes that are read only to be able to use the connection again.
const MAX_REST: u64 = 16 << 10;

/// What to send.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The step of the cycle that wants the answer, for errors.
    pub stage: Stage,
    /// The method.
    pub method: Method,
    /// Where to; `http` or `https`.
    pub url: &'a Url,
    /// Headers that go with every request, redirected or not.
    pub headers: &'a [(&'a str, &'a str)],
    /// A header that only some URLs may get, such as credentials.
    pub bound: Option<BoundHeader<'a>>,
    /// The body; None sends none.
    pub body: Option<&'a [u8]>,
    /// What to do about a redirect.
    pub redirects: Redirects,
    /// How errors name a URL. Must leave out what is secret, as [`without_query`] does.
    pub shown: fn(&Url) -> String,
}

/// A header that must not reach every server that a redirect names.
#[derive(Clone, Copy, Debug)]
pub struct BoundHeader<'a> {
    /// The header's name.
    pub name: &'static str,
    /// The header's value.
    pub value: &'a Secret,
    /// The URL that it was meant for.
    pub origin: &'a Url,
    /// Whether a header meant for the first URL may be sent to the second.
    pub may_follow: fn(&Url, &Url) -> bool,
}

/// What to do about a status of 3xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// Return it to the caller like any other answer.
    Return,
    /// Send the request again, with the same method and body, at most this often. One from https
    /// to http is refused.
    Follow(u32),
}

/// An answer of any status. Its body is still on the connection.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Where the answer came from, after redirects.
    pub url: Url,
    /// Whether this server was sent the bound header.
    pub bound_sent: bool,
    /// The body.
    pub body: Body,
}

/// The body of an answer, read within the budget that the request was sent with.
pub struct Body {
    pub(super) reader: BodyReader<'static>,
    pub(super) watch: Arc<Watch>,
    pub(super) peer: Peer,
}

/// The URL without its query, which may hold a token.
pub fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.into()
}

impl BoundHeader<'_> {
    pub(super) fn is_for(&self, url: &Url) -> bool {
        (self.may_follow)(self.origin, url)
    }
}

impl Response {
    /// How long the server asks to wait before the next request (RFC 9110, section 10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        retry_after(value, SystemTime::now())
    }
}

impl Body {
    /// Reads the next bytes; 0 at the end.
    ///
    /// # Errors
    /// When the connection breaks or stalls, the budget ends, or the body breaks HTTP's rules.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        self.reader
            .read(buffer)
            .map_err(|error| self.peer.failure(error.into(), self.watch.stop()))
    }

    /// Reads a whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Body::read`]; reason `limit` for a larger body.
    pub fn bytes(mut self, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::new();
        let mut chunk = vec![0; limit.clamp(1, 16 << 10)];
        loop {
            match self.read(&mut chunk)? {
                0 => return Ok(content),
                length if content.len() + length > limit => {
                    let what = format!("sends more than {limit} bytes");
                    return Err(self.peer.error(Reason::Limit, &what).into());
                }
                length => content.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Reads what may follow the part that was of interest, at most 16 KiB in one second, because
    /// only a connection whose answer was read to its end can be used again. A failure only costs
    /// the connection.
    pub fn finish(self, budget: &Budget) {
        self.watch
            .begin(&Budget::new(LINGER, LINGER, budget.cancelled().clone()));
        let _ = io::copy(&mut self.reader.take(MAX_REST), &mut io::sink());
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("peer", &self.peer).finish()
    }
}

/// Seconds or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
    }
}
