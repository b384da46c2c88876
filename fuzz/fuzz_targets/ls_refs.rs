//! The answer to a poll means the same however it is cut.
#![no_main]

use git_volume_reloader::remote::protocol::LsRefs;
use git_volume_reloader_fuzz::{feed, outcome, ref_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (selector, piece, bytes) = input;
    let name = ref_name(selector);
    let read = |piece: usize| {
        let mut answer = LsRefs::new(&name);
        let fed = feed(&mut answer, bytes, piece);
        let fed_as = outcome(&fed);
        // Asked only of answers that were read without an error.
        let finished = fed.ok().map(|_| outcome(&answer.finish()));
        (fed_as, finished)
    };
    assert_eq!(read(bytes.len()), read(piece.into()));
});
