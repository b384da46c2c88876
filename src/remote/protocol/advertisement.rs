//! The first message of a server: its version and capabilities, and in version 0 all its refs.

use crate::remote::upstream::{RefName, Tip};

use super::error::{ProtocolError, quote};
use super::limits::MAX_REF_LIST;
use super::pkt_line::{Machine, Packet, Step};
use super::refs::{RefPicker, check_object_id, object_id};

/// What the server can do in version 2 (gitprotocol-v2, "Capabilities").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Capabilities {
    /// It answers `ls-refs`.
    pub ls_refs: bool,
    /// It answers `fetch`.
    pub fetch: bool,
    /// `fetch` knows `shallow` and `deepen`.
    pub shallow: bool,
}

/// What the server can do in version 0 (gitprotocol-capabilities).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V0Capabilities {
    /// The pack comes in packets of up to 65,520 bytes.
    pub side_band_64k: bool,
    /// It knows `shallow` and `deepen`.
    pub shallow: bool,
    /// Deltas may refer to their base by offset.
    pub ofs_delta: bool,
    /// Deltas may refer to objects that the receiver has.
    pub thin_pack: bool,
    /// Progress can be turned off.
    pub no_progress: bool,
    /// It sends tag objects along with the commits that they stand for.
    pub include_tag: bool,
    /// It takes an `agent` capability from the client.
    pub agent: bool,
}

/// The first message of a server, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Version 2: capabilities only.
    V2(V2Capabilities),
    /// Version 0 (or 1): capabilities, and the answer to the question from the list of refs.
    V0(V0Capabilities, Tip),
}

/// Reads the first message, with or without the `# service=` preamble of HTTP.
#[derive(Debug)]
pub struct Advertisement {
    state: State,
    picker: RefPicker,
    v2: V2Capabilities,
    v0: V0Capabilities,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing read.
    Start,
    /// After `# service=git-upload-pack`: a flush.
    Preamble,
    /// The first packet after the preamble.
    First,
    /// After `version 1`: the first ref.
    FirstRef,
    Refs,
    Capabilities,
    Done,
}

impl Advertisement {
    /// A reader that looks for the ref while it reads.
    pub fn new(name: &RefName) -> Self {
        Self {
            state: State::Start,
            picker: RefPicker::new(name),
            v2: V2Capabilities::default(),
            v0: V0Capabilities::default(),
            bytes: 0,
        }
    }

    /// The complete message, once the machine is done.
    ///
    /// # Errors
    /// When the answer ended too early.
    pub fn finish(mut self) -> Result<Greeting, ProtocolError> {
        match self.state {
            State::Done if self.v2 != V2Capabilities::default() => Ok(Greeting::V2(self.v2)),
            State::Done => Ok(Greeting::V0(self.v0, self.picker.tip())),
            _ => Err(ProtocolError::Truncated),
        }
    }

    fn first(&mut self, line: &[u8]) -> Result<State, ProtocolError> {
        match line {
            b"version 2" => Ok(State::Capabilities),
            b"version 1" => Ok(State::FirstRef),
            _ => self.first_ref(line),
        }
    }

