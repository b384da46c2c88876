//! What a restart of the node, bit rot and edits in place lead to, and how the flags say otherwise.

use std::fs;

use crate::support::root::{Root, zero};
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// Some files, one of which git converts on checkout.
fn publish_first(upstream: &Upstream, root: &Root) -> String {
    let commit = upstream.commit_changes(
        "main",
        &[
            Change::file(".gitattributes", "*.dos text eol=crlf\n"),
            Change::file("one.txt", "one\n"),
            Change::file("two.dos", "two\nlines\n"),
        ],
    );
    Launch::one_time(&upstream.url(), root).succeed();
    root.assert_published(upstream, &commit);
    commit
}

/// As if the newest revision had been written before the last restart of the node.
fn restart_node(root: &Root) {
    let (n, _) = root.revisions().pop().unwrap();
    let path = root.state(&format!("revisions/{n:06}/durable"));
    fs::write(path, "no  another-boot\n").unwrap();
}

fn wait_until_durable(sidecar: &mut Sidecar, root: &Root) {
    sidecar.wait_while_alive("the newest tree to be on the disk", |_| {
        is_durable(root, root.revision())
    });
}

fn is_durable(root: &Root, n: u64) -> bool {
    let path = root.state(&format!("revisions/{n:06}/durable"));
    fs::read_to_string(path).is_ok_and(|text| text.starts_with("yes "))
}

#[test]
fn a_sidecar_makes_each_tree_durable_right_after_it_was_published() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    wait_until_durable(&mut sidecar, &root);
    let next = upstream.commit(&[("a", "1\n")]);
    sidecar.wait_for(&root, &next);
    wait_until_durable(&mut sidecar, &root);
    sidecar.stop();
}

#[test]
fn with_durability_flip_a_tree_is_durable_before_readers_see_it() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let launch = Launch::one_time(&upstream.url(), &root);
    launch.clone().flag("durability", "flip").succeed();
    assert!(is_durable(&root, root.revision()));
    upstream.commit(&[("a", "1\n")]);
    launch.succeed();
    assert!(!is_durable(&root, root.revision()));
}

#[test]
fn after_a_restart_of_the_node_a_tree_of_zeros_is_rebuilt_without_the_remote() {
    for damaged in ["one.txt", "two.dos"] {
        let (upstream, root) = (Upstream::empty(), Root::new());
        let commit = publish_first(&upstream, &root);
        zero(&root.tree().join(damaged));
        restart_node(&root);
        upstream.remove();
        let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
        sidecar.wait_for_log("the sync failed");
        upstream.restore();
        root.assert_published(&upstream, &commit);
        assert_eq!(sidecar.get("/readyz").code, 200);
        let content = [("kind", "content")];
        assert_eq!(sidecar.metric("gvr_damage_total", &content), 1.0);
        sidecar.stop();
    }
}

#[test]
fn after_a_restart_of_the_node_readers_get_the_last_sound_tree_if_the_store_is_lost_too() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let first = publish_first(&upstream, &root);
    let launch = Launch::one_time(&upstream.url(), &root).flag("durability", "flip");
    let older = upstream.commit(&[("three", "3\n")]);
    launch.clone().succeed();
    let newest = upstream.commit(&[("three", "33\n")]);
    launch.succeed();
    zero(&root.tree().join("three"));
    restart_node(&root);
    fs::remove_dir_all(root.state("store.git")).unwrap();
    upstream.remove();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for_log("the sync failed");
    assert_ne!(first, older);
    assert_eq!(root.commit().as_ref(), Some(&older));
    assert_eq!(sidecar.get("/readyz").code, 200);
    assert_eq!(sidecar.status()["targets"][0]["commit"]["id"], older);
    upstream.restore();
    sidecar.wait_for(&root, &newest);
    root.assert_published(&upstream, &newest);
    sidecar.stop();
}

#[test]
fn a_whole_tree_from_before_a_restart_of_the_node_stays_and_becomes_durable() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    publish_first(&upstream, &root);
    restart_node(&root);
    let before = root.revision();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    wait_until_durable(&mut sidecar, &root);
    assert_eq!(root.revision(), before);
    sidecar.stop();
}

#[test]
fn a_scrub_finds_an_edit_that_restored_size_and_time_and_repairs_it() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let commit = publish_first(&upstream, &root);
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .http()
        .flag("scrub-period", "20ms")
        .spawn();
    sidecar.wait_for_metric("gvr_last_scrub_timestamp_seconds", &[], 1.0);
    assert_eq!(sidecar.metric("gvr_damage_total", &[]), 0.0);
    let damaged = root.revision();
    for file in ["one.txt", "two.dos"] {
        let before = root.revision();
        zero(&root.tree().join(file));
        sidecar.wait_while_alive("the repair", |_| root.revision() > before);
        root.assert_published(&upstream, &commit);
    }
    assert!(root.revision() >= damaged + 2);
    // Of whichever kind: a scrub may look between the edit and the restoring of the time.
    assert!(sidecar.metric("gvr_damage_total", &[]) >= 2.0);
    // Nothing of it comes back.
    let next = upstream.commit(&[("three", "3\n")]);
    sidecar.wait_for(&root, &next);
    root.assert_published(&upstream, &next);
    sidecar.stop();
}

#[test]
fn without_a_scrub_such_an_edit_goes_unnoticed() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    publish_first(&upstream, &root);
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for_polls(1);
    zero(&root.tree().join("one.txt"));
    let next = upstream.commit(&[("three", "3\n")]);
    sidecar.wait_for(&root, &next);
    let found = fs::read(root.tree().join("one.txt")).unwrap();
    assert_eq!(found, [0; 4], "docs/reliability.md says otherwise");
    sidecar.stop();
}

#[test]
fn a_scrub_runs_at_the_lowest_priority() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    // Long enough to be looked at: the thread rests four times as long as it reads.
    let noise: Vec<u8> = (0..64 << 20).map(|_| fastrand::u8(..)).collect();
    upstream.commit_changes("main", &[Change::file("noise", noise)]);
    let sidecar = Launch::new(&upstream.url(), &root)
        .flag("scrub-period", "1ms")
        .spawn();
    let tasks = format!("/proc/{}/task", sidecar.pid().as_raw_nonzero());
    wait_until(PATIENCE, "a thread that scrubs", || {
        let threads = fs::read_dir(&tasks).unwrap().flatten();
        threads.into_iter().any(|thread| {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            // The fields after the name in parentheses; nice is the 19th of all.
            let stat = read("stat");
            let nice = stat.rsplit(')').next().unwrap_or_default();
            read("comm").trim() == "scrub" && nice.split_whitespace().nth(16) == Some("19")
        })
    });
    sidecar.stop();
}
