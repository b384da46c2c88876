//! `--git-dir`: git commands work inside the published tree.

use std::fs;
use std::path::{Path, PathBuf};

use super::git_in;
use crate::support::http_server::{HttpServer, Request};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};

fn launch(upstream: &Upstream, root: &Root) -> Launch {
    Launch::new(&upstream.url(), root)
        .switch("git-dir")
        .flag("depth", "0")
}

/// Asserts that git, run through `link`, sees this commit with all its history and nothing changed.
#[track_caller]
fn assert_works(link: &Path, upstream: &Upstream, commit: &str) {
    assert_eq!(git_in(link, &["rev-parse", "HEAD"]), commit);
    let expected = upstream.git(&["log", "--format=%H %s %at", commit]);
    assert_eq!(
        git_in(link, &["log", "--format=%H %s %at", "HEAD"]),
        expected
    );
    assert_eq!(git_in(link, &["status", "--porcelain"]), "");
    assert_eq!(
        git_in(link, &["log", "-1", "--format=%at", "--", "README.md"]),
        upstream.git(&["log", "-1", "--format=%at", commit, "--", "README.md"])
    );
    git_in(link, &["fsck", "--connectivity-only"]);
}

#[test]
fn git_works_through_the_link_also_after_updates_pruning_and_upkeep() {
    let upstream = Upstream::new();
    upstream.commit_changes(
        "main",
        &[
            Change::Executable("bin/run".into(), b"#!/bin/sh\n".to_vec()),
            Change::Symlink("link".into(), "bin/run".into()),
        ],
    );
    let root = Root::new();
    let mut sidecar = launch(&upstream, &root)
        .flag("stale-timeout", "0s")
        .flag("keep", "1")
        .http()
        .spawn();
    for n in 0..12 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &commit);
        assert_works(root.link(), &upstream, &commit);
    }
    sidecar.wait_while_alive("the old trees to go", |_| root.revisions().len() == 2);
    sidecar.wait_for_polls(2);
    assert_works(root.link(), &upstream, &upstream.tip("main"));
    // A reader that resolved the link before the last flip works on, too.
    let (n, previous) = root.revisions().remove(0);
    let tree = root
        .state("revisions")
        .join(format!("{n:06}"))
        .join(&previous);
    assert_works(&tree, &upstream, &previous);
    sidecar.stop();
    // What git writes into its directory is no damage.
    let revision = root.revision();
    Launch::one_time(&upstream.url(), &root)
        .switch("git-dir")
        .flag("depth", "0")
        .succeed();
    assert_eq!(root.revision(), revision);
}

#[test]
fn a_shallow_history_is_shallow_for_git_too() {
    let upstream = Upstream::new();
    for n in 0..5 {
        upstream.commit(&[("n", &n.to_string())]);
    }
    let root = Root::new();
    let launch = launch(&upstream, &root)
        .flag("depth", "2")
        .switch("one-time");
    for n in 5..9 {
        launch.clone().succeed();
        let last_two = upstream.git(&["log", "-2", "--format=%H", "main"]);
        let seen = git_in(root.link(), &["log", "-2", "--format=%H"]);
        assert_eq!(seen, last_two);
        git_in(root.link(), &["fsck", "--connectivity-only"]);
        assert_eq!(git_in(root.link(), &["status", "--porcelain"]), "");
        upstream.commit(&[("n", &n.to_string())]);
    }
}

#[test]
fn another_depth_at_the_same_commit_shows_another_history() {
    let upstream = Upstream::new();
    for n in 0..5 {
        upstream.commit(&[("n", &n.to_string())]);
    }
    let tip = upstream.tip("main");
    let site = super::Site::new(&[("repo.git", &upstream)]);
    let server = HttpServer::start(site.path());
    for (repo, version_0) in [
        (upstream.url(), false),
        (server.url("repo.git"), false),
        (server.url("repo.git"), true),
    ] {
        server.only_version_0(version_0);
        let root = Root::new();
        let mut trees: Vec<(PathBuf, String)> = Vec::new();
        for depth in ["1", "3", "0", "2"] {
            Launch::one_time(&repo, &root)
                .switch("git-dir")
                .flag("depth", depth)
                .succeed();
            assert_eq!(root.commit().as_deref(), Some(&*tip));
            let all = depth == "0";
            let count = if all { "100" } else { depth };
            let expected = upstream.git(&["log", "--format=%H", "-n", count, &tip]);
            trees.push((root.tree(), expected));
            // Those from before show what they did.
            for (tree, expected) in &trees {
                assert_eq!(git_in(tree, &["log", "--format=%H"]), *expected, "{depth}");
                git_in(tree, &["fsck", "--connectivity-only"]);
                assert_eq!(git_in(tree, &["status", "--porcelain"]), "");
            }
        }
        assert_eq!(root.revision(), 4, "{repo}");
        server.clear_log();
        let same = Launch::one_time(&repo, &root).switch("git-dir");
        same.flag("depth", "2").succeed();
        assert_eq!(root.revision(), 4, "{repo}");
        let fetched = |request: &Request| request.body.windows(5).any(|w| w == b"want ");
        assert!(!server.requests().iter().any(fetched), "{repo}");
    }
}