    /// `<id> <name>NUL<capabilities>`; an empty repository names `capabilities^{}`.
    fn first_ref(&mut self, line: &[u8]) -> Result<State, ProtocolError> {
        let at = line.iter().position(|b| *b == 0);
        let (named, capabilities) = match at {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        for capability in capabilities.split(|b| *b == b' ') {
            self.v0_capability(capability)?;
        }
        self.one_ref(named)?;
        Ok(State::Refs)
    }

    fn one_ref(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        if line.starts_with(b"shallow ") {
            return Ok(());
        }
        let Some(space) = line.iter().position(|b| *b == b' ') else {
            return Err(ProtocolError::malformed(format!(
                "expected a ref, got \"{}\"",
                quote(line)
            )));
        };
        let (id, name) = (&line[..space], &line[space + 1..]);
        check_object_id(id)?;
        // Only one of possibly 100,000 refs is needed, so the others are not converted.
        match name.strip_suffix(b"^{}") {
            Some(b"capabilities") => {}
            Some(tag) if self.picker.looks_for(tag) => {
                self.picker.take_peeled(tag, object_id(id)?);
            }
            None if self.picker.looks_for(name) => self.picker.take(name, object_id(id)?, None),
            _ => {}
        }
        Ok(())
    }

    fn v0_capability(&mut self, capability: &[u8]) -> Result<(), ProtocolError> {
        match capability {
            b"side-band-64k" => self.v0.side_band_64k = true,
            b"shallow" => self.v0.shallow = true,
            b"ofs-delta" => self.v0.ofs_delta = true,
            b"thin-pack" => self.v0.thin_pack = true,
            b"no-progress" => self.v0.no_progress = true,
            b"include-tag" => self.v0.include_tag = true,
            _ => {}
        }
        if let Some(target) = capability.strip_prefix(b"symref=HEAD:") {
            self.picker.take_head_target(target);
        } else if let Some(format) = capability.strip_prefix(b"object-format=") {
            only_sha1(format)?;
        } else if capability.starts_with(b"agent=") {
            self.v0.agent = true;
        }
        Ok(())
    }

    fn v2_capability(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let equals = line.iter().position(|b| *b == b'=');
        let (key, value) = match equals {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        match key {
            b"ls-refs" => self.v2.ls_refs = true,
            b"fetch" => {
                self.v2.fetch = true;
                self.v2.shallow = value.split(|b| *b == b' ').any(|word| word == b"shallow");
            }
            b"object-format" => only_sha1(value)?,
            _ => {}
        }
        Ok(())
    }
}

impl Machine for Advertisement {
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
        let payload = match packet {
            Packet::Data(payload) => payload,
            Packet::Flush => {
                self.state = match self.state {
                    State::Preamble => State::First,
                    State::Capabilities if !(self.v2.ls_refs && self.v2.fetch) => {
                        return Err(ProtocolError::Unsupported(
                            "it offers version 2 without ls-refs or fetch".to_owned(),
                        ));
                    }
                    _ => State::Done,
                };
                return Ok(match self.state {
                    State::Done => Step::Done,
                    _ => Step::More,
                });
            }
            other => {
                return Err(ProtocolError::malformed(format!(
                    "a {other:?} packet in the greeting"
                )));
            }
        };
        self.bytes += payload.len() as u64 + 4;
        if self.bytes > MAX_REF_LIST {
            return Err(too_many_refs());
        }
        let line = Packet::line(payload)?;
        self.state = match self.state {
            State::Start if line == b"# service=git-upload-pack" => State::Preamble,
            State::Start | State::Preamble | State::First => self.first(line)?,
            State::FirstRef => self.first_ref(line)?,
            State::Refs => {
                self.one_ref(line)?;
                State::Refs
            }
            State::Capabilities => {
                self.v2_capability(line)?;
                State::Capabilities
            }
            State::Done => {
                return Err(ProtocolError::malformed("more after the greeting's end"));
            }
        };
        Ok(Step::More)
    }
}

pub(super) fn too_many_refs() -> ProtocolError {
    ProtocolError::TooLarge(format!(
        "the list of refs has more than {} MiB",
        MAX_REF_LIST >> 20
    ))
}

fn only_sha1(format: &[u8]) -> Result<(), ProtocolError> {
    if format == b"sha1" {
        return Ok(());
    }
    Err(ProtocolError::ObjectFormat(quote(format)))
}

#[cfg(test)]
mod tests {
    use super::super::pkt_line::{Decoder, encode, encode_flush};
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn read(name: &RefName, lines: &[&str]) -> Result<Greeting, ProtocolError> {
        let mut wire = Vec::new();
        for line in lines {
            match *line {
                "" => encode_flush(&mut wire),
                line => encode(&mut wire, line),
            }
        }
        let mut machine = Advertisement::new(name);
        Decoder::new().feed(&wire, &mut machine)?;
        machine.finish()
    }

