//! `ls-refs` about one ref: the question of a poll (gitprotocol-v2, "ls-refs").

use crate::remote::upstream::{RefName, Tip};

use super::error::ProtocolError;
use super::pkt_line::{Machine, Packet, Step};
use super::ref_list::{RefList, request};
use super::refs::RefPicker;

/// Reads the answer to [`ls_refs_request`].
#[derive(Debug)]
pub struct LsRefs {
    picker: RefPicker,
    list: RefList,
}

/// The request for one ref, and for HEAD, which tells an empty repository from a missing ref.
///
/// The server matches prefixes: a ref `v1` also brings `v1.1`, and [`LsRefs`] drops it.
pub fn ls_refs_request(name: &RefName) -> Vec<u8> {
    let picker = RefPicker::new(name);
    let mut prefixes: Vec<_> = picker
        .wanted()
        .iter()
        .map(|wanted| format!("ref-prefix {wanted}"))
        .collect();
    if *name != RefName::Head {
        prefixes.push("ref-prefix HEAD".to_owned());
    }
    request(
        ["peel", "symrefs"]
            .into_iter()
            .chain(prefixes.iter().map(String::as_str)),
    )
}

impl LsRefs {
    /// A reader for the answer about this ref.
    pub fn new(name: &RefName) -> Self {
        Self {
            picker: RefPicker::new(name),
            list: RefList::default(),
        }
    }

    /// The answer, once the machine is done.
    ///
    /// # Errors
    /// When the answer ended too early.
    pub fn finish(mut self) -> Result<Tip, ProtocolError> {
        self.list.finish().map(|()| self.picker.tip())
    }
}

impl Machine for LsRefs {
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
        let picker = &mut self.picker;
        self.list.packet(packet, |listed| {
            if let Some(target) = listed.symref_target
                && listed.name == b"HEAD"
            {
                picker.take_head_target(target);
            }
            picker.take(listed.name, listed.object, listed.peeled);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pkt_line::{Decoder, encode, encode_flush};
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
