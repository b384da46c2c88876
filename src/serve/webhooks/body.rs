//! A body as it arrives: chunks and form encoding taken off, and as much of it kept as memory
//! allows.
//!
//! Nothing here knows what a body means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one body that are kept at most.
pub(super) const KEEP: usize = 1 << 20;

/// Bytes that are kept of all bodies together. What does not fit is still authenticated; only its
/// meaning is lost, and it then counts as worth a poll.
const KEEP_IN_ALL: usize = 2 << 20;

/// Bytes by which a kept body grows.
const STEP: usize = 16 << 10;

/// The longest line with the size of a chunk, in bytes.
const MAX_CHUNK_LINE: usize = 256;

/// Bytes of trailers after the last chunk.
const MAX_TRAILERS: usize = 4096;

/// The room for kept bodies, shared by all connections.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<AtomicUsize>);

/// The beginning of a body.
#[derive(Debug)]
pub(super) struct Kept {
    room: Room,
    /// Bytes that were taken of the room.
    taken: usize,
    bytes: Vec<u8>,
    /// Whether all that came is in `bytes`.
    whole: bool,
}

impl Kept {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            taken: 0,
            bytes: Vec::new(),
            whole: true,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.whole {
            return;
        }
        let wanted = bytes.len().min(KEEP - self.bytes.len());
        while self.taken < self.bytes.len() + wanted && self.room.take() {
            self.taken += STEP;
        }
        let taken = &bytes[..wanted.min(self.taken - self.bytes.len())];
        if self.bytes.capacity() < self.taken {
            self.bytes.reserve_exact(self.taken - self.bytes.len());
        }
        self.bytes.extend_from_slice(taken);
        self.whole = taken.len() == bytes.len();
    }

    /// What was kept.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.give(self.taken);
    }
}

