//! The SSH transport against a real sshd: trust, credentials, protocol, faults.

mod exchange;
mod faults;
mod host_keys;
mod keys;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, Stage, SyncError};
use git_volume_reloader::base::repo_url::RepoUrl;
use git_volume_reloader::credentials::{Credential, KeyFile, Keyring, Request, Scope, Source};
use git_volume_reloader::net::NetConfig;
use git_volume_reloader::remote::ssh::SshRemote;
use git_volume_reloader::remote::{
    FetchRequest, Fetched, PackSink, RefName, Remote as _, RemoteConfig, SshHosts, Tip,
};

use crate::support::environment::command;
use crate::support::sshd::{Certified, Settings, Sshd, convert_key, generate_key};
use crate::support::tcp_proxy::{Fault, TcpProxy};
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// A server, a repository on it, and a client that may read it.
struct Lab {
    sshd: Sshd,
    upstream: Upstream,
    client: Client,
}

/// The files of a client.
struct Client {
    key: Option<PathBuf>,
    hosts: SshHosts,
}

impl Lab {
    fn new() -> Self {
        Self::with(&Settings::default())
    }

    fn with(settings: &Settings) -> Self {
        let sshd = Sshd::with(settings);
        let lines: Vec<_> = settings
            .host_keys
            .iter()
            .map(|kind| format!("127.0.0.1 {}\n", sshd.host_key(kind)))
            .collect();
        let client = Client {
            key: Some(sshd.client_key("ed25519")),
            hosts: SshHosts::Known(Some(sshd.known_hosts(&lines.concat()))),
        };
        Self {
            sshd,
            upstream: Upstream::new(),
            client,
        }
    }

    fn remote(&self) -> SshRemote {
        self.remote_at(self.sshd.port())
    }

    fn remote_at(&self, port: u16) -> SshRemote {
        SshRemote::new(&self.config_at(port)).unwrap()
    }

    fn config_at(&self, port: u16) -> RemoteConfig {
        let path = self.upstream.path().display();
        let url = format!("ssh://{}@127.0.0.1:{port}{path}", user());
        config(&url, &self.client)
    }

    /// A remote whose known_hosts file has this text.
    fn remote_trusting(&mut self, known_hosts: &str) -> SshRemote {
        self.client.hosts = SshHosts::Known(Some(self.sshd.known_hosts(known_hosts)));
        self.remote()
    }

    fn head(&self) -> Commit {
        self.upstream.tip("HEAD").parse().unwrap()
    }

    /// A commit of so many bytes that do not compress.
    fn push_noise(&self, bytes: usize) -> Commit {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(bytes)
            .collect();
        let change = Change::file("noise", noise);
        let commit = self.upstream.commit_changes("main", &[change]);
        commit.parse().unwrap()
    }
}

fn config(url: &str, client: &Client) -> RemoteConfig {
    let mut credentials = Keyring::default();
    if let Some(key) = &client.key {
        credentials.add(Scope::AnySsh, KeyFile::new(key.clone()));
    }
    RemoteConfig {
        url: RepoUrl::parse(url).unwrap(),
        credentials,
        ssh_hosts: client.hosts.clone(),
        net: NetConfig::default(),
    }
}

fn open(url: &str, client: &Client) -> SshRemote {
    SshRemote::new(&config(url, client)).unwrap()
}

fn user() -> String {
    let out = command("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn patient() -> Budget {
    Budget::new(PATIENCE, PATIENCE, Arc::default())
}

fn short() -> Budget {
    Budget::new(Duration::from_secs(2), PATIENCE, Arc::default())
}

fn poll(remote: &mut SshRemote) -> Result<Commit, SyncError> {
    match remote.tip(&RefName::Head, &patient())? {
        Tip::At(at) => Ok(at.commit),
        Tip::Missing { .. } => panic!("HEAD is missing"),
    }
}

fn poll_error(remote: &mut SshRemote) -> SyncError {
    let error = poll(remote).unwrap_err();
    assert_eq!(error.stage, Stage::Poll);
    error
}

/// A bare repository that takes packs by `git index-pack`.
struct Store {
    dir: tempfile::TempDir,
    shallow: Vec<Commit>,
    haves: Vec<Commit>,
}

struct IndexPack {
    child: Child,
    received: Arc<AtomicU64>,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Self {
            dir,
            shallow: Vec::new(),
            haves: Vec::new(),
        };
        store.git(&["init", "-q", "--bare", "."]);
        store
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn git(&self, args: &[&str]) -> String {
        let mut git = command("git");
        let out = git
            .current_dir(self.path())
            .args(args)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn fetch(
        &mut self,
        remote: &mut SshRemote,
        want: Commit,
        depth: u32,
        budget: &Budget,
    ) -> Result<Fetched, SyncError> {
        let mut sink = IndexPack::start(self.path());
        let request = FetchRequest {
            want,
            also: &[],
            name: Some("refs/heads/main"),
            haves: &self.haves,
            shallow: &self.shallow,
            depth,
            thin: true,
        };
        let fetched = remote.fetch(&request, &mut sink, budget)?;
        assert_eq!(fetched.bytes, sink.received.load(Ordering::Relaxed));
        sink.finish();
        self.shallow.retain(|c| !fetched.unshallow.contains(c));
        self.shallow.extend(&fetched.shallow);
        let lines: String = self.shallow.iter().map(|c| format!("{c}\n")).collect();
        let boundary = self.path().join("shallow");
        if lines.is_empty() {
            let _ = std::fs::remove_file(boundary);
        } else {
            std::fs::write(boundary, lines).unwrap();
        }
        self.haves.push(want);
        self.git(&["update-ref", "refs/heads/main", &want.to_string()]);
        self.git(&["fsck", "--strict", "--no-dangling"]);
        Ok(fetched)
    }

    fn history(&self) -> String {
        self.git(&["rev-list", "--count", "main"])
    }
}

impl IndexPack {
    fn start(store: &Path) -> Self {
        let child = command("git")
            .current_dir(store)
            .args(["index-pack", "--stdin", "--fix-thin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            received: Arc::default(),
        }
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success(), "git index-pack");
    }
}

impl PackSink for IndexPack {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError> {
        self.child.stdin.as_mut().unwrap().write_all(chunk).unwrap();
        self.received
            .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for IndexPack {
    fn drop(&mut self) {
        // After finish() there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
