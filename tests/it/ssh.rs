//! The SSH transport against a real sshd: trust, credentials, protocol, faults.

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
use git_volume_reloader::remote::ssh::SshRemote;
use git_volume_reloader::remote::{
    Auth, FetchRequest, Fetched, PackSink, ProxyConfig, RefName, Remote as _, RemoteConfig, Tip,
};

use crate::support::environment::command;
use crate::support::sshd::{Certified, Settings, Sshd, convert_key, generate_key};
use crate::support::tcp_proxy::{Fault, TcpProxy};
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// A server, a repository on it, and the files of a client that may read it.
struct Lab {
    sshd: Sshd,
    upstream: Upstream,
    auth: Auth,
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
        let auth = Auth {
            ssh_key_file: Some(sshd.client_key("ed25519")),
            ssh_known_hosts: true,
            ssh_known_hosts_file: Some(sshd.known_hosts(&lines.concat())),
            ..Auth::default()
        };
        Self {
            sshd,
            upstream: Upstream::new(),
            auth,
        }
    }

    fn remote(&self) -> SshRemote {
        self.remote_at(self.sshd.port())
    }

    fn remote_at(&self, port: u16) -> SshRemote {
        let path = self.upstream.path().display();
        open(
            &format!("ssh://{}@127.0.0.1:{port}{path}", user()),
            &self.auth,
        )
    }

    /// A remote whose known_hosts file has this text.
    fn remote_trusting(&mut self, known_hosts: &str) -> SshRemote {
        self.auth.ssh_known_hosts_file = Some(self.sshd.known_hosts(known_hosts));
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

fn config(url: &str, auth: &Auth) -> RemoteConfig {
    RemoteConfig {
        url: RepoUrl::parse(url).unwrap(),
        auth: auth.clone(),
        proxy: ProxyConfig::default(),
        ca_file: None,
    }
}

fn open(url: &str, auth: &Auth) -> SshRemote {
    SshRemote::new(&config(url, auth)).unwrap()
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

/// The same story in both versions of the protocol.
fn follows_the_upstream(settings: &Settings) {
    let lab = Lab::with(settings);
    let first = lab.head();
    let second: Commit = lab.upstream.commit(&[("a/b", "2\n")]).parse().unwrap();
    let mut remote = lab.remote();
    assert_eq!(poll(&mut remote).unwrap(), second);

    let mut shallow = Store::new();
    let fetched = shallow.fetch(&mut remote, second, 1, &patient()).unwrap();
    assert_eq!(fetched.shallow, [second]);
    assert_eq!(shallow.history(), "1");

    lab.push_noise(300_000);
    let third: Commit = lab.upstream.commit(&[("a/c", "3\n")]).parse().unwrap();
    assert_eq!(poll(&mut remote).unwrap(), third);
    shallow.fetch(&mut remote, third, 1, &patient()).unwrap();
    let fourth: Commit = lab.upstream.commit(&[("a/d", "4\n")]).parse().unwrap();
    let fetched = shallow.fetch(&mut remote, fourth, 1, &patient()).unwrap();
    assert!(fetched.bytes < 2000, "{} bytes for a line", fetched.bytes);
    assert_eq!(shallow.git(&["show", "main:a/d"]), "4");

    let fetched = shallow.fetch(&mut remote, fourth, 0, &patient()).unwrap();
    assert!(fetched.unshallow.contains(&second), "{fetched:?}");
    assert!(shallow.shallow.is_empty());
    assert_eq!(shallow.history(), "5");

    // Version 0 serves only what a ref points to.
    lab.upstream
        .update_ref("refs/heads/old", &second.to_string());
    let mut full = Store::new();
    let fetched = full.fetch(&mut remote, second, 0, &patient()).unwrap();
    assert!(fetched.shallow.is_empty());
    assert_eq!(full.history(), "2");
    full.git(&["cat-file", "-e", &first.to_string()]);
    let fetched = full.fetch(&mut remote, fourth, 0, &patient()).unwrap();
    assert!(fetched.shallow.is_empty());
    assert_eq!(full.history(), "5");

    let tag = lab.upstream.annotated_tag("v1", &second.to_string());
    let name = RefName::Short("v1".to_owned());
    let Tip::At(at) = remote.tip(&name, &patient()).unwrap() else {
        panic!("the tag is missing");
    };
    assert_eq!(at.name, "refs/tags/v1");
    assert_eq!((at.object.to_string(), at.commit), (tag, second));
    let name = RefName::Full("refs/heads/none".to_owned());
    assert_eq!(
        remote.tip(&name, &patient()).unwrap(),
        Tip::Missing { empty: false }
    );
    assert_eq!(lab.sshd.logins(), 1, "one connection carries everything");
}

#[test]
fn version_2_polls_and_fetches_on_one_connection() {
    follows_the_upstream(&Settings::default());
}

#[test]
fn a_server_that_refuses_the_environment_is_spoken_to_in_version_0() {
    follows_the_upstream(&Settings {
        accept_git_protocol: false,
        ..Settings::default()
    });
}

#[test]
fn a_server_that_allows_one_session_serves_all_polls_on_one_connection() {
    let lab = Lab::with(&Settings {
        max_sessions: 1,
        ..Settings::default()
    });
    let mut remote = lab.remote();
    for _ in 0..20 {
        assert_eq!(poll(&mut remote).unwrap(), lab.head());
    }
    let mut store = Store::new();
    let head = lab.head();
    store.fetch(&mut remote, head, 1, &patient()).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), head);
    assert_eq!(lab.sshd.logins(), 1);
}