#[test]
fn a_kept_tree_of_the_same_depth_does_not_speak_for_another_commit() {
    let upstream = Upstream::new();
    for n in 0..5 {
        upstream.commit(&[("n", &n.to_string())]);
    }
    let root = Root::new();
    let launch = launch(&upstream, &root).switch("one-time");
    let assert_depth = |depth: &str| {
        launch.clone().flag("depth", depth).succeed();
        let expected = upstream.git(&["log", "--format=%H", "-n", depth, "main"]);
        assert_eq!(git_in(root.link(), &["log", "--format=%H"]), expected);
    };
    assert_depth("3");
    upstream.commit(&[("n", "5")]);
    assert_depth("1");
    assert_depth("3");
}

#[test]
fn git_works_when_the_volume_is_mounted_elsewhere() {
    let upstream = Upstream::new();
    let root = Root::new();
    launch(&upstream, &root).switch("one-time").succeed();
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("deep/er");
    fs::create_dir_all(moved.parent().unwrap()).unwrap();
    fs::rename(root.path(), &moved).unwrap();
    assert_works(&moved.join("current"), &upstream, &upstream.tip("main"));
    fs::rename(&moved, root.path()).unwrap();
}

#[test]
fn git_describe_finds_the_tags_that_the_remote_has() {
    let upstream = Upstream::new();
    let site = super::Site::new(&[("repo.git", &upstream)]);
    let server = HttpServer::start(site.path());
    for repo in [upstream.url(), server.url("repo.git")] {
        let root = Root::new();
        let mut sidecar = Launch::new(&repo, &root)
            .switch("git-dir")
            .flag("depth", "0")
            .flag("stale-timeout", "0s")
            .http()
            .spawn();
        // More updates than the store has packs for.
        for n in 0..20 {
            let change = Change::file("n", n.to_string());
            let commit = upstream.prepare(&[vec![change]]).remove(0);
            // Before its commit: a tag object comes with the commit, or not at all.
            if n % 4 == 0 {
                upstream.annotated_tag(&format!("v{n}"), &commit);
            }
            upstream.force_push("main", &commit);
            sidecar.wait_for(&root, &commit);
        }
        sidecar.wait_for_polls(2);
        // Which of the last tags came before its commit was fetched is left to chance: the next
        // commit brings the others.
        let commit = upstream.commit(&[("n", "last")]);
        sidecar.wait_for(&root, &commit);
        // Without --tags, git only looks at annotated ones, whose objects must be there.
        let tip = upstream.tip("main");
        let expected = upstream.git(&["describe", &tip]);
        assert_eq!(git_in(root.link(), &["describe"]), expected);
        let tags = upstream.git(&["tag", "--merged", &tip]);
        assert_eq!(git_in(root.link(), &["tag"]), tags);
        git_in(root.link(), &["fsck", "--connectivity-only"]);

        // Tags for commits that were there before them: an annotated and a lightweight one.
        upstream.annotated_tag("late", &tip);
        upstream.tag("light", &upstream.tip("main~1"));
        let commit = upstream.commit(&[("after", &repo)]);
        sidecar.wait_for(&root, &commit);
        for tags in [&["describe"][..], &["describe", "--tags"]] {
            let expected = upstream.git(&[tags, &[&commit]].concat());
            assert_eq!(git_in(root.link(), tags), expected);
        }
        sidecar.stop();
        upstream.delete_ref("refs/tags/late");
    }
}

#[test]
fn a_tag_on_the_only_commit_of_a_shallow_history_is_found() {
    let upstream = Upstream::new();
    let commit = upstream.commit(&[("a", "")]);
    upstream.annotated_tag("v1", &commit);
    let site = super::Site::new(&[("repo.git", &upstream)]);
    let server = HttpServer::start(site.path());
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let root = Root::new();
        Launch::one_time(&server.url("repo.git"), &root)
            .switch("git-dir")
            .succeed();
        let described = if version_0 { &commit[..7] } else { "v1" };
        assert_eq!(git_in(root.link(), &["describe", "--always"]), described);
    }
}

#[test]
fn a_git_directory_and_publishing_by_exchange_exclude_each_other() {
    let upstream = Upstream::new();
    let root = Root::new();
    launch(&upstream, &root)
        .flag("publish", "exchange")
        .run()
        .assert_failed(&[2], &["--git-dir", "--publish exchange"]);
    assert!(!root.path().exists());
}
