//! Packets, cut anywhere, are the same packets; and what was encoded is what is decoded.
#![no_main]

use git_volume_reloader::remote::protocol::{Machine, Packet, ProtocolError, Step, encode};
use git_volume_reloader_fuzz::{feed, outcome};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Default, PartialEq)]
struct Collect(Vec<String>);

impl Machine for Collect {
    fn packet(&mut self, packet: Packet<'_>) -> Result<Step, ProtocolError> {
        if let Packet::Data(payload) = packet {
            // A refusal is an answer, too.
            let _ = Packet::line(payload);
        }
        self.0.push(format!("{packet:?}"));
        Ok(match packet {
            Packet::ResponseEnd => Step::Done,
            _ => Step::More,
        })
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let (mut whole, mut cut) = (Collect::default(), Collect::default());
    let first = feed(&mut whole, bytes, bytes.len());
    let second = feed(&mut cut, bytes, piece.into());
    assert_eq!(outcome(&first), outcome(&second));
    assert_eq!(whole, cut);

    let payload = &bytes[..bytes.len().min(65516)];
    if !payload.is_empty() {
        let mut encoded = Vec::new();
        encode(&mut encoded, payload);
        let decoded = Packet::parse(&encoded).unwrap();
        assert_eq!(decoded, Some((Packet::Data(payload), encoded.len())));
    }
});
