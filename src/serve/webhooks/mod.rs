//! `POST /webhook`: what the git hosts send, told apart by its headers.
//!
//! A body is authenticated as it streams by, in the form in which it was signed, and read only
//! after that. At most 1 MiB of it is kept for reading. A body that cannot be read is still worth
//! a poll when it is authentic, because polling is what finds out.
//!
//! A payload is a hint. From it come the names of refs and ids of commits, which decide whether to
//! poll and how long to go on; what is polled and fetched follows from the configuration alone.
//!
//! This module takes no decision about polls. It does not check the signatures of AWS SNS, which
//! would need a certificate from a URL in the message: see [`sns`].

mod azure;
mod bitbucket;
pub mod body;
mod generic;
mod gitea;
mod github;
mod gitlab;
mod json;
pub mod replay;
pub mod sns;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use super::limits::Head;
use crate::base::commit::Commit;
use crate::base::secret::Secret;
use crate::observe::metrics::Provider;
use body::{Form, Kept, Room};

/// How old a signed time may be, and how far in the future.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// Signatures of one kind that a request may carry: senders sign with the old and the new secret
/// while they rotate.
const MAX_SIGNATURES: usize = 4;

/// Pushed refs of one request that are looked at.
const MAX_PUSHES: usize = 256;

/// The longest ref name that is kept, in bytes.
const MAX_NAME: usize = 1024;

/// What the headers say of a request.
#[derive(Debug)]
pub struct Scheme {
    provider: Provider,
    proofs: Vec<Proof>,
    /// The sender's id for this delivery, which a repeated delivery keeps.
    delivery: Option<String>,
    /// When it was signed, in seconds since the epoch, where the signature covers that.
    signed_at: Option<u64>,
    /// The beginning of what Standard Webhooks sign: `id.timestamp.`.
    prefix: String,
    event: Event,
    read: fn(&[u8]) -> Reading,
}

/// What proves that the sender knows a secret. One is enough.
#[derive(Debug)]
enum Proof {
    /// HMAC-SHA256 of something, with the secret as key.
    Mac(Signed, [u8; 32]),
    /// The secret itself.
    Secret(Secret),
}

/// What was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signed {
    /// The body as it is on the wire.
    Raw,
    /// The document in the form field `payload`.
    Document,
    /// The delivery id, the time and the body (Standard Webhooks 1.0.0), with the secret's own form
    /// of key.
    Standard,
}

/// The kind of event, as the headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A test of the connection.
    Ping,
    /// The body tells.
    InBody,
    /// One that is not about refs.
    Other,
}

/// What a body says.
#[derive(Debug, Default)]
pub struct Reading {
    /// What happened.
    pub meaning: Meaning,
    /// The sender's id for this delivery, where the body has it.
    delivery: Option<String>,
}

/// What happened at the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// Refs were pushed.
    Pushes {
        /// Those that were read.
        pushes: Vec<Push>,
        /// Whether these are all.
        all: bool,
    },
    /// A test of the connection.
    Ping,
    /// Something that changes no ref.
    Nothing,
    /// Nobody can tell.
    #[default]
    Unknown,
    /// AWS SNS asks whether to send messages of a topic.
    Subscribe {
        /// The topic's ARN.
        topic: String,
        /// The secret that confirms it.
        token: String,
    },
    /// A message of an AWS SNS topic.
    Notification {
        /// The topic's ARN.
        topic: String,
        /// What the message says.
        meaning: Box<Meaning>,
    },
}

/// A ref that moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// Its full name.
    pub name: String,
    /// The commit that it points to now; `None` where that is not known, as for tags, whose object
    /// may be a tag.
    pub commit: Option<Commit>,
    /// Whether it is gone.
    pub deleted: bool,
}

/// A webhook whose body is on its way.
pub struct Incoming {
    scheme: Scheme,
    streams: Vec<Stream>,
    /// A secret in the headers was right.
    proved: bool,
    form: Option<Form>,
    kept: Kept,
}

/// What a complete webhook is.
#[derive(Debug)]
pub struct Received {
    /// Who sent it.
    pub provider: Provider,
    /// Whether it is older or newer than a signed time may be.
    pub untimely: bool,
    /// The sender's id for this delivery.
    pub delivery: Option<String>,
    /// What it says.
    pub meaning: Meaning,
}

/// The computation of one kind of signature.
struct Stream {
    signed: Signed,
    /// One for each secret.
    contexts: Vec<hmac::Context>,
    /// What was sent.
    tags: Vec<[u8; 32]>,
}

