//! The text of `.gitmodules` is read, or refused with a line that it has.
#![no_main]

use git_volume_reloader::tree::{BadLine, parse_gitmodules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    match parse_gitmodules(bytes) {
        Ok(modules) => assert!(modules.len() <= lines),
        Err(BadLine(line)) => assert!((1..=lines + 1).contains(&line), "{line} of {lines}"),
    }
});
