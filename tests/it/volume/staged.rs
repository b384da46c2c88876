//! Staged trees: sealing, numbers, permissions, a full disk.

use super::*;

#[test]
fn a_dropped_stage_leaves_nothing() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let staged = volume.stage(commit(1)).unwrap();
    fs::create_dir(staged.tree().join("dir")).unwrap();
    fs::write(staged.tree().join("dir/file"), "x").unwrap();
    drop(staged);
    place.assert_no_debris();
}

#[test]
fn a_tree_without_a_manifest_cannot_be_sealed() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let error = volume.stage(commit(1)).unwrap().seal().unwrap_err();
    assert_eq!(error.stage, Stage::Publish);
    assert_eq!(volume.revisions().unwrap(), []);
    place.assert_no_debris();
}

#[test]
fn numbers_only_grow_across_restarts_and_pruning() {
    let place = Place::new(PublishMode::Symlink);
    let first = build(&place.open().unwrap(), commit(1));
    let volume = place.open().unwrap();
    let second = publish(&volume, 2);
    flip(&volume, &first).unwrap();
    prune_now(&volume, 0);
    drop(volume);
    let third = build(&place.open().unwrap(), commit(3));
    assert_eq!((first.n, second.n, third.n), (1, 2, 3));
}

#[test]
fn a_full_disk_fails_the_stage_keeps_the_tree_and_pruning_mends_it() {
    for mode in [PublishMode::Symlink, PublishMode::Exchange] {
        let disk = Tmpfs::mount("1m");
        let root = disk.path().join("root");
        let link = root.join("current");
        let place = Layout {
            root,
            link,
            mode,
            forgotten: Vec::new(),
        };
        let open = || Volume::open(place.clone(), "test", Duration::ZERO, &budget()).unwrap();
        let volume = open();
        let fill = |volume: &Volume, digit: u8| -> std::io::Result<Revision> {
            let staged = volume.stage(commit(digit)).unwrap();
            fs::write(staged.tree().join("file"), vec![digit; 400 << 10])?;
            fs::write(staged.manifest(), "m")?;
            Ok(accept(staged))
        };
        flip(&volume, &fill(&volume, 1).unwrap()).unwrap();
        flip(&volume, &fill(&volume, 2).unwrap()).unwrap();
        let error = fill(&volume, 3).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        // Stuffed to the last byte: what is live stays, and start and pruning still work.
        let _ = fs::write(place.root.join("stuffing"), vec![0; 1 << 20]);
        drop(volume);
        let volume = open();
        assert_eq!(live(&volume), Some(commit(2)));
        assert_eq!(prune_now(&volume, 0), [1]);
        flip(&volume, &fill(&volume, 3).unwrap()).unwrap();
        assert_eq!(live(&volume), Some(commit(3)));
    }
}

#[test]
fn nothing_is_world_writable_and_the_umask_is_respected() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    publish(&volume, 2);
    let listed = Command::new("find")
        .arg(&place.layout.root)
        .args(["-perm", "-o+w", "!", "-type", "l"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
}
