//! The upstream repository: a real bare repository with the verbs of the people who push to it.
//!
//! Everything is done by git itself, shut off from the configuration of the machine it runs on.
//! Commits go through `git fast-import`, which costs a few milliseconds each.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::environment;

/// A bare repository in a directory of its own; removed on drop.
pub struct Upstream {
    dir: TempDir,
    path: PathBuf,
    clock: Cell<u64>,
}

/// One `git update-ref` that goes on: a push costs no start of a process. Ended on drop.
pub struct Pusher {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// One change that a commit makes to the tree of its parent.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes a file of mode 100644.
    File(String, Vec<u8>),
    /// Writes a file of mode 100755.
    Executable(String, Vec<u8>),
    /// Writes a symbolic link: path, target.
    Symlink(String, String),
    /// Puts a submodule's commit at a path.
    Submodule(String, String),
    /// Removes a file or a directory.
    Delete(String),
}

impl Change {
    /// A plain file.
    pub fn file(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self::File(path.into(), content.into())
    }
}

impl Upstream {
    /// An empty repository whose HEAD names the unborn branch `main`.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upstream.git");
        let upstream = Self {
            dir,
            path,
            clock: Cell::new(1_700_000_000),
        };
        let path = upstream.path.to_str().unwrap().to_owned();
        run(git(upstream.dir.path()).args(["init", "-q", "--bare", &path]));
        upstream
    }

    /// A repository with one commit on `main`.
    pub fn new() -> Self {
        let upstream = Self::empty();
        upstream.commit(&[("README.md", "first\n")]);
        upstream
    }

    /// Where the repository is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `file://` address of the repository.
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Commits files on `main`; returns the full commit id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        let changes: Vec<_> = files.iter().map(|(p, c)| Change::file(*p, *c)).collect();
        self.commit_changes("main", &changes)
    }

    /// Commits changes on a branch, which is made if it does not exist.
    pub fn commit_changes(&self, branch: &str, changes: &[Change]) -> String {
        let name = format!("refs/heads/{branch}");
        let parent = self.resolve(&name);
        let commit = self.import(&[(parent, changes)]).remove(0);
        self.update_ref(&name, &commit);
        commit
    }

    /// Replaces the whole history of a branch by one commit without a parent.
    pub fn rewrite_from_nothing(&self, branch: &str, changes: &[Change]) -> String {
        let commit = self.import(&[(None, changes)]).remove(0);
        self.update_ref(&format!("refs/heads/{branch}"), &commit);
        commit
    }

    /// Writes a chain of commits on top of `main` without pushing any: to be pushed one by one.
    pub fn prepare(&self, chain: &[Vec<Change>]) -> Vec<String> {
        let parent = self.resolve("refs/heads/main");
        let commits: Vec<_> = chain
            .iter()
            .enumerate()
            .map(|(i, changes)| {
                let parent = if i == 0 {
                    parent.clone()
                } else {
                    Some(format!(":{i}"))
                };
                (parent, changes.as_slice())
            })
            .collect();
        self.import(&commits)
    }

    /// Somebody who moves one ref again and again.
    pub fn pusher(&self, name: &str) -> Pusher {
        let mut child = self
            .command()
            .args(["update-ref", "--stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Pusher {
            name: name.to_owned(),
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Points a full ref name at an object, whatever it held before.
    pub fn update_ref(&self, name: &str, object: &str) {
        self.git(&["update-ref", name, object]);
    }

    /// Pushes by force: the branch becomes this commit.
    pub fn force_push(&self, branch: &str, commit: &str) {
        self.update_ref(&format!("refs/heads/{branch}"), commit);
    }

    /// Sets a lightweight tag, moving it if it exists.
    pub fn tag(&self, name: &str, commit: &str) {
        self.git(&["tag", "--force", "--no-sign", name, commit]);
    }

    /// Sets an annotated tag, moving it if it exists; returns the tag object's id.
    pub fn annotated_tag(&self, name: &str, commit: &str) -> String {
        self.git(&[
            "tag",
            "--force",
            "--annotate",
            "--message",
            "a tag",
            name,
            commit,
        ]);
        self.git(&["rev-parse", &format!("refs/tags/{name}")])
    }

    /// Deletes a ref by its full name.
    pub fn delete_ref(&self, name: &str) {
        self.git(&["update-ref", "-d", name]);
    }

    /// Makes another branch the default one.
    pub fn set_default_branch(&self, branch: &str) {
        self.git(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]);
    }

    /// Adds `n` branches `many/<i>`, all at the tip of `main`, by writing `packed-refs`.
    pub fn many_refs(&self, n: usize) {
        self.git(&["pack-refs", "--all"]);
        let tip = self.tip("refs/heads/main");
        let file = self.path.join("packed-refs");
        let mut refs: Vec<String> = std::fs::read_to_string(&file)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with(['#', '^']))
            .map(str::to_owned)
            .collect();
        refs.extend((0..n).map(|i| format!("{tip} refs/heads/many/{i:07}")));
        refs.sort_by(|a, b| a[41..].cmp(&b[41..]));
        let mut text = String::from("# pack-refs with: sorted \n");
        for line in refs {
            text.push_str(&line);
            text.push('\n');
        }
        std::fs::write(file, text).unwrap();
    }

    /// Commits a tree of `files` files of `bytes` bytes each, 100 to a directory, all different.
    pub fn big_tree(&self, files: usize, bytes: usize) -> String {
        let changes: Vec<_> = (0..files)
            .map(|i| {
                let mut content = format!("file {i}\n").into_bytes();
                content.resize(bytes, b'.');
                Change::File(format!("big/{:04}/{i:06}.txt", i / 100), content)
            })
            .collect();
        self.commit_changes("main", &changes)
    }

    /// What a ref points to, peeled to a commit.
    pub fn tip(&self, name: &str) -> String {
        self.git(&["rev-parse", "--verify", &format!("{name}^{{commit}}")])
    }

    /// Takes the repository away, as when it is deleted or access is lost.
    pub fn remove(&self) {
        std::fs::rename(&self.path, self.away()).unwrap();
    }

    /// Brings it back.
    pub fn restore(&self) {
        std::fs::rename(self.away(), &self.path).unwrap();
    }

    /// What `git checkout` of that commit gives, in a new directory.
    pub fn checkout(&self, commit: &str) -> TempDir {
        let tree = tempfile::tempdir().unwrap();
        let index = self.dir.path().join(format!("index-{commit}"));
        run(self
            .command()
            .arg("--work-tree")
            .arg(tree.path())
            .env("GIT_INDEX_FILE", &index)
            .args(["read-tree", "--reset", "-u", commit]));
        std::fs::remove_file(index).unwrap();
        tree
    }

    /// Writes an object as it is, however little git would like it; returns its id.
    pub fn object(&self, kind: &str, content: &[u8]) -> String {
        let write = ["hash-object", "-w", "--literally", "--stdin", "-t", kind];
        self.feed(&write, content)
    }

    /// Writes a tree from lines as `git ls-tree` prints them; returns its id.
    pub fn tree(&self, listing: &str) -> String {
        self.feed(&["mktree"], listing.as_bytes())
    }

    /// Takes a pack in as it is.
    pub fn unpack(&self, pack: &[u8]) {
        self.feed(&["index-pack", "--stdin"], pack);
    }

    /// Runs a git command that reads `input`; returns what it printed, trimmed.
    fn feed(&self, args: &[&str], input: &[u8]) -> String {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "git {args:?}");
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs a git command in the repository; returns what it printed, trimmed.
    pub fn git(&self, args: &[&str]) -> String {
        let out = run(self.command().args(args));
        out.trim_end().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = git(self.dir.path());
        command.arg("--git-dir").arg(&self.path);
        command
    }

    fn away(&self) -> PathBuf {
        self.dir.path().join("taken-away.git")
    }

    fn resolve(&self, name: &str) -> Option<String> {
        let out = self
            .command()
            .args(["rev-parse", "--verify", "--quiet", name])
            .output()
            .unwrap();
        let id = String::from_utf8(out.stdout).unwrap().trim().to_owned();
        (!id.is_empty()).then_some(id)
    }

    /// Writes commits (parent, changes) through one `git fast-import`; mark `:i` is the i-th,
    /// counted from 1.
    fn import(&self, commits: &[(Option<String>, &[Change])]) -> Vec<String> {
        // The branch that fast-import insists on; removed again, so that nothing is pushed.
        const SCRATCH: &str = "refs/scratch/import";
        let mut stream = Vec::new();
        for (i, (parent, changes)) in commits.iter().enumerate() {
            let now = self.clock.get();
            self.clock.set(now + 1);
            let mut head = String::new();
            writeln!(head, "reset {SCRATCH}").unwrap();
            writeln!(head, "commit {SCRATCH}\nmark :{}", i + 1).unwrap();
            writeln!(
                head,
                "committer Upstream <upstream@example.com> {now} +0000"
            )
            .unwrap();
            writeln!(head, "data 10\ncommit {:02}\n", i % 100).unwrap();
            if let Some(parent) = parent {
                writeln!(head, "from {parent}").unwrap();
            }
            stream.extend_from_slice(head.as_bytes());
            for change in *changes {
                change.write(&mut stream);
            }
        }
        let marks = self.dir.path().join("marks");
        let mut child = self
            .command()
            .args(["fast-import", "--quiet", "--force", "--date-format=raw"])
            .arg(format!("--export-marks={}", marks.display()))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&stream).unwrap();
        assert!(child.wait().unwrap().success(), "git fast-import failed");
        self.delete_ref(SCRATCH);
        let mut ids = vec![String::new(); commits.len()];
        for line in std::fs::read_to_string(marks).unwrap().lines() {
            let (mark, id) = line.split_once(' ').unwrap();
            ids[mark[1..].parse::<usize>().unwrap() - 1] = id.to_owned();
        }
        ids
    }
}

