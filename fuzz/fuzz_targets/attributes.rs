//! Attributes are read and matched in time that grows with the lengths of the input, and no faster.
#![no_main]

use git_volume_reloader::base::error::Reason;
use git_volume_reloader::tree::Effort;
use git_volume_reloader::tree::attributes::{Rules, STEP_LIMIT};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // A `.gitattributes`, NUL, a path; the path may be repeated to make it long.
    let Some(end) = input.iter().position(|byte| *byte == 0) else {
        return;
    };
    let (text, path) = (&input[..end], &input[end + 1..]);
    if path.is_empty() || path[0] == b'/' {
        return;
    }
    let go_on = || Ok(());
    let mut parsing = Effort::new(u64::MAX, &go_on);
    let Ok(rules) = Rules::new(None, b"", text, &mut parsing) else {
        return;
    };
    let most = 64 * (text.len() as u64 + 64);
    assert!(parsing.spent() <= most, "{} of {most}", parsing.spent());

    let mut path = path.repeat(4096 / path.len() + 1);
    path.truncate(4095);
    let mut matching = Effort::new(STEP_LIMIT, &go_on);
    match rules.attributes_of(&path, &mut matching) {
        Ok(_) => {
            let most = 4 * (text.len() as u64 + 64) * (path.len() as u64 + 64);
            assert!(matching.spent() <= most, "{} of {most}", matching.spent());
        }
        Err(error) => assert_eq!(error.reason, Reason::Limit),
    }
});
