//! What may befall the disk: full, read-only, damaged, littered. Readers keep a whole tree, and
//! syncing resumes by itself.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::environment;
use crate::support::foreign::Volume;
use crate::support::full_disk::FullDisk;
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar, field};
use crate::support::tree_compare::{assert_same, differences};
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// Files of noise, which no compression makes smaller: `n` of 32 KiB, below `top`.
fn noise(top: &str, n: u64) -> Vec<Change> {
    numbered_noise(top, 0..n)
}

/// The same with the files of a range: other numbers hold other noise.
fn numbered_noise(top: &str, numbers: Range<u64>) -> Vec<Change> {
    numbers
        .map(|i| {
            let mut random = fastrand::Rng::with_seed(i + 1);
            let content: Vec<u8> = (0..32 << 10).map(|_| random.u8(..)).collect();
            Change::file(format!("{top}/{i}"), content)
        })
        .collect()
}

/// A sidecar on a root that has published the tip of `main`.
fn published(upstream: &Upstream, root: &Root) -> Sidecar {
    let mut sidecar = Launch::new(&upstream.url(), root).http().spawn();
    sidecar.wait_for(root, &upstream.tip("main"));
    sidecar.wait_for_polls(1);
    sidecar
}

#[test]
fn a_first_sync_that_finds_the_disk_full_at_any_stage_publishes_nothing_and_says_so() {
    let upstream = Upstream::new();
    // A pack of 1.25 MiB and a tree of as much.
    let commit = upstream.commit_changes("main", &noise("noise", 40));
    let dir = tempfile::tempdir().unwrap();
    let error_file = dir.path().join("error");
    let mut failures = 0;
    for kib in [16, 64, 128, 400, 800, 1200, 1320, 1400, 1800, 2200, 2600] {
        let disk = FullDisk::new(kib);
        let root = Root::at(&disk.path().join("root"));
        let launch = Launch::one_time(&upstream.url(), &root)
            .flag("error-file", error_file.to_str().unwrap());
        let finished = launch.clone().run();
        if finished.code == Some(0) {
            root.assert_published(&upstream, &commit);
        } else {
            failures += 1;
            finished.assert_failed(&[1], &["no space left"]);
            let error = fs::read_to_string(&error_file).unwrap();
            assert_eq!(field(&error, "reason").as_deref(), Some("disk"), "{error}");
            assert_eq!(root.commit(), None, "{kib} KiB");
        }
        disk.resize(16 << 10);
        launch.succeed();
        root.assert_published(&upstream, &commit);
        root.assert_tidy(&[]);
    }
    assert!(failures >= 9, "the disk was full only {failures} times");
}

#[test]
fn an_update_that_finds_the_disk_full_keeps_the_tree_and_resumes_by_itself() {
    let upstream = Upstream::new();
    let small = upstream.commit_changes("main", &noise("small", 4));
    for kib in [500, 1000, 1700] {
        upstream.force_push("main", &small);
        let disk = FullDisk::new(kib);
        let root = Root::at(&disk.path().join("root"));
        let mut sidecar = published(&upstream, &root);
        let large = upstream.commit_changes("main", &noise("large", 40));
        sidecar.wait_for_metric("gvr_sync_failures_total", &[("reason", "disk")], 2.0);
        root.assert_published(&upstream, &small);
        assert_eq!(sidecar.get("/livez").code, 200);
        assert_eq!(sidecar.get("/readyz").code, 200);
        disk.resize(16 << 10);
        sidecar.wait_for(&root, &large);
        root.assert_published(&upstream, &large);
        sidecar.stop();
        root.assert_tidy(&[]);
    }
}

