//! Part of a repository: sparse patterns, paths, and publishing only when they changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;

use super::git_in;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::tree_compare::assert_same;
use crate::support::upstream::Upstream;

fn upstream() -> Upstream {
    let upstream = Upstream::new();
    upstream.commit(&[
        ("docs/index.md", "index\n"),
        ("docs/img/a.svg", "<svg/>\n"),
        ("docs/internal/plan.md", "plan\n"),
        ("src/main.rs", "fn main() {}\n"),
        ("src/README.md", "src\n"),
        ("tools/x/y", "y\n"),
    ]);
    upstream
}

/// A clone whose sparse checkout git has set up: its tree, and the file that git wrote for it.
fn sparse_clone(upstream: &Upstream, words: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    git_in(
        dir.path(),
        &["clone", "-q", "--no-checkout", &upstream.url(), "clone"],
    );
    let clone = dir.path().join("clone");
    git_in(&clone, &[&["sparse-checkout", "set"], words].concat());
    git_in(&clone, &["checkout", "-q", "main"]);
    let patterns = clone.join(".git/info/sparse-checkout");
    (dir, patterns)
}

fn sparse(upstream: &Upstream, root: &Root, patterns: &Path) -> Launch {
    Launch::one_time(&upstream.url(), root).flag("sparse-checkout-file", patterns.to_str().unwrap())
}

#[test]
fn sparse_patterns_select_what_git_selects_with_cone_and_without() {
    let upstream = upstream();
    for words in [
        &["--cone", "docs/img", "tools"][..],
        &["--no-cone", "/*.md", "docs/**", "!docs/internal/"],
        &["--no-cone", "README.md", "!/README.md", "*.rs"],
    ] {
        let (clone, patterns) = sparse_clone(&upstream, words);
        let root = Root::new();
        sparse(&upstream, &root, &patterns).succeed();
        assert_same(&root.tree(), &clone.path().join("clone"));
    }
}

#[test]
fn paths_are_files_and_whole_directories() {
    let upstream = upstream();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root)
        .flag("path", "docs")
        .also("path", "src/main.rs")
        .also("path", "not/there")
        .succeed();
    let (clone, _) = sparse_clone(&upstream, &["--no-cone", "/docs/", "/src/main.rs"]);
    assert_same(&root.tree(), &clone.path().join("clone"));
}

#[test]
fn other_patterns_at_the_same_commit_make_another_revision() {
    let upstream = upstream();
    let commit = upstream.tip("main");
    let root = Root::new();
    let patterns = root.path().with_file_name("patterns");
    fs::write(&patterns, "/docs/\n").unwrap();
    sparse(&upstream, &root, &patterns).succeed();
    let (old, first) = (root.tree(), root.revision());
    let (before, _) = sparse_clone(&upstream, &["--no-cone", "/docs/"]);

    fs::write(&patterns, "/docs/\n!/docs/internal/\n/src/\n").unwrap();
    sparse(&upstream, &root, &patterns).succeed();
    assert_eq!(root.commit(), Some(commit));
    assert!(root.revision() > first);
    assert_same(&old, &before.path().join("clone"));
    let (after, _) = sparse_clone(
        &upstream,
        &["--no-cone", "/docs/", "!/docs/internal/", "/src/"],
    );
    assert_same(&root.tree(), &after.path().join("clone"));

    // Back again: the first tree still stands, and is what the link leads to.
    fs::write(&patterns, "/docs/\n").unwrap();
    sparse(&upstream, &root, &patterns).succeed();
    assert_eq!(root.revision(), first);
}

#[test]
fn the_patterns_are_read_at_the_start_and_not_again() {
    let upstream = upstream();
    let root = Root::new();
    let patterns = root.path().with_file_name("patterns");
    fs::write(&patterns, "/docs/\n").unwrap();
    let launch = sparse(&upstream, &root, &patterns)
        .without("one-time")
        .http();
    let mut sidecar = launch.clone().spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    let revision = root.revision();
    fs::write(&patterns, "/src/\n").unwrap();
    sidecar.wait_for_polls(2);
    assert_eq!(root.revision(), revision);
    let commit = upstream.commit(&[("docs/new", ""), ("src/new", "")]);
    sidecar.wait_for(&root, &commit);
    assert!(root.tree().join("docs/new").exists());
    assert!(!root.tree().join("src").exists());
    sidecar.stop();

    let revision = root.revision();
    let mut sidecar = launch.spawn();
    sidecar.wait_while_alive("the new patterns", |_| root.revision() > revision);
    assert!(root.tree().join("src/new").exists());
}

#[test]
fn publishing_on_paths_flips_only_when_something_under_them_changed() {
    let upstream = upstream();
    let root = Root::new();
    let touched = root.path().with_file_name("touched");
    let launch = Launch::new(&upstream.url(), &root)
        .flag("path", "docs")
        .flag("publish-on", "paths")
        .flag("touch-file", touched.to_str().unwrap())
        .http();
    let mut sidecar = launch.clone().spawn();
    let first = upstream.tip("main");
    sidecar.wait_for(&root, &first);
    sidecar.wait_while_alive("the touch file", |_| touched.exists());
    sidecar.wait_for_polls(1);
    let notified = modified(&touched);
    let revision = root.revision();

    upstream.commit(&[("src/main.rs", "changed\n")]);
    // The first of these may have asked before the push.
    sidecar.wait_for_polls(3);
    assert_eq!(
        (root.commit(), root.revision()),
        (Some(first.clone()), revision)
    );
    assert_eq!(modified(&touched), notified);
    assert_eq!(sidecar.metric("gvr_ready", &[]), 1.0);
    sidecar.stop();

    // A restart knows nothing of what the first life found out.
    upstream.commit(&[("tools/x/y", "changed\n")]);
    let mut sidecar = launch.clone().spawn();
    sidecar.wait_for_polls(3);
    assert_eq!((root.commit(), root.revision()), (Some(first), revision));
    assert_eq!(modified(&touched), notified);

    let commit = upstream.commit(&[("docs/index.md", "changed\n")]);
    sidecar.wait_for(&root, &commit);
    sidecar.wait_while_alive("the touch file", |_| modified(&touched) != notified);
    sidecar.stop();

    // And as an init container: nothing to do is a success.
    upstream.commit(&[("src/main.rs", "again\n")]);
    launch.without("period").switch("one-time").succeed();
    assert_eq!(root.commit(), Some(commit));
    root.assert_tidy(&[]);
}

#[test]
fn publishing_on_commits_flips_even_if_nothing_under_the_paths_changed() {
    let upstream = upstream();
    let root = Root::new();
    let launch = Launch::one_time(&upstream.url(), &root).flag("path", "docs");
    launch.clone().succeed();
    let commit = upstream.commit(&[("src/main.rs", "changed\n")]);
    launch.succeed();
    assert_eq!(root.commit(), Some(commit));
}

fn modified(file: &Path) -> SystemTime {
    fs::metadata(file).unwrap().modified().unwrap()
}
