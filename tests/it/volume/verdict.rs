//! Accepted, rejected and pending trees.

use super::*;

#[test]
fn a_rejected_tree_cannot_be_published_in_this_life_or_the_next() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    let staged = volume.stage(commit(2)).unwrap();
    fs::write(staged.manifest(), "manifest\n").unwrap();
    let sealed = staged.seal().unwrap();
    let rejected = sealed.revision().clone();
    sealed.reject("no index.html", "").unwrap();
    let assert_rejected = |volume: &Volume| {
        let verdict = Verdict::Rejected("no index.html".to_owned());
        assert_eq!(volume.verdict(&rejected), verdict);
        assert!(volume.accepted(&rejected).is_none());
        assert!(volume.pending(&rejected).is_none());
        assert_eq!(live(volume), Some(commit(1)));
    };
    assert_rejected(&volume);
    drop(volume);
    assert_rejected(&place.open().unwrap());
}

#[test]
fn a_tree_that_was_sealed_before_a_kill_is_still_pending() {
    let place = Place::new(PublishMode::Symlink);
    let revision = {
        let volume = place.open().unwrap();
        let staged = volume.stage(commit(1)).unwrap();
        fs::write(staged.manifest(), "manifest\n").unwrap();
        staged.seal().unwrap().revision().clone()
    };
    let volume = place.open().unwrap();
    assert!(volume.accepted(&revision).is_none());
    let sealed = volume.pending(&revision).expect("nobody has decided yet");
    volume.publish(&sealed.accept("").unwrap()).unwrap();
    assert_eq!(live(&volume), Some(commit(1)));
}

#[test]
fn a_rejected_tree_is_kept_while_it_is_the_newest_and_takes_no_place_of_an_accepted_one() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    publish(&volume, 2);
    for digit in [3, 4] {
        let staged = volume.stage(commit(digit)).unwrap();
        fs::write(staged.manifest(), "manifest\n").unwrap();
        staged.seal().unwrap().reject("no", "").unwrap();
    }
    assert_eq!(prune_now(&volume, 1), [3]);
    publish(&volume, 5);
    assert_eq!(prune_now(&volume, 1), [1, 4]);
    let left: Vec<u64> = volume.revisions().unwrap().iter().map(|r| r.n).collect();
    assert_eq!(left, [2, 5]);
}