#[test]
fn a_disk_full_of_old_trees_is_freed_once_their_time_is_over() {
    let upstream = Upstream::new();
    let update = |i: u64| {
        let files = numbered_noise("noise", i * 20..(i + 1) * 20);
        upstream.rewrite_from_nothing("main", &files)
    };
    update(0);
    // Room for three packs and two trees, of 640 KiB each, but not for three trees.
    let disk = FullDisk::new(3600);
    let root = Root::at(&disk.path().join("root"));
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("keep", "0")
        .flag("stale-timeout", "4s")
        .http()
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("main"));
    sidecar.wait_for(&root, &update(1));
    let last = update(2);
    sidecar.wait_for_metric("gvr_sync_failures_total", &[("reason", "disk")], 1.0);
    sidecar.wait_for(&root, &last);
    root.assert_published(&upstream, &last);
}

#[test]
fn a_disk_that_was_full_can_be_freed_by_going_back() {
    let upstream = Upstream::new();
    let small = upstream.commit_changes("main", &noise("small", 4));
    let disk = FullDisk::new(700);
    let root = Root::at(&disk.path().join("root"));
    let mut sidecar = published(&upstream, &root);
    upstream.commit_changes("main", &noise("large", 40));
    sidecar.wait_for_metric("gvr_sync_failures_total", &[("reason", "disk")], 2.0);
    // What the failed attempts left must not stand in the way of what fits.
    upstream.force_push("main", &small);
    let next = upstream.commit(&[("fits", "well")]);
    sidecar.wait_for(&root, &next);
    root.assert_published(&upstream, &next);
}

#[test]
fn a_volume_that_is_read_only_keeps_its_tree_and_the_failure_says_so() {
    let upstream = Upstream::new();
    let first = upstream.tip("main");
    let disk = FullDisk::new(4096);
    let root = Root::at(&disk.path().join("root"));
    let launch = Launch::one_time(&upstream.url(), &root);
    launch.clone().succeed();
    let second = upstream.commit(&[("a", "b")]);
    disk.make_read_only();
    launch.clone().run().assert_failed(&[1], &["read-only"]);
    root.assert_published(&upstream, &first);
    disk.make_writable();
    launch.succeed();
    root.assert_published(&upstream, &second);
    root.assert_tidy(&[]);
}

#[test]
fn permissions_that_are_lost_and_come_back_are_a_failure_that_passes() {
    let upstream = Upstream::new();
    let volume = Volume::new(0o2775);
    volume.give(upstream.path());
    let root = Root::at(&volume.path().join("root"));
    fs::create_dir(root.path()).unwrap();
    volume.share(root.path());
    let launch = Launch::new(&upstream.url(), &root).http();
    let mut sidecar = volume.launch(launch).spawn();
    let first = upstream.tip("main");
    sidecar.wait_for(&root, &first);
    sidecar.wait_for_polls(1);
    let chmod = |mode: &str| {
        for directory in [
            "",
            "staging",
            "revisions",
            "store.git/objects",
            "store.git/objects/pack",
        ] {
            let mut command = environment::command("chmod");
            let status = command.arg(mode).arg(root.state(directory)).status();
            assert!(status.unwrap().success(), "chmod {mode} {directory}");
        }
    };
    chmod("a-w");
    let second = upstream.commit(&[("a", "b")]);
    volume.give(upstream.path());
    sidecar.wait_for_metric("gvr_sync_failures_total", &[("reason", "disk")], 1.0);
    root.assert_published(&upstream, &first);
    chmod("u+w");
    sidecar.wait_for(&root, &second);
    root.assert_published(&upstream, &second);
}

/// In one step, because the sidecar mends a missing link as soon as it sees one.
fn replace_link(link: &Path, target: &Path) {
    let other = tempfile::tempdir_in(link.parent().unwrap()).unwrap();
    let new = other.path().join("link");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[test]
fn a_link_that_is_deleted_or_replaced_comes_back() {
    let upstream = Upstream::new();
    let root = Root::new();
    let commit = upstream.tip("main");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("precious"), "mine").unwrap();
    let mut sidecar = published(&upstream, &root);
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("deleted", &|link| fs::remove_file(link).unwrap()),
        ("dangling", &|link| replace_link(link, Path::new("nowhere"))),
        ("elsewhere", &|link| replace_link(link, elsewhere.path())),
    ];
    for (what, damage) in damages {
        damage(root.link());
        sidecar.wait_for(&root, &commit);
        root.assert_published(&upstream, &commit);
        assert!(sidecar.is_alive(), "{what}");
    }
    assert!(elsewhere.path().join("precious").exists());
    sidecar.stop();
    root.assert_tidy(&[]);
}

