//! What a ref may be and what may happen to it: each ends with the link on the commit that the
//! remote names.

use std::fs;

use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// A sidecar that follows a ref, and has published what it names.
fn following(upstream: &Upstream, root: &Root, name: &str) -> Sidecar {
    let mut sidecar = Launch::new(&upstream.url(), root)
        .flag("ref", name)
        .http()
        .spawn();
    sidecar.wait_for(root, &upstream.tip(name));
    sidecar
}

#[test]
fn a_ref_may_be_written_in_every_way_that_git_knows() {
    let upstream = Upstream::new();
    let on_main = upstream.tip("HEAD");
    let on_topic = upstream.commit_changes("topic/one", &[Change::file("topic", "1")]);
    upstream.tag("v1", &on_topic);
    upstream.annotated_tag("v2", &on_topic);
    upstream.update_ref("refs/changes/34/1234/5", &on_topic);
    for (name, commit) in [
        ("HEAD", &on_main),
        ("main", &on_main),
        ("refs/heads/main", &on_main),
        ("topic/one", &on_topic),
        ("refs/heads/topic/one", &on_topic),
        ("v1", &on_topic),
        ("refs/tags/v1", &on_topic),
        ("v2", &on_topic),
        ("refs/tags/v2", &on_topic),
        ("refs/changes/34/1234/5", &on_topic),
        (on_main.as_str(), &on_main),
    ] {
        let root = Root::new();
        Launch::one_time(&upstream.url(), &root)
            .flag("ref", name)
            .succeed();
        assert_eq!(root.commit().as_ref(), Some(commit), "{name}");
        root.assert_published(&upstream, commit);
    }
}

#[test]
fn a_branch_wins_over_a_tag_of_the_same_name() {
    let upstream = Upstream::new();
    upstream.tag("both", &upstream.tip("HEAD"));
    let branch = upstream.commit_changes("both", &[Change::file("branch", "")]);
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root)
        .flag("ref", "both")
        .succeed();
    assert_eq!(root.commit(), Some(branch));
}

#[test]
fn the_default_branch_need_not_be_main_and_may_change() {
    let upstream = Upstream::empty();
    upstream.set_default_branch("trunk");
    let commit = upstream.commit_changes("trunk", &[Change::file("a", "trunk")]);
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "HEAD");
    assert_eq!(root.commit(), Some(commit));
    let other = upstream.commit_changes("next", &[Change::file("a", "next")]);
    upstream.set_default_branch("next");
    sidecar.wait_for(&root, &other);
    root.assert_published(&upstream, &other);
}

#[test]
fn a_force_push_is_followed_back_and_sideways() {
    let upstream = Upstream::new();
    let base = upstream.tip("HEAD");
    let ahead = upstream.commit(&[("a", "ahead")]);
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "main");
    upstream.force_push("main", &base);
    sidecar.wait_for(&root, &base);
    root.assert_published(&upstream, &base);
    let sideways = upstream.commit(&[("a", "sideways")]);
    sidecar.wait_for(&root, &sideways);
    root.assert_published(&upstream, &sideways);
    upstream.force_push("main", &ahead);
    sidecar.wait_for(&root, &ahead);
    root.assert_published(&upstream, &ahead);
}

#[test]
fn a_history_rewritten_from_nothing_is_followed() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "main");
    for n in 0..3 {
        let changes = [Change::file("new world", format!("{n}"))];
        let commit = upstream.rewrite_from_nothing("main", &changes);
        // What nothing names any more is gone for good.
        upstream.git(&["reflog", "expire", "--expire=now", "--all"]);
        upstream.git(&["gc", "--quiet", "--prune=now"]);
        sidecar.wait_for(&root, &commit);
        root.assert_published(&upstream, &commit);
    }
}

