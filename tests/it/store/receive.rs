//! Packs that git makes, whole or broken, and what a failure leaves in the store.

use super::*;

use crate::support::full_disk::FullDisk;

#[test]
fn a_thin_pack_is_completed() {
    let world = World::new();
    let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    let first = world.commit("file", &text);
    world.fetch(first, 1);
    let second = world.commit("file", &text.replace("line 77\n", "changed\n"));
    let range = format!("{second}\n^{first}\n");
    let thin = world.pack(&["--thin"], &range);
    let fat = world.pack(&[], &range);
    assert!(thin.len() < fat.len(), "{} {}", thin.len(), fat.len());
    world.take(&thin, second).unwrap();
    world.assert_same(second);
}

#[test]
fn a_thin_pack_whose_base_is_not_here_blames_the_store() {
    let world = World::new();
    let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    let first = world.commit("file", &text);
    let second = world.commit("file", &text.replace("line 77\n", "changed\n"));
    let thin = world.pack(&["--thin"], &format!("{second}\n^{first}\n"));
    let error = world.take(&thin, second).unwrap_err();
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_truncated_pack_is_a_network_failure_and_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", "some text");
    let pack = world.pack(&[], &format!("{commit}\n"));
    for length in [
        0,
        4,
        12,
        40,
        pack.len() - 21,
        pack.len() - 20,
        pack.len() - 1,
    ] {
        let error = world.take(&pack[..length], commit).unwrap_err();
        assert_eq!(error.reason, Reason::Network, "{length}: {}", error.chain());
        assert_eq!(world.files(), Vec::<String>::new(), "{length}");
    }
    assert!(!world.store.contains(commit));
    world.take(&pack, commit).unwrap();
    world.assert_same(commit);
}

#[test]
fn a_damaged_pack_is_refused_and_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", "some text");
    let pack = world.pack(&[], &format!("{commit}\n"));
    let mut flipped = pack.clone();
    flipped[30] ^= 0x55;
    let mut longer = pack.clone();
    longer.extend(b"more");
    let mut sum = pack.clone();
    *sum.last_mut().unwrap() ^= 1;
    for (what, bytes) in [
        ("flipped", flipped),
        ("longer", longer),
        ("sum", sum),
        ("html", b"<!doctype html><html>not a pack</html>".to_vec()),
    ] {
        let error = world.take(&bytes, commit).unwrap_err();
        assert_eq!(error.reason, Reason::Protocol, "{what}: {}", error.chain());
        assert_eq!(world.files(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn a_pack_without_the_commit_is_refused() {
    let world = World::new();
    let first = world.commit("file", "1");
    let second = world.commit("file", "2");
    let pack = world.pack(&[], &format!("{first}\n"));
    let error = world.take(&pack, second).unwrap_err();
    assert_eq!(error.reason, Reason::Protocol);
    assert!(!world.store.contains(second));
}

#[test]
fn a_pack_beyond_the_limit_is_refused_and_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", &"x".repeat(10_000));
    let pack = world.pack(&[], &format!("{commit}\n"));
    let mut receiving = world.store.receive(&budget(), 100).unwrap();
    let error = receiving.write(&pack).unwrap_err();
    assert_eq!(error.reason, Reason::Limit);
    assert!(receiving.write(&pack).is_err());
    drop(receiving);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_cancelled_fetch_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", "1");
    let pack = world.pack(&[], &format!("{commit}\n"));
    let budget = budget();
    let mut receiving = world.store.receive(&budget, NO_LIMIT).unwrap();
    receiving.write(&pack[..20]).unwrap();
    budget.cancelled().store(true, Ordering::Relaxed);
    assert!(receiving.write(&pack[20..]).unwrap_err().is_cancelled());
    drop(receiving);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_a_disk_failure_and_leaves_nothing() {
    let world = World::new();
    let noise: String = (0..4_000_000).map(|_| fastrand::alphanumeric()).collect();
    let commit = world.commit("file", &noise);
    let pack = world.pack(&[], &format!("{commit}\n"));
    let disk = world.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(done.success(), "this test needs the right to mount a tmpfs");
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&disk.join("store.git")).unwrap();
        let mut receiving = store.receive(&budget(), NO_LIMIT).unwrap();
        let error = pack
            .chunks(8192)
            .find_map(|chunk| receiving.write(chunk).err())
            .expect("four megabytes do not fit into one");
        assert_eq!(error.reason, Reason::Disk, "{}", error.chain());
        assert!(error.hint().is_some_and(|hint| hint.contains("larger")));
        drop(receiving);
        assert_eq!(files(&store.path().join("objects")), Vec::<String>::new());
    });
    Command::new("umount")
        .arg("-l")
        .arg(&disk)
        .status()
        .unwrap();
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
}

#[test]
fn a_disk_that_is_full_before_the_index_is_written_is_no_damaged_pack() {
    const FILES: usize = 3000;
    let world = World::new();
    for n in 0..FILES {
        fs::write(world.upstream().join(format!("f{n}")), format!("{n}")).unwrap();
    }
    let commit = world.commit("last", "x");
    let pack = world.pack(&[], &format!("{commit}\n"));
    let disk = FullDisk::new(16 << 10);
    let store = Store::open(&disk.path().join("store.git")).unwrap();
    let stat = rustix::fs::statvfs(disk.path()).unwrap();
    let used = ((stat.f_blocks - stat.f_bfree) * stat.f_frsize) >> 10;
    let index = (FILES as u64 * 28) >> 10;
    let mut unindexed = 0;
    for missing in (4..index).step_by(12) {
        disk.resize(used + (pack.len() as u64 >> 10) + index + 8 - missing);
        let mut receiving = store.receive(&budget(), NO_LIMIT).unwrap();
        let taken = pack
            .chunks(1000)
            .try_for_each(|chunk| receiving.write(chunk))
            .and_then(|()| receiving.finish(&Fetched::default(), &[commit]));
        if let Err(error) = taken {
            assert_eq!(error.reason, Reason::Disk, "{missing}: {}", error.chain());
            unindexed += u32::from(error.chain().contains("the index of a pack"));
        }
        disk.resize(16 << 10);
        store.wipe().unwrap();
    }
    assert!(unindexed > 0, "the index was written each time");
    disk.resize(16 << 10);
    let mut receiving = store.receive(&budget(), NO_LIMIT).unwrap();
    receiving.write(&pack).unwrap();
    receiving.finish(&Fetched::default(), &[commit]).unwrap();
    assert!(store.contains(commit));
}
