//! A server's greeting, of either version, means the same however it is cut.
#![no_main]

use git_volume_reloader::remote::protocol::Advertisement;
use git_volume_reloader_fuzz::{feed, ref_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (selector, piece, bytes) = input;
    let name = ref_name(selector);
    let read = |piece: usize| {
        let mut greeting = Advertisement::new(&name);
        let fed = feed(&mut greeting, bytes, piece);
        let failed = fed.is_err();
        // Asked only of answers that were read without an error.
        let finished = (!failed).then(|| greeting.finish());
        format!("{fed:?} {finished:?}")
    };
    assert_eq!(read(bytes.len()), read(piece.into()));
});
