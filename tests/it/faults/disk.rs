//! A volume that is full, read-only, damaged or gone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::{Readable, Recovery, Row, Told, World, launch, no_failure, unprivileged};
use crate::support::environment;
use crate::support::full_disk::FullDisk;
use crate::support::http_server::HttpServer;
use crate::support::readers::generation;
use crate::support::root::{Root, zero};
use crate::support::tracer::Tracer;
use crate::support::upstream::Change;

const fn failure(
    fault: &'static str,
    stage: &'static str,
    message: &'static str,
    prove: fn(&Row),
) -> Row {
    super::failure(fault, stage, "disk", message, prove)
}

/// Damage that is noticed, told in the log, and mended.
const fn mended(
    fault: &'static str,
    log: &'static str,
    recovery: Recovery,
    prove: fn(&Row),
) -> Row {
    Row {
        fault,
        readers: Readable::Mended,
        operator: Told::Log(log),
        recovery,
        prove,
    }
}

section!("The volume", {
    a_disk_that_is_full_in_a_fetch: failure(
        "is full: there is no room for the objects",
        "fetch", "No space left on device",
        |row| full(row, 1000),
    ),
    a_disk_that_is_full_in_a_build: failure(
        "is full: there is room for the objects and none for the tree",
        "build", "No space left on device",
        |row| full(row, 3500),
    ),
    a_disk_without_inodes: failure(
        "has no inode left",
        "build", "No space left on device",
        no_inodes,
    ),
    a_quota_that_is_used_up_in_a_fetch: failure(
        "has its quota used up: there is no room for the objects",
        "fetch", "quota exceeded",
        |row| failing_calls(row, "pwrite64", "EDQUOT"),
    ),
    a_quota_that_is_used_up_in_a_build: failure(
        "has its quota used up: there is room for the objects and none for the tree",
        "build", "quota exceeded",
        // The push holds a link, and nothing before the build makes one.
        |row| failing_calls(row, "?symlink,symlinkat", "EDQUOT"),
    ),
    a_disk_that_is_remounted_read_only: no_failure(
        "is remounted read-only while the program runs: the kernel refuses",
        remounted,
    ),
    a_disk_that_turns_read_only: failure(
        "turns read-only while the program runs, after an error of the disk",
        "fetch", "Read-only file system",
        |row| failing_calls(
            row,
            "pwrite64,?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,ftruncate",
            "EROFS",
        ),
    ),
    a_disk_that_is_read_only: failure(
        "is read-only when the program starts",
        "start", "Read-only file system",
        read_only,
    ),
    a_permission_that_is_lost: failure(
        "can no longer be written by the program's user",
        "build", "Permission denied",
        permission_lost,
    ),
    a_root_that_is_deleted: Row {
        fault: "loses the whole root",
        readers: Readable::Errors,
        operator: Told::Failure("poll", "disk", "is no longer the directory that was locked"),
        recovery: Recovery::NextAttempt,
        prove: root_deleted,
    },
    a_link_that_is_deleted: mended(
        "loses the link",
        "what readers see was damaged; mending it",
        Recovery::NextAttempt,
        |row| damaged(row, |root| fs::remove_file(root.link()).unwrap()),
    ),
    a_link_that_is_replaced_by_a_file: mended(
        "has a file where the link was",
        "what readers see was damaged; mending it",
        Recovery::NextAttempt,
        |row| damaged(row, |root| {
            let file = root.path().join("file");
            fs::write(&file, "no link").unwrap();
            // In one step, as otherwise the link may be mended in between.
            fs::rename(&file, root.link()).unwrap();
        }),
    ),
    a_tree_that_is_deleted: mended(
        "loses the published tree",
        "what readers see was damaged; mending it",
        Recovery::NextAttempt,
        |row| damaged(row, |root| {
            // At once, as a slow deletion would be damage of more than one kind.
            fs::rename(root.tree(), root.path().with_file_name("stolen")).unwrap();
        }),
    ),
    files_that_are_truncated: mended(
        "holds a published file that somebody truncated, at the next start",
        "a published tree was altered; it will be built anew",
        Recovery::Restart,
        |row| altered(row, |tree| fs::write(tree.join("LIST"), "").unwrap()),
    ),
    files_that_are_edited: mended(
        "holds a published file that somebody edited, at the next start",
        "a published tree was altered; it will be built anew",
        Recovery::Restart,
        |row| altered(row, |tree| {
            let list = fs::read_to_string(tree.join("LIST")).unwrap();
            fs::write(tree.join("LIST"), list.to_uppercase()).unwrap();
        }),
    ),
    files_of_length_zero: mended(
        "holds only files of length zero after a power cut",
        "a published tree was altered; it will be built anew",
        Recovery::Restart,
        |row| cut(row, |tree| {
            for name in ["LIST", "a/file-01-0", "a/b/file-02-0"] {
                fs::write(tree.join(name), "").unwrap();
            }
        }),
    ),
    files_full_of_zeros: mended(
        "holds files full of zeros after a power cut, with their sizes and times",
        "a published tree was altered; it will be built anew",
        Recovery::Restart,
        |row| cut(row, |tree| zero(&tree.join("a/file-01-0"))),
    ),
    files_that_rot: mended(
        "loses the content of a published file, whose size and time stay, with `--scrub-period`",
        "a published tree was altered; it will be built anew",
        Recovery::NextAttempt,
        rotten,
    ),
    a_manifest_of_length_zero: Row {
        fault: "holds a manifest of length zero after a power cut",
        readers: Readable::LastTree,
        operator: Told::Log("the previous revision cannot be used"),
        recovery: Recovery::Restart,
        prove: |row| altered(row, |tree| fs::write(tree.with_file_name("manifest"), "").unwrap()),
    },
    packs_of_length_zero: no_failure(
        "holds packs and their indexes of length zero after a power cut",
        |row| store_cut(row, &["objects/pack"]),
    ),
    refs_of_length_zero: no_failure(
        "holds refs of length zero in the object store after a power cut",
        |row| store_cut(row, &["refs/gvr"]),
    ),
    a_boundary_of_length_zero: no_failure(
        "holds a `shallow` of length zero in the object store after a power cut",
        |row| store_cut(row, &["shallow"]),
    ),
    a_store_of_length_zero: no_failure(
        "holds only files of length zero in the object store after a power cut",
        |row| store_cut(row, &["."]),
    ),
    a_pack_that_is_truncated: no_failure(
        "holds a truncated pack in the object store",
        |row| store_damaged(row, |pack| {
            let length = fs::metadata(pack).unwrap().len();
            let file = fs::OpenOptions::new().write(true).open(pack).unwrap();
            file.set_len(length / 2).unwrap();
        }),
    ),
    a_pack_that_is_overwritten: no_failure(
        "holds a pack of noise in the object store",
        |row| store_damaged(row, |pack| {
            let length = fs::metadata(pack).unwrap().len();
            fs::write(pack, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
        }),
    ),
    a_store_that_is_deleted: no_failure(
        "loses the object store",
        |row| store_damaged(row, |pack| {
            let store = pack.ancestors().nth(3).unwrap();
            assert!(store.ends_with("store.git"));
            // At once: what the sidecar writes meanwhile would be in the way of a slow deletion.
            fs::rename(store, store.ancestors().nth(3).unwrap().join("stolen")).unwrap();
        }),
    ),
    a_directory_that_cannot_be_deleted: no_failure(
        "refuses to delete a part of an old tree (`EBUSY`)",
        busy,
    ),
    files_that_cannot_be_deleted: Row {
        fault: "refuses to delete an old tree for a while (`ESTALE`, as NFS does)",
        readers: Readable::EachCommit,
        operator: Told::Log("housekeeping failed; it will be tried again"),
        recovery: Recovery::AtOnce,
        prove: |row| undeletable(row, "ESTALE"),
    },
    files_that_are_in_use: Row {
        fault: "refuses to delete any file of an old tree for a while (`EBUSY`, as NFS does)",
        readers: Readable::EachCommit,
        operator: Told::Log("housekeeping failed; it will be tried again"),
        recovery: Recovery::AtOnce,
        prove: |row| undeletable(row, "EBUSY"),
    },
});

/// A world on a small disk.
fn on_a_disk(kib: u64, flags: &[(&str, &str)]) -> (FullDisk, HttpServer, World) {
    let disk = FullDisk::new(kib);
    let root = Root::at(&disk.path().join("root"));
    let (server, world) = World::at(root, flags);
    (disk, server, world)
}

fn full(row: &Row, kib: u64) {
    let (disk, _server, mut world) = on_a_disk(kib, &[]);
    let pushed = world.push_heavy(1, 2 << 20);
    world.endure(row);
    world.recover(row, || disk.resize(32 << 10), &pushed);
}

fn no_inodes(row: &Row) {
    // Links that were made ahead would give way to the tree.
    let (disk, _server, mut world) = on_a_disk(8 << 10, &[("share", "none")]);
    // Enough for a pack and its index, not for a tree.
    disk.leave_inodes(10);
    let pushed = world.push(1);
    world.endure(row);
    world.recover(row, || disk.leave_inodes(1000), &pushed);
}

fn read_only(row: &Row) {
    let (disk, server, mut world) = on_a_disk(8 << 10, &[]);
    world.sidecar.kill();
    disk.make_read_only();
    world.sidecar = launch(&server.url("upstream.git"), &world.root).spawn();
    let pushed = world.push(1);
    world.endure_unready(row);
    world.recover(row, || disk.make_writable(), &pushed);
}

/// The file system answers these calls with an error until it recovers.
fn failing_calls(row: &Row, calls: &str, error: &str) {
    // A traced process is slow.
    let flags = [("sync-timeout", "60s"), ("stall-timeout", "30s")];
    let (_server, mut world) = World::at(Root::new(), &flags);
    let tracer = Tracer::fail(world.sidecar.pid(), calls, error);
    let mut changes = generation(1);
    changes.push(Change::Symlink(
        "noise/link".to_owned(),
        "nowhere".to_owned(),
    ));
    let pushed = world.upstream.commit_changes("main", &changes);
    world.endure(row);
    let told = super::told(&mut world.sidecar);
    assert!(told["last_error"]["hint"].is_string(), "{told}");
    world.recover(row, || drop(tracer), &pushed);
}

fn remounted(row: &Row) {
    let (disk, _server, mut world) = on_a_disk(8 << 10, &[]);
    // The lock is open for writing as long as the process lives.
    assert!(!disk.may_become_read_only());
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    world.end(row, &pushed);
}

/// Empties files of the store while nobody runs; the commits that follow are published all the
/// same, those that are there already included.
fn store_cut(row: &Row, places: &[&str]) {
    let (server, mut world) = World::over_http();
    let second = world.push(1);
    world.sidecar.wait_for(&world.root, &second);
    world.sidecar.kill();
    let mut emptied = 0;
    for place in places {
        files_below(&world.root.state("store.git").join(place), &mut |file| {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(file, "").unwrap();
            emptied += 1;
        });
    }
    assert!(emptied > 0, "{places:?} hold nothing");
    world.sidecar = launch(&server.url("upstream.git"), &world.root).spawn();
    for n in 2..=3 {
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
        world.root.assert_published(&world.upstream, &pushed);
    }
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    let pushed = world.push(4);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

/// Visits a file, or all files below a directory.
fn files_below(path: &Path, visit: &mut dyn FnMut(&Path)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            files_below(&entry.unwrap().path(), visit);
        }
    } else {
        visit(path);
    }
}