#[test]
fn a_moved_tag_is_followed_whatever_its_kind() {
    let upstream = Upstream::new();
    upstream.tag("stable", &upstream.tip("HEAD"));
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "stable");
    let second = upstream.commit(&[("a", "2")]);
    upstream.tag("stable", &second);
    sidecar.wait_for(&root, &second);
    let third = upstream.commit(&[("a", "3")]);
    upstream.annotated_tag("stable", &third);
    sidecar.wait_for(&root, &third);
    let fourth = upstream.commit(&[("a", "4")]);
    upstream.annotated_tag("stable", &fourth);
    sidecar.wait_for(&root, &fourth);
    upstream.tag("stable", &second);
    sidecar.wait_for(&root, &second);
    root.assert_published(&upstream, &second);
}

#[test]
fn an_annotated_tag_is_published_once() {
    let upstream = Upstream::new();
    let commit = upstream.tip("HEAD");
    upstream.annotated_tag("v1", &commit);
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "v1");
    sidecar.wait_for_polls(5);
    // The same commit under a new tag object is nothing new for readers.
    upstream.git(&["tag", "-f", "-a", "-m", "another message", "v1", &commit]);
    sidecar.wait_for_polls(5);
    let changed = sidecar.metric("gvr_syncs_total", &[("outcome", "changed")]);
    assert_eq!(changed, 1.0);
    assert_eq!(root.revisions().len(), 1);
}

#[test]
fn a_ref_that_is_deleted_leaves_the_tree_and_one_that_comes_back_is_followed() {
    let upstream = Upstream::new();
    let commit = upstream.commit_changes("topic", &[Change::file("a", "1")]);
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "topic");
    upstream.delete_ref("refs/heads/topic");
    let missing = [("stage", "poll"), ("reason", "ref_missing")];
    sidecar.wait_for_metric("gvr_sync_failures_total", &missing, 1.0);
    root.assert_published(&upstream, &commit);
    let again = upstream.commit_changes("topic", &[Change::file("b", "2")]);
    sidecar.wait_for(&root, &again);
    root.assert_published(&upstream, &again);
}

#[test]
fn a_restart_with_another_branch_switches_to_it_and_back() {
    let upstream = Upstream::new();
    let main = upstream.tip("HEAD");
    let topic = upstream.commit_changes("topic", &[Change::file("a", "topic")]);
    let root = Root::new();
    for (name, commit) in [("main", &main), ("topic", &topic), ("main", &main)] {
        following(&upstream, &root, name).stop();
        root.assert_published(&upstream, commit);
        root.assert_tidy(&[]);
    }
}

#[test]
fn of_several_pushes_at_once_the_last_one_is_published() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "main");
    let chain: Vec<_> = (0..20)
        .map(|n| vec![Change::file("counter", format!("{n}"))])
        .collect();
    let commits = upstream.prepare(&chain);
    for commit in &commits {
        upstream.force_push("main", commit);
    }
    sidecar.wait_for(&root, &commits[19]);
    root.assert_published(&upstream, &commits[19]);
}

#[test]
fn moves_outside_the_shallow_history_work_both_ways() {
    let upstream = Upstream::new();
    let chain: Vec<_> = (0..30)
        .map(|n| vec![Change::file(format!("file-{n}"), format!("{n}"))])
        .collect();
    let commits = upstream.prepare(&chain);
    upstream.force_push("main", &commits[29]);
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "main");
    for i in [3, 27, 0, 15, 29] {
        upstream.force_push("main", &commits[i]);
        sidecar.wait_for(&root, &commits[i]);
        root.assert_published(&upstream, &commits[i]);
    }
}

#[test]
fn restarts_with_full_ids_move_outside_the_shallow_history_both_ways() {
    let upstream = Upstream::new();
    let chain: Vec<_> = (0..10)
        .map(|n| vec![Change::file(format!("file-{n}"), format!("{n}"))])
        .collect();
    let commits = upstream.prepare(&chain);
    upstream.force_push("main", &commits[9]);
    let root = Root::new();
    for i in [9, 2, 7, 0, 9] {
        Launch::one_time(&upstream.url(), &root)
            .flag("ref", &commits[i])
            .succeed();
        root.assert_published(&upstream, &commits[i]);
    }
    root.assert_tidy(&[]);
}

