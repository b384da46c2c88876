//! All tags of a remote, for `git describe` in a published tree (gitprotocol-v2, "ls-refs").

use crate::remote::Advertised;

use super::advertisement::too_many_refs;
use super::error::{ProtocolError, quote};
use super::pkt_line::{Machine, Packet, Step, encode, encode_delim, encode_flush};
use super::refs::object_id;
use super::{AGENT, MAX_REF_LIST};

/// Reads the answer to [`tags_request`].
#[derive(Debug, Default)]
pub struct Tags {
    found: Vec<Advertised>,
    bytes: u64,
    done: bool,
}

/// The request for every ref under `refs/tags/`.
pub fn tags_request() -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    encode(&mut out, "command=ls-refs\n");
    encode(&mut out, format!("agent={AGENT}\n"));
    encode_delim(&mut out);
    encode(&mut out, "peel\n");
    encode(&mut out, "ref-prefix refs/tags/\n");
    encode_flush(&mut out);
    out
}

impl Tags {
    /// The tags, once the machine is done.
    ///
    /// # Errors
    /// When the answer ended before.
    pub fn finish(self) -> Result<Vec<Advertised>, ProtocolError> {
        match self.done {
            true => Ok(self.found),
            false => Err(ProtocolError::Truncated),
        }
    }

    /// `<id> <name>[ peeled:<id>]`
    fn one_ref(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let mut words = line.split(|b| *b == b' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(ProtocolError::malformed(format!(
                "expected a tag, got \"{}\"",
                quote(line)
            )));
        };
        let object = object_id(id)?;
        let mut commit = object;
        for word in words {
            if let Some(peeled) = word.strip_prefix(b"peeled:") {
                commit = object_id(peeled)?;
            }
        }
        // A name that is not UTF-8 is no name that git describe would print as it is.
        if let Ok(name) = std::str::from_utf8(name)
            && name.starts_with("refs/tags/")
        {
            self.found.push(Advertised {
                name: name.to_owned(),
                object,
                commit,
            });
        }
        Ok(())
    }
}

impl Machine for Tags {
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
        match packet {
            Packet::Data(payload) => {
                self.bytes += payload.len() as u64 + 4;
                if self.bytes > MAX_REF_LIST {
                    return Err(too_many_refs());
                }
                self.one_ref(Packet::line(payload)?)?;
                Ok(Step::More)
            }
            Packet::Flush => {
                self.done = true;
                Ok(Step::Done)
            }
            other => Err(ProtocolError::malformed(format!(
                "a {other:?} packet in the list of tags"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pkt_line::Decoder;
    use super::*;

    #[test]
    fn tags_come_with_what_they_stand_for_and_other_refs_are_passed_over() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let mut wire = Vec::new();
        encode(&mut wire, format!("{a} refs/heads/x\n"));
        encode(&mut wire, format!("{a} refs/tags/light\n"));
        encode(&mut wire, format!("{b} refs/tags/v1 peeled:{a}\n"));
        let mut cut = Tags::default();
        Decoder::new().feed(&wire, &mut cut).unwrap();
        assert!(matches!(cut.finish(), Err(ProtocolError::Truncated)));

        encode_flush(&mut wire);
        let mut machine = Tags::default();
        Decoder::new().feed(&wire, &mut machine).unwrap();
        let found: Vec<_> = machine
            .finish()
            .unwrap()
            .into_iter()
            .map(|tag| (tag.name, tag.object.to_string(), tag.commit.to_string()))
            .collect();
        assert_eq!(
            found,
            [
                ("refs/tags/light".to_owned(), a.clone(), a.clone()),
                ("refs/tags/v1".to_owned(), b, a),
            ]
        );
    }
}