#[test]
fn a_link_that_is_deleted_leads_to_what_readers_saw_last_and_not_to_the_newest() {
    let upstream = Upstream::new();
    let root = Root::new();
    let old = upstream.tip("main");
    let mut sidecar = published(&upstream, &root);
    let withdrawn = upstream.commit(&[("secret", "pushed by mistake")]);
    sidecar.wait_for(&root, &withdrawn);
    upstream.force_push("main", &old);
    sidecar.wait_for(&root, &old);
    upstream.remove();
    // While it runs, and across a restart.
    for restart in [false, true] {
        if restart {
            sidecar.kill();
        }
        fs::remove_file(root.link()).unwrap();
        if restart {
            sidecar = Launch::new(&upstream.url(), &root).spawn();
        }
        sidecar.wait_while_alive("the link", |_| root.commit().is_some());
        assert_eq!(root.commit().as_deref(), Some(&*old), "restart: {restart}");
    }
    let newest = root.revisions().pop().unwrap();
    assert_eq!(newest.1, withdrawn, "there was nothing to choose from");
    sidecar.stop();
}

#[test]
fn a_link_that_became_a_file_or_a_directory_is_a_failure_until_it_is_taken_away() {
    let upstream = Upstream::new();
    let root = Root::new();
    let commit = upstream.tip("main");
    let mut sidecar = published(&upstream, &root);
    fs::remove_file(root.link()).unwrap();
    // The sidecar may put its link back in between: then what follows is no file.
    fs::create_dir(root.path().join("directory")).unwrap();
    fs::write(root.path().join("directory/mine"), "mine").unwrap();
    sidecar.wait_for(&root, &commit);
    fs::remove_file(root.link()).unwrap();
    if fs::rename(root.path().join("directory"), root.link()).is_ok() {
        sidecar.wait_for_metric("gvr_consecutive_failures", &[], 1.0);
        let kept = fs::read_to_string(root.link().join("mine")).unwrap();
        assert_eq!(kept, "mine");
        fs::rename(root.link(), root.path().join("directory")).unwrap();
    }
    sidecar.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
}

#[test]
fn a_published_tree_that_is_deleted_is_built_again_as_another_revision() {
    let upstream = Upstream::new();
    let root = Root::new();
    let commit = upstream.commit(&[("a/b", "c")]);
    let mut sidecar = published(&upstream, &root);
    let before = root.revision();
    let trash = tempfile::tempdir_in(root.path().parent().unwrap()).unwrap();
    fs::rename(root.tree(), trash.path().join("tree")).unwrap();
    sidecar.wait_while_alive("another revision", |_| {
        root.revision() > before && root.tree().exists()
    });
    root.assert_published(&upstream, &commit);
    // It ends there: a repair is not the cause of the next one.
    let repaired = root.revision();
    sidecar.wait_for_polls(5);
    assert_eq!(root.revision(), repaired);
}

