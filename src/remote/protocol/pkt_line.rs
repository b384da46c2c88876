//! Packets: four hexadecimal digits of length, then the payload (gitprotocol-common, "pkt-line").

use super::error::{ProtocolError, quote};

/// The longest packet, its length digits included (`LARGE_PACKET_MAX`).
pub const MAX_PACKET: usize = 65520;

/// One packet of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section (version 2).
    Delim,
    /// `0002`: the end of a response on a stateless connection (version 2).
    ResponseEnd,
    /// A payload; a text line may end in a line feed.
    Data(&'a [u8]),
}

/// Whether an answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More packets are needed.
    More,
    /// The answer is complete; the bytes after it are not part of it.
    Done,
}

/// A state machine that reads the packets of one answer.
pub trait Machine {
    /// Takes the next packet.
    ///
    /// # Errors
    /// When the packet must not come at this point, or carries a refusal.
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError>;
}

/// Cuts pieces of an answer into packets. Holds at most one incomplete packet.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
}

impl<'a> Packet<'a> {
    /// Reads the packet at the beginning of `bytes`, and says how many bytes it takes; `None` if
    /// it is not complete yet.
    ///
    /// # Errors
    /// When no packet can have this length.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some(length) = parse_length(bytes)? else {
            return Ok(None);
        };
        Ok(match length {
            0 => Some((Self::Flush, 4)),
            1 => Some((Self::Delim, 4)),
            2 => Some((Self::ResponseEnd, 4)),
            _ => bytes
                .get(4..length)
                .map(|payload| (Self::Data(payload), length)),
        })
    }

    /// The payload as a line of text, without its line feed.
    ///
    /// # Errors
    /// An `ERR` line is a refusal.
    pub fn line(payload: &'a [u8]) -> Result<&'a [u8], ProtocolError> {
        let line = payload.strip_suffix(b"\n").unwrap_or(payload);
        match line.strip_prefix(b"ERR ") {
            Some(text) => Err(ProtocolError::refused(text)),
            None => Ok(line),
        }
    }
}

impl Decoder {
    /// A decoder at the beginning of an answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the packets that `input` completes to `machine`, and says how much of `input` was
    /// used: all of it, unless the machine is done.
    ///
    /// # Errors
    /// When a length is impossible, or the machine fails.
    pub fn feed(
        &mut self,
        input: &[u8],
        machine: &mut dyn Machine,
    ) -> Result<(usize, Step), ProtocolError> {
        let mut used = 0;
        // A packet that began in an earlier piece: complete it, copying no more than it needs.
        while !self.partial.is_empty() {
            let needed = match parse_length(&self.partial)? {
                None => 4,
                Some(length) => length.max(4),
            };
            let take = needed
                .saturating_sub(self.partial.len())
                .min(input.len() - used);
            self.partial.extend_from_slice(&input[used..used + take]);
            used += take;
            if let Some((packet, _)) = Packet::parse(&self.partial)? {
                let step = machine.packet(packet)?;
                self.partial.clear();
                if step == Step::Done {
                    return Ok((used, Step::Done));
                }
            } else if used == input.len() {
                return Ok((used, Step::More));
            }
        }
        while let Some((packet, length)) = Packet::parse(&input[used..])? {
            used += length;
            if machine.packet(packet)? == Step::Done {
                return Ok((used, Step::Done));
            }
        }
        self.partial.extend_from_slice(&input[used..]);
        Ok((input.len(), Step::More))
    }
}

/// Appends a packet with this payload of at most [`MAX_PACKET`] - 4 bytes.
pub fn encode(out: &mut Vec<u8>, payload: impl AsRef<[u8]>) {
    let payload = payload.as_ref();
    out.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend_from_slice(payload);
}

/// Appends a flush packet.
pub fn encode_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends a delimiter packet.
pub fn encode_delim(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// The length field: 0 to 2 for the special packets, else 4 to [`MAX_PACKET`].
fn parse_length(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let Some(digits) = bytes.get(..4) else {
        // Reports a wrong digit at once, so that garbage shorter than a packet is not waited on.
        return match bytes.iter().all(u8::is_ascii_hexdigit) {
            true => Ok(None),
            false => Err(bad_length(bytes)),
        };
    };
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad_length(bytes));
    }
    let length = digits.iter().fold(0, |length, digit| {
        length * 16 + char::from(*digit).to_digit(16).unwrap_or(0) as usize
    });
    if length == 3 || length > MAX_PACKET {
        return Err(bad_length(bytes));
    }
    Ok(Some(length))
}

fn bad_length(bytes: &[u8]) -> ProtocolError {
    ProtocolError::malformed(format!(
        "expected a packet's length, got \"{}\"",
        quote(&bytes[..bytes.len().min(40)])
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the packets it gets; done at a flush.
    #[derive(Default)]
    struct Log(Vec<Vec<u8>>);

    impl Machine for Log {
        fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
            match packet {
                Packet::Data(payload) => self.0.push(payload.to_vec()),
                Packet::Flush => return Ok(Step::Done),
                other => self.0.push(format!("{other:?}").into_bytes()),
            }
            Ok(Step::More)
        }
    }

    #[test]
    fn packets_are_the_same_in_pieces_of_any_size() {
        let mut wire = Vec::new();
        encode(&mut wire, "first\n");
        encode(&mut wire, "");
        encode_delim(&mut wire);
        encode(&mut wire, vec![b'x'; MAX_PACKET - 4]);
        wire.extend_from_slice(b"0002");
        encode_flush(&mut wire);
        let whole = wire.len();
        wire.extend_from_slice(b"rest");
        for size in [1, 2, 3, 5, 7, 4096, wire.len()] {
            let (mut decoder, mut log) = (Decoder::new(), Log::default());
            let mut used = 0;
            for piece in wire.chunks(size) {
                let (taken, step) = decoder.feed(piece, &mut log).unwrap();
                used += taken;
                if step == Step::Done {
                    break;
                }
            }
            assert_eq!(used, whole, "pieces of {size}");
            assert_eq!(log.0.len(), 5, "pieces of {size}");
            assert_eq!(log.0[0], b"first\n");
            assert_eq!(log.0[2], b"Delim");
            assert_eq!(log.0[3].len(), MAX_PACKET - 4);
        }
    }

    #[test]
    fn an_impossible_length_is_malformed_wherever_the_piece_ends() {
        for wrong in ["0003", "fff1", "ffff", "<htm", "00g0", "-001", "+004", "<"] {
            for size in 1..=wrong.len() {
                let (mut decoder, mut log) = (Decoder::new(), Log::default());
                let result = wrong
                    .as_bytes()
                    .chunks(size)
                    .try_for_each(|piece| decoder.feed(piece, &mut log).map(drop));
                assert!(
                    matches!(result, Err(ProtocolError::Malformed(_))),
                    "{wrong} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn an_incomplete_packet_waits_for_more() {
        for short in ["", "0", "0009", "0009abcd"] {
            assert!(
                Packet::parse(short.as_bytes()).unwrap().is_none(),
                "{short}"
            );
        }
    }

    #[test]
    fn an_err_line_is_a_refusal() {
        assert!(matches!(
            Packet::line(b"ERR no\n"),
            Err(ProtocolError::Refused(text)) if text == "no"
        ));
        assert_eq!(Packet::line(b"unpack ok\n").unwrap(), b"unpack ok");
    }
}
