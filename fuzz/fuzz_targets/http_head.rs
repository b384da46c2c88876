//! A request head is read within its limits, and no later than it is complete.
#![no_main]

use git_volume_reloader::serve::limits::{MAX_HEAD, parse_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse_head(bytes);
    match &parsed {
        Ok(Some((head, length))) => {
            assert!(*length <= MAX_HEAD && *length <= bytes.len());
            assert!(bytes[..*length].ends_with(b"\n"));
            // What follows the head does not change what it says.
            let alone = parse_head(&bytes[..*length]).unwrap().unwrap();
            assert_eq!(format!("{alone:?}"), format!("{:?}", (head, *length)));
            assert!(matches!(parse_head(&bytes[..*length - 1]), Ok(None)));
        }
        Ok(None) => assert!(bytes.len() <= MAX_HEAD),
        Err(refusal) => {
            assert!((400..=501).contains(&refusal.status()));
            assert!(!refusal.to_string().is_empty());
        }
    }
});
