//! Several links of one root, of one process after the other.

use super::*;

impl Place {
    /// The same root with another link.
    fn with_link(&self, link: &Path) -> Layout {
        Layout {
            link: link.to_owned(),
            ..self.layout.clone()
        }
    }
}

fn open(layout: &Layout) -> Volume {
    Volume::open(layout.clone(), "test", Duration::from_secs(5), &budget()).unwrap()
}

/// Publishes three commits, each of which removes all trees that nobody needs.
fn publish_three(layout: &Layout, from: u8) {
    let volume = open(layout);
    for digit in from..from + 3 {
        publish(&volume, digit);
        prune_now(&volume, 0);
    }
}

#[test]
fn the_tree_of_an_earlier_link_stays() {
    both_modes(|place| {
        publish(&place.open().unwrap(), 1);
        publish_three(&place.with_link(&place.layout.root.join("other")), 2);
        assert_eq!(place.read(), commit(1).to_string());
        // Both are kept from now on, whichever process runs.
        publish_three(&place.with_link(&place.layout.root.join("third")), 5);
        assert_eq!(place.read(), commit(1).to_string());
        let other = place.layout.root.join("other/file");
        assert_eq!(fs::read_to_string(other).unwrap(), commit(4).to_string());
    });
}

#[test]
fn a_forgotten_link_keeps_nothing() {
    let place = Place::new(PublishMode::Symlink);
    publish(&place.open().unwrap(), 1);
    let layout = Layout {
        forgotten: vec![place.layout.link.clone()],
        ..place.with_link(&place.layout.root.join("other"))
    };
    publish_three(&layout, 2);
    assert!(!place.layout.link.exists());
    assert_eq!(names(&place.gvr("revisions")), ["000004"]);
}

#[test]
fn a_deleted_link_inside_the_root_is_forgotten_by_itself() {
    let place = Place::new(PublishMode::Symlink);
    publish(&place.open().unwrap(), 1);
    fs::remove_file(&place.layout.link).unwrap();
    publish_three(&place.with_link(&place.layout.root.join("other")), 2);
    assert_eq!(names(&place.gvr("revisions")), ["000004"]);
}

#[test]
fn the_tree_of_a_link_on_a_volume_that_is_not_mounted_here_stays() {
    let place = Place::new(PublishMode::Symlink);
    let elsewhere = place.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let volume = open(&place.with_link(&elsewhere.join("link")));
    let published = publish(&volume, 1);
    drop(volume);
    fs::rename(&elsewhere, place.dir.path().join("away")).unwrap();
    publish_three(&place.layout, 2);
    assert!(published.path.join("file").exists());
    // It is not there for good.
    let layout = Layout {
        forgotten: vec![elsewhere.join("link")],
        ..place.layout.clone()
    };
    publish_three(&layout, 5);
    assert!(!published.path.exists());
}
