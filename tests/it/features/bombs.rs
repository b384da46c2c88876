//! Repositories that are small on the wire and large when unpacked: refused at the limits, in
//! bounded memory; and names that would drive a terminal.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use ring::digest;

use super::{error_file, stage_and_reason};
use crate::faults::serve;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// What a debug build takes beside what it reads.
const BASE_KIB: u64 = 48 << 10;

#[test]
fn trees_that_share_their_branches_are_refused_at_the_limit() {
    // Ten to the tenth files, in eleven objects.
    let upstream = Upstream::new();
    let mut id = upstream.object("blob", b"x\n");
    let mut kind = "100644 blob";
    for _ in 0..10 {
        let mut listing = String::new();
        for i in 0..10 {
            writeln!(listing, "{kind} {id}\tf{i}").unwrap();
        }
        id = upstream.tree(&listing);
        kind = "040000 tree";
    }
    assert_refused(&upstream, &id, "max-files", "1000", BASE_KIB);
}

#[test]
fn a_directory_of_a_million_entries_is_refused_at_the_limit() {
    let upstream = Upstream::new();
    let id = upstream.object("blob", b"x\n");
    let mut listing = String::new();
    for i in 0..1_000_000 {
        writeln!(listing, "100644 blob {id}\tf{i:07}").unwrap();
    }
    let tree = upstream.tree(&listing);
    // The directory has 36 MB; a few copies of it may be there at a time.
    assert_refused(
        &upstream,
        &tree,
        "max-files",
        "1000",
        BASE_KIB + 4 * (36 << 10),
    );
}

#[test]
fn blobs_that_are_deltas_of_zeros_are_refused_at_the_limit() {
    const FILES: usize = 24;
    const BYTES: usize = 8 << 20;
    let upstream = Upstream::new();
    let files: Vec<_> = (0..FILES)
        .map(|i| {
            let mut content = vec![0; BYTES];
            content[0] = i as u8;
            Change::file(format!("f{i}"), content)
        })
        .collect();
    let commit = upstream.commit_changes("bomb", &files);
    upstream.git(&["repack", "-adfq", "--depth=50"]);
    let tree = upstream.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
    // Some 200 MB in all, of which a delta and its base are in memory at a time.
    let peak = BASE_KIB + 4 * (BYTES as u64 >> 10);
    assert!(peak < (FILES * BYTES) as u64 >> 10);
    assert_refused(&upstream, &tree, "max-tree-bytes", "1000000", peak);
}

#[test]
fn files_that_conversions_make_large_are_refused_before_they_are_written() {
    const BYTES: usize = 8 << 20;
    let grown = [
        ("text eol=crlf", b"\n".repeat(BYTES)),
        ("ident", b"$Id$".repeat(BYTES / 4)),
        ("working-tree-encoding=UTF-32", b"x".repeat(BYTES)),
    ];
    for (attribute, content) in grown {
        let upstream = Upstream::new();
        let changes = [
            Change::file("large", content),
            Change::file(".gitattributes", format!("large {attribute}\n")),
        ];
        let commit = upstream.commit_changes("bomb", &changes);
        let tree = upstream.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
        // The blob, and not its file of 16, 94 or 32 MB.
        let peak = BASE_KIB + 2 * (BYTES as u64 >> 10);
        assert_refused(&upstream, &tree, "max-tree-bytes", "12000000", peak);
    }
}

#[test]
fn a_delta_that_makes_a_file_four_thousand_times_as_large_is_refused_at_the_limit() {
    const COPIES: usize = 4096;
    const BASE: usize = 64 << 10;
    let upstream = Upstream::new();
    let pack = pack_of_a_bomb(&[b'x'; BASE], COPIES);
    upstream.unpack(&pack);
    let all = upstream.git(&["cat-file", "--batch-all-objects", "--batch-check"]);
    let id = |bytes: usize| {
        let end = format!(" blob {bytes}");
        let line = all.lines().find_map(|line| line.strip_suffix(&end));
        line.unwrap().to_owned()
    };
    let listing = format!(
        "100644 blob {}\tbase\n100644 blob {}\tbomb\n",
        id(BASE),
        id(BASE * COPIES)
    );
    let tree = upstream.tree(&listing);
    // libgit2 makes the whole object to know its id: there is no bound but its size.
    let peak = BASE_KIB + 2 * ((COPIES * BASE) as u64 >> 10);
    let server = serve(&upstream);
    let url = server.url("upstream.git");
    assert_refused_from(&upstream, &url, &tree, "max-tree-bytes", "1000000", peak);
    let requests = server.requests();
    let largest = requests.iter().map(|request| request.answered()).max();
    assert!(largest < Some(1 << 20), "it came unpacked: {largest:?}");
}

