//! All tags of a remote, for `git describe` in a published tree (gitprotocol-v2, "ls-refs").

use crate::base::transfer::Advertised;

use super::error::ProtocolError;
use super::pkt_line::{Machine, Packet, Step};
use super::ref_list::{RefList, request};

/// Reads the answer to [`tags_request`].
#[derive(Debug, Default)]
pub struct Tags {
    found: Vec<Advertised>,
    list: RefList,
}

/// The request for every ref under `refs/tags/`.
pub fn tags_request() -> Vec<u8> {
    request(["peel", "ref-prefix refs/tags/"])
}

impl Tags {
    /// The tags, once the machine is done.
    ///
    /// # Errors
    /// When the answer ended too early.
    pub fn finish(self) -> Result<Vec<Advertised>, ProtocolError> {
        self.list.finish().map(|()| self.found)
    }
}

impl Machine for Tags {
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
        let found = &mut self.found;
        self.list.packet(packet, |listed| {
            // git describe would not print a name that is not UTF-8 unchanged, so it is skipped.
            if let Ok(name) = std::str::from_utf8(listed.name)
                && name.starts_with("refs/tags/")
            {
                found.push(Advertised {
                    name: name.to_owned(),
                    object: listed.object,
                    commit: listed.peeled.unwrap_or(listed.object),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pkt_line::{Decoder, encode, encode_flush};
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
