//! What is known to be on the disk, and what must stay until more is.

use git_volume_reloader::volume::Durability;

use super::*;
use crate::support::wait::{PATIENCE, wait_until};

/// As if the revision came from before this boot.
fn forget_boot(place: &Place, n: u64) {
    let path = place.gvr(&format!("revisions/{n:06}/durable"));
    fs::write(path, "no  another-boot\n").unwrap();
}

#[test]
fn a_new_tree_is_unsynced_until_a_sync_and_durable_afterwards() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        publish(&volume, 1);
        assert_eq!(volume.durability(1), Durability::Unsynced);
        volume.sync().unwrap();
        assert_eq!(volume.durability(1), Durability::Durable);
        publish(&volume, 2);
        wait_until(PATIENCE, "the sync", || {
            !volume.sync_in_background().unwrap()
        });
        assert_eq!(volume.durability(2), Durability::Durable);
        place.assert_no_debris();
    });
}

#[test]
fn a_tree_of_another_boot_is_unproven_until_it_is_verified() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    for content in ["no  another-boot\n", "bad x\n", "yes", "\0\0\0\0", ""] {
        fs::write(place.gvr("revisions/000001/durable"), content).unwrap();
        assert_eq!(volume.durability(1), Durability::Unproven, "{content:?}");
    }
    // A sync of what may be damaged proves nothing.
    volume.sync().unwrap();
    assert_eq!(volume.durability(1), Durability::Unproven);
    volume.record_verified(1);
    assert_eq!(volume.durability(1), Durability::Unsynced);
    fs::remove_file(place.gvr("revisions/000001/durable")).unwrap();
    assert_eq!(volume.durability(1), Durability::Unproven);
}

#[test]
fn the_newest_durable_tree_stays_until_the_live_one_is_durable() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    volume.sync().unwrap();
    publish(&volume, 2);
    publish(&volume, 3);
    assert_eq!(prune_now(&volume, 0), [2]);
    volume.sync().unwrap();
    assert_eq!(prune_now(&volume, 0), [1]);
}

#[test]
fn a_live_tree_that_lost_its_manifest_in_a_power_cut_is_damage() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    fs::remove_file(place.gvr("revisions/000001/manifest")).unwrap();
    assert_eq!(volume.observe().unwrap().damage, None);
    forget_boot(&place, 1);
    assert!(damage(&volume).contains("may be incomplete"));
}
