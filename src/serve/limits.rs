//! What a client may send, and the reading of a request head within that.
//!
//! This module does not touch sockets or clocks: [`parse_head`] is a function of bytes.

use std::time::Duration;

use crate::base::secret::Secret;

/// Connections that are open at once; another one takes the place of the least deserving.
pub const MAX_CONNECTIONS: usize = 64;

/// Bytes of request line and headers.
pub const MAX_HEAD: usize = 16 << 10;

/// Headers in a request.
pub const MAX_HEADERS: usize = 64;

/// Bytes of body, where a route takes one.
pub const MAX_BODY: u64 = 1 << 20;

/// Bytes of body of a webhook: GitHub sends up to 25 MB.
pub const MAX_WEBHOOK_BODY: u64 = 25 << 20;

/// The headers, in lower case, that webhooks are told apart and authenticated by.
const CAPTURED: [&str; 29] = [
    "content-type",
    "host",
    "idempotency-key",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-amz-sns-message-id",
    "x-amz-sns-message-type",
    "x-event-key",
    "x-forgejo-delivery",
    "x-forgejo-event",
    "x-forgejo-signature",
    "x-gitea-delivery",
    "x-gitea-event",
    "x-gitea-signature",
    "x-github-delivery",
    "x-github-event",
    "x-gitlab-event",
    "x-gitlab-event-uuid",
    "x-gitlab-token",
    "x-gogs-delivery",
    "x-gogs-event",
    "x-gogs-signature",
    "x-hook-uuid",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-request-id",
    "x-request-uuid",
    "x-signature",
];

/// How long a client may take to send its request, body included.
pub const SEND_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may take to read its answer.
pub const READ_WITHIN: Duration = Duration::from_secs(10);

/// How long what a client still sends is read and dropped after an answer that came early: closing
/// at once would reset the connection, and the answer with it (RFC 9112, section 9.6).
pub const LINGER: Duration = Duration::from_secs(1);

/// What the routes need to know of a request.
#[derive(Debug)]
pub struct Head {
    /// What to do.
    pub method: Method,
    /// The path of the target, without query; as sent, not decoded.
    pub path: String,
    /// What follows the first `?` of the target, without fragment; as sent, not decoded.
    pub query: String,
    /// How the body that follows is framed.
    pub body: Framing,
    /// The client waits for "100 Continue" before it sends the body.
    pub expects_continue: bool,
    /// The Authorization header.
    pub authorization: Option<Secret>,
    /// Other headers that matter, by their names in lower case, in the order in which they came.
    /// They may hold secrets.
    named: Vec<(&'static str, Secret)>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 without a body.
    Length(u64),
    /// It says so itself.
    Chunked,
}

impl Head {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all headers of this name. Only a fixed list of names is known.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        debug_assert!(CAPTURED.contains(&name), "{name} is not captured");
        self.named
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value.expose())
    }
}

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD: GET without the body of the answer.
    Head,
    /// POST
    Post,
    /// One that no route takes.
    Other,
}

/// Why a request is not served, as a status code with a reason for a human.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400
    Bad(&'static str),
    /// 408
    TooSlow,
    /// 411
    LengthRequired,
    /// 413, with the bytes that are allowed
    BodyTooLarge(u64),
    /// 421
    WrongHost,
    /// 429
    TooManyFailures,
    /// 431
    HeadTooLarge,
    /// 501
    UnknownCoding,
}

/// Reads a request head (RFC 9112, sections 2 to 6) from the first bytes of a connection.
///
/// Returns the head and its length once it is complete, and `None` while it may still become so.
///
/// # Errors
/// When it breaks a limit, or is no request that may be answered otherwise.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let within = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(within) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(_) => return Err(Refusal::Bad("not an HTTP/1.1 request")),
    };
    let value = |name: &str| {
        request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    // RFC 9112, section 3.2.
    if request.version == Some(1) && value("host").is_none() {
        return Err(Refusal::Bad("no Host header"));
    }
    let target = request.path.unwrap_or_default();
    let head = Head {
        method: match request.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("POST") => Method::Post,
            _ => Method::Other,
        },
        path: path(target).to_owned(),
        query: query(target).to_owned(),
        body: framing(request.headers)?,
        expects_continue: value("expect")
            .is_some_and(|expected| expected.eq_ignore_ascii_case(b"100-continue")),
        authorization: value("authorization")
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(Secret::received),
        named: request.headers.iter().filter_map(captured).collect(),
    };
    Ok(Some((head, length)))
}

/// The path of an origin-form or absolute-form target (RFC 9112, section 3.2).
fn path(target: &str) -> &str {
    let origin = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("/", |start| &rest[start..])
        }
        _ => target,
    };
    origin.split(['?', '#']).next().unwrap_or_default()
}

/// The query of a target, without its question mark.
fn query(target: &str) -> &str {
    let target = target.split('#').next().unwrap_or_default();
    target.split_once('?').map_or("", |(_, query)| query)
}

/// A header that matters, if its value is text.
fn captured(header: &httparse::Header<'_>) -> Option<(&'static str, Secret)> {
    let name = CAPTURED
        .iter()
        .find(|name| header.name.eq_ignore_ascii_case(name))?;
    let value = std::str::from_utf8(header.value).ok()?;
    Some((name, Secret::received(value)))
}