fn undeletable(row: &Row, error: &str) {
    let flags = [
        ("keep", "0"),
        ("stale-timeout", "0s"),
        ("sync-timeout", "60s"),
        ("stall-timeout", "30s"),
    ];
    let (server, world) = World::at(Root::new(), &flags);
    // Without any time to read in, a reader may lose the old tree.
    let mut world = world.unwatched();
    let old = world.root.tree();
    let tracer = Tracer::fail(world.sidecar.pid(), "?unlink,unlinkat,?rmdir", error);
    for n in 1..=2 {
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
        world.root.assert_published(&world.upstream, &pushed);
    }
    world
        .sidecar
        .wait_while_alive("the old tree to go", |_| !old.exists());
    assert!(!world.root.litter(&[]).is_empty(), "it was deleted");
    let Told::Log(text) = row.operator else {
        unreachable!("the row is a line in the log");
    };
    world.sidecar.wait_for_log(text);
    // No sync failed, only what is off its path.
    assert_eq!(super::told(&mut world.sidecar)["last_error"], Value::Null);
    drop(tracer);
    // What would not go is tried again from time to time, and at every start.
    world.sidecar.kill();
    world.sidecar = launch(&server.url("upstream.git"), &world.root)
        .flag("keep", "0")
        .flag("stale-timeout", "0s")
        .spawn();
    let pushed = world.push(3);
    world.sidecar.wait_for(&world.root, &pushed);
    world
        .sidecar
        .wait_while_alive("the rest to be deleted", |_| {
            world.root.litter(&[]).is_empty() && world.root.revisions().len() == 1
        });
    world.end(row, &pushed);
}

