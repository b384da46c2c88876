//! A volume that is full, read-only, damaged or gone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Readable, Recovery, Row, Told, World, launch, serve};
use crate::support::environment;
use crate::support::foreign::Volume;
use crate::support::full_disk::FullDisk;
use crate::support::http_server::HttpServer;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::Upstream;

const fn failure(
    fault: &'static str,
    stage: &'static str,
    message: &'static str,
    prove: fn(&Row),
) -> Row {
    Row {
        fault,
        readers: Readable::LastTree,
        operator: Told::Failure(stage, "disk", message),
        recovery: Recovery::NextAttempt,
        prove,
    }
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

/// Damage that nobody has to notice.
const fn survived(fault: &'static str, prove: fn(&Row)) -> Row {
    Row {
        fault,
        readers: Readable::EachCommit,
        operator: Told::Nothing,
        recovery: Recovery::AtOnce,
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
        |row| altered(row, |tree| {
            for name in ["LIST", "a/file-01-0", "a/b/file-02-0"] {
                fs::write(tree.join(name), "").unwrap();
            }
        }),
    ),
    a_pack_that_is_truncated: survived(
        "holds a truncated pack in the object store",
        |row| store_damaged(row, |pack| {
            let length = fs::metadata(pack).unwrap().len();
            let file = fs::OpenOptions::new().write(true).open(pack).unwrap();
            file.set_len(length / 2).unwrap();
        }),
    ),
    a_pack_that_is_overwritten: survived(
        "holds a pack of noise in the object store",
        |row| store_damaged(row, |pack| {
            let length = fs::metadata(pack).unwrap().len();
            fs::write(pack, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
        }),
    ),
    a_store_that_is_deleted: survived(
        "loses the object store",
        |row| store_damaged(row, |pack| {
            let store = pack.ancestors().nth(3).unwrap();
            assert!(store.ends_with("store.git"));
            // At once: what the sidecar writes meanwhile would be in the way of a slow deletion.
            fs::rename(store, store.ancestors().nth(3).unwrap().join("stolen")).unwrap();
        }),
    ),
    a_directory_that_cannot_be_deleted: Row {
        fault: "refuses to delete a part of an old tree (`EBUSY`)",
        readers: Readable::EachCommit,
        operator: Told::Nothing,
        recovery: Recovery::AtOnce,
        prove: busy,
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
    let (disk, _server, mut world) = on_a_disk(8 << 10, &[]);
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

fn permission_lost(row: &Row) {
    let volume = Volume::new(0o775);
    let root = Root::at(&volume.path().join("root"));
    fs::create_dir(root.path()).unwrap();
    volume.share(root.path());
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let launch = launch(&server.url("upstream.git"), &root);
    let mut world = World::new(upstream, root, volume.launch(launch));
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
        let launch = launch(&server.url("upstream.git"), &world.root);
        let with = |launch: Launch, (name, value): &(&str, &str)| launch.flag(name, value);
        flags.iter().fold(launch, with).spawn()
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
