//! Smart HTTP against the real `git http-backend`, well and badly behaved.

mod access;
mod client;
mod faults;
mod fetch;
mod poll;
mod tls;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, Stage, SyncError};
use git_volume_reloader::base::repo_url::RepoUrl;
use git_volume_reloader::base::secret::Secret;
use git_volume_reloader::credentials::{self, Keyring, Password, PasswordFile, Source};
use git_volume_reloader::net::NetConfig;
use git_volume_reloader::remote::{
    self, Advertised, FetchRequest, Fetched, PackSink, RefName, Remote, RemoteConfig, SshHosts, Tip,
};
use tempfile::TempDir;

use crate::support::http_server::{Certificate, Fault, HttpServer, Scope};

/// More than any answer needs here.
const AMPLE: Duration = Duration::from_secs(30);

/// An upstream repository `repo.git` with one commit a call of [`Upstream::commit`].
struct Upstream(TempDir);

/// Where packs end: a bare repository fed by `git index-pack`.
struct Store {
    dir: TempDir,
    shallow: Vec<Commit>,
}

struct IndexPack(Child);

impl Upstream {
    fn empty() -> Self {
        let dir = TempDir::new().unwrap();
        run(
            dir.path(),
            &["init", "-q", "--bare", "-b", "main", "repo.git"],
            "",
        );
        Self(dir)
    }

    fn new() -> Self {
        let upstream = Self::empty();
        upstream.commit(
            "main",
            &"content that does not compress away 0123456789\n".repeat(20),
        );
        upstream
    }

    fn git(&self, args: &[&str]) -> String {
        run(&self.0.path().join("repo.git"), args, "")
    }

    /// A commit on a branch: `big` (the same in every commit, not compressible) and `text`.
    fn commit(&self, branch: &str, text: &str) -> Commit {
        let mut noise = fastrand::Rng::with_seed(7);
        let big: String = std::iter::repeat_with(|| noise.alphanumeric())
            .take(200_000)
            .collect();
        let parent = match self.git(&["for-each-ref", &format!("refs/heads/{branch}")]) {
            none if none.is_empty() => String::new(),
            _ => format!("from refs/heads/{branch}^0\n"),
        };
        let input = format!(
            "commit refs/heads/{branch}\ncommitter T <t@example.com> 1700000000 +0000\n\
             data 1\nm\n{parent}M 644 inline big\ndata {}\n{big}\nM 644 inline text\ndata {}\n{text}\n",
            big.len(),
            text.len(),
        );
        run(
            &self.0.path().join("repo.git"),
            &["fast-import", "--quiet", "--force"],
            &input,
        );
        self.tip(&format!("refs/heads/{branch}"))
    }

    fn tip(&self, name: &str) -> Commit {
        self.git(&["rev-parse", name]).parse().unwrap()
    }

    fn many_refs(&self, count: usize) {
        let tip = self.tip("refs/heads/main");
        let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for at in 0..count {
            packed.push_str(&format!("{tip} refs/heads/many/branch-{at:06}\n"));
        }
        std::fs::write(self.0.path().join("repo.git/packed-refs"), packed).unwrap();
    }

    fn serve(&self) -> HttpServer {
        HttpServer::start(self.0.path())
    }
}

impl Store {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        run(dir.path(), &["init", "-q", "--bare", "-b", "main", "."], "");
        Self {
            dir,
            shallow: Vec::new(),
        }
    }

    /// Fetches, and checks that everything the commit needs has arrived.
    fn fetch(
        &mut self,
        remote: &mut dyn Remote,
        want: Commit,
        haves: &[Commit],
        depth: u32,
    ) -> Result<Fetched, SyncError> {
        self.fetch_within(remote, want, haves, depth, &budget(AMPLE))
    }

    fn fetch_within(
        &mut self,
        remote: &mut dyn Remote,
        want: Commit,
        haves: &[Commit],
        depth: u32,
        budget: &Budget,
    ) -> Result<Fetched, SyncError> {
        let mut sink = IndexPack::start(self.dir.path());
        let request = FetchRequest {
            want,
            also: &[],
            name: None,
            haves,
            shallow: &self.shallow.clone(),
            depth,
            thin: true,
        };
        let fetched = remote.fetch(&request, &mut sink, budget)?;
        sink.finish();
        self.shallow
            .retain(|commit| !fetched.unshallow.contains(commit));
        self.shallow.extend(&fetched.shallow);
        let list: String = self.shallow.iter().map(|c| format!("{c}\n")).collect();
        let path = self.dir.path().join("shallow");
        match list.is_empty() {
            true => drop(std::fs::remove_file(path)),
            false => std::fs::write(path, list).unwrap(),
        }
        run(
            self.dir.path(),
            &["rev-list", "--objects", &want.to_string()],
            "",
        );
        Ok(fetched)
    }

    fn history(&self, of: Commit) -> usize {
        run(self.dir.path(), &["rev-list", &of.to_string()], "")
            .lines()
            .count()
    }
}

impl IndexPack {
    fn start(dir: &Path) -> Self {
        let child = git(dir)
            .args(["index-pack", "--stdin", "--fix-thin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn finish(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success(), "the pack is damaged");
    }
}

impl PackSink for IndexPack {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError> {
        self.0
            .stdin
            .as_mut()
            .unwrap()
            .write_all(chunk)
            .map_err(|cause| SyncError::disk(Stage::Fetch, "write", Path::new("pack"), cause))
    }
}

impl Drop for IndexPack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "T");
        command.env(format!("GIT_{role}_EMAIL"), "t@example.com");
    }
    command
}

fn run(dir: &Path, args: &[&str], input: &str) -> String {
    let mut child = git(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn budget(total: Duration) -> Budget {
    Budget::new(total, Duration::from_secs(10), Arc::default())
}

fn config(url: &str) -> RemoteConfig {
    RemoteConfig {
        url: RepoUrl::parse(url).unwrap(),
        credentials: Keyring::default(),
        ssh_hosts: SshHosts::Known(None),
        net: NetConfig::default(),
    }
}

/// Adds the credentials of the configured repository.
fn sign_in(settings: &mut RemoteConfig, source: impl Source + 'static) {
    let RepoUrl::Http(url) = &settings.url else {
        panic!("{} is not an HTTP address", settings.url);
    };
    let scope = credentials::Scope::Repository(url.clone());
    settings.credentials.add(scope, source);
}

/// A token that goes with any user name.
fn token(value: &str) -> Password {
    Password::new(None, Some(Secret::new(value)))
}

fn open(url: &str) -> Box<dyn Remote> {
    remote::open(&config(url)).unwrap()
}

fn main_branch() -> RefName {
    RefName::Short("main".to_owned())
}

fn poll(remote: &mut dyn Remote, name: &RefName) -> Result<Tip, SyncError> {
    remote.tip(name, &budget(AMPLE))
}

fn tip_of(remote: &mut dyn Remote, name: &RefName) -> Advertised {
    match poll(remote, name) {
        Ok(Tip::At(at)) => at,
        other => panic!("{other:?}"),
    }
}

/// The error of a poll, for a test that looks at its words.
fn poll_error(url: &str) -> SyncError {
    poll(&mut *open(url), &main_branch()).unwrap_err()
}
