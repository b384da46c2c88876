//! The `ls-refs` command and its answer, for polls and for tags (gitprotocol-v2, "ls-refs").
//!
//! Callers choose the refs to keep.

use crate::base::commit::Commit;

use super::advertisement::too_many_refs;
use super::error::{ProtocolError, quote};
use super::limits::{AGENT, MAX_REF_LIST};
use super::pkt_line::{Packet, Step, encode, encode_delim, encode_flush};
use super::refs::object_id;

/// Reads the packets of an answer. Keeps no refs, only its position.
#[derive(Debug, Default)]
pub(super) struct RefList {
    bytes: u64,
    done: bool,
}

/// One ref that has an object.
pub(super) struct ListedRef<'a> {
    pub name: &'a [u8],
    pub object: Commit,
    /// The object that it peels to, if it is a tag.
    pub peeled: Option<Commit>,
    /// The ref that it points to, if it is symbolic.
    pub symref_target: Option<&'a [u8]>,
}

/// A command with these arguments, one a line, without line ends.
pub(super) fn request<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    encode(&mut out, "command=ls-refs\n");
    encode(&mut out, format!("agent={AGENT}\n"));
    encode_delim(&mut out);
    for argument in arguments {
        encode(&mut out, format!("{argument}\n"));
    }
    encode_flush(&mut out);
    out
}

impl RefList {
    /// Reads one packet, and hands over the ref in it.
    pub fn packet(
        &mut self,
        packet: Packet<'_>,
        take: impl FnOnce(&ListedRef<'_>),
    ) -> Result<Step, ProtocolError> {
        match packet {
            Packet::Data(payload) => {
                self.bytes += payload.len() as u64 + 4;
                if self.bytes > MAX_REF_LIST {
                    return Err(too_many_refs());
                }
                if let Some(listed) = ListedRef::parse(Packet::line(payload)?)? {
                    take(&listed);
                }
                Ok(Step::More)
            }
            Packet::Flush => {
                self.done = true;
                Ok(Step::Done)
            }
            other => Err(ProtocolError::malformed(format!(
                "a {other:?} packet in the list of refs"
            ))),
        }
    }

    /// # Errors
    /// When the answer ended too early.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        match self.done {
            true => Ok(()),
            false => Err(ProtocolError::Truncated),
        }
    }
}

impl<'a> ListedRef<'a> {
    /// `<id> <name>[ symref-target:<name>][ peeled:<id>]`; None for a ref without an object yet (`unborn`).
    fn parse(line: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let mut words = line.split(|b| *b == b' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(ProtocolError::malformed(format!(
                "expected a ref, got \"{}\"",
                quote(line)
            )));
        };
        if id == b"unborn" {
            return Ok(None);
        }
        let mut listed = Self {
            name,
            object: object_id(id)?,
            peeled: None,
            symref_target: None,
        };
        for word in words {
            if let Some(id) = word.strip_prefix(b"peeled:") {
                listed.peeled = Some(object_id(id)?);
            } else if let Some(target) = word.strip_prefix(b"symref-target:") {
                listed.symref_target = Some(target);
            }
        }
        Ok(Some(listed))
    }
}
