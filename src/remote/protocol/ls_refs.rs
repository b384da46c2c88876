//! `ls-refs`: the one question of a poll (gitprotocol-v2, "ls-refs").

use crate::remote::{RefName, Tip};

use super::advertisement::too_many_refs;
use super::error::{ProtocolError, quote};
use super::pkt_line::{Machine, Packet, Step, encode, encode_delim, encode_flush};
use super::refs::{RefPicker, object_id};
use super::{AGENT, MAX_REF_LIST};

/// Reads the answer to [`ls_refs_request`].
#[derive(Debug)]
pub struct LsRefs {
    picker: RefPicker,
    bytes: u64,
    done: bool,
}

/// The request for one ref, and for HEAD, which tells an empty repository from a missing ref.
///
/// The server matches prefixes: a ref `v1` also brings `v1.1`, and [`LsRefs`] drops it.
pub fn ls_refs_request(name: &RefName) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    encode(&mut out, "command=ls-refs\n");
    encode(&mut out, format!("agent={AGENT}\n"));
    encode_delim(&mut out);
    encode(&mut out, "peel\n");
    encode(&mut out, "symrefs\n");
    for wanted in RefPicker::new(name).wanted() {
        encode(&mut out, format!("ref-prefix {wanted}\n"));
    }
    if *name != RefName::Head {
        encode(&mut out, "ref-prefix HEAD\n");
    }
    encode_flush(&mut out);
    out
}

impl LsRefs {
    /// A reader for the answer about this ref.
    pub fn new(name: &RefName) -> Self {
        Self {
            picker: RefPicker::new(name),
            bytes: 0,
            done: false,
        }
    }

    /// The answer, once the machine is done.
    ///
    /// # Errors
    /// When the answer ended before.
    pub fn finish(mut self) -> Result<Tip, ProtocolError> {
        match self.done {
            true => Ok(self.picker.tip()),
            false => Err(ProtocolError::Truncated),
        }
    }

    /// `<id> <name>[ symref-target:<name>][ peeled:<id>]`
    fn one_ref(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let mut words = line.split(|b| *b == b' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(ProtocolError::malformed(format!(
                "expected a ref, got \"{}\"",
                quote(line)
            )));
        };
        if id == b"unborn" {
            return Ok(());
        }
        let mut peeled = None;
        for word in words {
            if let Some(id) = word.strip_prefix(b"peeled:") {
                peeled = Some(object_id(id)?);
            } else if let Some(target) = word.strip_prefix(b"symref-target:")
                && name == b"HEAD"
            {
                self.picker.take_head_target(target);
            }
        }
        self.picker.take(name, object_id(id)?, peeled);
        Ok(())
    }
}

impl Machine for LsRefs {
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
                "a {other:?} packet in the list of refs"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pkt_line::Decoder;
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn read(name: &RefName, lines: &[String]) -> Result<Tip, ProtocolError> {
        let mut wire = Vec::new();
        for line in lines {
            encode(&mut wire, line);
        }
        encode_flush(&mut wire);
        let mut machine = LsRefs::new(name);
        Decoder::new().feed(&wire, &mut machine)?;
        machine.finish()
    }

    #[test]
    fn a_request_asks_for_the_exact_names_and_for_head() {
        let text = String::from_utf8(ls_refs_request(&RefName::Short("x".to_owned()))).unwrap();
        for line in ["refs/heads/x\n", "refs/tags/x\n", "refs/x\n", "HEAD\n"] {
            assert!(text.contains(&format!("ref-prefix {line}")), "{text}");
        }
        let head = String::from_utf8(ls_refs_request(&RefName::Head)).unwrap();
        assert_eq!(head.matches("ref-prefix").count(), 1, "{head}");
    }

    #[test]
    fn tags_are_peeled_and_head_is_resolved() {
        let head = [format!("{A} HEAD symref-target:refs/heads/main\n")];
        assert!(matches!(
            read(&RefName::Head, &head).unwrap(),
            Tip::At(at) if at.name == "refs/heads/main"
        ));
        let tag = [
            head[0].clone(),
            format!("{B} refs/tags/v1 peeled:{A}\n"),
            format!("{A} refs/tags/v1.1\n"),
        ];
        assert!(matches!(
            read(&RefName::Short("v1".to_owned()), &tag).unwrap(),
            Tip::At(at) if at.object.to_string() == B && at.commit.to_string() == A
        ));
    }

    #[test]
    fn a_missing_ref_is_an_answer() {
        let name = RefName::Full("refs/heads/gone".to_owned());
        assert_eq!(read(&name, &[]).unwrap(), Tip::Missing { empty: true });
        assert_eq!(
            read(&name, &[format!("{A} HEAD\n")]).unwrap(),
            Tip::Missing { empty: false }
        );
    }

    #[test]
    fn a_line_that_is_no_ref_is_malformed() {
        for line in ["", "x", "<html> <body>", &format!("{A} HEAD peeled:x")] {
            assert!(
                matches!(
                    read(&RefName::Head, &[line.to_owned()]),
                    Err(ProtocolError::Malformed(_))
                ),
                "{line:?}"
            );
        }
    }
}