#[test]
fn a_poll_does_not_download_other_refs() {
    let lab = Lab::new();
    lab.upstream.many_refs(20_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    // Version 0 would take 1.3 MB.
    proxy.set(Fault::StallAfter(100_000));
    let mut remote = lab.remote_at(proxy.port());
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn an_empty_repository_is_an_answer() {
    let mut lab = Lab::new();
    lab.upstream = Upstream::empty();
    let tip = lab.remote().tip(&RefName::Head, &patient()).unwrap();
    assert_eq!(tip, Tip::Missing { empty: true });
}

#[test]
fn a_restarted_server_is_found_again_within_the_same_poll() {
    let mut lab = Lab::new();
    let mut remote = lab.remote();
    poll(&mut remote).unwrap();
    lab.sshd.restart();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
    let mut store = Store::new();
    lab.sshd.restart();
    let head = lab.head();
    store.fetch(&mut remote, head, 1, &patient()).unwrap();
    assert_eq!(lab.sshd.logins(), 1);
}

#[test]
fn a_connection_that_died_silently_is_replaced_within_the_same_poll() {
    let lab = Lab::new();
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    proxy.freeze();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_dropped_connection_is_a_network_failure_and_the_next_poll_recovers() {
    let lab = Lab::new();
    let proxy = TcpProxy::to(lab.sshd.port());
    for fault in [
        Fault::ResetAfter(0),
        Fault::ResetAfter(300),
        Fault::ResetAfter(2_000),
    ] {
        proxy.set(fault);
        let mut remote = lab.remote_at(proxy.port());
        let error = poll_error(&mut remote);
        assert_eq!(
            error.reason,
            Reason::Network,
            "{fault:?}: {}",
            error.chain()
        );
        proxy.set(Fault::None);
        assert_eq!(poll(&mut remote).unwrap(), lab.head());
    }
}

#[test]
fn a_connection_that_breaks_in_mid_pack_is_not_retried_into_the_same_pack() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    proxy.set(Fault::ResetAfter(1_000_000));
    let error = Store::new()
        .fetch(&mut remote, head, 1, &patient())
        .unwrap_err();
    assert_eq!((error.stage, error.reason), (Stage::Fetch, Reason::Network));
    assert_eq!(proxy.accepted(), 1, "{}", error.chain());
    proxy.set(Fault::None);
    Store::new()
        .fetch(&mut remote, head, 1, &patient())
        .unwrap();
}

#[test]
fn nobody_listening_is_a_network_failure() {
    let mut lab = Lab::new();
    let gone = TcpProxy::to(1).port();
    let error = poll_error(&mut lab.remote_at(gone));
    assert_eq!(error.reason, Reason::Network);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    lab.auth.ssh_known_hosts = false;
    let error = poll_error(&mut open("git@host.invalid:x", &lab.auth));
    assert_eq!(error.reason, Reason::Network, "{}", error.chain());
    assert!(error.to_string().contains("host.invalid"), "{error}");
}

#[test]
fn a_server_that_stalls_is_left_at_the_deadline() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    std::thread::scope(|scope| {
        for fault in [
            Fault::Silent,
            Fault::StallAfter(10),
            Fault::StallAfter(500),
            Fault::StallAfter(2_000),
            Fault::StallAfter(1_000_000),
        ] {
            let proxy = TcpProxy::to(lab.sshd.port());
            proxy.set(fault);
            let mut remote = lab.remote_at(proxy.port());
            scope.spawn(move || {
                let mut store = Store::new();
                let begun = Instant::now();
                let error = store.fetch(&mut remote, head, 1, &short()).unwrap_err();
                let took = begun.elapsed();
                let told = format!("{fault:?}: {took:?}: {}", error.chain());
                assert_eq!(error.reason, Reason::Timeout, "{told}");
                // The deadline, and what a busy machine may add.
                assert!(took >= Duration::from_millis(1_900), "{told}");
                assert!(took < Duration::from_millis(3_500), "{told}");
                assert_eq!(proxy.accepted(), 1, "{told}");
            });
        }
    });
}

#[test]
fn a_dropped_remote_closes_its_connection() {
    let lab = Lab::new();
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    assert_eq!(proxy.open(), 1);
    drop(remote);
    wait_until(PATIENCE, "the connection's end", || proxy.open() == 0);
}

#[test]
fn a_command_that_fails_is_told_in_its_own_words() {
    let mut lab = Lab::new();
    for (command, reason, says) in [
        ("exit 3", Reason::Server, "exited with status 3"),
        (
            "echo ERROR: Repository not found. >&2; exit 1",
            Reason::NotFound,
            "Repository not found.",
        ),
        (
            "echo Permission denied for this key >&2; exit 1",
            Reason::Auth,
            "Permission denied",
        ),
        (
            "printf 'a\\033[31mb' >&2; exit 1",
            Reason::Server,
            "a\\u{1b}[31mb",
        ),
        ("no-such-command-here", Reason::Server, "status 127"),
        ("echo Welcome", Reason::Protocol, "Welcome"),
        ("yes", Reason::Protocol, "git protocol"),
        ("yes >&2", Reason::Limit, "error text"),
        (
            "printf 0032",
            Reason::Server,
            "before its answer was complete",
        ),
        (
            "printf '0022ERR access denied for this one'",
            Reason::Auth,
            "access denied",
        ),
        ("kill -9 $$", Reason::Network, "without a status"),
    ] {
        lab.auth.ssh_key_file = Some(lab.sshd.client_key_running(command));
        let error = poll_error(&mut lab.remote());
        assert_eq!(error.reason, reason, "{command}: {}", error.chain());
        assert!(error.to_string().contains(says), "{command}: {error}");
        assert!(error.to_string().len() < 5000, "{command}");
    }
}

#[test]
fn a_stall_is_left_before_the_deadline() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    proxy.set(Fault::StallAfter(1_000_000));
    let budget = Budget::new(PATIENCE, Duration::from_secs(1), Arc::default());
    let begun = Instant::now();
    let error = Store::new()
        .fetch(&mut remote, head, 1, &budget)
        .unwrap_err();
    assert_eq!(error.reason, Reason::Timeout);
    assert!(error.hint().unwrap().contains("--stall-timeout"));
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[test]
fn a_cancelled_fetch_ends_in_mid_pack() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    proxy.set(Fault::StallAfter(1_000_000));
    let mut remote = lab.remote_at(proxy.port());
    let cancelled = Arc::new(AtomicBool::new(false));
    let budget = Budget::new(PATIENCE, PATIENCE, Arc::clone(&cancelled));
    let store = Store::new();
    let mut sink = IndexPack::start(store.path());
    let received = Arc::clone(&sink.received);
    let fetching = std::thread::spawn(move || {
        let request = FetchRequest {
            want: head,
            also: &[],
            name: None,
            haves: &[],
            shallow: &[],
            depth: 1,
            thin: true,
        };
        let error = remote.fetch(&request, &mut sink, &budget).unwrap_err();
        (error, Instant::now())
    });
    wait_until(PATIENCE, "pack bytes", || {
        received.load(Ordering::Relaxed) > 500_000
    });
    let begun = Instant::now();
    cancelled.store(true, Ordering::Relaxed);
    let (error, ended) = fetching.join().unwrap();
    assert!(error.is_cancelled(), "{}", error.chain());
    assert!(ended.duration_since(begun) < Duration::from_secs(1));
}