impl Room {
    fn take(&self) -> bool {
        let fits = self.0.fetch_add(STEP, Ordering::Relaxed) + STEP <= KEEP_IN_ALL;
        if !fits {
            self.0.fetch_sub(STEP, Ordering::Relaxed);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Takes the chunks off a body (RFC 9112, section 7.1). Trailers are dropped.
#[derive(Debug)]
pub struct Chunks {
    state: Chunk,
    /// Bytes of the present line or of all trailers.
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// Digits of a size; whether there was one.
    Size(u64, bool),
    /// Extensions up to the end of the line.
    Extension(u64),
    /// The line feed after a size.
    SizeEnd(u64),
    /// Content; so much of it is to come.
    Data(u64),
    /// The carriage return after content.
    DataCr,
    /// The line feed after content.
    DataLf,
    /// Trailers; whether the present line is empty so far.
    Trailer(bool),
    /// All was read.
    Done,
}

/// A body that is not chunked as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunks;

impl Chunks {
    /// The beginning of a body.
    pub fn new() -> Self {
        Self {
            state: Chunk::Size(0, false),
            line: 0,
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == Chunk::Done
    }

    /// Takes the next bytes, and passes their content on. Returns how many bytes belonged to the
    /// body.
    ///
    /// # Errors
    /// When they are not chunks.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        content: &mut dyn FnMut(&[u8]),
    ) -> Result<usize, BadChunks> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let Chunk::Data(left) = self.state {
                let rest = &bytes[at..];
                let part = usize::try_from(left).map_or(rest.len(), |left| rest.len().min(left));
                content(&rest[..part]);
                at += part;
                self.state = match left - part as u64 {
                    0 => Chunk::DataCr,
                    left => Chunk::Data(left),
                };
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<Chunk, BadChunks> {
        self.line += 1;
        let limit = match self.state {
            Chunk::Trailer(_) => MAX_TRAILERS,
            _ => MAX_CHUNK_LINE,
        };
        if self.line > limit {
            return Err(BadChunks);
        }
        let next = match (self.state, byte) {
            (Chunk::Size(size, _), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = size.checked_mul(16).ok_or(BadChunks)? + u64::from(digit);
                Chunk::Size(size, true)
            }
            (Chunk::Size(size, true) | Chunk::Extension(size), b'\r') => Chunk::SizeEnd(size),
            (Chunk::Size(size, true), b';' | b' ' | b'\t') => Chunk::Extension(size),
            (Chunk::Extension(_), b'\n') => return Err(BadChunks),
            (Chunk::Extension(size), _) => Chunk::Extension(size),
            (Chunk::SizeEnd(0), b'\n') => {
                self.line = 0;
                Chunk::Trailer(true)
            }
            (Chunk::SizeEnd(size), b'\n') => {
                self.line = 0;
                Chunk::Data(size)
            }
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => {
                self.line = 0;
                Chunk::Size(0, false)
            }
            (Chunk::Trailer(empty), b'\r') => Chunk::Trailer(empty),
            (Chunk::Trailer(true), b'\n') => Chunk::Done,
            (Chunk::Trailer(false), b'\n') => Chunk::Trailer(true),
            (Chunk::Trailer(_), _) => Chunk::Trailer(false),
            _ => return Err(BadChunks),
        };
        Ok(next)
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

/// Finds the field `payload` of a form (WHATWG URL, application/x-www-form-urlencoded) and
/// decodes it.
#[derive(Debug)]
pub(super) struct Form {
    state: Field,
}

/// The field that holds the document.
const FIELD: &[u8] = b"payload";

#[derive(Clone, Copy, Debug)]
enum Field {
    /// So many bytes of the name are those of [`FIELD`].
    Name(usize),
    /// Another field, up to its end.
    Other,
    /// In the value.
    Value,
    /// After the percent sign; the first digit if it came.
    Escape(Option<u8>),
    /// After the value.
    Done,
}

impl Form {
    pub(super) fn new() -> Self {
        Self {
            state: Field::Name(0),
        }
    }

    /// Takes the next bytes, and passes on what they mean.
    pub(super) fn feed(&mut self, bytes: &[u8], content: &mut dyn FnMut(&[u8])) {
        let mut decoded = [0; 1024];
        let mut length = 0;
        for &byte in bytes {
            let (state, value) = self.state.step(byte);
            self.state = state;
            if let Some(value) = value {
                decoded[length] = value;
                length += 1;
                if length == decoded.len() {
                    content(&decoded);
                    length = 0;
                }
            }
        }
        content(&decoded[..length]);
    }
}

impl Field {
    fn step(self, byte: u8) -> (Self, Option<u8>) {
        match (self, byte) {
            (Self::Done, _) | (Self::Value | Self::Escape(_), b'&') => (Self::Done, None),
            (Self::Name(_) | Self::Other, b'&') => (Self::Name(0), None),
            (Self::Name(at), b'=') if at == FIELD.len() => (Self::Value, None),
            (Self::Name(at), _) if FIELD.get(at) == Some(&byte) => (Self::Name(at + 1), None),
            (Self::Name(_) | Self::Other, _) => (Self::Other, None),
            (Self::Value, b'%') => (Self::Escape(None), None),
            (Self::Value, b'+') => (Self::Value, Some(b' ')),
            (Self::Value, _) => (Self::Value, Some(byte)),
            (Self::Escape(None), _) => (Self::Escape(Some(byte)), None),
            (Self::Escape(Some(first)), _) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(first).zip(digit(byte)).map(|(a, b)| a * 16 + b);
                // What is no escape cannot be part of a document either.
                let value = value.and_then(|value| u8::try_from(value).ok());
                (Self::Value, value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchunked(wire: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), BadChunks> {
        let mut chunks = Chunks::new();
        let mut content = Vec::new();
        let mut used = 0;
        for piece in wire.chunks(piece) {
            used += chunks.feed(piece, &mut |part| content.extend_from_slice(part))?;
        }
        Ok((content, used, chunks.is_done()))
    }

    #[test]
    fn chunks_are_taken_off_wherever_they_are_cut() {
        let wire =
            b"5\r\nhello\r\n1;name=value\r\n,\r\n006 \r\n world\r\n0\r\nTrailer: x\r\n\r\nGET";
        for piece in 1..wire.len() {
            let (content, used, done) = unchunked(wire, piece).unwrap();
            assert_eq!(content, b"hello, world");
            assert_eq!((used, done), (wire.len() - 3, true));
        }
        let (content, _, done) = unchunked(b"5\r\nhel", 2).unwrap();
        assert_eq!((content.as_slice(), done), (&b"hel"[..], false));
    }

    #[test]
    fn what_is_no_chunk_is_an_error() {
        let long = format!("1;{}\r\nx\r\n", "x".repeat(MAX_CHUNK_LINE));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILERS));
        for wire in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "1\nx\r\n",
            "1\r\nxy\r\n",
            "fffffffffffffffff\r\n",
            &long,
            &trailers,
        ] {
            assert!(unchunked(wire.as_bytes(), 7).is_err(), "{wire}");
        }
    }

    #[test]
    fn the_payload_of_a_form_is_decoded_wherever_it_is_cut() {
        let wire = b"x=1&payloads=2&payload=%7B%22a+b%22%3A%221%2b2%22%7D&payload=3";
        for piece in 1..wire.len() {
            let mut form = Form::new();
            let mut content = Vec::new();
            for piece in wire.chunks(piece) {
                form.feed(piece, &mut |part| content.extend_from_slice(part));
            }
            assert_eq!(content, br#"{"a b":"1+2"}"#);
        }
    }

    #[test]
    fn the_room_for_bodies_is_shared_and_given_back() {
        let room = Room::default();
        let fill = |bytes| {
            let mut kept = Kept::new(room.clone());
            for _ in 0..bytes / 1000 + 1 {
                kept.push(&[b'x'; 1000]);
            }
            kept
        };
        let (one, two) = (fill(2 * KEEP), fill(2 * KEEP));
        assert_eq!((one.bytes().len(), two.bytes().len()), (KEEP, KEEP));
        assert_eq!(fill(10).bytes().len(), 0);
        drop(one);
        assert_eq!(fill(10).bytes().len(), 1000);
        drop(two);
        assert_eq!(room.0.load(Ordering::Relaxed), 0);
    }
}
