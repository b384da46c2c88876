//! Fetching a pack: one request, and the answer streamed to its receiver.
//!
//! There is no negotiation: the haves are commits that came from the same server, so the first
//! request ends with `done`.

use crate::base::commit::Commit;
use crate::base::transfer::{Fetched, PackSink};
use crate::remote::upstream::FetchRequest;

use super::advertisement::{V0Capabilities, V2Capabilities};
use super::error::{ProtocolError, quote};
use super::limits::{AGENT, MAX_PROGRESS};
use super::pkt_line::{Machine, Packet, Step, encode, encode_delim, encode_flush};
use super::refs::object_id;

/// The version of the protocol, and the server's capabilities in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect<'a> {
    /// gitprotocol-v2.
    V2(&'a V2Capabilities),
    /// gitprotocol-pack.
    V0(&'a V0Capabilities),
}

/// Reads the answer to [`fetch_request`] and passes the pack on.
pub struct FetchAnswer<'a> {
    state: State,
    sink: &'a mut dyn PackSink,
    fetched: Fetched,
    progress: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Version 2: the name of the next section.
    Section,
    /// Version 2: a section that is skipped.
    Skip,
    /// Version 2: `shallow-info`.
    ShallowInfo,
    /// Version 0: the list of shallow commits that answers `deepen`.
    ShallowList,
    /// Version 0: ACK or NAK.
    Acknowledgment,
    /// The pack, in sidebands.
    Pack,
    Done,
}

/// The whole request: wants, haves, boundary, depth and `done`.
///
/// If the server does not support a depth, it is left out, and the server sends all history. The
/// haves of a shallow store are then left out too, because the server would assume that the store
/// has their history.
///
/// Tag objects come along with the commits that they stand for: `git describe` needs them.
///
/// # Errors
/// When the server lacks a capability that reading its pack needs.
pub fn fetch_request(
    request: &FetchRequest<'_>,
    dialect: Dialect<'_>,
) -> Result<Vec<u8>, ProtocolError> {
    let mut out = Vec::with_capacity(512);
    match dialect {
        Dialect::V2(capabilities) => {
            encode(&mut out, "command=fetch");
            encode(&mut out, format!("agent={AGENT}\n"));
            encode_delim(&mut out);
            if request.thin {
                encode(&mut out, "thin-pack\n");
            }
            for option in ["no-progress\n", "ofs-delta\n", "include-tag\n"] {
                encode(&mut out, option);
            }
            encode(&mut out, format!("want {}\n", request.want));
            wants(&mut out, request.also);
            boundary(&mut out, request, capabilities.shallow);
            haves(&mut out, request, capabilities.shallow);
            encode(&mut out, "done\n");
            encode_flush(&mut out);
        }
        Dialect::V0(capabilities) => {
            if !capabilities.side_band_64k {
                return Err(ProtocolError::Unsupported(
                    "it is too old: it lacks the capability side-band-64k".to_owned(),
                ));
            }
            let mut want = format!("want {} side-band-64k", request.want);
            for (has, name) in [
                (capabilities.ofs_delta, "ofs-delta"),
                (capabilities.thin_pack && request.thin, "thin-pack"),
                (capabilities.no_progress, "no-progress"),
                (capabilities.include_tag, "include-tag"),
                (capabilities.shallow, "shallow"),
            ] {
                if has {
                    want.push(' ');
                    want.push_str(name);
                }
            }
            if capabilities.agent {
                want.push_str(" agent=");
                want.push_str(AGENT);
            }
            want.push('\n');
            encode(&mut out, want);
            wants(&mut out, request.also);
            boundary(&mut out, request, capabilities.shallow);
            encode_flush(&mut out);
            haves(&mut out, request, capabilities.shallow);
            encode(&mut out, "done\n");
        }
    }
    Ok(out)
}

fn wants(out: &mut Vec<u8>, objects: &[Commit]) {
    for object in objects {
        encode(out, format!("want {object}\n"));
    }
}