#[test]
fn a_file_named_like_the_commit_is_a_file() {
    let upstream = Upstream::new();
    let first = upstream.tip("HEAD");
    let commit = upstream.commit(&[(&first, "a file"), ("current", "x"), (".gvr", "y")]);
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &commit);
}

#[test]
fn full_history_and_a_given_depth_publish_the_same_tree() {
    let upstream = Upstream::new();
    for n in 0..5 {
        upstream.commit(&[("n", &n.to_string())]);
    }
    for depth in ["0", "1", "3"] {
        let root = Root::new();
        let launch = Launch::one_time(&upstream.url(), &root).flag("depth", depth);
        launch.succeed();
        root.assert_published(&upstream, &upstream.tip("HEAD"));
    }
}

#[test]
fn a_hundred_thousand_other_refs_are_no_matter() {
    let upstream = Upstream::new();
    upstream.many_refs(100_000);
    let root = Root::new();
    let mut sidecar = following(&upstream, &root, "main");
    let commit = upstream.commit(&[("a", "b")]);
    sidecar.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
}

#[test]
fn a_packed_ref_is_a_ref() {
    let upstream = Upstream::new();
    upstream.annotated_tag("v1", &upstream.tip("HEAD"));
    upstream.git(&["pack-refs", "--all"]);
    upstream.git(&["gc", "--quiet"]);
    for name in ["HEAD", "main", "v1"] {
        let root = Root::new();
        Launch::one_time(&upstream.url(), &root)
            .flag("ref", name)
            .succeed();
        root.assert_published(&upstream, &upstream.tip(name));
    }
}

#[test]
fn what_changed_under_the_watched_paths_is_judged_against_what_readers_see() {
    let upstream = Upstream::new();
    let root = Root::new();
    let first = upstream.commit(&[("docs/page", "1"), ("src/code", "1")]);
    let mut sidecar = watching_docs(&upstream, &root);
    sidecar.wait_for(&root, &first);
    let second = upstream.commit(&[("docs/page", "2")]);
    sidecar.wait_for(&root, &second);
    upstream.force_push("main", &first);
    sidecar.wait_for(&root, &first);
    // Nothing to readers of the first commit, but not to readers of the second.
    let other = upstream.commit(&[("src/code", "2")]);
    let fetched = root.state(&format!("store.git/refs/gvr/{other}"));
    wait_until(PATIENCE, "the commit is looked at", || fetched.exists());
    sidecar.wait_for_polls(2);
    assert_eq!(root.commit(), Some(first));
    upstream.force_push("main", &second);
    sidecar.wait_for(&root, &second);
    upstream.force_push("main", &other);
    sidecar.wait_for(&root, &other);
}

#[test]
fn commits_that_are_not_published_do_not_fill_the_volume() {
    let upstream = Upstream::new();
    let root = Root::new();
    let first = upstream.commit(&[("docs/page", "1")]);
    let mut sidecar = watching_docs(&upstream, &root);
    sidecar.wait_for(&root, &first);
    for i in 0..30 {
        let next = upstream.commit(&[("src/code", &i.to_string())]);
        let fetched = root.state(&format!("store.git/refs/gvr/{next}"));
        wait_until(PATIENCE, "the commit is looked at", || fetched.exists());
        sidecar.wait_for_polls(1);
    }
    assert_eq!(root.commit(), Some(first));
    let packs = fs::read_dir(root.state("store.git/objects/pack")).unwrap();
    assert!(packs.count() <= 2 * 18, "packs and their indexes pile up");
}

fn watching_docs(upstream: &Upstream, root: &Root) -> Sidecar {
    Launch::new(&upstream.url(), root)
        .flag("path", "docs")
        .flag("publish-on", "paths")
        .http()
        .spawn()
}
