//! Whether two directories hold the same tree: paths, types, modes, bytes, link targets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Everything about one path that git records, and its whole mode.
#[derive(Clone, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: OsString },
    Other,
}

/// Asserts that `published` is what `oracle`, a checkout by git, is. A `.git` at the top of either
/// is no part of the tree.
#[track_caller]
pub fn assert_same(published: &Path, oracle: &Path) {
    let differences = differences(published, oracle);
    assert!(
        differences.is_empty(),
        "{} differs from what git checks out in {} places:\n{}",
        published.display(),
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}

/// How the two trees differ, one line for each path.
pub fn differences(published: &Path, oracle: &Path) -> Vec<String> {
    let (published, oracle) = (read(published), read(oracle));
    let mut lines = Vec::new();
    for (path, expected) in &oracle {
        match published.get(path) {
            None => lines.push(format!("{}: missing", path.display())),
            Some(found) if found != expected => lines.push(format!(
                "{}: {} instead of {}",
                path.display(),
                found.describe(),
                expected.describe()
            )),
            Some(_) => {}
        }
    }
    for (path, found) in &published {
        if !oracle.contains_key(path) {
            lines.push(format!("{}: {} too many", path.display(), found.describe()));
        }
    }
    lines
}

impl Entry {
    fn describe(&self) -> String {
        match self {
            Self::Directory { mode } => format!("directory {mode:o}"),
            Self::File { mode, content } => {
                let start = String::from_utf8_lossy(&content[..content.len().min(40)]);
                format!("file {mode:o} of {} bytes {start:?}", content.len())
            }
            Self::Symlink { target } => format!("link to {target:?}"),
            Self::Other => "neither file, directory nor link".to_owned(),
        }
    }
}

fn read(top: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let directory = top.join(&relative);
        let children = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for child in children {
            let child = child.unwrap();
            let path = relative.join(child.file_name());
            if path == Path::new(".git") {
                continue;
            }
            let meta = fs::symlink_metadata(child.path()).unwrap();
            let mode = meta.permissions().mode() & 0o7777;
            let entry = if meta.is_dir() {
                pending.push(path.clone());
                Entry::Directory { mode }
            } else if meta.is_file() {
                let content = fs::read(child.path()).unwrap();
                Entry::File { mode, content }
            } else if meta.is_symlink() {
                let target = fs::read_link(child.path()).unwrap().into_os_string();
                Entry::Symlink { target }
            } else {
                Entry::Other
            };
            entries.insert(path, entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::support::upstream::{Change, Upstream};

    #[test]
    fn two_checkouts_of_one_commit_are_the_same() {
        let upstream = Upstream::new();
        let commit = upstream.commit_changes("main", &sample());
        assert_same(
            upstream.checkout(&commit).path(),
            upstream.checkout(&commit).path(),
        );
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let upstream = Upstream::new();
        let commit = upstream.commit_changes("main", &sample());
        let oracle = upstream.checkout(&commit);
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 7] = [
            ("bin/run", |p| {
                fs::set_permissions(p, fs::Permissions::from_mode(0o644)).unwrap()
            }),
            ("README.md", |p| fs::write(p, "First\n").unwrap()),
            ("README.md", |p| fs::remove_file(p).unwrap()),
            ("new", |p| fs::write(p, "").unwrap()),
            ("new-directory", |p| fs::create_dir(p).unwrap()),
            ("link", |p| {
                fs::remove_file(p).unwrap();
                symlink("elsewhere", p).unwrap();
            }),
            ("dangling", |p| {
                fs::remove_file(p).unwrap();
                fs::write(p, "nowhere").unwrap();
            }),
        ];
        for (path, damage) in damages {
            let tree = upstream.checkout(&commit);
            damage(&tree.path().join(path));
            let found = differences(tree.path(), oracle.path());
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].starts_with(path), "{found:?}");
        }
    }

    fn sample() -> Vec<Change> {
        vec![
            Change::Executable("bin/run".into(), b"#!/bin/sh\n".to_vec()),
            Change::Symlink("link".into(), "README.md".into()),
            Change::Symlink("dangling".into(), "nowhere".into()),
        ]
    }
}