fn permission_lost(row: &Row) {
    let (_volume, _server, mut world, _) = unprivileged(&[]);
    let staging = world.root.state("staging");
    let allow = |mode| fs::set_permissions(&staging, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let pushed = world.push(1);
    world.endure(row);
    world.recover(row, || allow(0o755), &pushed);
}

fn root_deleted(row: &Row) {
    let (_server, world) = World::over_http();
    let mut world = world.unwatched();
    // At once: what the sidecar mends meanwhile would be in the way of a slow deletion.
    let away = world.root.path().with_file_name("away");
    fs::rename(world.root.path(), away).unwrap();
    let first = world.first.clone();
    world.sidecar.wait_for(&world.root, &first);
    world.root.assert_published(&world.upstream, &first);
    let Told::Failure(stage, reason, message) = row.operator else {
        unreachable!("the row is a failure");
    };
    let told = super::told(&mut world.sidecar);
    let error = &told["last_error"];
    assert_eq!([&error["stage"], &error["reason"]], [stage, reason]);
    let shown = error["message"].as_str().unwrap();
    assert!(shown.contains(message), "{shown}");
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 1.0, "{}", row.fault);
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn damaged(row: &Row, damage: impl FnOnce(&Root)) {
    let (_server, world) = World::at(Root::new(), &[("keep", "0"), ("stale-timeout", "0s")]);
    let mut world = world.unwatched();
    let commit = world.first.clone();
    damage(&world.root);
    world.notice(row);
    world.sidecar.wait_while_alive("the tree to be back", |_| {
        world.root.link().join("LIST").exists()
    });
    world.root.assert_published(&world.upstream, &commit);
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.sidecar.wait_while_alive("the rest to be swept", |_| {
        world.root.litter(&[]).is_empty()
    });
    world.end(row, &pushed);
}

/// Alters the published tree while nobody looks; the next start builds another revision.
fn altered(row: &Row, damage: impl FnOnce(&Path)) {
    let (server, world) = World::over_http();
    let mut world = world.unwatched();
    world.sidecar.kill();
    let before = world.root.revision();
    damage(&world.root.tree());
    world.sidecar = launch(&server.url("upstream.git"), &world.root).spawn();
    world.notice(row);
    world
        .sidecar
        .wait_while_alive("another revision", |_| world.root.revision() > before);
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    world.end(row, &first);
}

/// The same as after a restart of the node, before which the tree was not synced; the remote is away
/// until the tree is built again.
fn cut(row: &Row, damage: impl FnOnce(&Path)) {
    let (server, world) = World::over_http();
    let mut world = world.unwatched();
    world.sidecar.kill();
    let before = world.root.revision();
    let tree = world.root.tree();
    damage(&tree);
    fs::write(tree.with_file_name("durable"), "no  another-boot\n").unwrap();
    world.upstream.remove();
    world.sidecar = launch(&server.url("upstream.git"), &world.root).spawn();
    let Told::Log(text) = row.operator else {
        unreachable!("the row is a line in the log");
    };
    world.sidecar.wait_for_log(text);
    world
        .sidecar
        .wait_while_alive("another revision", |_| world.root.revision() > before);
    world.upstream.restore();
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

/// A file turns to zeros while the sidecar runs.
fn rotten(row: &Row) {
    let (_server, world) = World::at(Root::new(), &[("scrub-period", "50ms")]);
    let mut world = world.unwatched();
    let before = world.root.revision();
    zero(&world.root.tree().join("a/file-01-0"));
    world.notice(row);
    world
        .sidecar
        .wait_while_alive("another revision", |_| world.root.revision() > before);
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    world.end(row, &first);
}

/// Damages a pack of the store; the commits that follow are published all the same.
fn store_damaged(row: &Row, damage: impl FnOnce(&Path)) {
    let (_server, mut world) = World::over_http();
    let packs = world.root.state("store.git/objects/pack");
    let pack = fs::read_dir(packs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "pack"))
        .unwrap();
    // Packs are read-only files.
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
    damage(&pack);
    for n in 1..=2 {
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
        world.root.assert_published(&world.upstream, &pushed);
    }
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    let pushed = world.push(3);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn busy(row: &Row) {
    let (server, mut world) = World::over_http();
    let old = world.root.tree();
    let second = world.push(1);
    world.sidecar.wait_for(&world.root, &second);
    let mount = Mount::on(&old.join("a/b"));
    let again = |flags: &[(&str, &str)]| {
        launch(&server.url("upstream.git"), &world.root)
            .flags(flags)
            .spawn()
    };
    world.sidecar.kill();
    world.sidecar = again(&[("keep", "0"), ("stale-timeout", "0s")]);
    world
        .sidecar
        .wait_while_alive("the old tree to go", |_| !old.exists());
    for n in 2..=3 {
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
    }
    assert!(!world.root.litter(&[]).is_empty(), "it was not busy");
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    drop(mount);
    // What would not go is tried again from time to time, and at every start.
    world.sidecar.kill();
    world.sidecar = again(&[]);
    let pushed = world.push(4);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

/// A file system on a directory, which is then too busy to be deleted; unmounted on drop.
struct Mount {
    name: String,
}

impl Mount {
    fn on(path: &Path) -> Self {
        // Found again by its name, as its path changes with the directories above it.
        let name = format!("busy-{:016x}", fastrand::u64(..));
        let status = environment::command("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", &name])
            .arg(path)
            .status()
            .unwrap();
        assert!(status.success(), "these tests mount a tmpfs");
        Self { name }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines() {
            let mut words = line.split(' ');
            if words.next() == Some(self.name.as_str())
                && let Some(path) = words.next()
            {
                let _ = environment::command("umount")
                    .arg("--lazy")
                    .arg(path)
                    .status();
            }
        }
    }
}