#[test]
fn a_sink_that_fails_ends_the_fetch_with_its_own_error() {
    struct Full;
    impl PackSink for Full {
        fn write(&mut self, _: &[u8]) -> Result<(), SyncError> {
            Err(SyncError::new(Stage::Fetch, Reason::Disk, "disk full"))
        }
    }
    let lab = Lab::new();
    let mut remote = lab.remote();
    let want = poll(&mut remote).unwrap();
    let request = FetchRequest {
        want,
        also: &[],
        name: None,
        haves: &[],
        shallow: &[],
        depth: 1,
        thin: true,
    };
    let error = remote.fetch(&request, &mut Full, &patient()).unwrap_err();
    assert_eq!(error.reason, Reason::Disk);
    assert_eq!(poll(&mut remote).unwrap(), want);
}

#[test]
fn an_object_that_is_gone_is_a_missing_ref() {
    let lab = Lab::new();
    let gone = "00000000000000000000000000000000000000aa".parse().unwrap();
    for _ in 0..2 {
        let error = Store::new()
            .fetch(&mut lab.remote(), gone, 1, &patient())
            .unwrap_err();
        assert_eq!(error.reason, Reason::RefMissing, "{}", error.chain());
    }
}

#[test]
fn a_repository_that_does_not_exist_is_not_found() {
    let lab = Lab::new();
    let url = format!(
        "ssh://{}@127.0.0.1:{}/no'such!repo.git",
        user(),
        lab.sshd.port()
    );
    let error = poll_error(&mut open(&url, &lab.auth));
    assert_eq!(error.reason, Reason::NotFound, "{}", error.chain());
    assert!(
        error
            .to_string()
            .contains("'/no'such!repo.git' does not appear"),
        "the server's words, and the path as it was meant: {error}"
    );
}

