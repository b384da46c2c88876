//! One client: reads its request in pieces, sends the answer in pieces, and never waits.
//!
//! One request a connection: an answer ends it, and whatever was pipelined behind the request is
//! dropped unread. A probe or a scrape has no need of more, and a connection that cannot be idle
//! cannot be held open for nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::Instant;

use rustix::event::PollFlags;

use super::Shared;
use super::limits::{
    Framing, Head, LINGER, MAX_HEAD, Method, READ_WITHIN, Refusal, SEND_WITHIN, parse_head,
};
use super::nudge::{Gate, Nudge};
use super::routes::{Door, Reply, Route, route};
use super::webhooks::body::Chunks;

/// Reads of one client before the others have their turn.
const READS_A_TURN: usize = 4;

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    source: IpAddr,
    phase: Phase,
    /// Whether its request had to wait; counted once.
    delayed: bool,
    accepted: Instant,
    deadline: Instant,
}

/// What requests are answered from, and the buffer that all connections read into.
pub(super) struct Context<'a> {
    pub(super) shared: &'a Shared,
    pub(super) gate: &'a mut Option<Gate>,
    pub(super) scratch: &'a mut [u8; MAX_HEAD],
}

/// How much a connection deserves its place, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It has its answer.
    Done,
    /// It waits because of failures to authenticate.
    Delayed,
    /// It has not sent all of its request.
    Incomplete,
    /// It is owed an answer.
    Owed,
}

#[derive(Debug)]
enum Phase {
    /// The first bytes of the head; empty as long as nothing came.
    Head(Vec<u8>),
    /// What came of a request that is not looked at before the deadline.
    Delayed(Vec<u8>),
    /// The head was good; more of the body is to come.
    Body(Box<Body>),
    /// An answer, and how much of it is sent. A client that may still be sending must `linger`.
    Answer {
        bytes: Vec<u8>,
        sent: usize,
        linger: bool,
    },
    /// Reading what the client sends, to no purpose but that it gets to read its answer.
    Linger,
}

/// A body on its way.
#[derive(Debug)]
struct Body {
    nudge: Nudge,
    /// Bytes that may still come.
    left: u64,
    /// What takes off the chunks; `None` for a body of a known length, of which all of `left` comes.
    chunks: Option<Chunks>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// When its socket is ready again.
    Wait,
    /// No: drop it.
    Close,
}

impl Connection {
    /// Takes over a socket that does not block.
    pub(super) fn new(socket: TcpStream, source: IpAddr, now: Instant) -> Self {
        Self {
            socket,
            source,
            phase: Phase::Head(Vec::new()),
            delayed: false,
            accepted: now,
            deadline: now + SEND_WITHIN,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Answer { .. } => PollFlags::OUT,
            // Its end is noticed all the same.
            Phase::Delayed(_) => PollFlags::empty(),
            _ => PollFlags::IN,
        }
    }

    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn rank(&self) -> Rank {
        match self.phase {
            Phase::Linger => Rank::Done,
            Phase::Delayed(_) => Rank::Delayed,
            Phase::Head(_) | Phase::Body(_) => Rank::Incomplete,
            Phase::Answer { .. } => Rank::Owed,
        }
    }

    /// Its deadline passed.
    pub(super) fn expire(&mut self, context: &mut Context<'_>) -> Next {
        match &mut self.phase {
            Phase::Head(bytes) if bytes.is_empty() => Next::Close,
            Phase::Head(_) | Phase::Body(_) => {
                self.answer(Refusal::TooSlow.into(), false, true);
                self.send()
            }
            Phase::Delayed(bytes) => {
                let bytes = std::mem::take(bytes);
                self.deadline = self.accepted + SEND_WITHIN;
                self.phase = Phase::Head(Vec::new());
                // It was complete before.
                if let Ok(Some((head, length))) = parse_head(&bytes) {
                    let beyond = (bytes.len() - length) as u64;
                    self.requested(&head, beyond, bytes, context);
                }
                self.advance(context)
            }
            Phase::Answer { .. } | Phase::Linger => Next::Close,
        }
    }

    /// Its socket is ready.
    pub(super) fn ready(&mut self, context: &mut Context<'_>) -> Next {
        match self.phase {
            // Nothing is waited for but the client's end.
            Phase::Delayed(_) => Next::Close,
            _ => self.advance(context),
        }
    }