/// A pack of a blob, and of one that is so many copies of it, as a delta (gitformat-pack).
fn pack_of_a_bomb(base: &[u8], copies: usize) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
    let object = |kind: u8, size: usize, offset: &[u8], content: &[u8]| {
        let mut size = size;
        let mut bytes = vec![kind << 4 | (size & 15) as u8];
        size >>= 4;
        while size > 0 {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push((size & 0x7f) as u8);
            size >>= 7;
        }
        bytes.extend(offset);
        let mut deflate = ZlibEncoder::new(bytes, Compression::default());
        deflate.write_all(content).unwrap();
        deflate.finish().unwrap()
    };
    let first = object(3, base.len(), &[], base);
    // The distance to the base: the most significant digit first, each but the last one less.
    let mut distance = first.len();
    let mut offset = vec![(distance & 0x7f) as u8];
    while distance >> 7 > 0 {
        distance = (distance >> 7) - 1;
        offset.insert(0, 0x80 | (distance & 0x7f) as u8);
    }
    let mut delta = Vec::new();
    for mut size in [base.len(), base.len() * copies] {
        while size >> 7 > 0 {
            delta.push(0x80 | (size & 0x7f) as u8);
            size >>= 7;
        }
        delta.push(size as u8);
    }
    // "Copy 64 KiB from the beginning" is a single byte.
    delta.extend(std::iter::repeat_n(0x80, copies));
    let second = object(6, delta.len(), &offset, &delta);
    pack.extend(first);
    pack.extend(second);
    let checksum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &pack);
    pack.extend(checksum.as_ref());
    pack
}

/// As [`assert_refused_from`], from a directory of this machine.
#[track_caller]
fn assert_refused(upstream: &Upstream, tree: &str, flag: &str, limit: &str, peak_kib: u64) {
    assert_refused_from(upstream, &upstream.url(), tree, flag, limit, peak_kib);
}

/// Pushes a commit of a tree and sees it refused; the memory of the process never exceeds
/// `peak_kib`, readers keep what they have, and what is pushed next is published.
#[track_caller]
fn assert_refused_from(
    upstream: &Upstream,
    url: &str,
    tree: &str,
    flag: &str,
    limit: &str,
    peak_kib: u64,
) {
    let root = Root::new();
    let error_file = error_file(&root);
    let mut sidecar = Launch::new(url, &root)
        .flag(flag, limit)
        .flag("error-file", error_file.to_str().unwrap())
        .http()
        .spawn();
    let good = upstream.tip("main");
    sidecar.wait_for(&root, &good);
    let bomb = upstream.git(&["commit-tree", "-m", "bomb", "-p", &good, tree]);
    upstream.force_push("main", &bomb);
    wait_until(PATIENCE * 4, "the refusal", || {
        assert!(sidecar.is_alive(), "{:?}", sidecar.log());
        stage_and_reason(&error_file).is_some()
    });
    assert_eq!(stage_and_reason(&error_file).unwrap().1, "limit");
    let text = fs::read_to_string(&error_file).unwrap();
    assert!(text.contains(&format!("--{flag}")), "{text}");
    assert_eq!(root.commit().as_deref(), Some(&*good));
    let peak = sidecar.peak_kib();
    assert!(peak <= peak_kib, "{peak} KiB at the peak, not {peak_kib}");
    upstream.force_push("main", &good);
    let next = upstream.commit(&[("next", "next\n")]);
    // The attempts in between may have been many, and the next one is some time away.
    wait_until(PATIENCE * 4, "the next commit", || {
        assert!(sidecar.is_alive(), "{:?}", sidecar.log());
        root.commit().as_deref() == Some(&*next)
    });
    root.assert_published(upstream, &next);
    sidecar.stop();
    root.assert_tidy(&["error"]);
}

#[test]
fn what_drives_a_terminal_is_written_nowhere() {
    const ESCAPE: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}";
    for format in ["text", "json"] {
        let upstream = Upstream::new();
        let root = Root::new();
        let error_file = error_file(&root);
        let mut sidecar = Launch::new(&upstream.url(), &root)
            .flag("log-format", format)
            .flag("log-level", "debug")
            .flag("error-file", error_file.to_str().unwrap())
            .flag("name", "target")
            .http()
            .spawn();
        sidecar.wait_for(&root, &upstream.tip("main"));
        // A published commit that says it in every way that is told: subject, author, a filter,
        // the name of a file that it concerns.
        let changes = [
            Change::file(".gitattributes", format!("* filter=x{ESCAPE}\n")),
            Change::file(format!("d{ESCAPE}/f{ESCAPE}"), "x\n"),
        ];
        let plain = upstream.commit_changes("other", &changes);
        let tree = upstream.git(&["rev-parse", &format!("{plain}^{{tree}}")]);
        let shouting = upstream.git(&["commit-tree", "-m", ESCAPE, &tree]);
        upstream.force_push("main", &shouting);
        sidecar.wait_for(&root, &shouting);
        // And one that is refused, with the name in the error.
        let blob = upstream.object("blob", b"x\n");
        let mut entry = format!("100644 .git{ESCAPE}\\.git").into_bytes();
        entry.push(0);
        entry.extend((0..20).map(|i| u8::from_str_radix(&blob[2 * i..2 * i + 2], 16).unwrap()));
        let hostile = upstream.object("tree", &entry);
        let refused = upstream.git(&["commit-tree", "-m", "x", &hostile]);
        upstream.force_push("main", &refused);
        sidecar.wait_while_alive("the refusal", |_| stage_and_reason(&error_file).is_some());
        // Where it listens is only read from JSON.
        let pages = if format == "json" {
            ["/status", "/metrics"].map(|path| sidecar.get(path).body)
        } else {
            Default::default()
        };
        let error = fs::read_to_string(&error_file).unwrap();
        let log = sidecar.log().join("\n");
        for (what, text) in [
            ("log", &log),
            ("status", &pages[0]),
            ("metrics", &pages[1]),
            ("error file", &error),
        ] {
            let raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(raw), "{format} {what}: {text:?}");
        }
        assert!(
            log.contains("filter"),
            "nothing was told of the filter: {log}"
        );
        assert!(error.contains(".git"), "{error}");
        sidecar.stop();
    }
}