    #[test]
    fn version_2_is_recognised_with_and_without_the_http_preamble() {
        let plain = [
            "version 2\n",
            "agent=x\n",
            "ls-refs=unborn\n",
            "fetch=shallow filter\n",
            "",
        ];
        let mut http = vec!["# service=git-upload-pack\n", ""];
        http.extend(plain);
        let expected = Greeting::V2(V2Capabilities {
            ls_refs: true,
            fetch: true,
            shallow: true,
        });
        assert_eq!(read(&RefName::Head, &plain).unwrap(), expected);
        assert_eq!(read(&RefName::Head, &http).unwrap(), expected);
    }

    #[test]
    fn version_0_gives_the_tip_with_tags_peeled_and_head_resolved() {
        let head =
            format!("{A} HEAD\0thin-pack side-band-64k symref=HEAD:refs/heads/main agent=x\n");
        let lines = [
            head.as_str(),
            &format!("{A} refs/heads/main\n"),
            &format!("{B} refs/tags/v1\n"),
            &format!("{A} refs/tags/v1^{{}}\n"),
            "",
        ];
        let Greeting::V0(capabilities, Tip::At(at)) = read(&RefName::Head, &lines).unwrap() else {
            panic!("no tip");
        };
        assert!(capabilities.side_band_64k && capabilities.thin_pack && !capabilities.shallow);
        assert_eq!(at.name, "refs/heads/main");
        let tag = RefName::Short("v1".to_owned());
        let Greeting::V0(_, Tip::At(at)) = read(&tag, &lines).unwrap() else {
            panic!("no tag");
        };
        assert_eq!(
            (at.object.to_string(), at.commit.to_string()),
            (B.to_owned(), A.to_owned())
        );
    }

    #[test]
    fn an_empty_repository_is_missing_everything() {
        let zero = format!("{} capabilities^{{}}\0side-band-64k\n", "0".repeat(40));
        for lines in [&[zero.as_str(), ""][..], &[""]] {
            assert!(matches!(
                read(&RefName::Head, lines).unwrap(),
                Greeting::V0(_, Tip::Missing { empty: true })
            ));
        }
    }

    #[test]
    fn what_is_no_greeting_is_malformed_and_an_unfinished_one_truncated() {
        for lines in [&["hello\n", ""][..], &["xyz HEAD\0\n", ""]] {
            assert!(
                matches!(
                    read(&RefName::Head, lines),
                    Err(ProtocolError::Malformed(_))
                ),
                "{lines:?}"
            );
        }
        assert!(matches!(
            read(&RefName::Head, &["version 2\n", "ls-refs\n"]),
            Err(ProtocolError::Truncated)
        ));
    }

    #[test]
    fn a_server_that_needs_more_than_we_can_is_unsupported() {
        let named = format!("{} HEAD\0object-format=sha256\n", "a".repeat(64));
        let unnamed = format!("{} HEAD\0\n", "a".repeat(64));
        for lines in [
            &["version 2\n", "agent=x\n", ""][..],
            &["version 2\n", "object-format=sha256\n", ""],
            &[&named, ""],
            &[&unnamed, ""],
        ] {
            assert!(
                matches!(
                    read(&RefName::Head, lines),
                    Err(ProtocolError::Unsupported(_) | ProtocolError::ObjectFormat(_))
                ),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn an_endless_list_of_refs_is_too_large() {
        let mut machine = Advertisement::new(&RefName::Head);
        let line = format!("{A} refs/heads/{}\n", "x".repeat(60_000));
        let error = std::iter::repeat_with(|| machine.packet(Packet::Data(line.as_bytes())))
            .take(2_000)
            .find_map(Result::err);
        assert!(matches!(error, Some(ProtocolError::TooLarge(_))));
    }
}