/// Finds out from the headers who sends a request and how it can be authenticated.
pub fn recognise(head: &Head) -> Scheme {
    None.or_else(|| gitea::recognise(head))
        .or_else(|| gitlab::recognise(head))
        .or_else(|| bitbucket::recognise(head))
        .or_else(|| sns::recognise(head))
        .or_else(|| github::recognise(head))
        .or_else(|| azure::recognise(head))
        .unwrap_or_else(|| generic::recognise(head, Event::InBody))
}

/// How a request to `/nudge` can be authenticated. Its body says nothing.
pub fn recognise_nudge(head: &Head) -> Scheme {
    let scheme = generic::recognise(head, Event::Ping);
    let provider = match scheme.provider {
        Provider::Unknown => Provider::Token,
        known => known,
    };
    Scheme { provider, ..scheme }
}

impl Scheme {
    /// A request without proofs.
    fn new(provider: Provider, event: Event, read: fn(&[u8]) -> Reading) -> Self {
        Self {
            provider,
            proofs: Vec::new(),
            delivery: None,
            signed_at: None,
            prefix: String::new(),
            event,
            read,
        }
    }

    /// Adds the signatures in headers of this name, which begin with `prefix`. An empty header is
    /// no signature.
    fn signed_by(mut self, head: &Head, header: &str, prefix: &str, signed: Signed) -> Self {
        let tags = head
            .all(header)
            .filter_map(|value| value.trim().strip_prefix(prefix))
            .filter_map(hex);
        self.proofs
            .extend(tags.take(MAX_SIGNATURES).map(|tag| Proof::Mac(signed, tag)));
        self
    }

    /// Adds a secret that a header holds.
    fn with_secret(mut self, secret: Option<Secret>) -> Self {
        self.proofs.extend(secret.map(Proof::Secret));
        self
    }

    /// Takes the delivery id from the first of these headers that is there.
    fn delivered_as(mut self, head: &Head, headers: &[&str]) -> Self {
        let id = headers.iter().find_map(|name| head.header(name));
        self.delivery = id.map(str::to_owned);
        self
    }

    /// Who sends it.
    pub fn provider(&self) -> Provider {
        self.provider
    }
}

impl Incoming {
    /// Begins to receive a webhook; `None` when nothing in its headers can prove knowledge of one
    /// of the secrets.
    pub fn begin(
        scheme: Scheme,
        secrets: &[Secret],
        form_encoded: bool,
        room: &Room,
    ) -> Option<Self> {
        let mut proved = false;
        let mut streams: Vec<Stream> = Vec::new();
        for proof in &scheme.proofs {
            match proof {
                Proof::Secret(sent) => {
                    for secret in secrets {
                        proved |= same(sent.expose().as_bytes(), secret.expose().as_bytes());
                    }
                }
                Proof::Mac(Signed::Document, _) if !form_encoded => {}
                Proof::Mac(signed, tag) => {
                    match streams.iter_mut().find(|stream| stream.signed == *signed) {
                        Some(stream) => stream.tags.push(*tag),
                        None => streams.push(Stream::new(*signed, *tag, &scheme.prefix, secrets)),
                    }
                }
            }
        }
        (proved || streams.iter().any(|stream| !stream.contexts.is_empty())).then(|| Self {
            scheme,
            streams,
            proved,
            form: form_encoded.then(Form::new),
            kept: Kept::new(room.clone()),
        })
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self {
            scheme,
            streams,
            form,
            kept,
            ..
        } = self;
        for stream in streams.iter_mut() {
            if stream.signed != Signed::Document {
                stream.update(bytes);
            }
        }
        let mut keep = |bytes: &[u8]| {
            if scheme.event == Event::InBody {
                kept.push(bytes);
            }
        };
        match form {
            None => keep(bytes),
            Some(form) => form.feed(bytes, &mut |document| {
                for stream in streams.iter_mut() {
                    if stream.signed == Signed::Document {
                        stream.update(document);
                    }
                }
                keep(document);
            }),
        }
    }

    /// Who sends it.
    pub fn provider(&self) -> Provider {
        self.scheme.provider
    }

