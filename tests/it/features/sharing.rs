//! What revisions share, whom their files belong to, and how long they stay.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::tree_compare::assert_same;
use crate::support::upstream::{Change, Upstream};

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn two_files() -> Upstream {
    let upstream = Upstream::new();
    upstream.commit_changes(
        "main",
        &[
            Change::file("dir/same", "same\n"),
            Change::Executable("dir/run".into(), b"#!/bin/sh\n".to_vec()),
        ],
    );
    upstream
}

#[test]
fn each_way_of_sharing_gives_the_same_tree() {
    for (share, one_inode) in [("hardlink", true), ("reflink", false), ("none", false)] {
        let upstream = two_files();
        let root = Root::new();
        let launch = Launch::one_time(&upstream.url(), &root).flag("share", share);
        launch.clone().succeed();
        let before = root.tree();
        let commit = upstream.commit(&[("new", "")]);
        launch.succeed();
        root.assert_published(&upstream, &commit);
        let shared = inode(&before.join("dir/same")) == inode(&root.tree().join("dir/same"));
        assert_eq!(shared, one_inode, "{share}");
    }
}

#[test]
fn a_file_system_without_clones_is_said_once_and_the_files_are_copied() {
    let upstream = two_files();
    // tmpfs has no reflinks.
    let disk = crate::support::full_disk::FullDisk::new(4096);
    let root = Root::at(&disk.path().join("root"));
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("share", "reflink")
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    for n in 0..3 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &commit);
        root.assert_published(&upstream, &commit);
    }
    let finished = sidecar.stop();
    assert_eq!(
        finished.stderr.matches("cannot be shared").count(),
        1,
        "{}",
        finished.stderr
    );
}

#[test]
fn a_file_that_a_consumer_altered_is_fresh_in_the_next_revision() {
    for after_linking_ahead in [false, true] {
        let upstream = two_files();
        let root = Root::new();
        let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
        sidecar.wait_for(&root, &upstream.tip("main"));
        if after_linking_ahead {
            sidecar.wait_while_alive("the links to be made", |_| root.is_linked_ahead());
        }
        let altered = root.tree().join("dir/same");
        fs::write(&altered, "SAME\n").unwrap();
        let commit = upstream.commit(&[("new", "")]);
        sidecar.wait_for(&root, &commit);
        root.assert_published(&upstream, &commit);
        assert_ne!(inode(&altered), inode(&root.tree().join("dir/same")));
        assert_eq!(fs::read(altered).unwrap(), b"SAME\n");
    }
}

#[test]
fn what_was_linked_ahead_becomes_the_next_tree() {
    let upstream = two_files();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    for n in 0..3 {
        sidecar.wait_while_alive("the links to be made", |_| root.is_linked_ahead());
        let linked = inode(&root.spare().join("dir"));
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &commit);
        root.assert_published(&upstream, &commit);
        assert_eq!(inode(&root.tree().join("dir")), linked);
    }
    let left = || fs::read_dir(root.state("spare")).unwrap().count();
    sidecar.wait_while_alive("the links to be made", |_| {
        root.is_linked_ahead() && left() == 1 && root.litter(&[]).is_empty()
    });
    sidecar.stop();
    // Whoever runs once has no use for it.
    Launch::one_time(&upstream.url(), &root).succeed();
    assert_eq!(left(), 0);
}

#[test]
fn what_was_linked_ahead_goes_with_its_revision() {
    let upstream = two_files();
    let first = upstream.tip("main");
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "0")
        .flag("stale-timeout", "2s")
        .spawn();
    sidecar.wait_for(&root, &first);
    let second = upstream.commit(&[("dir/gone", "gone")]);
    sidecar.wait_for(&root, &second);
    sidecar.wait_while_alive("the links to be made", |_| root.is_linked_ahead());
    // Back to a tree that is still there: the newest one is removed, and none takes its place.
    upstream.force_push("main", &first);
    sidecar.wait_for(&root, &first);
    sidecar.wait_while_alive("the other tree and its links to be gone", |_| {
        root.revisions().len() == 1 && root.litter(&[]).is_empty() && root.is_linked_ahead()
    });
}

#[test]
fn links_are_made_ahead_once_a_remote_that_was_away_is_back() {
    let upstream = two_files();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    upstream.remove();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for_log("the sync failed");
    upstream.restore();
    sidecar.wait_while_alive("the links to be made", |_| root.is_linked_ahead());
}

