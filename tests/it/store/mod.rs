//! The object store and the local remote, against repositories that git made and git checks.

mod fetch;
mod local_remote;
mod maintain;
mod open;
mod receive;
mod rewrite;
mod summary;
mod thin;

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, SyncError};
use git_volume_reloader::remote::local::LocalRemote;
use git_volume_reloader::remote::{
    Advertised, FetchRequest, Fetched, PackSink, RefName, Remote, Tip,
};
use git_volume_reloader::store::Store;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);

const NO_LIMIT: u64 = u64::MAX;

fn budget() -> Budget {
    Budget::new(MINUTE, MINUTE, Arc::default())
}

/// Runs git without the user's configuration; returns what it prints.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = git_command(dir, args).output().unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn git_command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn id(text: &str) -> Commit {
    text.parse().unwrap()
}

/// An upstream repository with a work tree, and a store that follows it.
struct World {
    dir: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("upstream")).unwrap();
        git(&dir.path().join("upstream"), &["init", "-q", "-b", "main"]);
        let store = Store::open(&dir.path().join("store.git")).unwrap();
        Self { dir, store }
    }

    fn upstream(&self) -> PathBuf {
        self.dir.path().join("upstream")
    }

    fn remote(&self) -> LocalRemote {
        LocalRemote::new(self.upstream())
    }

    fn commit(&self, file: &str, content: &str) -> Commit {
        let path = self.upstream().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        git(&self.upstream(), &["add", "-A"]);
        git(&self.upstream(), &["commit", "-q", "-m", file]);
        id(&git(&self.upstream(), &["rev-parse", "HEAD"]))
    }

    fn fetch(&self, want: Commit, depth: u32) -> Fetched {
        self.fetch_from(&mut self.remote(), want, depth).unwrap()
    }

    fn fetch_from(
        &self,
        remote: &mut LocalRemote,
        want: Commit,
        depth: u32,
    ) -> Result<Fetched, SyncError> {
        let (haves, shallow) = (self.store.haves(), self.store.shallow());
        let request = FetchRequest {
            want,
            also: &[],
            name: None,
            haves: &haves,
            shallow: &shallow,
            depth,
            thin: true,
        };
        let mut receiving = self.store.receive(&budget(), NO_LIMIT)?;
        let fetched = remote.fetch(&request, &mut receiving, &budget())?;
        receiving.finish(&fetched, &[want])?;
        Ok(fetched)
    }

    /// git's opinion of the store, and the tree of a commit as git lists it.
    fn assert_same(&self, commit: Commit) {
        git(self.store.path(), &["fsck", "--strict"]);
        let list = ["ls-tree", "-r", "-l", "--full-tree", &commit.to_string()];
        assert_eq!(
            git(self.store.path(), &list),
            git(&self.upstream(), &list),
            "{commit}"
        );
    }

    fn log(&self, commit: Commit) -> Vec<String> {
        git(self.store.path(), &["rev-list", &commit.to_string()])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// A pack as git makes it.
    fn pack(&self, options: &[&str], revisions: &str) -> Vec<u8> {
        let mut args = vec!["pack-objects", "-q", "--revs", "--stdout"];
        args.extend(options);
        let mut child = git_command(&self.upstream(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(revisions.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn take(&self, bytes: &[u8], want: Commit) -> Result<(), SyncError> {
        let mut receiving = self.store.receive(&budget(), NO_LIMIT)?;
        for chunk in bytes.chunks(1000) {
            receiving.write(chunk)?;
        }
        receiving.finish(&Fetched::default(), &[want])
    }

    fn files(&self) -> Vec<String> {
        files(&self.store.path().join("objects"))
    }
}

fn files(dir: &Path) -> Vec<String> {
    let listed = Command::new("find")
        .arg(dir)
        .args(["-type", "f"])
        .output()
        .unwrap();
    let mut files: Vec<_> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    files.sort();
    files
}

fn at(tip: Tip) -> Advertised {
    match tip {
        Tip::At(advertised) => advertised,
        Tip::Missing { .. } => panic!("the ref is missing"),
    }
}

fn tip(world: &World, name: RefName) -> Tip {
    world.remote().tip(&name, &budget()).unwrap()
}

/// Gives a stream to `git fast-import` upstream.
fn import(world: &World, stream: &str) {
    let mut child = git_command(&world.upstream(), &["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(stream.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn disk_usage(dir: &Path) -> u64 {
    files(dir)
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum()
}
