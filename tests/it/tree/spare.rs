//! Links that were made ahead: what they save, and that they are never trusted.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::tree::{Built, Share, TreeOptions};

use super::Bench;
use crate::support::git_oracle::{assert_same, inode, snapshot};

impl Bench {
    /// A full spare of the last revision.
    fn spare(&self) -> PathBuf {
        let spare = self.temp.path().join("spare");
        self.link_ahead(&spare, usize::MAX, &TreeOptions::default());
        spare
    }

    fn build_from(&self, spare: &Path, commit: Commit, options: &TreeOptions) -> (PathBuf, Built) {
        self.build_into(
            &self.temp.path().join("after"),
            Some(spare),
            commit,
            options,
        )
        .unwrap_or_else(|error| panic!("{}", error.chain()))
    }
}

#[test]
fn a_directory_that_did_not_change_is_moved_out_of_the_spare() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("same/deep/er/file", "same")
        .put("same/file", "same too")
        .put("mixed/same/file", "and this")
        .put("mixed/changed", "one")
        .put("gone/file", "gone");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put("mixed/changed", "two").remove("gone");
    let second = bench.origin.commit();
    let spare = bench.spare();
    assert_same(&snapshot(&spare), &snapshot(&before));
    let moved = ["same", "same/deep/er", "mixed/same"];
    let inodes = moved.map(|path| inode(spare.join(path)));
    let (tree, built) = bench.build_from(&spare, second, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(second));
    assert_eq!(moved.map(|path| inode(tree.join(path))), inodes);
    assert_eq!((built.files_shared, built.files_written), (3, 1));
    let left = ["gone", "gone/file", "mixed", "mixed/changed"].map(|path| path.as_bytes().to_vec());
    assert_eq!(snapshot(&spare).into_keys().collect::<Vec<_>>(), left);
    assert_same(&snapshot(&before), &bench.gits(first));
}

#[test]
fn a_file_that_was_altered_since_it_was_linked_ahead_is_written_anew() {
    let mut bench = Bench::new();
    for name in ["grown", "touched", "opened", "replaced", "removed", "lost"] {
        bench.origin.put(format!("d/{name}"), "content");
    }
    bench
        .origin
        .put_mode("120000", "d/relinked", "lost")
        .put("top", "1");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    let spare = bench.spare();
    // What a consumer does to the published tree, to inodes that the spare shares.
    fs::write(before.join("d/grown"), "content, and more").unwrap();
    fs::write(before.join("d/touched"), "CONTENT").unwrap();
    fs::set_permissions(before.join("d/opened"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::remove_file(before.join("d/removed")).unwrap();
    // What nobody should do to the spare.
    fs::remove_file(spare.join("d/lost")).unwrap();
    for name in ["d/replaced", "d/relinked"] {
        fs::remove_file(spare.join(name)).unwrap();
        symlink("/etc/passwd", spare.join(name)).unwrap();
    }
    let (tree, built) = bench.build_from(&spare, second, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(second));
    // Removed from the tree, but linked ahead; lost, replaced and relinked, but in the tree.
    assert_eq!((built.files_shared, built.files_written), (4, 4));
}

#[test]
fn a_spare_that_is_not_there_or_not_wanted_is_done_without() {
    let mut bench = Bench::new();
    bench.origin.put("d/file", "content").put("top", "1");
    let first = bench.origin.commit();
    bench.build(first, &TreeOptions::default());
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    let nothing = bench.temp.path().join("nothing");
    let (tree, built) = bench.build_from(&nothing, second, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(second));
    assert_eq!(built.files_shared, 1);
    fs::remove_dir_all(tree.parent().unwrap()).unwrap();

    let spare = bench.spare();
    let before = snapshot(&spare);
    for options in [
        TreeOptions {
            share: Share::None,
            ..TreeOptions::default()
        },
        TreeOptions {
            group_write: true,
            ..TreeOptions::default()
        },
    ] {
        let (tree, built) = bench.build_from(&spare, second, &options);
        assert_eq!(built.files_shared, 0);
        assert_same(&snapshot(&spare), &before);
        fs::remove_dir_all(tree.parent().unwrap()).unwrap();
    }
}

#[test]
fn one_file_that_cannot_be_linked_is_not_in_the_others_way() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c/file", "top"] {
        bench.origin.put(name, "content");
    }
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    fs::remove_file(before.join("b")).unwrap();
    fs::create_dir(before.join("b")).unwrap();
    let spare = bench.spare();
    let linked = ["a", "b", "c/file"].map(|path| spare.join(path).exists());
    assert_eq!(linked, [true, false, true]);
    let (tree, built) = bench.build_from(&spare, second, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(second));
    assert_eq!((built.files_shared, built.files_written), (2, 2));
}
