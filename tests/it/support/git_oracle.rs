//! A repository made with real git, and what real git checks out of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git_volume_reloader::base::commit::Commit;
use git2::{ObjectType, Repository};

/// A repository with a work tree, in a directory of its own.
pub struct Origin {
    pub dir: PathBuf,
    /// Entries that the index is still to get.
    pending: RefCell<Vec<u8>>,
}

/// What stands at a path: type and permission bits, and the content, or the target of a link.
pub type Snapshot = BTreeMap<Vec<u8>, (String, Vec<u8>)>;

/// `git` that no configuration of this machine reaches.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env_clear();
    for name in ["PATH"] {
        if let Some(value) = std::env::vars_os().find(|(key, _)| key == name) {
            command.env(name, value.1);
        }
    }
    command
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_COMMITTER_NAME", "C")
        .env("GIT_COMMITTER_EMAIL", "c@example.org")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000");
    command
}

/// Runs git and returns what it printed; a failure shows both streams.
pub fn run(dir: &Path, args: &[&str]) -> String {
    let output = git(dir).args(args).output().expect("git starts");
    assert!(
        output.status.success(),
        "git {args:?} in {}: {}{}",
        dir.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs git with something on its standard input.
pub fn run_with_input(dir: &Path, args: &[&str], input: &[u8]) -> String {
    let mut child = git(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("git reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("git ends");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Origin {
    /// An empty repository at `dir`.
    pub fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        run(&dir, &["init", "-q", "-b", "main"]);
        // Blobs are to be exactly what the test writes.
        run(&dir, &["config", "core.autocrlf", "false"]);
        run(&dir, &["config", "core.safecrlf", "false"]);
        Self {
            dir,
            pending: RefCell::default(),
        }
    }

    /// The object store.
    pub fn store(&self) -> PathBuf {
        self.dir.join(".git")
    }

    /// Adds an entry to the index: the content goes in as it is, past all attributes.
    pub fn put(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> &Self {
        self.put_mode("100644", path, content)
    }

    /// The same, with a mode.
    pub fn put_mode(&self, mode: &str, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> &Self {
        let id = self.blob(content.as_ref());
        self.put_id(mode, path, &id)
    }

    /// Adds an entry for an object.
    pub fn put_id(&self, mode: &str, path: impl AsRef<[u8]>, id: &str) -> &Self {
        let mut pending = self.pending.borrow_mut();
        pending.extend_from_slice(format!("{mode} {id}\t").as_bytes());
        pending.extend_from_slice(path.as_ref());
        pending.push(0);
        self
    }

    fn update_index(&self) {
        let lines = self.pending.take();
        run_with_input(&self.dir, &["update-index", "-z", "--index-info"], &lines);
    }

    /// Takes a path out of the index.
    pub fn remove(&self, path: &str) -> &Self {
        self.update_index();
        run(&self.dir, &["rm", "-rfq", "--cached", path]);
        self
    }

    /// Stores a blob.
    pub fn blob(&self, content: &[u8]) -> String {
        self.object(ObjectType::Blob, content)
    }

    fn object(&self, kind: ObjectType, content: &[u8]) -> String {
        // Not through git: a process for every object makes most of a test's time.
        let repository = Repository::open(&self.dir).unwrap();
        let odb = repository.odb().unwrap();
        odb.write(kind, content).unwrap().to_string()
    }

    /// Stores a tree whose bytes nobody checks.
    pub fn raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            for pair in id.as_bytes().chunks(2) {
                let digits = std::str::from_utf8(pair).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
        }
        self.object(ObjectType::Tree, &bytes)
    }

    /// Stores the index as a tree.
    pub fn write_tree(&self) -> String {
        self.update_index();
        run(&self.dir, &["write-tree"])
    }

    /// Commits a tree.
    pub fn commit_tree(&self, tree: &str) -> Commit {
        let id = run(&self.dir, &["commit-tree", tree, "-m", "a commit"]);
        run(&self.dir, &["update-ref", "refs/heads/main", &id]);
        id.parse().unwrap()
    }

    /// Commits the index.
    pub fn commit(&self) -> Commit {
        let tree = self.write_tree();
        self.commit_tree(&tree)
    }

    /// What git itself checks out: into `to`, which must not exist.
    pub fn checkout(&self, commit: Commit, to: &Path) {
        let dir = to.parent().unwrap();
        let (from, to) = (self.dir.to_str().unwrap(), to.to_str().unwrap());
        run(dir, &["clone", "-q", "--no-checkout", from, to]);
        run(
            Path::new(to),
            &["checkout", "-q", "--detach", &commit.to_string()],
        );
    }
}

/// All that stands in a directory, but for `.git` anywhere.
pub fn snapshot(dir: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        for entry in fs::read_dir(dir.join(&below)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == ".git" {
                continue;
            }
            let path = below.join(entry.file_name());
            let metadata = entry.metadata().unwrap();
            let (kind, content) = if metadata.is_symlink() {
                let target = fs::read_link(dir.join(&path)).unwrap();
                ("link".to_owned(), target.as_os_str().as_bytes().to_vec())
            } else if metadata.is_dir() {
                waiting.push(path.clone());
                (format!("dir {:o}", metadata.permissions().mode()), vec![])
            } else {
                let mode = format!("file {:o}", metadata.permissions().mode());
                (mode, fs::read(dir.join(&path)).unwrap())
            };
            found.insert(path.as_os_str().as_bytes().to_vec(), (kind, content));
        }
    }
    found
}

/// Fails with the first paths that differ.
pub fn assert_same(ours: &Snapshot, gits: &Snapshot) {
    let mut differences = Vec::new();
    for path in ours
        .keys()
        .chain(gits.keys().filter(|path| !ours.contains_key(*path)))
    {
        let (ours, gits) = (ours.get(path), gits.get(path));
        if ours != gits {
            let show = |side: Option<&(String, Vec<u8>)>| match side {
                None => "nothing".to_owned(),
                Some((kind, content)) => {
                    format!("{kind} {:?}", content.escape_ascii().to_string())
                }
            };
            differences.push(format!(
                "{}: ours {}, git's {}",
                path.escape_ascii(),
                show(ours),
                show(gits)
            ));
        }
    }
    differences.truncate(20);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The inode of a path.
pub fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path.as_ref()).unwrap().ino()
}
