//! Published trees against git's own checkouts, over a repository that is rich in features.

use std::fs;

use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};

/// Commits that each change something that a checkout has to get right; their ids, oldest first.
fn rich(upstream: &Upstream) -> Vec<String> {
    let file = |path: &str, content: &str| Change::file(path, content);
    let long = "n".repeat(250);
    let deep = "d/".repeat(60);
    let chain: Vec<Vec<Change>> = vec![
        vec![
            file(".gitattributes", "*.txt text\n*.bat eol=crlf\n*.id ident\n"),
            file("a.txt", "one\ntwo\n"),
            file("run.bat", "echo\nexit\n"),
            file("v.id", "$Id$\n"),
            file("bin", "\0\r\n\0"),
            file("empty", ""),
        ],
        vec![
            Change::Executable("tool".into(), b"#!/bin/sh\n".to_vec()),
            Change::Symlink("dangling".into(), "no/where".into()),
            Change::Symlink("absolute".into(), "/etc/hostname".into()),
            Change::Symlink("dirlink".into(), "sub".into()),
            file("sub/file", "in sub\n"),
        ],
        // Attributes alone: nothing else changes, and yet files do.
        vec![file(
            ".gitattributes",
            "*.txt text eol=crlf\n*.bat -text\n*.id -ident\n",
        )],
        vec![
            file(
                "sub/.gitattributes",
                "[attr]win text eol=crlf\n*.txt -eol\nb.txt win\n",
            ),
            file("sub/a.txt", "nested\n"),
            file("sub/b.txt", "nested\n"),
        ],
        // A directory becomes a link, a link a directory, a file a directory.
        vec![
            Change::Delete("sub".into()),
            Change::Symlink("sub".into(), "tool".into()),
            Change::Delete("dirlink".into()),
            file("dirlink/now/a", "directory\n"),
            Change::Delete("empty".into()),
            file("empty/not", "any more\n"),
        ],
        vec![
            file("README", "upper\n"),
            file("readme", "lower\n"),
            file(&long, "long\n"),
            file(&format!("{deep}leaf"), "deep\n"),
            file("\"line\\nbreak\\377\"", "a name to quote\n"),
            file("-dash", "dash\n"),
            file("tab\there", "tab\n"),
        ],
        vec![
            file("utf16", "text in\nUTF-8\n"),
            file(
                ".gitattributes",
                "utf16 text working-tree-encoding=UTF-16LE-BOM\n*.txt text\n",
            ),
        ],
        // Modes alone.
        vec![
            Change::Executable("a.txt".into(), b"one\ntwo\n".to_vec()),
            file("tool", "#!/bin/sh\n"),
        ],
        vec![
            Change::Submodule("module".into(), "1".repeat(40)),
            file("crlf.txt", "is\r\nkept\r\n"),
            file("raw.txt", "mixed\r\nand\nnot\n"),
        ],
        (0..300)
            .map(|n| file(&format!("wide/{n:03}"), &n.to_string()))
            .collect(),
    ];
    let commits = upstream.prepare(&chain);
    upstream.force_push("main", commits.last().unwrap());
    commits
}

#[test]
fn ten_commits_in_random_order_are_what_git_checks_out() {
    let upstream = Upstream::empty();
    let mut commits = rich(&upstream);
    let seed = fastrand::u64(..);
    fastrand::Rng::with_seed(seed).shuffle(&mut commits);
    let root = Root::new();
    for (at, commit) in commits.iter().enumerate() {
        let finished = Launch::one_time(&upstream.url(), &root)
            .flag("ref", commit)
            .run();
        assert_eq!(
            finished.code,
            Some(0),
            "seed {seed}, {at}: {}",
            finished.stderr
        );
        assert_eq!(root.commit().as_ref(), Some(commit));
        let differences = crate::support::tree_compare::differences(
            &root.tree(),
            upstream.checkout(commit).path(),
        );
        assert_eq!(differences, [""; 0], "seed {seed}, {at}: {commits:?}");
    }
    root.assert_tidy(&[]);
}

#[test]
fn a_change_of_attributes_alone_is_published_with_what_it_changes() {
    let upstream = Upstream::new();
    upstream.commit(&[("a.txt", "one\ntwo\n"), ("b.md", "one\n")]);
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    let commit = upstream.commit(&[(".gitattributes", "*.txt text eol=crlf\n")]);
    sidecar.wait_for(&root, &commit);
    assert_eq!(
        fs::read(root.tree().join("a.txt")).unwrap(),
        b"one\r\ntwo\r\n"
    );
    root.assert_published(&upstream, &commit);
    let commit = upstream.commit_changes("main", &[Change::Delete(".gitattributes".into())]);
    sidecar.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
}

#[test]
fn filters_are_not_run_and_said_once_with_the_files_they_are_for() {
    let upstream = Upstream::new();
    upstream.commit(&[
        (
            ".gitattributes",
            "*.psd filter=lfs diff=lfs merge=lfs -text\n*.x filter=own\n",
        ),
        (
            "art/logo.psd",
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        ),
        ("code.x", "as it is\n"),
    ]);
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    let commit = upstream.commit(&[("unrelated", "")]);
    sidecar.wait_for(&root, &commit);
    sidecar.wait_for_polls(2);
    let finished = sidecar.stop();
    root.assert_published(&upstream, &commit);
    let warnings: Vec<_> = finished
        .stderr
        .lines()
        .filter(|line| line.contains("filters are not run"))
        .collect();
    assert_eq!(warnings.len(), 1, "{}", finished.stderr);
    assert!(warnings[0].contains("art/logo.psd") && warnings[0].contains("code.x"));
    assert!(warnings[0].contains("WARN"), "{}", warnings[0]);
}
