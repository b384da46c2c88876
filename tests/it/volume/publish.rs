//! What readers see after a publish and after a restart.

use super::*;

#[test]
fn a_published_revision_is_what_readers_see() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        assert_eq!(volume.observe().unwrap(), Default::default());
        for digit in 1..=5 {
            publish(&volume, digit);
            assert_eq!(place.read(), commit(digit).to_string());
            assert_eq!(live(&volume), Some(commit(digit)));
            let seen = volume.observe().unwrap().live.unwrap();
            assert_eq!(
                fs::read_to_string(seen.path.join("file")).unwrap(),
                commit(digit).to_string()
            );
            assert!(seen.manifest.is_file());
        }
        let revisions = volume.revisions().unwrap();
        let numbers: Vec<_> = revisions.iter().map(|r| r.n).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        for revision in revisions {
            let text = fs::read_to_string(revision.path.join("file")).unwrap();
            assert_eq!(text, revision.commit.to_string());
        }
        place.assert_no_debris();
    });
}

#[test]
fn the_link_is_relative_and_ends_in_the_commit() {
    let place = Place::new(PublishMode::Symlink);
    publish(&place.open().unwrap(), 7);
    let target = fs::read_link(&place.layout.link).unwrap();
    assert_eq!(
        target,
        Path::new(&format!(".gvr/revisions/000001/{}", commit(7)))
    );
}

#[test]
fn a_link_outside_the_root_is_relative_too() {
    let mut place = Place::new(PublishMode::Symlink);
    place.layout.link = place.dir.path().join("a/b/docs");
    publish(&place.open().unwrap(), 3);
    assert_eq!(place.read(), commit(3).to_string());
    let target = fs::read_link(&place.layout.link).unwrap();
    assert!(
        target.starts_with("../../root/.gvr/revisions"),
        "{target:?}"
    );
    assert_eq!(live(&place.open().unwrap()), Some(commit(3)));
}

#[test]
fn a_root_reached_through_a_symbolic_link_gets_a_link_that_resolves() {
    let mut place = Place::new(PublishMode::Symlink);
    fs::create_dir_all(place.dir.path().join("real/deep/root")).unwrap();
    symlink("real/deep/root", place.dir.path().join("root")).unwrap();
    place.layout.link = place.layout.root.join("links/current");
    publish(&place.open().unwrap(), 3);
    assert_eq!(place.read(), commit(3).to_string());
}

#[test]
fn a_restart_finds_what_was_published() {
    both_modes(|place| {
        publish(&place.open().unwrap(), 1);
        publish(&place.open().unwrap(), 2);
        let volume = place.open().unwrap();
        assert_eq!(live(&volume), Some(commit(2)));
        assert_eq!(volume.revisions().unwrap().len(), 2);
    });
}

#[test]
fn publishing_an_older_revision_again_works() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        let first = publish(&volume, 1);
        publish(&volume, 2);
        let first = volume
            .revisions()
            .unwrap()
            .into_iter()
            .find(|r| r.n == first.n)
            .unwrap();
        flip(&volume, &first).unwrap();
        assert_eq!(place.read(), commit(1).to_string());
        assert_eq!(prune_now(&volume, 0), [2]);
        assert_eq!(publish(&volume, 3).n, 3);
    });
}
