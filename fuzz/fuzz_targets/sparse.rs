//! A directory is passed over only if nothing below it is in.
#![no_main]

use git_volume_reloader::tree::Sparse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The patterns, NUL, a path.
    let Some(end) = input.iter().position(|byte| *byte == 0) else {
        return;
    };
    let Ok(path) = std::str::from_utf8(&input[end + 1..]) else {
        return;
    };
    let sparse = Sparse::parse(&input[..end]);
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) || path.contains('\0') {
        return;
    }
    let (reached, included) = walk(&sparse, path);
    assert!(
        reached || !included,
        "{path:?} is in, and its directory was passed over"
    );

    // Patterns are lines.
    if !path.contains('\n') {
        let (reached, included) = walk(&Sparse::from_paths([path]), path);
        assert!(reached && included, "{path:?} does not take in itself");
    }
});

/// As the writer walks, from the root: whether it comes to the path, and whether the path is in.
fn walk(sparse: &Sparse, path: &str) -> (bool, bool) {
    let (mut inherited, mut reached) = (false, true);
    for (end, _) in path.match_indices('/') {
        let directory = &path.as_bytes()[..end];
        inherited = sparse.includes(directory, true, inherited);
        reached &= inherited || sparse.may_include_below(directory);
    }
    (reached, sparse.includes(path.as_bytes(), false, inherited))
}
