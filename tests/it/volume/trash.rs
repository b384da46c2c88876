//! Deleting trees in slices of time.

use super::*;

/// The directory and everything in it.
fn count(directory: &Path) -> usize {
    let below = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => count(&entry.path()),
            false => 1,
        }
    });
    1 + below.sum::<usize>()
}

#[test]
fn a_spent_budget_stops_deleting_and_the_next_call_goes_on() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let staged = volume.stage(commit(1)).unwrap();
    for n in 0..500 {
        fs::write(staged.tree().join(n.to_string()), "").unwrap();
    }
    fs::write(staged.manifest(), "m").unwrap();
    flip(&volume, &accept(staged)).unwrap();
    publish(&volume, 2);
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    let spent = Budget::new(Duration::ZERO, Duration::ZERO, Arc::default());
    let pruned = volume.prune(policy, &Moment::now(), &spent).unwrap();
    assert_eq!(
        (pruned.removed.as_slice(), pruned.pending),
        (&[1][..], true)
    );
    // What gives way to something else gets on all the same.
    let left = || match names(&place.gvr("trash")).first() {
        Some(tree) => count(&place.gvr("trash").join(tree)),
        None => 0,
    };
    loop {
        let before = left();
        let hurried = budget().giving_way(Instant::now(), Arc::default());
        let pruned = volume.prune(policy, &Moment::now(), &hurried).unwrap();
        assert!(left() < before && before - left() <= 100, "{before}");
        if !pruned.pending {
            break;
        }
    }
    place.assert_no_debris();
}

#[test]
fn a_tree_five_thousand_deep_is_deleted() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let staged = volume.stage(commit(1)).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = openat(CWD, staged.tree(), flags, Mode::empty()).unwrap();
    for _ in 0..5000 {
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
    drop(staged);
    prune_now(&volume, 0);
    place.assert_no_debris();
}

#[test]
fn a_deleted_directory_that_cannot_be_emptied_is_tried_again() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let revision = publish(&volume, 1);
    publish(&volume, 2);
    // A mount point cannot be removed (EBUSY), like a file that NFS still holds.
    fs::DirBuilder::new()
        .mode(0o755)
        .create(revision.path.join("busy"))
        .unwrap();
    let mut mount = Tmpfs::mount_at(revision.path.join("busy"));
    fs::write(mount.path().join("foreign"), "x").unwrap();
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    let pruned = volume.prune(policy, &Moment::now(), &budget()).unwrap();
    assert_eq!(
        (pruned.removed.as_slice(), pruned.pending),
        (&[1][..], true)
    );
    let trash = place.gvr("trash");
    let moved = trash.join(&names(&trash)[0]);
    mount.path = moved.join(commit(1).to_string()).join("busy");
    assert_eq!(names(mount.path()), ["foreign"]);
    drop(mount);
    assert!(
        !volume
            .prune(policy, &Moment::now(), &budget())
            .unwrap()
            .pending
    );
    place.assert_no_debris();
}
