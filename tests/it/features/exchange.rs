//! `--publish exchange`: the link path is a real directory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{error_file, stage_and_reason};
use crate::support::full_disk::FullDisk;
use crate::support::readers::{Readers, generation, read_tree};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::tree_compare::assert_same;
use crate::support::upstream::Upstream;

const FLIPS: u64 = 25;

fn launch(upstream: &Upstream, root: &Root) -> Launch {
    Launch::new(&upstream.url(), root).flag("publish", "exchange")
}

fn is_real_directory(root: &Root) -> bool {
    fs::symlink_metadata(root.link()).is_ok_and(|meta| meta.is_dir())
}

#[test]
fn readers_of_a_real_directory_see_whole_trees_only() {
    let upstream = Upstream::empty();
    upstream.commit_changes("main", &generation(0));
    let root = Root::new();
    let mut sidecar = launch(&upstream, &root).flag("period", "10ms").spawn();
    sidecar.wait_while_alive("the first tree", |_| is_real_directory(&root));
    let readers = Readers::start(2, root.link());
    for n in 1..=FLIPS {
        upstream.commit_changes("main", &generation(n));
        sidecar.wait_while_alive(&format!("generation {n}"), |_| {
            read_tree(root.link()) == Ok(n)
        });
        assert!(is_real_directory(&root));
    }
    let seen = readers.finish();
    assert_eq!(seen.torn, [""; 0]);
    assert!(seen.whole >= FLIPS, "{seen:?}");
    let oracle = upstream.checkout(&upstream.tip("main"));
    assert_same(root.link(), oracle.path());
}

#[test]
fn a_restart_keeps_the_directory_and_follows_on() {
    let upstream = Upstream::new();
    let root = Root::new();
    launch(&upstream, &root).switch("one-time").succeed();
    let inode = || fs::metadata(root.link()).unwrap().ino();
    let first = inode();
    launch(&upstream, &root).switch("one-time").succeed();
    assert_eq!(inode(), first, "nothing new: nothing is swapped");
    for n in 0..3 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        launch(&upstream, &root).switch("one-time").succeed();
        assert_same(root.link(), upstream.checkout(&commit).path());
    }
    assert_ne!(inode(), first);
    let mut sidecar = launch(&upstream, &root).spawn();
    for n in 3..6 {
        let commit = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_while_alive("the next tree", |_| {
            fs::read_to_string(root.link().join("n")).is_ok_and(|text| text == n.to_string())
        });
        sidecar.signal(rustix::process::Signal::KILL);
        sidecar.wait_exit(crate::support::wait::PATIENCE);
        sidecar = launch(&upstream, &root).spawn();
        sidecar.wait_for_log("starting");
        sidecar.wait_while_alive("the tree to stay", |_| {
            fs::read_to_string(root.link().join("n")).is_ok_and(|text| text == n.to_string())
        });
        assert_same(root.link(), upstream.checkout(&commit).path());
    }
    sidecar.stop();
}

#[test]
fn a_way_back_swaps_the_tree_that_is_still_there() {
    let upstream = Upstream::new();
    let first = upstream.tip("main");
    let root = Root::new();
    let mut sidecar = launch(&upstream, &root).spawn();
    sidecar.wait_while_alive("the first tree", |_| is_real_directory(&root));
    let inode = || fs::metadata(root.link()).unwrap().ino();
    let before = inode();
    let second = upstream.commit(&[("a", "")]);
    for n in 0..3 {
        upstream.force_push("main", &second);
        sidecar.wait_while_alive("the second tree", |_| root.link().join("a").exists());
        assert_ne!(inode(), before);
        upstream.force_push("main", &first);
        sidecar.wait_while_alive("the first tree", |_| !root.link().join("a").exists());
        assert_eq!(inode(), before, "way back {n}: nothing was built");
        assert_same(root.link(), upstream.checkout(&first).path());
    }
    let finished = sidecar.stop();
    assert!(!finished.stderr.contains("altered"), "{}", finished.stderr);
}

#[test]
fn the_same_root_may_change_between_a_link_and_a_directory() {
    let upstream = Upstream::new();
    let root = Root::new();
    let symlink = || Launch::one_time(&upstream.url(), &root);
    let exchange = || symlink().flag("publish", "exchange");
    symlink().succeed();
    exchange().succeed();
    assert!(is_real_directory(&root));
    assert_same(root.link(), upstream.checkout(&upstream.tip("main")).path());
    symlink().succeed();
    root.assert_published(&upstream, &upstream.tip("main"));
    let commit = upstream.commit(&[("a", "")]);
    exchange().succeed();
    assert!(is_real_directory(&root));
    assert_same(root.link(), upstream.checkout(&commit).path());
    let commit = upstream.commit(&[("b", "")]);
    symlink().succeed();
    root.assert_published(&upstream, &commit);
    root.assert_tidy(&[]);
}

#[test]
fn a_link_on_another_file_system_is_a_clear_error() {
    let upstream = Upstream::new();
    let disk = FullDisk::new(1024);
    let root = Root::new().with_link(&disk.path().join("current"));
    let error_file = error_file(&root);
    launch(&upstream, &root)
        .switch("one-time")
        .flag("error-file", error_file.to_str().unwrap())
        .run()
        .assert_failed(&[1], &["exchange", "the file system of --root"]);
    assert_eq!(
        stage_and_reason(&error_file).unwrap(),
        ("publish".to_owned(), "disk".to_owned())
    );
    assert!(!root.link().exists());
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let upstream = Upstream::new();
    let root = Root::new();
    fs::create_dir_all(root.link()).unwrap();
    fs::write(root.link().join("precious"), "").unwrap();
    launch(&upstream, &root)
        .switch("one-time")
        .run()
        .assert_failed(&[1, 2], &["left alone"]);
    assert!(root.link().join("precious").exists());
}
