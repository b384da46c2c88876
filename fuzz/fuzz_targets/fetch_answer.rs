//! A pack comes out of an answer whole, however the answer is cut, in every dialect.
#![no_main]

use git_volume_reloader::base::error::SyncError;
use git_volume_reloader::remote::protocol::{
    Dialect, FetchAnswer, V0Capabilities, V2Capabilities, fetch_request,
};
use git_volume_reloader::remote::{FetchRequest, PackSink};
use git_volume_reloader_fuzz::{feed, outcome};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Pack {
    bytes: Vec<u8>,
    progress: Vec<u8>,
}

impl PackSink for Pack {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn progress(&mut self, line: &[u8]) {
        self.progress.extend_from_slice(line);
    }
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (selector, piece, bytes) = input;
    let commit = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    let can_shallow = selector & 2 != 0;
    let v2 = V2Capabilities {
        ls_refs: true,
        fetch: true,
        shallow: can_shallow,
    };
    let v0 = V0Capabilities {
        side_band_64k: true,
        shallow: can_shallow,
        ..V0Capabilities::default()
    };
    let dialect = match selector & 1 {
        0 => Dialect::V2(&v2),
        _ => Dialect::V0(&v0),
    };
    let known = [commit];
    let request = FetchRequest {
        want: commit,
        also: &known,
        name: Some("refs/heads/main"),
        haves: &known,
        shallow: if selector & 4 == 0 { &[] } else { &known },
        depth: (selector >> 3 & 1).into(),
        thin: true,
    };
    fetch_request(&request, dialect).unwrap();
    let read = |piece: usize| {
        let mut pack = Pack::default();
        let mut answer = FetchAnswer::new(&request, dialect, &mut pack);
        let fed = feed(&mut answer, bytes, piece);
        let said = answer.bytes();
        let fed_as = outcome(&fed);
        let finished = fed.ok().map(|_| outcome(&answer.finish()));
        assert_eq!(said, pack.bytes.len() as u64);
        (fed_as, finished, pack.bytes, pack.progress)
    };
    assert_eq!(read(bytes.len()), read(piece.into()));
});