/// The length that Content-Length announces. A length that is in doubt is refused, as whoever
/// stands in front of us may read it otherwise (RFC 9112, section 6.3).
fn framing(headers: &[httparse::Header<'_>]) -> Result<Framing, Refusal> {
    let mut length = None;
    let mut coding = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            coding = Some(header.value);
        } else if header.name.eq_ignore_ascii_case("content-length") {
            let announced = digits(header.value).ok_or(Refusal::Bad("bad Content-Length"))?;
            if length.is_some_and(|other| other != announced) {
                return Err(Refusal::Bad("more than one Content-Length"));
            }
            length = Some(announced);
        }
    }
    match (coding, length) {
        (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
        (Some(_), Some(_)) => Err(Refusal::Bad("both Content-Length and Transfer-Encoding")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(_), None) => Err(Refusal::UnknownCoding),
    }
}

/// A number of nothing but digits; one too large for the type is merely too large.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0_u64, |number, digit| {
        let digit = u64::from(digit - b'0');
        number.saturating_mul(10).saturating_add(digit)
    }))
}

impl Refusal {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::TooSlow => 408,
            Self::LengthRequired => 411,
            Self::BodyTooLarge(_) => 413,
            Self::WrongHost => 421,
            Self::TooManyFailures => 429,
            Self::HeadTooLarge => 431,
            Self::UnknownCoding => 501,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bad(why) => f.write_str(why),
            Self::TooSlow => write!(f, "not sent within {} s", SEND_WITHIN.as_secs()),
            Self::LengthRequired => f.write_str("send a Content-Length instead of chunks"),
            Self::BodyTooLarge(limit) => write!(f, "more than {limit} bytes of body"),
            Self::WrongHost => f.write_str("this host name is not one of --http-allowed-host"),
            Self::TooManyFailures => f.write_str("too many failures to authenticate: try later"),
            Self::HeadTooLarge => write!(
                f,
                "more than {MAX_HEAD} bytes or {MAX_HEADERS} headers before the body"
            ),
            Self::UnknownCoding => f.write_str("unknown Transfer-Encoding"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Option<(Head, usize)>, Refusal> {
        parse_head(head.as_bytes())
    }

    fn refusal(head: &str) -> Refusal {
        parsed(head).unwrap_err()
    }

    #[test]
    fn a_head_is_read_once_it_is_complete() {
        let head = "POST /nudge?now HTTP/1.1\r\nhost: x\r\nCONTENT-LENGTH: 12\r\n\
                    Authorization: Bearer t\r\nExpect: 100-Continue\r\n\r\n";
        for end in 0..head.len() {
            assert!(parsed(&head[..end]).unwrap().is_none(), "{end}");
        }
        let (parsed, length) = parsed(&format!("{head}body")).unwrap().unwrap();
        assert_eq!(length, head.len());
        assert_eq!(
            (parsed.method, parsed.body),
            (Method::Post, Framing::Length(12))
        );
        assert_eq!((&*parsed.path, &*parsed.query), ("/nudge", "now"));
        assert!(parsed.expects_continue);
        assert_eq!(parsed.authorization, Some(Secret::new("Bearer t")));
    }

    #[test]
    fn the_path_is_found_in_every_form_of_target() {
        for (target, expected) in [
            ("/livez", "/livez"),
            ("/livez?a=/b", "/livez"),
            ("/", "/"),
            ("http://h:1/livez?x", "/livez"),
            ("http://h", "/"),
            ("http://h?x", ""),
            ("/a?u=http://h/livez", "/a"),
            ("*", "*"),
            ("h:443", "h:443"),
        ] {
            assert_eq!(path(target), expected, "{target}");
        }
    }

    #[test]
    fn a_head_over_the_limits_is_431() {
        let line = format!("GET /{}", "a".repeat(MAX_HEAD));
        assert_eq!(refusal(&line), Refusal::HeadTooLarge);
        let late = format!(
            "GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
            "a".repeat(MAX_HEAD)
        );
        assert_eq!(refusal(&late), Refusal::HeadTooLarge);
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(refusal(&many), Refusal::HeadTooLarge);
        let frame = "GET / HTTP/1.1\r\nhost: x\r\na: \r\n\r\n".len();
        let full = format!(
            "GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
            "a".repeat(MAX_HEAD - frame)
        );
        assert_eq!(parsed(&full).unwrap().unwrap().1, MAX_HEAD);
    }

    #[test]
    fn what_is_no_request_is_400_at_once() {
        for garbage in [
            "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03",
            "GET /\r\n",
            "GET / HTTP/2.0\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\0",
        ] {
            assert!(matches!(refusal(garbage), Refusal::Bad(_)), "{garbage:?}");
        }
    }

    #[test]
    fn headers_of_webhooks_are_kept_with_their_repetitions() {
        let head = "POST /webhook HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: one\r\n\
                    x-hub-signature-256: s3cret\r\nX-Other: three\r\n\
                    Transfer-Encoding: CHUNKED\r\n\r\n";
        let (head, _) = parsed(head).unwrap().unwrap();
        let signatures: Vec<_> = head.all("x-hub-signature-256").collect();
        assert_eq!(signatures, ["one", "s3cret"]);
        assert_eq!(head.header("host"), Some("x"));
        assert_eq!(head.header("x-github-event"), None);
        assert_eq!(head.body, Framing::Chunked);
        assert!(!format!("{head:?}").contains("s3cret"));
    }

    #[test]
    fn a_length_in_doubt_is_refused() {
        for (headers, expected) in [
            ("Transfer-Encoding: gzip", 501),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1", 400),
            ("Content-Length: 1\r\nContent-Length: 2", 400),
            ("Content-Length: -1", 400),
            ("Content-Length: +1", 400),
            ("Content-Length: 1, 1", 400),
            ("Content-Length:", 400),
        ] {
            let head = format!("POST /nudge HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
            assert_eq!(refusal(&head).status(), expected, "{headers}");
        }
        assert_eq!(digits(b"99999999999999999999999"), Some(u64::MAX));
    }
}
