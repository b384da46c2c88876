//! File systems with reflinks: btrfs and XFS.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::support::cow_disk::{CowDisk, Kind};
use crate::support::environment;
use crate::support::root::Root;
use crate::support::sidecar::{Finished, Launch, field};
use crate::support::tree_compare::assert_same;
use crate::support::upstream::{Change, Upstream};

/// Bytes of the large file, of which a copy that is no clone shows in the disk usage.
const LARGE: usize = 12 << 20;

/// Of what is cloned: regular files, as symbolic links have no extents.
const CLONED: [&str; 3] = ["dir/large", "dir/run", "small"];

fn upstream() -> Upstream {
    let upstream = Upstream::empty();
    let mut random = fastrand::Rng::with_seed(3);
    let mut noise = |length| {
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        bytes
    };
    upstream.commit_changes(
        "main",
        &[
            Change::file("dir/large", noise(LARGE)),
            Change::Executable("dir/run".into(), noise(100_000)),
            Change::Symlink("dir/link".into(), "large".into()),
            Change::file("small", "small\n"),
        ],
    );
    upstream
}

fn each_file_system(test: fn(&CowDisk, &Root)) {
    for kind in [Kind::Btrfs, Kind::Xfs] {
        if let Some(disk) = CowDisk::new(kind) {
            let root = Root::at(&disk.path().join("root"));
            test(&disk, &root);
        }
    }
}

fn launch(upstream: &Upstream, root: &Root, share: &str) -> Launch {
    Launch::one_time(&upstream.url(), root)
        .flag("share", share)
        .flag("keep", "10")
}

/// How many files a run that published says it shared.
#[track_caller]
fn shared(finished: &Finished) -> usize {
    let published = |line: &&str| field(line, "message").as_deref() == Some("published");
    let line = finished.stderr.lines().find(published).unwrap();
    field(line, "files_shared").unwrap().parse().unwrap()
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Where a file's extents are on the disk; each must be shared with another file.
#[track_caller]
fn shared_extents(path: &Path) -> Vec<String> {
    let out = environment::command("filefrag")
        .args(["-s", "-v"])
        .arg(path)
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let extents: Vec<_> = text
        .lines()
        .filter(|line| {
            line.split(':')
                .next()
                .is_some_and(|n| n.trim().parse::<u32>().is_ok())
        })
        .map(|line| {
            assert!(line.contains("shared"), "{}: {text}", path.display());
            line.split(':').nth(2).unwrap().trim().to_owned()
        })
        .collect();
    assert!(!extents.is_empty(), "{text}");
    extents
}

#[test]
fn a_clone_shares_its_extents_and_nothing_else() {
    each_file_system(|disk, root| {
        let upstream = upstream();
        launch(&upstream, root, "reflink").succeed();
        let mut trees: Vec<PathBuf> = vec![root.tree()];
        for n in 1..=2 {
            let before = disk.used();
            let commit = upstream.commit(&[("n", &n.to_string())]);
            let finished = launch(&upstream, root, "reflink").succeed();
            root.assert_published(&upstream, &commit);
            assert_eq!(shared(&finished), CLONED.len());
            assert!(!finished.stderr.contains("cannot be shared"));
            let grown = disk.used().saturating_sub(before);
            assert!(grown < LARGE as u64 / 4, "{grown} bytes more");
            trees.push(root.tree());
        }
        for name in CLONED {
            let inodes: Vec<_> = trees.iter().map(|tree| inode(&tree.join(name))).collect();
            let different = inodes.iter().collect::<std::collections::HashSet<_>>();
            assert_eq!(different.len(), 3, "{name}: {inodes:?}");
        }
        // The smallest file may be where no extents are.
        for name in &CLONED[..2] {
            let first = shared_extents(&trees[0].join(name));
            for tree in &trees[1..] {
                assert_eq!(shared_extents(&tree.join(name)), first, "{name}");
            }
        }
        let run = fs::metadata(trees[2].join("dir/run")).unwrap();
        assert_eq!(run.permissions().mode() & 0o7777, 0o755);

        // A consumer that edits a file in place edits that file alone.
        let path = |n: usize| trees[n].join("dir/large");
        let original = fs::read(path(0)).unwrap();
        let edit = |n: usize| {
            let file = File::options().write(true).open(path(n)).unwrap();
            file.write_all_at(b"edited", 1 << 20).unwrap();
        };
        edit(1);
        edit(2);
        assert!(fs::read(path(0)).unwrap() == original);
        assert!(fs::read(path(1)).unwrap() != original);
        // And the next revision has what the repository has.
        let commit = upstream.commit(&[("n", "3")]);
        let finished = launch(&upstream, root, "reflink").succeed();
        root.assert_published(&upstream, &commit);
        // The start repaired the edited tree before the poll, so every file of it could be shared.
        assert_eq!(shared(&finished), CLONED.len());
    });
}

#[test]
fn hard_links_and_whole_copies_work_where_clones_would() {
    each_file_system(|_, root| {
        let upstream = upstream();
        launch(&upstream, root, "hardlink").succeed();
        for (n, share) in ["hardlink", "none", "reflink", "hardlink"]
            .into_iter()
            .enumerate()
        {
            let before = root.tree();
            let commit = upstream.commit(&[("n", &n.to_string())]);
            launch(&upstream, root, share).succeed();
            root.assert_published(&upstream, &commit);
            let [was, is] = [&before, &root.tree()].map(|tree| inode(&tree.join("dir/large")));
            assert_eq!(was == is, share == "hardlink", "{share}");
        }
        root.assert_tidy(&[]);
    });
}

#[test]
fn an_exchanged_directory_and_a_sidecar_follow_on_such_file_systems() {
    each_file_system(|disk, root| {
        let upstream = upstream();
        let mut sidecar = launch(&upstream, root, "reflink")
            .without("one-time")
            .spawn();
        sidecar.wait_for(root, &upstream.tip("main"));
        for n in 0..3 {
            let commit = upstream.commit(&[("n", &n.to_string())]);
            sidecar.wait_for(root, &commit);
            root.assert_published(&upstream, &commit);
        }
        sidecar.stop();
        root.assert_tidy(&[]);

        let exchanged = Root::at(&disk.path().join("exchanged"));
        for share in ["reflink", "hardlink", "reflink"] {
            let commit = upstream.commit(&[("share", share)]);
            launch(&upstream, &exchanged, share)
                .flag("publish", "exchange")
                .succeed();
            assert!(fs::symlink_metadata(exchanged.link()).unwrap().is_dir());
            assert_same(exchanged.link(), upstream.checkout(&commit).path());
        }
    });
}
