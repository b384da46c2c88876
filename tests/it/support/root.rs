//! A root as a reader and as a suspicious operator see it: the link, the trees, the litter.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::tree_compare;
use super::upstream::Upstream;

/// A volume: a temporary directory that holds the root, and the root in it.
pub struct Root {
    _dir: Option<TempDir>,
    path: PathBuf,
    link: PathBuf,
}

impl Root {
    /// A root that does not exist yet, in a temporary directory; the link is `current`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut root = Self::at(&dir.path().join("root"));
        root._dir = Some(dir);
        root
    }

    /// A root at a place that somebody else looks after.
    pub fn at(path: &Path) -> Self {
        Self {
            _dir: None,
            path: path.to_owned(),
            link: path.join("current"),
        }
    }

    /// The same root with its link elsewhere.
    pub fn with_link(mut self, link: &Path) -> Self {
        self.link = link.to_owned();
        self
    }

    /// The root directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The published link.
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// A path in the directory that is the project's own.
    pub fn state(&self, relative: &str) -> PathBuf {
        self.path.join(".gvr").join(relative)
    }

    /// The commit that is published: the last part of what the link says. None without a link.
    pub fn commit(&self) -> Option<String> {
        match fs::read_link(&self.link) {
            Ok(target) => Some(target.file_name()?.to_str()?.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", self.link.display()),
        }
    }

    /// The published tree.
    pub fn tree(&self) -> PathBuf {
        let target = fs::read_link(&self.link).unwrap();
        assert!(target.is_relative(), "the link is absolute: {target:?}");
        self.link.parent().unwrap().join(target)
    }

    /// The number of the published revision.
    pub fn revision(&self) -> u64 {
        let tree = self.tree();
        let number = tree.parent().unwrap().file_name().unwrap();
        number.to_str().unwrap().parse().unwrap()
    }

    /// The complete revisions, oldest first: number and commit.
    pub fn revisions(&self) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        for number in names(&self.state("revisions")) {
            for name in names(&self.state("revisions").join(&number)) {
                if name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
                    found.push((number.parse().unwrap(), name));
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// The links to the newest revision's files that were made for the next one.
    pub fn spare(&self) -> PathBuf {
        let (n, _) = self.revisions().pop().expect("a revision");
        self.state("spare").join(format!("{n:06}"))
    }

    /// Whether all of the newest revision is linked ahead; not to be asked while the next one is
    /// built.
    pub fn is_linked_ahead(&self) -> bool {
        let Some((n, commit)) = self.revisions().pop() else {
            return false;
        };
        let newest = self.state(&format!("revisions/{n:06}/{commit}"));
        self.spare().is_dir() && tree_compare::differences(&self.spare(), &newest).is_empty()
    }

    /// Asserts that the link leads to exactly the tree that git checks out for this commit.
    #[track_caller]
    pub fn assert_published(&self, upstream: &Upstream, commit: &str) {
        assert_eq!(self.commit().as_deref(), Some(commit));
        tree_compare::assert_same(&self.tree(), upstream.checkout(commit).path());
    }

    /// Asserts that nothing is left of work that did not end, and that the root holds only what
    /// belongs there: the state, the link, and the named foreign entries.
    #[track_caller]
    pub fn assert_tidy(&self, foreign: &[&str]) {
        let litter = self.litter(foreign);
        assert!(litter.is_empty(), "litter: {litter:?}\n{}", self.listing());
    }

    /// What is there and should not be.
    pub fn litter(&self, foreign: &[&str]) -> Vec<PathBuf> {
        let mut litter = Vec::new();
        let link = self.link.file_name().and_then(|name| name.to_str());
        let expected = |name: &str| name == ".gvr" || foreign.contains(&name) || Some(name) == link;
        let mut keep = |directory: PathBuf, expected: &dyn Fn(&str) -> bool| {
            for name in names(&directory) {
                if !expected(&name) {
                    litter.push(directory.join(name));
                }
            }
        };
        keep(self.path.clone(), &expected);
        keep(self.state("staging"), &|_| false);
        keep(self.state("trash"), &|_| false);
        // That of an older revision goes with the next housekeeping.
        let revisions = self.revisions();
        keep(self.state("spare"), &|name| {
            revisions.iter().any(|(n, _)| name == format!("{n:06}"))
        });
        keep(self.state("store.git/objects/pack"), &|name| {
            name.starts_with("pack-")
        });
        keep(self.state("store.git"), &|name| !is_temporary(name));
        keep(self.state("store.git/objects"), &|name| !is_temporary(name));
        for name in names(&self.path.join(".gvr")) {
            if is_temporary(&name) {
                litter.push(self.state(&name));
            }
        }
        for number in names(&self.state("revisions")) {
            let revision = self.state("revisions").join(number);
            let inside = names(&revision);
            let trees = inside.iter().filter(|name| name.len() == 40).count();
            let known = ["durable", "manifest", "retired", "swap", "verdict"];
            let others = inside.iter().filter(|name| name.len() != 40);
            let whole = trees == 1
                && inside.iter().any(|name| name == "manifest")
                && others.into_iter().all(|name| known.contains(&&**name));
            if !whole {
                litter.push(revision);
            }
        }
        litter
    }

    /// Every path below the root down to the revisions' trees, with inode and change time: equal
    /// texts mean that nothing was touched.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        list(&self.path, 5, &mut text);
        text
    }
}

/// Replaces the content of a file by zeros and keeps its size and time, as a power cut does.
pub fn zero(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let zeros = vec![0; usize::try_from(metadata.len()).unwrap()];
    // In place: other revisions that share the file are affected, too.
    fs::write(path, zeros).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(metadata.modified().unwrap()).unwrap();
}

/// A name as git and others give it to what is not finished.
fn is_temporary(name: &str) -> bool {
    name.ends_with(".lock")
        || name.ends_with(".new")
        || name.ends_with(".tmp")
        || name.starts_with("tmp")
        || name.starts_with(".tmp")
}

/// The names in a directory, sorted; none if it does not exist.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

fn list(directory: &Path, depth: u32, text: &mut String) {
    for name in names(directory) {
        let path = directory.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = if meta.is_dir() {
            "/".to_owned()
        } else if let Ok(target) = fs::read_link(&path) {
            format!(" -> {}", target.display())
        } else {
            format!(" {} bytes", meta.len())
        };
        writeln!(
            text,
            "{}{kind} inode {} changed {}.{:09}",
            path.display(),
            meta.ino(),
            meta.ctime(),
            meta.ctime_nsec()
        )
        .unwrap();
        if meta.is_dir() && depth > 0 {
            list(&path, depth - 1, text);
        }
    }
}

#[test]
fn litter_is_seen_and_a_clean_root_has_none() {
    let root = Root::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    fs::create_dir_all(root.state("staging")).unwrap();
    fs::create_dir_all(root.state("store.git/objects/pack")).unwrap();
    fs::create_dir_all(root.state("revisions/000007").join(commit)).unwrap();
    fs::write(root.state("revisions/000007/manifest"), "").unwrap();
    fs::write(root.state("lock"), "").unwrap();
    fs::create_dir(root.path().join("lost+found")).unwrap();
    let target = format!(".gvr/revisions/000007/{commit}");
    std::os::unix::fs::symlink(target, root.link()).unwrap();
    root.assert_tidy(&["lost+found"]);
    assert_eq!(root.commit().as_deref(), Some(commit));
    assert_eq!(root.revisions(), [(7, commit.to_owned())]);
    assert_eq!(root.revision(), 7);
    assert_eq!(root.litter(&[]), [root.path().join("lost+found")]);
    fs::create_dir_all(root.state("spare/000007")).unwrap();
    root.assert_tidy(&["lost+found"]);
    for debris in [
        "staging/1",
        "spare/000006",
        "store.git/shallow.lock",
        "store.git/objects/pack/tmp_pack_x",
        "revisions/000008",
    ] {
        let path = root.state(debris);
        fs::create_dir(&path).unwrap();
        assert_eq!(
            root.litter(&["lost+found"]).as_slice(),
            std::slice::from_ref(&path),
            "{debris}"
        );
        fs::remove_dir(path).unwrap();
    }
}