impl Pusher {
    /// Points the ref at a commit, whatever it held before.
    pub fn push(&mut self, commit: &str) {
        let name = &self.name;
        writeln!(self.stdin, "start\nupdate {name} {commit}\nprepare\ncommit").unwrap();
        for step in ["start", "prepare", "commit"] {
            let mut answer = String::new();
            self.stdout.read_line(&mut answer).unwrap();
            assert_eq!(answer, format!("{step}: ok\n"), "git update-ref");
        }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Change {
    fn write(&self, stream: &mut Vec<u8>) {
        let (mode, path, content) = match self {
            Self::File(path, content) => ("100644", path, content.as_slice()),
            Self::Executable(path, content) => ("100755", path, content.as_slice()),
            Self::Symlink(path, target) => ("120000", path, target.as_bytes()),
            Self::Submodule(path, commit) => {
                stream.extend_from_slice(format!("M 160000 {commit} {path}\n").as_bytes());
                return;
            }
            Self::Delete(path) => {
                stream.extend_from_slice(format!("D {path}\n").as_bytes());
                return;
            }
        };
        stream.extend_from_slice(
            format!("M {mode} inline {path}\ndata {}\n", content.len()).as_bytes(),
        );
        stream.extend_from_slice(content);
        stream.push(b'\n');
    }
}

/// A git command that knows nothing of this machine's configuration.
pub fn git(home: &Path) -> Command {
    let mut command = environment::command("git");
    command
        .current_dir(home)
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Author")
        .env("GIT_AUTHOR_EMAIL", "author@example.com")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_NAME", "Upstream")
        .env("GIT_COMMITTER_EMAIL", "upstream@example.com")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .args(["-c", "protocol.file.allow=always"])
        .args(["-c", "commit.gpgsign=false"])
        .args(["-c", "init.defaultBranch=main"])
        .args(["-c", "safe.directory=*"])
        .args(["-c", "gc.auto=0"])
        .args(["-c", "core.quotePath=false"]);
    command
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn an_upstream_has_the_history_its_verbs_say() {
    let upstream = Upstream::new();
    let first = upstream.tip("HEAD");
    let second = upstream.commit(&[("a/b", "1\n")]);
    assert_eq!(upstream.tip("main"), second);
    assert_eq!(upstream.tip("main~1"), first);
    upstream.force_push("main", &first);
    assert_eq!(upstream.tip("HEAD"), first);
    let orphan = upstream.rewrite_from_nothing("main", &[Change::file("x", "y")]);
    assert_eq!(upstream.git(&["rev-list", "--count", "main"]), "1");
    let tag = upstream.annotated_tag("v1", &orphan);
    assert_ne!(tag, orphan);
    assert_eq!(upstream.tip("v1"), orphan);
    upstream.many_refs(1000);
    assert_eq!(upstream.tip("refs/heads/many/0000999"), orphan);
    assert_eq!(upstream.tip("v1"), orphan);
    let chain = upstream.prepare(&[vec![Change::file("p", "1")], vec![Change::file("p", "2")]]);
    assert_eq!(
        upstream.tip("main"),
        orphan,
        "a prepared commit is not pushed"
    );
    let mut pusher = upstream.pusher("refs/heads/main");
    for commit in &chain {
        pusher.push(commit);
        assert_eq!(&upstream.tip("main"), commit);
    }
    assert_eq!(upstream.git(&["rev-list", "--count", "main"]), "3");
    assert_eq!(upstream.git(&["for-each-ref", "refs/scratch"]), "");
}
