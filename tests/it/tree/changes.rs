//! What changed between two commits, compared with `git diff --name-status`.

use git_volume_reloader::tree::{Sparse, changes};

use crate::support::upstream::{Change, Upstream};

fn listed(upstream: &Upstream, old: &str, new: &str, selection: Option<&Sparse>) -> Vec<u8> {
    let (old, new) = (old.parse().unwrap(), new.parse().unwrap());
    let mut list = Vec::new();
    for change in changes(upstream.path(), old, new, selection).unwrap() {
        list.extend_from_slice(&[change.status, 0]);
        list.extend_from_slice(&change.path);
        list.push(0);
    }
    list
}

#[test]
fn the_list_of_changes_is_that_of_git() {
    let upstream = Upstream::empty();
    let first = upstream.commit_changes(
        "main",
        &[
            Change::file("a/deep/file", "1"),
            Change::file("a.txt", "1"),
            Change::file("becomes/a/directory", "1"),
            Change::file("file", "1"),
            Change::file("mode", "1"),
            Change::file("type", "1"),
            Change::file("same", "1"),
        ],
    );
    let second = upstream.commit_changes(
        "main",
        &[
            Change::Delete("a/deep".into()),
            Change::file("a/other", "2"),
            Change::file("a.txt", "2"),
            Change::Delete("becomes".into()),
            Change::file("becomes", "a file"),
            Change::Delete("file".into()),
            Change::file("file/below", "2"),
            Change::Executable("mode".into(), b"1".to_vec()),
            Change::Symlink("type".into(), "same".into()),
            Change::file("with space", "2"),
        ],
    );
    for (old, new) in [(&first, &second), (&second, &first), (&first, &first)] {
        let expected = upstream.git(&["diff", "--no-renames", "--name-status", "-z", old, new]);
        let listed = String::from_utf8(listed(&upstream, old, new, None)).unwrap();
        assert_eq!(
            listed.trim_end_matches('\0'),
            expected.trim_end_matches(['\0', '\n'])
        );
    }
    let selection = Sparse::from_paths(["a"]);
    let listed = listed(&upstream, &first, &second, Some(&selection));
    assert_eq!(listed, b"D\0a/deep/file\0A\0a/other\0");
}

#[test]
fn a_changed_gitattributes_makes_the_changes_unknown() {
    let upstream = Upstream::empty();
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[(".gitattributes", "* text\n")]);
    let (old, new) = (first.parse().unwrap(), second.parse().unwrap());
    assert!(changes(upstream.path(), old, new, None).is_err());
}
