//! The contract with readers: what they see is always one complete commit, never older than what
//! they saw before, and what they have open stays for a while.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::environment::{report, soak};
use crate::support::full_disk::FullDisk;
use crate::support::readers::{Readers, generation, read_tree};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// How long a sidecar may live after a push until it is killed: from before it noticed to after it
/// published.
const LIFE: Duration = Duration::from_millis(60);

/// How many commits are made at a time.
const BATCH: usize = 500;

#[test]
fn no_reader_sees_a_torn_tree_in_200_flips_with_50_kills() {
    let (flips, flips_per_kill) = if soak() { (10_000, 50) } else { (200, 4) };
    let upstream = Upstream::empty();
    let first = upstream.commit_changes("main", &generation(0));
    let mut pusher = upstream.pusher("refs/heads/main");
    // In memory, where a flip waits for nobody's disk: a kill loses what is in no cache.
    let disk = FullDisk::new(256 << 10);
    let root = Root::at(&disk.path().join("root"));
    // Longer than any look of a reader, and not so long that hundreds of older trees are looked
    // after in vain.
    let launch = Launch::new(&upstream.url(), &root)
        .flag("period", "10ms")
        .flag("stale-timeout", "10s");
    let mut sidecar = launch.clone().spawn();
    sidecar.wait_for(&root, &first);
    let readers = Readers::start(4, root.link());
    let started = Instant::now();
    let mut kills = 0;
    let mut last = first;
    for begin in (1..=flips).step_by(BATCH) {
        let end = flips.min(begin + BATCH as u64 - 1);
        let chain: Vec<_> = (begin..=end).map(generation).collect();
        for (n, commit) in (begin..).zip(upstream.prepare(&chain)) {
            pusher.push(&commit);
            if n % flips_per_kill == 0 {
                // The moment of the kill is left to chance; nothing depends on which one it is.
                let life = LIFE.mul_f64(fastrand::f64());
                let end = Instant::now() + life;
                while Instant::now() < end {
                    std::thread::yield_now();
                }
                sidecar.kill();
                kills += 1;
                assert_eq!(readers.seen().torn, [] as [String; 0], "kill {kills}");
                sidecar = launch.clone().spawn();
            }
            sidecar.wait_for(&root, &commit);
            last = commit;
        }
    }
    let took = started.elapsed();
    assert_eq!(kills, flips / flips_per_kill);
    root.assert_published(&upstream, &last);
    // Each reader has a chance to see the end as well.
    let so_far = readers.seen().whole;
    wait_until(PATIENCE, "the readers", || {
        readers.seen().whole >= so_far + 8
    });
    let seen = readers.finish();
    assert_eq!(seen.torn, [] as [String; 0]);
    report(&format!(
        "{flips} flips, {kills} kills, {} reads, none torn, in {} s",
        seen.whole,
        took.as_secs()
    ));
    assert!(seen.whole >= flips / 2, "only {} reads", seen.whole);
    // An old tree may be on its way out, and a stop leaves the rest of it to the next start.
    sidecar.wait_while_alive("old trees to be gone", |_| root.litter(&[]).is_empty());
    sidecar.stop();
    root.assert_tidy(&[]);
}

#[test]
fn a_tree_that_a_reader_has_open_stays_whole_after_the_flip() {
    let upstream = Upstream::empty();
    let first = upstream.commit_changes("main", &generation(0));
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "0")
        .spawn();
    sidecar.wait_for(&root, &first);
    let old = root.tree();
    for n in 1..=5 {
        let commit = upstream.commit_changes("main", &generation(n));
        sidecar.wait_for(&root, &commit);
        assert_eq!(read_tree(&old), Ok(0), "after {n} flips");
    }
    assert_eq!(read_tree(root.link()), Ok(5));
}

#[test]
fn within_the_stale_timeout_a_restart_removes_no_tree_either() {
    let upstream = Upstream::empty();
    let first = upstream.commit_changes("main", &generation(0));
    let root = Root::new();
    let launch = Launch::new(&upstream.url(), &root)
        .flag("keep", "0")
        .flag("stale-timeout", "1h")
        .http();
    let mut sidecar = launch.clone().spawn();
    sidecar.wait_for(&root, &first);
    let old = root.tree();
    let second = upstream.commit_changes("main", &generation(1));
    sidecar.wait_for(&root, &second);
    for end in ["stop", "kill"] {
        if end == "stop" {
            sidecar.stop();
        } else {
            sidecar.kill();
        }
        assert_eq!(read_tree(&old), Ok(0));
        sidecar = launch.clone().spawn();
        sidecar.wait_for_polls(3);
        assert_eq!(read_tree(&old), Ok(0), "after a {end} and a start");
    }
    assert_eq!(root.revisions().len(), 2);
}

#[test]
fn after_the_stale_timeout_the_older_trees_go() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "0")
        .flag("stale-timeout", "100ms")
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    for n in 0..5 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &commit);
    }
    sidecar.wait_while_alive("only the live tree to be left", |_| {
        root.revisions().len() == 1
    });
    sidecar.wait_while_alive("the trash to be emptied", |_| root.litter(&[]).is_empty());
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn keep_says_how_many_older_trees_stay_in_any_case() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "2")
        .flag("stale-timeout", "0s")
        .http()
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    let mut commits = vec![upstream.tip("HEAD")];
    for n in 0..5 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &commit);
        commits.push(commit);
    }
    let kept = || -> Vec<String> {
        let revisions = root.revisions();
        revisions.into_iter().map(|(_, commit)| commit).collect()
    };
    sidecar.wait_while_alive("three trees to be left", |_| kept() == commits[3..]);
    sidecar.wait_for_polls(3);
    assert_eq!(kept(), commits[3..]);
}

#[test]
fn another_commit_is_another_directory_and_the_numbers_only_grow() {
    let upstream = Upstream::new();
    let root = Root::new();
    let launch = Launch::one_time(&upstream.url(), &root)
        .flag("keep", "0")
        .flag("stale-timeout", "0s");
    let mut last = 0;
    for n in 0..4 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        launch.clone().succeed();
        root.assert_published(&upstream, &commit);
        let revision = root.revision();
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
}

#[test]
fn a_way_back_to_a_tree_that_is_still_there_is_a_flip_to_it() {
    let upstream = Upstream::new();
    let first = upstream.tip("HEAD");
    let root = Root::new();
    let launch = Launch::one_time(&upstream.url(), &root);
    launch.clone().succeed();
    let before = root.revision();
    upstream.commit(&[("a", "b")]);
    launch.clone().succeed();
    assert_ne!(root.revision(), before);
    upstream.force_push("main", &first);
    launch.succeed();
    assert_eq!(root.revision(), before);
    root.assert_published(&upstream, &first);
    root.assert_tidy(&[]);
}

#[test]
fn a_published_tree_is_not_touched_by_what_follows() {
    let upstream = Upstream::new();
    let first = upstream.commit_changes(
        "main",
        &[
            Change::file("kept", "the same in both"),
            Change::file("changed", "one"),
        ],
    );
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &first);
    let old = root.tree();
    let before = times(&old);
    let second = upstream.commit(&[("changed", "two")]);
    sidecar.wait_for(&root, &second);
    assert_eq!(times(&old), before);
    assert_eq!(fs::read_to_string(old.join("changed")).unwrap(), "one");
}

/// The names in a directory and when their content changed last.
fn times(directory: &std::path::Path) -> Vec<(String, std::time::SystemTime)> {
    let mut times: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            (entry.file_name().into_string().unwrap(), modified)
        })
        .collect();
    times.sort();
    times
}