#[test]
fn a_store_that_is_deleted_or_damaged_is_fetched_again_and_the_tree_stays() {
    let upstream = Upstream::new();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("deleted", |store| fs::remove_dir_all(store).unwrap()),
        ("emptied", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("packs zeroed", |store| overwrite_packs(store, 0)),
        ("packs cut", |store| overwrite_packs(store, 40)),
        ("HEAD and config gone", |store| {
            let _ = fs::remove_file(store.join("HEAD"));
            let _ = fs::remove_file(store.join("config"));
        }),
    ];
    for alive in [true, false] {
        for (what, damage) in damages {
            let root = Root::new();
            let first = upstream.tip("main");
            let mut sidecar = published(&upstream, &root);
            if !alive {
                sidecar.stop();
                damage(&root.state("store.git"));
                sidecar = published(&upstream, &root);
            } else {
                damage(&root.state("store.git"));
            }
            assert_same(&root.tree(), upstream.checkout(&first).path());
            let second = upstream.commit_changes("main", &[Change::file(what, "new")]);
            sidecar.wait_for(&root, &second);
            root.assert_published(&upstream, &second);
            sidecar.stop();
        }
    }
}

#[test]
fn a_root_that_is_deleted_is_made_again_at_the_latest_by_a_restart() {
    let upstream = Upstream::new();
    let root = Root::new();
    let commit = upstream.tip("main");
    let mut sidecar = published(&upstream, &root);
    // At once: what the sidecar writes meanwhile would be in the way of a slow deletion.
    fs::rename(root.path(), root.path().with_file_name("away")).unwrap();
    wait_until(PATIENCE, "the link", || {
        if !sidecar.is_alive() {
            // What Kubernetes does.
            sidecar = Launch::new(&upstream.url(), &root).http().spawn();
        }
        root.commit().as_deref() == Some(&*commit)
    });
    root.assert_published(&upstream, &commit);
    let second = upstream.commit(&[("a", "b")]);
    sidecar.wait_for(&root, &second);
    root.assert_published(&upstream, &second);
}

#[test]
fn published_files_that_were_edited_cut_or_deleted_are_noticed_at_start() {
    let upstream = Upstream::new();
    let commit = upstream.commit_changes(
        "main",
        &[
            Change::file("a/text", "some text\n"),
            Change::Executable("a/tool".into(), b"#!/bin/sh\n".to_vec()),
            Change::Symlink("a/link".into(), "text".into()),
        ],
    );
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 8] = [
        ("cut", |tree| fs::write(tree.join("a/text"), "").unwrap()),
        ("edited, of the same length", |tree| {
            fs::write(tree.join("a/text"), "SOME TEXT\n").unwrap();
        }),
        ("deleted", |tree| {
            fs::remove_file(tree.join("a/text")).unwrap()
        }),
        ("a directory deleted", |tree| {
            fs::remove_dir_all(tree.join("a")).unwrap();
        }),
        ("replaced by a directory", |tree| {
            fs::remove_file(tree.join("a/text")).unwrap();
            fs::create_dir(tree.join("a/text")).unwrap();
        }),
        ("the link turned", |tree| {
            fs::remove_file(tree.join("a/link")).unwrap();
            symlink("/etc/passwd", tree.join("a/link")).unwrap();
        }),
        ("the link became a file", |tree| {
            fs::remove_file(tree.join("a/link")).unwrap();
            fs::write(tree.join("a/link"), "text").unwrap();
        }),
        ("all cut, as after a power failure", |tree| {
            for name in ["a/text", "a/tool", "README.md"] {
                fs::write(tree.join(name), "").unwrap();
            }
        }),
    ];
    for (what, damage) in damages {
        let root = Root::new();
        let launch = Launch::one_time(&upstream.url(), &root);
        launch.clone().succeed();
        let before = root.revision();
        damage(&root.tree());
        let oracle = upstream.checkout(&commit);
        let damaged = !differences(&root.tree(), oracle.path()).is_empty();
        assert!(damaged, "{what}: no damage was done");
        launch.succeed();
        assert!(root.revision() > before, "{what}: nothing was repaired");
        root.assert_published(&upstream, &commit);
        root.assert_tidy(&[]);
    }
}