    /// What it is, if it is authentic. `now` is the time in seconds since the epoch.
    pub fn finish(self, now: u64) -> Option<Received> {
        let Self {
            scheme,
            streams,
            mut proved,
            kept,
            ..
        } = self;
        for stream in streams {
            proved |= stream.matches();
        }
        if !proved {
            return None;
        }
        let reading = match scheme.event {
            Event::Ping => Reading::from(Meaning::Ping),
            Event::Other => Reading::from(Meaning::Nothing),
            Event::InBody => (scheme.read)(kept.bytes()),
        };
        Some(Received {
            provider: scheme.provider,
            untimely: scheme
                .signed_at
                .is_some_and(|at| at.abs_diff(now) > MAX_AGE.as_secs()),
            delivery: scheme.delivery.or(reading.delivery),
            meaning: reading.meaning,
        })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl Stream {
    fn new(signed: Signed, tag: [u8; 32], prefix: &str, secrets: &[Secret]) -> Self {
        let contexts = secrets.iter().map(|secret| {
            let key = match signed {
                Signed::Standard => standard_key(secret),
                Signed::Raw | Signed::Document => secret.expose().as_bytes().to_vec(),
            };
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
            if signed == Signed::Standard {
                context.update(prefix.as_bytes());
            }
            context
        });
        Self {
            signed,
            contexts: contexts.collect(),
            tags: vec![tag],
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        for context in &mut self.contexts {
            context.update(bytes);
        }
    }

    /// Whether one of the tags is that of one of the secrets.
    fn matches(self) -> bool {
        let mut matches = false;
        for context in self.contexts {
            let expected = context.sign();
            for tag in &self.tags {
                matches |= same(tag, expected.as_ref());
            }
        }
        matches
    }
}

impl From<Meaning> for Reading {
    fn from(meaning: Meaning) -> Self {
        Self {
            meaning,
            delivery: None,
        }
    }
}

impl Push {
    /// A ref that points to `id` now: all zeros mean that it is gone.
    fn new(name: &str, id: Option<&str>) -> Self {
        let deleted = id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b == b'0'));
        let commit = id.filter(|_| !deleted && !name.starts_with("refs/tags/"));
        Self {
            name: cut(name),
            commit: commit.and_then(|id| id.parse().ok()),
            deleted,
        }
    }
}

/// Constant-time comparison: compares HMACs of the two values, so the time does not depend on where
/// they differ.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    let key = |value: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, value);
    let tag = hmac::sign(&key(other), b"nudge");
    hmac::verify(&key(one), b"nudge", tag.as_ref()).is_ok()
}

/// The key that a secret stands for in Standard Webhooks: `whsec_` and base64, or else the secret
/// as it is.
fn standard_key(secret: &Secret) -> Vec<u8> {
    let text = secret.expose();
    text.strip_prefix("whsec_")
        .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

/// The password of `Authorization: Basic` (RFC 7617). The user name does not matter.
fn basic(head: &Head) -> Option<Secret> {
    let (scheme, encoded) = head.authorization.as_ref()?.expose().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (_, password) = text.split_once(':')?;
    Some(Secret::received(password))
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1).
fn bearer(head: &Head) -> Option<Secret> {
    let (scheme, token) = head.authorization.as_ref()?.expose().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| Secret::received(token.trim()))
}

/// 32 bytes in hexadecimal.
fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

/// The text, cut to what may be kept.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_NAME);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_values_are_the_same() {
        assert!(same(b"s3cret", b"s3cret"));
        for other in ["", "s3cre", "s3cret ", "S3cret", "s3crets"] {
            assert!(!same(other.as_bytes(), b"s3cret"), "{other}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_32_bytes_or_nothing() {
        assert_eq!(hex(&"aF".repeat(32)), Some([0xaf; 32]));
        for bad in [
            "",
            &"a".repeat(63),
            &"a".repeat(65),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn zeros_mean_that_a_ref_is_gone_and_a_tag_names_no_commit() {
        let gone = Push::new("refs/heads/main", Some(&"0".repeat(40)));
        assert!(gone.deleted && gone.commit.is_none());
        let there = Push::new("refs/heads/main", Some(&"a".repeat(40)));
        assert!(!there.deleted && there.commit.is_some());
        let tag = Push::new("refs/tags/v1", Some(&"a".repeat(40)));
        assert!(!tag.deleted && tag.commit.is_none());
        assert!(!Push::new("refs/heads/main", None).deleted);
        assert_eq!(Push::new(&"é".repeat(MAX_NAME), None).name.len(), MAX_NAME);
    }

    #[test]
    fn the_key_of_standard_webhooks_is_in_base64_after_its_prefix() {
        assert_eq!(standard_key(&Secret::received("whsec_YWJj")), b"abc");
        for plain in ["abc", "whsec_*"] {
            assert_eq!(standard_key(&Secret::received(plain)), plain.as_bytes());
        }
    }
}
