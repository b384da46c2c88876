//! Publishing by exchange.

use super::*;

#[test]
fn a_kill_between_the_two_renames_of_an_exchange_is_put_right() {
    let place = Place::new(PublishMode::Exchange);
    let (first, second) = {
        let volume = place.open().unwrap();
        (publish(&volume, 1), publish(&volume, 2))
    };
    // After the exchange and before the old tree goes home, as a kill leaves it.
    fs::rename(&first.path, &second.path).unwrap();
    let volume = place.open().unwrap();
    assert_eq!(live(&volume), Some(commit(2)));
    let revisions = volume.revisions().unwrap();
    assert_eq!(revisions.len(), 2);
    assert_eq!(
        fs::read_to_string(revisions[0].path.join("file")).unwrap(),
        commit(1).to_string()
    );
    // Before the exchange: recorded, and not swapped.
    let third = build(&volume, commit(3));
    let inode = fs::metadata(&third.path).unwrap().ino();
    fs::write(
        place.gvr("revisions/000003/swap"),
        format!("{} {inode}\n", commit(3)),
    )
    .unwrap();
    drop(volume);
    let volume = place.open().unwrap();
    assert_eq!(live(&volume), Some(commit(2)));
    flip(&volume, &third).unwrap();
    assert_eq!(live(&volume), Some(commit(3)));
    assert_eq!(volume.revisions().unwrap().len(), 3);
}

#[test]
fn exchange_takes_over_an_empty_directory() {
    let place = Place::new(PublishMode::Exchange);
    fs::create_dir_all(&place.layout.link).unwrap();
    let volume = place.open().unwrap();
    assert_eq!(volume.observe().unwrap(), Default::default());
    publish(&volume, 1);
    assert_eq!(place.read(), commit(1).to_string());
}

#[test]
fn switching_between_the_modes_keeps_readers_served() {
    let mut place = Place::new(PublishMode::Symlink);
    publish(&place.open().unwrap(), 1);
    for (digit, mode) in [
        (2, PublishMode::Exchange),
        (3, PublishMode::Symlink),
        (4, PublishMode::Exchange),
    ] {
        place.layout.mode = mode;
        let volume = place.open().unwrap();
        assert_eq!(place.read(), commit(digit - 1).to_string());
        let before = volume.observe().unwrap();
        assert_eq!(before.live.unwrap().commit, commit(digit - 1));
        assert!(before.damage.is_some(), "a reason to publish");
        publish(&volume, digit);
        assert_eq!(place.read(), commit(digit).to_string());
        assert_eq!(live(&volume), Some(commit(digit)));
        let revisions = volume.revisions().unwrap();
        assert_eq!(revisions.len(), usize::from(digit));
        for revision in revisions {
            let text = fs::read_to_string(revision.path.join("file")).unwrap();
            assert_eq!(text, revision.commit.to_string());
        }
        place.assert_no_debris();
    }
}

#[test]
fn exchange_across_file_systems_is_a_clear_error() {
    let mut place = Place::new(PublishMode::Exchange);
    let other = Tmpfs::mount("1m");
    place.layout.link = other.path().join("docs");
    let volume = place.open().unwrap();
    let revision = build(&volume, commit(1));
    let error = flip(&volume, &revision).unwrap_err();
    assert_eq!((error.stage, error.reason), (Stage::Publish, Reason::Disk));
    assert!(error.hint().unwrap().contains("file system"), "{error:?}");
}
