//! Sharing unchanged files with the previous revision.

use super::*;

#[test]
fn a_wide_directory_is_cut_into_parts_and_shared_in_parts() {
    let mut bench = Bench::new();
    let blob = bench.origin.blob(b"x");
    let names: Vec<String> = (0..1500).map(|n| format!("f{n:05}")).collect();
    let mut entries: Vec<(&str, &[u8], &str)> = names
        .iter()
        .map(|name| ("100644", name.as_bytes(), blob.as_str()))
        .collect();
    let wide = bench.origin.raw_tree(&entries);
    let root = bench.origin.raw_tree(&[("40000", b"wide", &wide)]);
    let first = bench.origin.commit_tree(&root);
    bench.same_as_git(first);
    let (_, again) = bench.build(first, &TreeOptions::default());
    assert_eq!((again.files_shared, again.files_written), (1500, 0));
    let changed = bench.origin.blob(b"y");
    entries[1033].2 = &changed;
    let wide = bench.origin.raw_tree(&entries);
    let root = bench.origin.raw_tree(&[("40000", b"wide", &wide)]);
    let second = bench.origin.commit_tree(&root);
    let gits = bench.gits(second);
    let (tree, built) = bench.build(second, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (1499, 1));
    assert_same(&snapshot(&tree), &gits);
}

#[test]
fn a_changed_file_is_written_and_the_rest_is_linked() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("a/same", "same")
        .put("b/same", "same too")
        .put("b/changed", "one")
        .put_mode("120000", "b/link", "same");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put("b/changed", "two");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (3, 1));
    assert_eq!(built.shared_fallback, None);
    for path in ["a/same", "b/same", "b/link"] {
        assert_eq!(inode(before.join(path)), inode(after.join(path)), "{path}");
    }
    assert_ne!(
        inode(before.join("b/changed")),
        inode(after.join("b/changed"))
    );
    assert_same(&snapshot(&after), &bench.gits(second));
    assert_same(&snapshot(&before), &bench.gits(first));
}

#[test]
fn a_sub_tree_that_did_not_change_is_shared_without_reading_objects() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("quiet/deep/file", "unread")
        .put("top", "1");
    let first = bench.origin.commit();
    bench.build(first, &TreeOptions::default());
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    // Without its objects, the sub-tree can only come from the previous revision.
    let ids = ["quiet", "quiet/deep", "quiet/deep/file"]
        .map(|object| run(&bench.origin.dir, &["rev-parse", &format!("HEAD:{object}")]));
    for id in ids {
        let (start, rest) = id.split_at(2);
        fs::remove_file(bench.origin.store().join("objects").join(start).join(rest)).unwrap();
    }
    let (tree, _) = bench.build(second, &TreeOptions::default());
    assert_eq!(fs::read(tree.join("quiet/deep/file")).unwrap(), b"unread");
    bench.last = None;
    let error = bench.refused(second, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store, "{error}");
}

#[test]
fn a_file_that_a_consumer_altered_is_not_shared_onward() {
    let mut bench = Bench::new();
    for name in ["grown", "touched", "opened", "replaced", "gone", "kept"] {
        bench.origin.put(format!("d/{name}"), "content");
    }
    bench.origin.put_mode("120000", "d/relinked", "kept");
    bench.origin.put("top", "1");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    fs::write(before.join("d/grown"), "content, and more").unwrap();
    fs::write(before.join("d/touched"), "CONTENT").unwrap();
    fs::set_permissions(before.join("d/opened"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(before.join("d/replaced")).unwrap();
    symlink("kept", before.join("d/replaced")).unwrap();
    fs::remove_file(before.join("d/gone")).unwrap();
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_same(&snapshot(&after), &bench.gits(second));
    assert_eq!((built.files_shared, built.files_written), (2, 6));
}

#[test]
fn a_revision_that_is_gone_or_damaged_is_not_shared_from() {
    let mut bench = Bench::new();
    bench.origin.put("file", "content");
    let commit = bench.origin.commit();
    let (tree, _) = bench.build(commit, &TreeOptions::default());
    let manifest = tree.parent().unwrap().join("manifest");
    let whole = fs::read(&manifest).unwrap();
    for length in [0, 10, whole.len() - 1] {
        fs::write(&manifest, &whole[..length]).unwrap();
        let dir = bench.last.clone();
        let (_, built) = bench.build(commit, &TreeOptions::default());
        assert_eq!((built.files_shared, built.files_written), (0, 1));
        assert!(built.shared_fallback.is_some());
        bench.last = dir;
    }
    fs::write(&manifest, vec![0; whole.len()]).unwrap();
    assert!(verify(&tree).is_some());
    fs::write(&manifest, whole).unwrap();
    fs::remove_dir_all(&tree).unwrap();
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (0, 1));
}

/// Mounts what the test needs over a directory; undone on drop.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&at)
            .status()
            .expect("mount starts");
        assert!(status.success(), "cannot mount a tmpfs: root is needed");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_base_on_another_file_system_is_copied_from_the_store() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1").put("d/b", "2");
    let commit = bench.origin.commit();
    let _mount = Mount::tmpfs(bench.temp.path().join("revision-0"));
    bench.build(commit, &TreeOptions::default());
    let (tree, built) = bench.build(commit, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(commit));
    assert_eq!((built.files_shared, built.files_written), (0, 2));
    let why = built.shared_fallback.unwrap();
    assert!(why.contains("hard-linked"), "{why}");
}

#[test]
fn a_file_with_as_many_links_as_its_file_system_allows_is_written_anew() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1").put("d/b", "2");
    let commit = bench.origin.commit();
    let (tree, _) = bench.build(commit, &TreeOptions::default());
    let links = bench.temp.path().join("links");
    fs::create_dir(&links).unwrap();
    let mut made = 0_u32;
    // ext4 stops at 65,000; a file system without a limit has nothing to show here.
    while made < 66_000 && fs::hard_link(tree.join("a"), links.join(made.to_string())).is_ok() {
        made += 1;
    }
    let (after, built) = bench.build(commit, &TreeOptions::default());
    assert_same(&snapshot(&after), &bench.gits(commit));
    assert_eq!(inode(tree.join("d/b")), inode(after.join("d/b")));
    assert_eq!(built.shared_fallback.is_some(), made < 66_000);
    assert_eq!(built.files_written, u64::from(made < 66_000));
}

#[test]
fn sharing_by_clones_falls_back_where_the_file_system_has_none() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1").put_mode("120000", "l", "a");
    let commit = bench.origin.commit();
    let options = TreeOptions {
        share: Share::Reflink,
        ..TreeOptions::default()
    };
    let (before, _) = bench.build(commit, &options);
    let (after, built) = bench.build(commit, &options);
    assert_same(&snapshot(&after), &bench.gits(commit));
    assert_ne!(inode(before.join("a")), inode(after.join("a")));
    // Either the clone worked, or it is said why not.
    assert_eq!(
        built.files_shared,
        u64::from(built.shared_fallback.is_none())
    );
}

#[test]
fn nothing_is_shared_if_sharing_is_off() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1");
    let commit = bench.origin.commit();
    let options = TreeOptions {
        share: Share::None,
        ..TreeOptions::default()
    };
    let (before, _) = bench.build(commit, &options);
    let (after, _) = bench.build(commit, &options);
    assert_ne!(inode(before.join("a")), inode(after.join("a")));
}
