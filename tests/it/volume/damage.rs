//! Damage to the link, to the tree and to the root.

use super::*;

#[test]
fn damage_to_link_and_tree_is_noticed_and_mended_by_publishing() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        let link = &place.layout.link;
        let remove = || {
            if fs::symlink_metadata(link).unwrap().is_dir() {
                fs::remove_dir_all(link).unwrap();
            } else {
                fs::remove_file(link).unwrap();
            }
        };
        let hurts: [(&str, &dyn Fn()); 3] = [
            ("gone", &remove),
            ("elsewhere", &|| {
                remove();
                symlink("/etc", link).unwrap();
            }),
            ("file", &|| {
                remove();
                fs::write(link, "x").unwrap();
            }),
        ];
        for (what, hurt) in hurts {
            publish(&volume, 1);
            // One that stays, as the memory of having published.
            build(&volume, commit(2));
            hurt();
            assert!(
                damage(&volume).contains(what),
                "{what}: {}",
                damage(&volume)
            );
            publish(&volume, 3);
            assert_eq!(live(&volume), Some(commit(3)), "{what}");
            assert_eq!(place.read(), commit(3).to_string());
        }
    });
}

#[test]
fn a_tree_with_the_inode_number_of_a_deleted_one_is_not_taken_for_it() {
    let place = Place::new(PublishMode::Exchange);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    fs::remove_dir_all(&place.layout.link).unwrap();
    let revision = build(&volume, commit(2));
    // As when the file system gives the number away at once.
    let reused = fs::metadata(&revision.path).unwrap().ino();
    let record = format!("{} {reused}\n", commit(1));
    fs::write(place.gvr("revisions/000001/swap"), record).unwrap();
    flip(&volume, &revision).unwrap();
    assert_eq!(live(&volume), Some(commit(2)));
    assert_eq!(place.read(), commit(2).to_string());
}

#[test]
fn a_tree_that_was_deleted_or_replaced_is_damage() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let revision = publish(&volume, 1);
    assert_eq!(live(&volume), Some(commit(1)));
    // Kept elsewhere, so that its inode number is not used again.
    fs::rename(&revision.path, place.dir.path().join("elsewhere")).unwrap();
    assert!(damage(&volume).contains("gone"));
    fs::create_dir(&revision.path).unwrap();
    assert!(damage(&volume).contains("replaced"));
    publish(&volume, 1);
    assert_eq!(live(&volume), Some(commit(1)));
}

#[test]
fn a_directory_that_appears_at_the_link_is_an_error_and_stays() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        publish(&volume, 1);
        let next = build(&volume, commit(2));
        let link = &place.layout.link;
        fs::rename(link, place.dir.path().join("away")).unwrap();
        fs::create_dir(link).unwrap();
        fs::write(link.join("precious"), "x").unwrap();
        for error in [
            volume.observe().unwrap_err(),
            flip(&volume, &next).unwrap_err(),
        ] {
            assert!(error.to_string().contains("left alone"), "{error}");
            assert!(error.hint().is_some());
        }
        drop(volume);
        let error = place.open().unwrap_err();
        assert_eq!((error.stage, error.reason), (Stage::Start, Reason::Disk));
        assert_eq!(names(link), ["precious"]);
    });
}

#[test]
fn a_removed_root_is_noticed_and_can_be_opened_again() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    fs::remove_dir_all(&place.layout.root).unwrap();
    assert!(!volume.is_current());
    assert_eq!(volume.observe().unwrap_err().reason, Reason::Disk);
    drop(volume);
    publish(&place.open().unwrap(), 2);
    assert_eq!(place.read(), commit(2).to_string());
}