#[test]
fn what_was_linked_ahead_gives_way_to_a_tree_that_has_no_room_beside_it() {
    let upstream = Upstream::new();
    let tree = |name: &str| -> Vec<_> {
        (0..50)
            .map(|n| Change::file(format!("{name}{n}/file"), "content"))
            .collect()
    };
    let first = upstream.commit_changes("main", &tree("before"));
    let disk = crate::support::full_disk::FullDisk::new(16 << 10);
    let root = Root::at(&disk.path().join("root"));
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for(&root, &first);
    sidecar.wait_while_alive("the links to be made", |_| root.is_linked_ahead());
    // More than the store needs, less than the new tree: with its 101 paths, the spare has room.
    disk.leave_inodes(60);
    let commit = upstream.rewrite_from_nothing("main", &tree("after"));
    sidecar.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
    let failed = [("outcome", "error")];
    assert_eq!(sidecar.metric("gvr_syncs_total", &failed), 0.0);
}

#[test]
fn nothing_is_linked_ahead_on_a_full_disk_or_without_hard_links() {
    let upstream = Upstream::new();
    let files: Vec<_> = (0..50)
        .map(|n| Change::file(format!("d{n}/file"), "content"))
        .collect();
    let first = upstream.commit_changes("main", &files);
    // A file system on which a link costs an inode.
    let disk = crate::support::full_disk::FullDisk::new(16 << 10);
    let root = Root::at(&disk.path().join("root"));
    Launch::one_time(&upstream.url(), &root).succeed();
    disk.leave_inodes(20);
    let launch = Launch::new(&upstream.url(), &root).http();
    let mut sidecar = launch.clone().flag("log-level", "debug").spawn();
    sidecar.wait_for_log("not linked ahead");
    sidecar.wait_while_alive("the links to be gone", |_| root.litter(&[]).is_empty());
    assert!(!root.spare().exists());
    sidecar.wait_for_polls(3);
    assert_eq!(sidecar.metric("gvr_consecutive_failures", &[]), 0.0);
    root.assert_published(&upstream, &first);
    disk.leave_inodes(10_000);
    let commit = upstream.commit(&[("new", "")]);
    sidecar.wait_for(&root, &commit);
    sidecar.wait_while_alive("the links to be made", |_| root.is_linked_ahead());
    sidecar.stop();

    for share in ["none", "reflink"] {
        let mut sidecar = launch.clone().flag("share", share).spawn();
        let commit = upstream.commit(&[("share", share)]);
        sidecar.wait_for(&root, &commit);
        sidecar.wait_for_polls(3);
        assert!(!root.spare().exists(), "{share}");
        sidecar.stop();
    }
}

#[test]
fn group_write_and_umask_decide_the_permission_bits() {
    let upstream = two_files();
    let root = Root::new();
    let under = |umask: &str, launch: Launch| {
        launch.under(&["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"])
    };
    let launch = || Launch::one_time(&upstream.url(), &root);
    let modes = || ["dir", "dir/same", "dir/run"].map(|path| mode(&root.tree().join(path)));
    under("022", launch()).succeed();
    assert_eq!(modes(), [0o755, 0o644, 0o755]);
    // Other modes at the same commit are another revision.
    under("027", launch()).succeed();
    assert_eq!(modes(), [0o750, 0o640, 0o750]);
    under("022", launch().switch("group-write")).succeed();
    assert_eq!(modes(), [0o775, 0o664, 0o775]);
    assert_eq!(root.revision(), 3);
}

#[test]
fn keep_and_stale_timeout_decide_how_long_old_trees_stay() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "2")
        .flag("stale-timeout", "0s")
        .http()
        .spawn();
    let mut commits = vec![upstream.tip("main")];
    sidecar.wait_for(&root, &commits[0]);
    for n in 0..5 {
        commits.push(upstream.commit(&[("n", &n.to_string())]));
        sidecar.wait_for(&root, commits.last().unwrap());
    }
    sidecar.wait_while_alive("two old trees and the live one", |_| {
        root.revisions().len() == 3
    });
    sidecar.wait_for_polls(3);
    let left: Vec<_> = root
        .revisions()
        .into_iter()
        .map(|(_, commit)| commit)
        .collect();
    assert_eq!(left, commits[3..]);
    assert_eq!(sidecar.metric("gvr_revisions", &[]), 3.0);
    sidecar.stop();

    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "0")
        .flag("stale-timeout", "1h")
        .http()
        .spawn();
    sidecar.wait_for(&root, commits.last().unwrap());
    let old = root.tree();
    for n in 5..8 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &commit);
    }
    sidecar.wait_for_polls(3);
    assert_eq!(root.revisions().len(), 4);
    assert_same(&old, upstream.checkout(commits.last().unwrap()).path());
}
