//! A root whose first revisions are on the lower layer of an overlay, as in a container image.

use super::*;

/// An overlay over a directory; unmounted on drop. Needs the right to mount.
struct Overlay {
    path: PathBuf,
    _dir: TempDir,
    _upper: Tmpfs,
}

impl Overlay {
    fn over(lower: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (upper, path) = (Tmpfs::mount("16m"), dir.path().join("merged"));
        for name in ["upper", "work"] {
            fs::create_dir(upper.path().join(name)).unwrap();
        }
        fs::create_dir(&path).unwrap();
        let layers = upper.path().display();
        let options = format!(
            "lowerdir={},upperdir={layers}/upper,workdir={layers}/work,redirect_dir=off",
            lower.display()
        );
        let output = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self {
            path,
            _dir: dir,
            _upper: upper,
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
    }
}

#[test]
fn revisions_of_the_lower_layer_are_deleted_where_they_are() {
    let image = Place::new(PublishMode::Symlink);
    let volume = image.open().unwrap();
    for digit in 1..=2 {
        publish(&volume, digit);
    }
    drop(volume);
    let overlay = Overlay::over(image.dir.path());
    let root = overlay.path.join("root");
    let layout = Layout {
        link: root.join("current"),
        root: root.clone(),
        ..image.layout.clone()
    };
    let open = || Volume::open(layout.clone(), "test", MINUTE, &budget()).unwrap();
    let revisions = root.join(".gvr/revisions");
    let (from, to) = (revisions.join("000001"), revisions.join("moved"));
    let error = fs::rename(from, to).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::CrossesDevices);

    let volume = open();
    publish(&volume, 3);
    // No time to delete anything: what is on its way out is incomplete from now on.
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    let spent = Budget::new(Duration::ZERO, Duration::ZERO, Arc::default());
    let pruned = volume.prune(policy, &Moment::now(), &spent).unwrap();
    assert_eq!((pruned.removed, pruned.left), (vec![2, 1], 1));
    assert_eq!(volume.revisions().unwrap().len(), 1);
    drop(volume);

    // The next process goes on where this one was.
    let volume = open();
    assert_eq!(live(&volume), Some(commit(3)));
    prune_now(&volume, 0);
    assert_eq!(names(&revisions), ["000003"]);
    let file = fs::read_to_string(layout.link.join("file")).unwrap();
    assert_eq!(file, commit(3).to_string());
}
