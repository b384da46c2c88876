//! Which directories may be a root, which paths its link, and what a root occupies.

use super::*;

#[test]
fn a_file_at_the_link_of_a_new_root_is_refused() {
    both_modes(|place| {
        fs::create_dir(&place.layout.root).unwrap();
        fs::write(&place.layout.link, "precious").unwrap();
        let error = place.open().unwrap_err();
        assert!(error.to_string().contains("is a file"), "{error}");
        assert_eq!(fs::read_to_string(&place.layout.link).unwrap(), "precious");
    });
}

#[test]
fn a_root_that_is_a_file_is_refused() {
    let place = Place::new(PublishMode::Symlink);
    fs::write(&place.layout.root, "x").unwrap();
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("is not a directory"), "{error}");
}

#[test]
fn a_link_above_the_root_or_inside_our_directory_is_refused() {
    let mut place = Place::new(PublishMode::Symlink);
    for link in [place.dir.path().to_owned(), place.gvr("current")] {
        place.layout.link = link;
        let error = place.open().unwrap_err();
        assert!(error.to_string().contains("in the way"), "{error}");
    }
}

#[test]
fn a_planted_symbolic_link_instead_of_our_directory_is_refused() {
    let place = Place::new(PublishMode::Symlink);
    fs::create_dir(&place.layout.root).unwrap();
    let elsewhere = place.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, place.gvr("")).unwrap_or_else(|_| {
        symlink(&elsewhere, place.layout.root.join(".gvr")).unwrap();
    });
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("is a link or a file"), "{error}");
    assert_eq!(names(&elsewhere), Vec::<String>::new());
}

#[test]
fn a_root_in_a_work_tree_is_refused_unless_it_is_ignored() {
    let place = Place::new(PublishMode::Symlink);
    let git = Command::new("git")
        .args(["init", "-q"])
        .arg(place.dir.path())
        .status()
        .unwrap();
    assert!(git.success());
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("work tree"), "{error}");
    fs::write(place.dir.path().join(".gitignore"), "/root/\n").unwrap();
    publish(&place.open().unwrap(), 1);
}

#[test]
fn a_root_that_is_itself_a_repository_is_refused() {
    let place = Place::new(PublishMode::Symlink);
    let git = Command::new("git")
        .args(["init", "-q"])
        .arg(&place.layout.root)
        .status()
        .unwrap();
    assert!(git.success());
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("work tree"), "{error}");
}

#[test]
fn another_users_root_is_refused_with_both_users_named() {
    let place = Place::new(PublishMode::Symlink);
    fs::create_dir(&place.layout.root).unwrap();
    fs::set_permissions(&place.layout.root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = place.layout.root.clone();
    let layout = place.layout.clone();
    // Credentials belong to the thread, where the raw system call changes them.
    let error = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65533);
        rustix::thread::set_thread_uid(nobody).unwrap();
        Volume::open(layout, "test", Duration::ZERO, &budget()).unwrap_err()
    })
    .join()
    .unwrap();
    assert!(
        error.to_string().contains(root.to_str().unwrap()),
        "{error}"
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("user 0 ") && hint.contains("user 65533"),
        "{hint}"
    );
}

#[test]
fn hard_links_count_once() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let before = volume.bytes(&budget()).unwrap();
    fs::write(place.layout.root.join("a"), vec![1; 1 << 20]).unwrap();
    fs::hard_link(place.layout.root.join("a"), place.layout.root.join("b")).unwrap();
    let added = volume.bytes(&budget()).unwrap() - before;
    assert!((1 << 20..3 << 19).contains(&added), "{added}");
}