fn boundary(out: &mut Vec<u8>, request: &FetchRequest<'_>, can_shallow: bool) {
    if !can_shallow {
        return;
    }
    for commit in request.shallow {
        encode(out, format!("shallow {commit}\n"));
    }
    if request.depth > 0 {
        encode(out, format!("deepen {}\n", request.depth));
    } else if !request.shallow.is_empty() {
        // The depth that git sends for `--unshallow` (INFINITE_DEPTH).
        encode(out, "deepen 2147483647\n");
    }
}

fn haves(out: &mut Vec<u8>, request: &FetchRequest<'_>, can_shallow: bool) {
    if can_shallow || request.shallow.is_empty() {
        for commit in request.haves {
            encode(out, format!("have {commit}\n"));
        }
    }
}

impl<'a> FetchAnswer<'a> {
    /// A reader for the answer to this request in this dialect.
    pub fn new(
        request: &FetchRequest<'_>,
        dialect: Dialect<'_>,
        sink: &'a mut dyn PackSink,
    ) -> Self {
        let state = match dialect {
            Dialect::V2(_) => State::Section,
            Dialect::V0(capabilities)
                if capabilities.shallow && (request.depth > 0 || !request.shallow.is_empty()) =>
            {
                State::ShallowList
            }
            Dialect::V0(_) => State::Acknowledgment,
        };
        Self {
            state,
            sink,
            fetched: Fetched::default(),
            progress: 0,
        }
    }

    /// What was fetched, once the machine is done.
    ///
    /// # Errors
    /// When the answer ended too early, or had no pack.
    pub fn finish(self) -> Result<Fetched, ProtocolError> {
        match self.state {
            State::Done if self.fetched.bytes > 0 => Ok(self.fetched),
            State::Done => Err(ProtocolError::malformed("an answer without a pack")),
            _ => Err(ProtocolError::Truncated),
        }
    }

    /// Bytes of pack data so far.
    pub fn bytes(&self) -> u64 {
        self.fetched.bytes
    }

    fn section(&mut self, line: &[u8]) -> Result<State, ProtocolError> {
        match line {
            b"packfile" => Ok(State::Pack),
            b"shallow-info" => Ok(State::ShallowInfo),
            b"acknowledgments" | b"wanted-refs" | b"packfile-uris" => Ok(State::Skip),
            _ => Err(ProtocolError::malformed(format!(
                "an unknown section \"{}\"",
                quote(line)
            ))),
        }
    }

    fn shallow_line(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let list: &mut Vec<Commit>;
        let id = if let Some(id) = line.strip_prefix(b"shallow ") {
            list = &mut self.fetched.shallow;
            id
        } else if let Some(id) = line.strip_prefix(b"unshallow ") {
            list = &mut self.fetched.unshallow;
            id
        } else {
            return Err(ProtocolError::malformed(format!(
                "expected a shallow commit, got \"{}\"",
                quote(line)
            )));
        };
        list.push(object_id(id)?);
        if list.len() > MAX_SHALLOW {
            return Err(ProtocolError::TooLarge(format!(
                "more than {MAX_SHALLOW} shallow commits"
            )));
        }
        Ok(())
    }

    fn sideband(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        match payload.split_first() {
            Some((1, pack)) => {
                if !pack.is_empty() {
                    self.sink.write(pack)?;
                    self.fetched.bytes += pack.len() as u64;
                }
                Ok(())
            }
            Some((2, text)) => {
                self.progress += payload.len() as u64 + 4;
                if self.progress > MAX_PROGRESS {
                    return Err(ProtocolError::TooLarge(format!(
                        "more than {} KiB of progress text",
                        MAX_PROGRESS >> 10
                    )));
                }
                self.sink.progress(text);
                Ok(())
            }
            Some((3, text)) => Err(ProtocolError::refused(text)),
            _ => Err(ProtocolError::malformed("a packet in no known sideband")),
        }
    }
}

