//! Blobs that are too large to be in memory: however a store has them, the file is the same.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use git_volume_reloader::base::error::Reason;
use git_volume_reloader::tree::TreeOptions;

use super::Bench;
use crate::support::git_oracle::run;

/// Beyond what is written from memory.
const LARGE: usize = 9 << 20;

/// Lines, so that conversions have something to do; different for each seed.
fn text(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = Vec::with_capacity(LARGE + 100);
    while text.len() < LARGE {
        text.extend_from_slice(format!("{:x} $Id$\n", random.u128(..)).as_bytes());
    }
    text
}

impl Bench {
    /// Puts all objects into one pack.
    fn repack(&self, depth: &str) {
        let depth = format!("--depth={depth}");
        run(
            &self.origin.dir,
            &["repack", "-q", "-a", "-d", "-f", "--window=10", &depth],
        );
    }

    fn pack(&self) -> PathBuf {
        let packs = self.origin.store().join("objects/pack");
        let mut found = fs::read_dir(packs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "pack"));
        found.next().expect("a pack")
    }

    /// How the pack has a blob: its size in the pack, and the length of its chain of deltas.
    fn stored(&self, id: &str) -> (u64, u64) {
        let index = self.pack().with_extension("idx");
        let listing = run(
            &self.origin.dir,
            &["verify-pack", "-v", index.to_str().unwrap()],
        );
        let line = listing.lines().find(|line| line.starts_with(id)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let depth = words.get(5).map_or(0, |depth| depth.parse().unwrap());
        (words[3].parse().unwrap(), depth)
    }
}

#[test]
fn a_large_blob_is_the_same_whole_as_a_delta_and_loose() {
    let mut bench = Bench::new();
    let first = text(1);
    let mut second = first.clone();
    second.extend_from_slice(b"one more line\n");
    let ids = [bench.origin.blob(&first), bench.origin.blob(&second)];
    bench
        .origin
        .put_id("100644", "first", &ids[0])
        .put_id("100755", "dir/second", &ids[1])
        .put("small", "small\n");
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
    for (depth, deltas) in [("0", 0), ("50", 1)] {
        bench.repack(depth);
        let found: u64 = ids.iter().map(|id| bench.stored(id).1).sum();
        assert_eq!(found, deltas, "blobs that are deltas");
        bench.last = None;
        let (tree, built) = bench.same_as_git(commit);
        assert!(fs::read(tree.join("first")).unwrap() == first);
        assert_eq!(built.files_written, 3);
    }
    bench.last = None;
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!(built.files_written, 3);
    let bytes = (first.len() + second.len() + 6) as u64;
    assert_eq!((built.bytes, built.bytes_written), (bytes, bytes));
}

#[test]
fn a_large_blob_that_attributes_change_is_converted() {
    let mut bench = Bench::new();
    let attributes = "crlf eol=crlf\nident ident\nutf16 working-tree-encoding=UTF-16LE\n";
    bench.origin.put(".gitattributes", attributes);
    let id = bench.origin.blob(&text(2));
    for name in ["crlf", "ident", "utf16", "plain"] {
        bench.origin.put_id("100644", name, &id);
    }
    let commit = bench.origin.commit();
    bench.repack("0");
    let (tree, _) = bench.same_as_git(commit);
    let size = |name: &str| fs::metadata(tree.join(name)).unwrap().len();
    for name in ["crlf", "ident", "utf16"] {
        assert!(size(name) > size("plain"), "{name}");
    }
}

#[test]
fn a_pack_that_is_damaged_cut_or_gone_is_the_stores_fault() {
    let mut bench = Bench::new();
    let id = bench.origin.blob(&text(3));
    bench.origin.put_id("100644", "large", &id);
    let commit = bench.origin.commit();
    bench.repack("0");
    let pack = bench.pack();
    let bytes = fs::read(&pack).unwrap();
    let (stored, _) = bench.stored(&id);
    assert!(stored > 1 << 20, "most of the pack is the blob");
    let damages: [(&str, &dyn Fn()); 3] = [
        ("damaged", &|| {
            let file = File::options().write(true).open(&pack).unwrap();
            let middle = bytes.len() as u64 / 2;
            file.write_all_at(&[0x55; 4096], middle).unwrap();
        }),
        ("cut", &|| {
            let file = File::options().write(true).open(&pack).unwrap();
            file.set_len(bytes.len() as u64 / 2).unwrap();
        }),
        ("gone", &|| fs::remove_file(&pack).unwrap()),
    ];
    for (what, damage) in damages {
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, &bytes).unwrap();
        bench.build(commit, &TreeOptions::default());
        bench.last = None;
        damage();
        let error = bench.refused(commit, &TreeOptions::default());
        assert_eq!(error.reason, Reason::Store, "{what}: {}", error.chain());
    }
}

#[test]
fn a_large_blob_over_the_limit_is_refused_before_anything_is_written() {
    let mut bench = Bench::new();
    let id = bench.origin.blob(&text(4));
    bench.origin.put_id("100644", "dir/large", &id);
    let commit = bench.origin.commit();
    bench.repack("0");
    let options = TreeOptions {
        max_bytes: Some(LARGE as u64 - 1),
        ..TreeOptions::default()
    };
    let error = bench.refused(commit, &options);
    assert_eq!(error.reason, Reason::Limit);
    let left = bench.temp.path().join("revision-0/tree/dir/large");
    assert!(!left.exists());
}