#[test]
fn a_manifest_that_is_lost_or_damaged_does_no_harm() {
    let upstream = Upstream::new();
    for content in [None, Some(""), Some("garbage\n\u{0}garbage")] {
        let root = Root::new();
        let launch = Launch::one_time(&upstream.url(), &root);
        launch.clone().succeed();
        let manifest = root.tree().parent().unwrap().join("manifest");
        match content {
            None => fs::remove_file(manifest).unwrap(),
            Some(text) => fs::write(manifest, text).unwrap(),
        }
        let commit = upstream.commit(&[("a", content.unwrap_or("none"))]);
        launch.clone().succeed();
        root.assert_published(&upstream, &commit);
        // The tree without a manifest was live a moment ago: it goes at a later start.
        launch.succeed();
        root.assert_tidy(&[]);
    }
}

#[test]
fn a_file_that_a_reader_edited_in_place_does_not_spread_to_the_next_revision() {
    let upstream = Upstream::new();
    upstream.commit(&[("edited", "original\n"), ("other", "1")]);
    let root = Root::new();
    let mut sidecar = published(&upstream, &root);
    fs::write(root.tree().join("edited"), "EDITED!!\n").unwrap();
    let commit = upstream.commit(&[("other", "2")]);
    sidecar.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
}

#[test]
fn the_litter_of_any_earlier_life_is_swept_and_in_nobodys_way() {
    let upstream = Upstream::new();
    let root = Root::new();
    let launch = Launch::one_time(&upstream.url(), &root);
    for round in 0..2 {
        // In the first round the litter is older than the state itself.
        let absent = "0123456789abcdef0123456789abcdef01234567";
        for directory in [
            "staging/000001",
            "staging/000999/half/deep/er",
            "spare/000001/half",
            "revisions/000700",
            &format!("revisions/000800/{absent}"),
            "store.git/objects/pack",
            "store.git/refs/heads",
        ] {
            fs::create_dir_all(root.state(directory)).unwrap();
        }
        for file in [
            "staging/000999/half/file",
            "staging/stray",
            "revisions/000700/manifest",
            "store.git/HEAD.lock",
            "store.git/config.lock",
            "store.git/shallow.lock",
            "store.git/packed-refs.lock",
            "store.git/objects/pack/tmp_pack_abcdef",
            "store.git/objects/pack/tmp_idx_abcdef",
        ] {
            fs::write(root.state(file), "debris").unwrap();
        }
        let commit = upstream.commit(&[("round", &round.to_string())]);
        launch.clone().succeed();
        root.assert_published(&upstream, &commit);
        root.assert_tidy(&[]);
        assert_eq!(fs::read_dir(root.state("spare")).unwrap().count(), 0);
    }
}

#[test]
fn a_second_instance_on_the_same_root_says_who_holds_it_and_gives_up() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut first = published(&upstream, &root);
    let finished = Launch::one_time(&upstream.url(), &root)
        .flag("sync-timeout", "1s")
        .run();
    let holder = format!("pid {}", first.pid().as_raw_nonzero());
    finished.assert_failed(&[1], &[&holder, root.path().to_str().unwrap()]);
    let commit = upstream.commit(&[("a", "b")]);
    first.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
    first.stop();
    Launch::one_time(&upstream.url(), &root).succeed();
}

#[test]
fn a_second_instance_takes_over_when_the_first_one_dies() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut first = published(&upstream, &root);
    let mut second = Launch::new(&upstream.url(), &root).http().spawn();
    second.wait_for_log("waiting for another instance");
    first.kill();
    let commit = upstream.commit(&[("a", "b")]);
    second.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
    second.stop();
    root.assert_tidy(&[]);
}

fn overwrite_packs(store: &Path, keep: usize) {
    let mut packs = 0;
    for entry in fs::read_dir(store.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "pack") {
            let mut content = fs::read(&path).unwrap();
            if keep == 0 {
                content.fill(0);
            } else {
                content.truncate(keep);
            }
            // A pack is read-only, and whoever has it mapped keeps what he has.
            fs::remove_file(&path).unwrap();
            fs::write(path, content).unwrap();
            packs += 1;
        }
    }
    assert!(packs > 0, "the store has no pack to damage");
}
