//! Which old revisions are removed, and when.

use super::*;

#[test]
fn pruning_keeps_the_live_one_the_newest_and_the_freshly_retired() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        for digit in 1..=5 {
            publish(&volume, digit);
        }
        let policy = Prune {
            keep: 1,
            stale_timeout: MINUTE,
        };
        let now = Moment::now();
        let pruned = volume.prune(policy, &now, &budget()).unwrap();
        assert_eq!((pruned.removed.len(), pruned.left), (0, 5));
        assert!(pruned.next.unwrap() <= MINUTE);
        drop(volume);

        // The times survive a restart.
        let volume = place.open().unwrap();
        let pruned = volume
            .prune(policy, &now.later(2 * MINUTE), &budget())
            .unwrap();
        assert_eq!(pruned.removed, [3, 2, 1]);
        assert_eq!((pruned.left, pruned.next, pruned.pending), (2, None, false));
        assert_eq!(live(&volume), Some(commit(5)));
        assert_eq!(place.read(), commit(5).to_string());
        let left: Vec<_> = volume.revisions().unwrap().iter().map(|r| r.n).collect();
        assert_eq!(left, [4, 5]);
        place.assert_no_debris();
    });
}

#[test]
fn a_retirement_nobody_wrote_down_starts_when_it_is_found() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    publish(&volume, 2);
    fs::remove_file(place.gvr("revisions/000001/retired")).unwrap();
    let policy = Prune {
        keep: 0,
        stale_timeout: MINUTE,
    };
    let later = Moment::now().later(10 * MINUTE);
    let pruned = volume.prune(policy, &later, &budget()).unwrap();
    assert_eq!((pruned.removed.len(), pruned.next), (0, Some(MINUTE)));
    let pruned = volume
        .prune(policy, &later.later(MINUTE), &budget())
        .unwrap();
    assert_eq!(pruned.removed, [1]);
}

#[test]
fn pruning_without_a_link_spares_one_more() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    for digit in 1..=3 {
        publish(&volume, digit);
    }
    fs::remove_file(&place.layout.link).unwrap();
    assert_eq!(prune_now(&volume, 1), [1]);
    assert_eq!(volume.revisions().unwrap().len(), 2);
}

#[test]
fn what_readers_saw_last_is_known_without_a_link_and_is_not_pruned() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    for digit in 1..=4 {
        publish(&volume, digit);
    }
    let revisions = volume.revisions().unwrap();
    flip(&volume, &revisions[1]).unwrap();
    fs::remove_file(&place.layout.link).unwrap();
    assert_eq!(volume.last_live(1..=4), Some(2));
    drop(volume);

    let volume = place.open().unwrap();
    assert_eq!(prune_now(&volume, 1), [1, 3]);
    assert_eq!(volume.last_live([2, 4]), Some(2));
    // Of those that retired, the last one; a time that nobody can read is no recent one.
    flip(&volume, &revisions[3]).unwrap();
    flip(&volume, &revisions[1]).unwrap();
    assert_eq!(volume.last_live([4]), Some(4));
    publish(&volume, 5);
    fs::write(place.gvr("revisions/000004/retired"), "- 0 1000\n").unwrap();
    assert_eq!(volume.last_live([2, 4]), Some(2));
    fs::write(place.gvr("revisions/000002/retired"), "").unwrap();
    assert_eq!(volume.last_live([2, 4]), Some(4));
}