#[test]
fn a_path_relative_to_the_home_directory_is_found() {
    let lab = Lab::new();
    // Up to the root directory from wherever the home is.
    let path = format!("{}{}", "../".repeat(20), &lab.upstream.path().display());
    let mut config = config(&format!("{}@127.0.0.1:{path}", user()), &lab.auth);
    let RepoUrl::Ssh(url) = &mut config.url else {
        panic!("not an SSH address");
    };
    assert_eq!(url.port, 22);
    url.port = lab.sshd.port();
    let mut remote = SshRemote::new(&config).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn an_unknown_host_key_is_refused_with_the_line_that_would_accept_it() {
    let mut lab = Lab::new();
    let (port, key) = (lab.sshd.port(), lab.sshd.host_key("ed25519"));
    let mut remote = lab.remote_trusting("other.example.org ssh-ed25519 AAAA\n");
    let error = poll_error(&mut remote);
    assert_eq!(error.reason, Reason::Hostkey);
    let message = error.to_string();
    assert!(
        message.contains("unknown") && message.contains("SHA256:"),
        "{message}"
    );
    assert!(message.contains("ssh-ed25519"), "{message}");
    let line = format!("[127.0.0.1]:{port} {key}");
    let hint = error.hint().unwrap().to_owned();
    assert!(
        hint.contains(&line) && hint.contains("ssh-keyscan -p"),
        "{hint}"
    );
    // The file is read again for each attempt.
    let file = lab.auth.ssh_known_hosts_file.as_ref().unwrap();
    std::fs::write(file, format!("{line}\n")).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn a_changed_host_key_is_refused_with_its_own_message() {
    let mut lab = Lab::new();
    let mut known = format!("[127.0.0.1]:{} ", lab.sshd.port());
    known.push_str(&lab.sshd.host_key("ed25519"));
    let mut remote = lab.remote_trusting(&known);
    poll(&mut remote).unwrap();
    lab.sshd.replace_host_key("ed25519");
    lab.sshd.restart();
    let error = poll_error(&mut remote);
    assert_eq!(error.reason, Reason::Hostkey);
    assert!(error.to_string().contains("has changed"), "{error}");
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn a_revoked_host_key_is_refused() {
    let mut lab = Lab::new();
    let key = lab.sshd.host_key("ed25519");
    let error = poll_error(&mut lab.remote_trusting(&format!("* {key}\n@revoked * {key}\n")));
    assert_eq!(error.reason, Reason::Hostkey);
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[test]
fn a_missing_known_hosts_file_is_named() {
    let mut lab = Lab::new();
    lab.auth.ssh_known_hosts_file = Some(PathBuf::from("/nonexistent/known_hosts"));
    let error = poll_error(&mut lab.remote());
    assert_eq!(error.reason, Reason::Hostkey);
    assert!(
        error
            .to_string()
            .contains("/nonexistent/known_hosts does not exist")
    );
    lab.auth.ssh_known_hosts_file = None;
    let error = poll_error(&mut lab.remote());
    assert_eq!(error.reason, Reason::Hostkey);
    lab.auth.ssh_known_hosts = false;
    assert_eq!(poll(&mut lab.remote()).unwrap(), lab.head());
}

#[test]
fn a_hashed_entry_made_by_ssh_keygen_is_understood() {
    let mut lab = Lab::new();
    let line = format!(
        "[127.0.0.1]:{} {}\n",
        lab.sshd.port(),
        lab.sshd.host_key("ed25519")
    );
    let file = lab.sshd.known_hosts(&line);
    let hashed = command("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(hashed.success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("|1|"), "{text}");
    assert_eq!(poll(&mut lab.remote_trusting(&text)).unwrap(), lab.head());
}

#[test]
fn the_known_one_of_several_host_keys_is_asked_for() {
    let mut lab = Lab::with(&Settings {
        host_keys: vec!["ed25519", "ecdsa", "rsa"],
        ..Settings::default()
    });
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let line = format!("127.0.0.1 {}\n", lab.sshd.host_key(kind));
        let mut remote = lab.remote_trusting(&line);
        assert_eq!(poll(&mut remote).unwrap(), lab.head(), "{kind}");
    }
}

#[test]
fn a_host_certificate_counts_only_by_a_trusted_authority_and_for_this_host_now() {
    for (principals, validity, expected) in [
        ("127.0.0.1,git.example.org", "-1h:+1h", None),
        ("127.0.0.*", "-1h:+1h", None),
        ("git.example.org", "-1h:+1h", Some("other host names")),
        ("127.0.0.1", "-2h:-1h", Some("expired")),
        ("127.0.0.1", "+1h:+2h", Some("not valid yet")),
    ] {
        let mut lab = Lab::with(&Settings {
            certificate: Some(Certified {
                principals,
                validity,
            }),
            ..Settings::default()
        });
        let authority = lab.sshd.authority();
        let trusted = format!("@cert-authority 127.0.0.1\t{authority}\n");
        let result = poll(&mut lab.remote_trusting(&trusted));
        match expected {
            None => assert_eq!(result.unwrap(), lab.head()),
            Some(why) => {
                let error = result.unwrap_err();
                assert_eq!(error.reason, Reason::Hostkey);
                assert!(error.to_string().contains(why), "{error}");
            }
        }
        if principals != "127.0.0.*" {
            continue;
        }
        // Trust is in the authority, and ends with it.
        let revoked = format!("{trusted}@revoked * {authority}\n");
        let error = poll_error(&mut lab.remote_trusting(&revoked));
        assert!(error.to_string().contains("revoked"), "{error}");
        let revoked = format!("{trusted}@revoked * {}\n", lab.sshd.host_key("ed25519"));
        let error = poll_error(&mut lab.remote_trusting(&revoked));
        assert!(error.to_string().contains("revoked"), "{error}");
        let elsewhere = format!("@cert-authority *.example.org {authority}\n");
        let error = poll_error(&mut lab.remote_trusting(&elsewhere));
        assert!(error.to_string().contains("unknown"), "{error}");
        // An authority's key is no host key, and a certified host's plain key still is one.
        let error = poll_error(&mut lab.remote_trusting(&format!("127.0.0.1 {authority}\n")));
        assert_eq!(error.reason, Reason::Hostkey);
        let plain = format!("127.0.0.1 {}\n", lab.sshd.host_key("ed25519"));
        assert_eq!(poll(&mut lab.remote_trusting(&plain)).unwrap(), lab.head());
    }
}

#[test]
fn every_usual_kind_of_key_logs_in() {
    let mut lab = Lab::new();
    for (kind, format) in [
        ("ed25519", None),
        ("ecdsa", None),
        ("rsa", None),
        ("rsa", Some("PEM")),
        ("rsa", Some("PKCS8")),
    ] {
        let path = lab.sshd.client_key(kind);
        if let Some(format) = format {
            convert_key(&path, format);
        }
        lab.auth.ssh_key_file = Some(path);
        assert_eq!(
            poll(&mut lab.remote()).map_err(|error| error.chain()),
            Ok(lab.head()),
            "{kind} {format:?}"
        );
    }
}

#[test]
fn a_key_that_the_server_does_not_know_is_an_auth_failure_until_it_is_replaced() {
    let mut lab = Lab::new();
    let path = lab.sshd.stranger_key("ed25519");
    lab.auth.ssh_key_file = Some(path.clone());
    let mut remote = lab.remote();
    let error = poll_error(&mut remote);
    assert_eq!(error.reason, Reason::Auth, "{}", error.chain());
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("deploy key: ssh-ed25519 AAAA")
    );
    let good = lab.sshd.client_key("ecdsa");
    std::fs::rename(good, path).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn a_key_file_that_is_no_use_is_named() {
    let mut lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let encrypted = dir.path().join("encrypted");
    generate_key(&encrypted, "ed25519", "secret");
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "not a key").unwrap();
    let public = dir.path().join("encrypted.pub");
    let missing = dir.path().join("missing");
    for (path, says) in [
        (&encrypted, "passphrase"),
        (&garbage, "no SSH private key"),
        (&public, "no SSH private key"),
        (&missing, "cannot read"),
    ] {
        lab.auth.ssh_key_file = Some(path.clone());
        let error = poll_error(&mut lab.remote());
        assert_eq!(error.reason, Reason::Auth, "{}", error.chain());
        let message = error.to_string();
        assert!(message.contains(says), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
    lab.auth.ssh_key_file = None;
    assert_eq!(poll_error(&mut lab.remote()).reason, Reason::Auth);
}
