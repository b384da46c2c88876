//! One client: reads its request in pieces, sends the answer in pieces, and never waits.
//!
//! One request a connection: an answer ends it, and whatever was pipelined behind the request is
//! dropped unread. A probe or a scrape has no need of more, and a connection that cannot be idle
//! cannot be held open for nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use rustix::event::PollFlags;

use super::Shared;
use super::limits::{
    Head, LINGER, MAX_BODY, MAX_HEAD, Method, READ_WITHIN, Refusal, SEND_WITHIN, parse_head,
};
use super::nudge::{Gate, Nudge};
use super::routes::{Reply, Route, route};

/// Reads of one client before the others have their turn.
const READS_A_TURN: usize = 4;

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    phase: Phase,
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
    /// It has not sent all of its request.
    Incomplete,
    /// It is owed an answer.
    Owed,
}

#[derive(Debug)]
enum Phase {
    /// The first bytes of the head; empty as long as nothing came.
    Head(Vec<u8>),
    /// The head was good; so many bytes of body are to come.
    Body { left: u64, nudge: Nudge },
    /// An answer, and how much of it is sent. A client that may still be sending must `linger`.
    Answer {
        bytes: Vec<u8>,
        sent: usize,
        linger: bool,
    },
    /// Reading what the client sends, to no purpose but that it gets to read its answer.
    Linger,
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
    pub(super) fn new(socket: TcpStream, now: Instant) -> Self {
        Self {
            socket,
            phase: Phase::Head(Vec::new()),
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
            Phase::Head(_) | Phase::Body { .. } => Rank::Incomplete,
            Phase::Answer { .. } => Rank::Owed,
        }
    }

    /// Its deadline passed.
    pub(super) fn expire(&mut self) -> Next {
        match &self.phase {
            Phase::Head(bytes) if bytes.is_empty() => Next::Close,
            Phase::Head(_) | Phase::Body { .. } => {
                self.answer(Refusal::TooSlow.into(), false, true);
                self.send()
            }
            Phase::Answer { .. } | Phase::Linger => Next::Close,
        }
    }

    /// Goes as far as it can without waiting.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) -> Next {
        for _ in 0..READS_A_TURN {
            if matches!(self.phase, Phase::Answer { .. }) {
                return self.send();
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
                    // A head in one piece, which is all but every one, is never copied.
                    if matches!(parsed, Ok(None)) {
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
                    Ok(Some((head, beyond))) => self.requested(&head, beyond as u64, context),
                    Err(refusal) => self.answer(refusal.into(), false, true),
                }
            }
            Phase::Body { left, nudge } => {
                let nudge = *nudge;
                let beyond = (read as u64).saturating_sub(*left);
                *left = left.saturating_sub(read as u64);
                if *left == 0 {
                    self.nudged(nudge, beyond > 0, context);
                }
            }
            Phase::Answer { .. } | Phase::Linger => {}
        }
    }

    /// The head is complete, and `beyond` bytes came after it.
    fn requested(&mut self, head: &Head, beyond: u64, context: &mut Context<'_>) {
        let head_only = head.method == Method::Head;
        // More than the body means a pipelined request, less that the client is not done.
        let linger = beyond != head.body;
        let gate = match route(head, context.shared) {
            Route::Answer(reply) => return self.answer(reply, head_only, linger),
            Route::Nudge => context.gate.as_mut(),
        };
        let Some(gate) = gate else {
            return self.answer(Reply::not_found(), head_only, linger);
        };
        let nudge = match gate.authenticate(head) {
            Ok(nudge) => nudge,
            Err(reply) => return self.answer(reply, head_only, linger),
        };
        if head.body > MAX_BODY {
            return self.answer(Refusal::BodyTooLarge.into(), head_only, linger);
        }
        let left = head.body.saturating_sub(beyond);
        if left == 0 {
            return self.nudged(nudge, linger, context);
        }
        self.phase = Phase::Body { left, nudge };
        if head.expects_continue && beyond == 0 {
            // The first bytes on this socket: they fit, or the client is gone.
            let _ = self.socket.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// A nudge is complete.
    fn nudged(&mut self, nudge: Nudge, linger: bool, context: &mut Context<'_>) {
        if let Some(gate) = context.gate {
            let reply = gate.accept(nudge);
            self.answer(reply, false, linger);
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