/// The longest shallow boundary that is accepted: each commit costs 20 bytes of memory and a line
/// in the store.
const MAX_SHALLOW: usize = 1 << 20;

impl Machine for FetchAnswer<'_> {
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
        let state = match (self.state, packet) {
            (State::Section, Packet::Data(payload)) => self.section(Packet::line(payload)?)?,
            (State::Skip | State::ShallowInfo, Packet::Delim) => State::Section,
            (State::Skip, Packet::Data(payload)) => {
                Packet::line(payload)?;
                State::Skip
            }
            (State::ShallowInfo | State::ShallowList, Packet::Data(payload)) => {
                self.shallow_line(Packet::line(payload)?)?;
                self.state
            }
            (State::ShallowList, Packet::Flush) => State::Acknowledgment,
            (State::Acknowledgment, Packet::Data(payload)) => {
                match payload.first() {
                    // The pack begins. Servers differ in how many acknowledgments come first.
                    Some(1..=3) => {
                        self.sideband(payload)?;
                        State::Pack
                    }
                    _ => {
                        let line = Packet::line(payload)?;
                        if line != b"NAK" && !line.starts_with(b"ACK ") {
                            return Err(ProtocolError::malformed(format!(
                                "expected ACK or NAK, got \"{}\"",
                                quote(line)
                            )));
                        }
                        State::Acknowledgment
                    }
                }
            }
            (State::Pack, Packet::Data(payload)) => {
                // An ERR packet instead of a sideband: the server failed in the middle of its answer.
                if payload.starts_with(b"ERR ") {
                    Packet::line(payload)?;
                }
                self.sideband(payload)?;
                State::Pack
            }
            (State::Pack, Packet::Flush) => State::Done,
            (_, other) => {
                let kind = match other {
                    Packet::Data(_) => "data",
                    Packet::Flush => "flush",
                    Packet::Delim => "delimiter",
                    Packet::ResponseEnd => "response-end",
                };
                return Err(ProtocolError::malformed(format!(
                    "an unexpected {kind} packet in the answer to a fetch"
                )));
            }
        };
        self.state = state;
        Ok(match state {
            State::Done => Step::Done,
            _ => Step::More,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pkt_line::Decoder;
    use super::*;
    use crate::base::error::SyncError;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    struct Kept(Vec<u8>);

    impl PackSink for Kept {
        fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError> {
            self.0.extend_from_slice(chunk);
            Ok(())
        }
    }

    fn commit() -> Commit {
        A.parse().unwrap()
    }

    fn request<'a>(depth: u32, known: &'a [Commit], shallow: &'a [Commit]) -> FetchRequest<'a> {
        FetchRequest {
            want: commit(),
            also: &[],
            name: None,
            haves: known,
            shallow,
            depth,
            thin: true,
        }
    }

    fn v2() -> V2Capabilities {
        V2Capabilities {
            ls_refs: true,
            fetch: true,
            shallow: true,
        }
    }

    fn v0() -> V0Capabilities {
        V0Capabilities {
            side_band_64k: true,
            shallow: true,
            ..V0Capabilities::default()
        }
    }

    /// Reads `packets` ("" is a flush, "|" a delimiter) as the answer to a fetch of depth 1.
    fn read(dialect: Dialect<'_>, packets: &[&[u8]]) -> Result<(Fetched, Vec<u8>), ProtocolError> {
        let mut wire = Vec::new();
        for packet in packets {
            match *packet {
                b"" => encode_flush(&mut wire),
                b"|" => encode_delim(&mut wire),
                payload => encode(&mut wire, payload),
            }
        }
        let mut sink = Kept(Vec::new());
        let mut machine = FetchAnswer::new(&request(1, &[], &[]), dialect, &mut sink);
        Decoder::new().feed(&wire, &mut machine)?;
        let fetched = machine.finish()?;
        Ok((fetched, sink.0))
    }

    #[test]
    fn a_version_2_answer_gives_the_boundary_and_the_pack() {
        let shallow = format!("shallow {A}\n");
        let (fetched, pack) = read(
            Dialect::V2(&v2()),
            &[
                b"shallow-info\n",
                shallow.as_bytes(),
                b"|",
                b"packfile\n",
                b"\x02counting\n",
                b"\x01PA",
                b"\x01",
                b"\x01CK",
                b"",
            ],
        )
        .unwrap();
        assert_eq!((fetched.bytes, fetched.shallow), (4, vec![commit()]));
        assert_eq!(pack, b"PACK");
    }

    #[test]
    fn a_version_0_answer_gives_the_boundary_and_the_pack() {
        let (shallow, ack) = (format!("shallow {A}"), format!("ACK {A}\n"));
        for acknowledgment in [b"NAK\n", ack.as_bytes()] {
            let (fetched, pack) = read(
                Dialect::V0(&v0()),
                &[shallow.as_bytes(), b"", acknowledgment, b"\x01PACK", b""],
            )
            .unwrap();
            assert_eq!((fetched.bytes, fetched.shallow), (4, vec![commit()]));
            assert_eq!(pack, b"PACK");
        }
    }

    #[test]
    fn refusals_are_recognised_wherever_they_stand() {
        for packets in [
            &[&b"ERR upload-pack: not our ref aaa"[..]][..],
            &[b"packfile\n", b"\x01PACK", b"\x03out of memory\n"],
            &[b"packfile\n", b"\x01PACK", b"ERR gone\n"],
        ] {
            assert!(matches!(
                read(Dialect::V2(&v2()), packets),
                Err(ProtocolError::Refused(_))
            ));
        }
        assert!(matches!(
            read(Dialect::V0(&v0()), &[b"ERR upload-pack: not our ref aaa"]),
            Err(ProtocolError::Refused(_))
        ));
    }

    #[test]
    fn what_is_no_answer_is_malformed_and_an_unfinished_one_truncated() {
        for packets in [
            &[&b"surprise\n"[..]][..],
            &[b""],
            &[b"packfile\n", b""],
            &[b"packfile\n", b"\x07x"],
            &[b"shallow-info\n", b"shallow x\n"],
        ] {
            assert!(
                matches!(
                    read(Dialect::V2(&v2()), packets),
                    Err(ProtocolError::Malformed(_))
                ),
                "{packets:?}"
            );
        }
        assert!(matches!(
            read(Dialect::V2(&v2()), &[b"packfile\n", b"\x01PACK"]),
            Err(ProtocolError::Truncated)
        ));
    }

    #[test]
    fn endless_progress_is_too_large() {
        let mut sink = Kept(Vec::new());
        let mut machine = FetchAnswer::new(&request(0, &[], &[]), Dialect::V2(&v2()), &mut sink);
        machine.packet(Packet::Data(b"packfile\n")).unwrap();
        let line = [2; 60_000];
        let error = std::iter::repeat_with(|| machine.packet(Packet::Data(&line)))
            .take(100)
            .find_map(Result::err);
        assert!(matches!(error, Some(ProtocolError::TooLarge(_))));
    }

    #[test]
    fn a_server_without_shallow_is_asked_for_everything() {
        let known = [commit()];
        let text = |capabilities: &V2Capabilities| {
            let request = request(1, &known, &known);
            String::from_utf8(fetch_request(&request, Dialect::V2(capabilities)).unwrap()).unwrap()
        };
        let able = text(&v2());
        assert!(able.contains("deepen 1\n") && able.contains("have ") && able.contains("shallow "));
        let unable = text(&V2Capabilities {
            shallow: false,
            ..v2()
        });
        assert!(
            !unable.contains("deepen") && !unable.contains("have "),
            "{unable}"
        );
    }

    #[test]
    fn full_history_on_a_shallow_store_unshallows_it() {
        let known = [commit()];
        let wire = fetch_request(&request(0, &known, &known), Dialect::V0(&v0())).unwrap();
        assert!(
            String::from_utf8(wire)
                .unwrap()
                .contains("deepen 2147483647\n")
        );
    }
}
