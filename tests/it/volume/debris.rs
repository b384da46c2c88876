//! What opening a root removes, keeps and restores.

use super::*;

#[test]
fn debris_of_every_kind_is_swept_and_foreign_files_are_kept() {
    let place = Place::new(PublishMode::Symlink);
    {
        let volume = place.open().unwrap();
        publish(&volume, 1);
        build(&volume, commit(2));
    }
    let root = &place.layout.root;
    fs::create_dir_all(place.gvr("staging/000009/tree/deep")).unwrap();
    fs::write(place.gvr("staging/000009/tree/deep/f"), "x").unwrap();
    fs::create_dir_all(place.gvr("trash/000008.1.0/x")).unwrap();
    fs::create_dir_all(place.gvr(&format!("revisions/000004/{}", commit(4)))).unwrap();
    fs::create_dir_all(place.gvr("revisions/000005")).unwrap();
    fs::write(place.gvr("revisions/000005/manifest"), "half").unwrap();
    fs::write(place.gvr("revisions/note"), "foreign").unwrap();
    fs::create_dir(place.gvr("revisions/lost+found")).unwrap();
    symlink(".gvr/revisions/000004/x", root.join(".current.gvr-1.00")).unwrap();
    symlink("/etc", root.join(".current.gvr-mine")).unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    fs::write(root.join("foreign"), "x").unwrap();

    let volume = place.open().unwrap();
    assert_eq!(live(&volume), Some(commit(1)));
    let numbers: Vec<_> = volume.revisions().unwrap().iter().map(|r| r.n).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        names(root),
        [
            ".current.gvr-mine",
            ".gvr",
            "current",
            "foreign",
            "lost+found"
        ]
    );
    assert_eq!(
        names(&place.gvr("revisions")),
        ["000001", "000002", "lost+found", "note"]
    );
    assert_eq!(names(&place.gvr("staging")), Vec::<String>::new());
    assert_eq!(names(&place.gvr("trash")), Vec::<String>::new());
    assert!(build(&volume, commit(6)).n > 5);
}

#[test]
fn the_tree_that_the_link_shows_survives_the_loss_of_its_manifest() {
    let place = Place::new(PublishMode::Symlink);
    let revision = publish(&place.open().unwrap(), 1);
    fs::remove_file(&revision.manifest).unwrap();
    let volume = place.open().unwrap();
    assert_eq!(place.read(), commit(1).to_string());
    assert_eq!(volume.observe().unwrap(), Default::default());
    assert_eq!(prune_now(&volume, 0), Vec::<u64>::new());
    publish(&volume, 1);
    assert_eq!(prune_now(&volume, 0), [1]);
    assert_eq!(live(&volume), Some(commit(1)));
}

#[test]
fn rooms_that_were_removed_are_made_again() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    for room in ["staging", "revisions", "trash"] {
        fs::remove_dir_all(place.gvr(room)).unwrap();
    }
    assert!(damage(&volume).contains("gone"));
    publish(&volume, 2);
    assert_eq!(live(&volume), Some(commit(2)));
    prune_now(&volume, 0);
}

#[test]
fn opening_does_not_wait_until_the_links_of_an_earlier_life_are_gone() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let revision = publish(&volume, 1);
    let spare = volume.make_spare(revision.n).unwrap();
    fs::hard_link(revision.path.join("file"), spare.join("file")).unwrap();
    drop(volume);
    let volume = place.open().unwrap();
    assert!(spare.join("file").exists());
    assert!(volume.drop_spares().unwrap());
    assert!(!volume.drop_spares().unwrap());
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    volume.prune(policy, &Moment::now(), &budget()).unwrap();
    place.assert_no_debris();
}