    /// Goes as far as it can without waiting.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) -> Next {
        for _ in 0..READS_A_TURN {
            match self.phase {
                Phase::Answer { .. } => return self.send(),
                Phase::Delayed(_) => return Next::Wait,
                _ => {}
            }
            let room = match &self.phase {
                Phase::Head(bytes) => MAX_HEAD - bytes.len(),
                _ => MAX_HEAD,
            };
            let read = match self.socket.read(&mut context.scratch[..room]) {
                Ok(0) => return Next::Close,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Next::Close,
            };
            self.received(read, context);
        }
        match self.phase {
            Phase::Answer { .. } => self.send(),
            _ => Next::Wait,
        }
    }

    /// Takes the first `read` bytes of the scratch buffer.
    fn received(&mut self, read: usize, context: &mut Context<'_>) {
        match &mut self.phase {
            Phase::Head(bytes) => {
                let parsed = if bytes.is_empty() {
                    let parsed = parse_head(&context.scratch[..read]);
                    // A head in one piece, which is all but every one, is copied only where more
                    // than an answer follows.
                    let is_post = |(head, _): &(Head, usize)| head.method == Method::Post;
                    if matches!(&parsed, Ok(whole) if whole.as_ref().is_none_or(is_post)) {
                        bytes.extend_from_slice(&context.scratch[..read]);
                    }
                    parsed.map(|head| head.map(|(head, length)| (head, read - length)))
                } else {
                    bytes.extend_from_slice(&context.scratch[..read]);
                    let parsed = parse_head(bytes);
                    parsed.map(|head| head.map(|(head, length)| (head, bytes.len() - length)))
                };
                match parsed {
                    Ok(None) => {}
                    Ok(Some((head, beyond))) => {
                        let bytes = std::mem::take(bytes);
                        self.requested(&head, beyond as u64, bytes, context);
                    }
                    Err(refusal) => self.answer(refusal.into(), false, true),
                }
            }
            Phase::Body(body) => {
                let took = body.take(&context.scratch[..read]);
                self.went_on(took, context);
            }
            Phase::Delayed(_) | Phase::Answer { .. } | Phase::Linger => {}
        }
    }

    /// The head is complete, and `beyond` bytes came after it. `bytes` is all that came, where the
    /// method is POST.
    fn requested(&mut self, head: &Head, beyond: u64, bytes: Vec<u8>, context: &mut Context<'_>) {
        let head_only = head.method == Method::Head;
        // More than the body means a pipelined request, less that the client is not done.
        let linger = head.body != Framing::Length(beyond);
        let door = match route(head, context.shared) {
            Route::Answer(reply) => return self.answer(reply, head_only, linger),
            Route::Nudge(door) => door,
        };
        let Some(gate) = context.gate else {
            return self.answer(Reply::not_found(), head_only, linger);
        };
        if let Err(until) = gate.admit(self.source) {
            if !std::mem::replace(&mut self.delayed, true) {
                gate.delayed();
            }
            if until > self.accepted + SEND_WITHIN {
                return self.answer(Refusal::TooManyFailures.into(), false, true);
            }
            self.deadline = until;
            self.phase = Phase::Delayed(bytes);
            return;
        }
        let limit = door.limit();
        let (left, chunks) = match head.body {
            Framing::Length(length) if length > limit => {
                return self.answer(Refusal::BodyTooLarge(limit).into(), head_only, linger);
            }
            Framing::Length(length) => (length, None),
            Framing::Chunked if door == Door::Nudge => {
                return self.answer(Refusal::LengthRequired.into(), head_only, linger);
            }
            Framing::Chunked => (limit, Some(Chunks::new())),
        };
        let nudge = match gate.begin(door, head, self.source) {
            Ok(nudge) => nudge,
            Err(reply) => return self.answer(reply, head_only, linger),
        };
        let mut body = Box::new(Body {
            nudge,
            left,
            chunks,
        });
        let rest = bytes.len() - usize::try_from(beyond).unwrap_or(bytes.len());
        let took = body.take(&bytes[rest..]);
        self.phase = Phase::Body(body);
        if head.expects_continue && beyond == 0 && matches!(took, Ok(None)) {
            // The first bytes on this socket: they fit, or the client is gone.
            let _ = self.socket.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.went_on(took, context);
    }

    /// Some of the body came: how many bytes came after its end, if it is complete.
    fn went_on(&mut self, took: Result<Option<usize>, Refusal>, context: &mut Context<'_>) {
        match took {
            Ok(None) => {}
            Err(refusal) => self.answer(refusal.into(), false, true),
            Ok(Some(beyond)) => {
                let phase = std::mem::replace(&mut self.phase, Phase::Linger);
                if let (Phase::Body(body), Some(gate)) = (phase, &mut context.gate) {
                    let reply = gate.finish(body.nudge, self.source);
                    self.answer(reply, false, beyond > 0);
                }
            }
        }
    }

    fn answer(&mut self, reply: Reply, head_only: bool, linger: bool) {
        self.phase = Phase::Answer {
            bytes: reply.into_bytes(head_only),
            sent: 0,
            linger,
        };
        self.deadline = Instant::now() + READ_WITHIN;
    }

    fn send(&mut self) -> Next {
        let Phase::Answer {
            bytes,
            sent,
            linger,
        } = &mut self.phase
        else {
            return Next::Wait;
        };
        while *sent < bytes.len() {
            match self.socket.write(&bytes[*sent..]) {
                Ok(written) => *sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
        if !*linger || self.finish().is_err() {
            return Next::Close;
        }
        self.phase = Phase::Linger;
        self.deadline = Instant::now() + LINGER;
        Next::Wait
    }

    fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

impl Body {
    /// Takes the next bytes. Returns how many of them come after the body, once it is complete.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let Self {
            nudge,
            left,
            chunks,
        } = self;
        let Some(chunks) = chunks else {
            let length = usize::try_from(*left).map_or(bytes.len(), |left| bytes.len().min(left));
            nudge.push(&bytes[..length]);
            *left -= length as u64;
            return Ok((*left == 0).then(|| bytes.len() - length));
        };
        let mut fits = true;
        let used = chunks
            .feed(
                bytes,
                &mut |content| match left.checked_sub(content.len() as u64) {
                    Some(less) => {
                        *left = less;
                        nudge.push(content);
                    }
                    None => fits = false,
                },
            )
            .map_err(|_| Refusal::Bad("not a chunked body"))?;
        if !fits {
            return Err(Refusal::BodyTooLarge(Door::Webhook.limit()));
        }
        Ok(chunks.is_done().then(|| bytes.len() - used))
    }
}
