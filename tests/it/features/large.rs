//! Files that no memory would hold, through the program and over the network.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::support::environment::{report, soak};
use crate::support::http_server::HttpServer;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::Upstream;

/// What the program may allocate, in bytes: far less than the file, and far more than it needs.
const MEMORY: u64 = 64 << 20;

/// A pattern whose length divides no power of two: a piece that is lost, doubled or out of place
/// shows. Short enough for the pack to be small.
fn pattern() -> Vec<u8> {
    let mut pattern = vec![0; 10_007];
    fastrand::Rng::with_seed(1).fill(&mut pattern);
    pattern
}

/// Writes the pattern again and again, so that the file has `size` bytes.
fn write_pattern(path: &Path, size: u64) {
    let pattern = pattern();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut left = size;
    while left > 0 {
        let length = left.min(pattern.len() as u64);
        file.write_all(&pattern[..length as usize]).unwrap();
        left -= length;
    }
    file.flush().unwrap();
}

/// Whether a file of `size` bytes is the pattern again and again.
fn is_pattern(path: &Path, size: u64) -> bool {
    let pattern = pattern();
    let file = File::open(path).unwrap();
    if file.metadata().unwrap().len() != size {
        return false;
    }
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut found = vec![0; pattern.len()];
    let mut left = size;
    while left > 0 {
        let length = left.min(pattern.len() as u64) as usize;
        file.read_exact(&mut found[..length]).unwrap();
        if found[..length] != pattern[..length] {
            return false;
        }
        left -= length as u64;
    }
    true
}

/// Commits a file of the pattern without having it in memory, and without a copy that stays.
fn commit_pattern(upstream: &Upstream, size: u64) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    write_pattern(file.path(), size);
    let blob = upstream.git(&[
        "-c",
        "core.compression=1",
        "-c",
        "core.bigFileThreshold=1m",
        "hash-object",
        "-w",
        "--no-filters",
        file.path().to_str().unwrap(),
    ]);
    let entry = format!("100644,{blob},large");
    upstream.git(&["update-index", "--add", "--cacheinfo", &entry]);
    let tree = upstream.git(&["write-tree"]);
    let commit = upstream.git(&["commit-tree", &tree, "-m", "a large file"]);
    upstream.update_ref("refs/heads/main", &commit);
    commit
}

/// Publishes a file that is larger than what the program may allocate.
fn publish(url: impl Fn(&Upstream) -> String, size: u64) {
    let upstream = Upstream::empty();
    let commit = commit_pattern(&upstream, size);
    let root = Root::new();
    let limit = format!("--data={MEMORY}");
    let finished = Launch::one_time(&url(&upstream), &root)
        .flag("sync-timeout", "20m")
        .under(&["prlimit", &limit])
        .spawn()
        .wait_exit(Duration::from_secs(1200));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(root.commit().as_deref(), Some(&*commit));
    assert!(is_pattern(&root.tree().join("large"), size));
    report(&format!(
        "a file of {size} bytes was published with at most {MEMORY} bytes to allocate"
    ));
}

#[test]
fn a_file_larger_than_memory_is_published_byte_for_byte() {
    // Beyond what 32 bits can count; making, hashing and comparing that takes half a minute.
    let size = if soak() {
        (4 << 30) + 12_345
    } else {
        192 << 20
    };
    let server = OnceCell::new();
    publish(
        |upstream| {
            let served = upstream.path().parent().unwrap();
            let server = server.get_or_init(|| HttpServer::start(served));
            server.url("upstream.git")
        },
        size,
    );
}

#[test]
fn a_file_larger_than_memory_comes_from_a_local_repository() {
    publish(Upstream::url, 96 << 20);
}
