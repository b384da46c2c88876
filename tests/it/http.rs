//! Smart HTTP against the real `git http-backend`, well and badly behaved.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use git_volume_reloader::budget::Budget;
use git_volume_reloader::commit::Commit;
use git_volume_reloader::error::{Reason, Stage, SyncError};
use git_volume_reloader::remote::{
    self, Advertised, Auth, FetchRequest, Fetched, PackSink, ProxyConfig, RefName, Remote,
    RemoteConfig, Tip,
};
use git_volume_reloader::repo_url::RepoUrl;
use git_volume_reloader::secret::Secret;
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
            name: None,
            haves,
            shallow: &self.shallow.clone(),
            depth,
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
        auth: Auth::default(),
        proxy: ProxyConfig::default(),
        ca_file: None,
    }
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

#[test]
fn a_steady_poll_is_one_request_on_one_connection_whatever_the_number_of_refs() {
    let upstream = Upstream::new();
    upstream.many_refs(100_000);
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    tip_of(&mut *remote, &main_branch());
    server.clear_log();
    for _ in 0..10 {
        tip_of(&mut *remote, &main_branch());
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 10);
    assert_eq!(server.connections(), 1);
    let most = requests
        .iter()
        .map(|request| request.answered())
        .max()
        .unwrap();
    assert!(most < 1000, "{most} bytes");
    let agent = &requests[0].headers["user-agent"];
    assert!(agent.starts_with("git/"), "{agent}");
}

#[test]
fn a_poll_follows_the_ref_on_either_protocol_version() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        for text in ["a", "b"] {
            let commit = upstream.commit("main", text);
            assert_eq!(tip_of(&mut *remote, &main_branch()).commit, commit);
        }
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn every_way_to_name_a_ref_finds_it_on_either_protocol_version() {
    let upstream = Upstream::new();
    let first = upstream.tip("main");
    let second = upstream.commit("main", "second");
    upstream.git(&["tag", "-a", "-m", "t", "v1", &first.to_string()]);
    upstream.git(&["tag", "v1.1", &second.to_string()]);
    upstream.git(&["tag", "main", &first.to_string()]);
    upstream.git(&["update-ref", "refs/odd/x", &first.to_string()]);
    let tag = upstream.tip("refs/tags/v1");
    let server = upstream.serve();
    let short = |name: &str| RefName::Short(name.to_owned());
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        for (name, full, object, commit) in [
            (RefName::Head, "refs/heads/main", second, second),
            (short("main"), "refs/heads/main", second, second),
            (short("v1"), "refs/tags/v1", tag, first),
            (short("v1.1"), "refs/tags/v1.1", second, second),
            (short("odd/x"), "refs/odd/x", first, first),
            (
                RefName::Full("refs/tags/main".to_owned()),
                "refs/tags/main",
                first,
                first,
            ),
        ] {
            let expected = Advertised {
                name: full.to_owned(),
                object,
                commit,
            };
            assert_eq!(
                tip_of(&mut *remote, &name),
                expected,
                "version 0: {version_0}"
            );
        }
        for name in [
            short("gone"),
            short("v"),
            RefName::Full("refs/heads/v1".to_owned()),
        ] {
            let tip = poll(&mut *remote, &name).unwrap();
            assert_eq!(tip, Tip::Missing { empty: false }, "{name:?}");
        }
    }
}

#[test]
fn a_detached_head_is_followed_and_an_empty_repository_is_no_error() {
    for version_0 in [false, true] {
        let upstream = Upstream::empty();
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        for name in [RefName::Head, main_branch()] {
            assert_eq!(
                poll(&mut *remote, &name).unwrap(),
                Tip::Missing { empty: true }
            );
        }
        let commit = upstream.commit("main", "first");
        upstream.git(&["update-ref", "--no-deref", "HEAD", &commit.to_string()]);
        let tip = tip_of(&mut *remote, &RefName::Head);
        assert_eq!((tip.name.as_str(), tip.commit), ("HEAD", commit));
    }
}

#[test]
fn a_commit_id_needs_no_poll() {
    let upstream = Upstream::new();
    let commit = upstream.tip("main");
    let mut remote = open("http://127.0.0.1:1/unreachable");
    assert_eq!(
        tip_of(&mut *remote, &RefName::Commit(commit)).commit,
        commit
    );
}

#[test]
fn a_shallow_fetch_brings_one_commit_and_the_next_only_the_change() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        upstream.commit("main", "second");
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        let mut store = Store::new();
        let first = tip_of(&mut *remote, &main_branch()).commit;
        let fetched = store.fetch(&mut *remote, first, &[], 1).unwrap();
        assert_eq!(fetched.shallow, [first]);
        assert_eq!(store.history(first), 1);
        assert!(fetched.bytes > 100_000);

        let second = upstream.commit("main", "third");
        let fetched = store.fetch(&mut *remote, second, &[first], 1).unwrap();
        assert!(fetched.bytes < 2_000, "{} bytes", fetched.bytes);
        assert_eq!(
            server.connections(),
            1,
            "the connection is kept across fetches"
        );
    }
}

#[test]
fn full_history_is_fetched_at_once_or_after_a_shallow_start() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        upstream.commit("main", "second");
        let tip = upstream.commit("main", "third");
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));

        let mut whole = Store::new();
        let fetched = whole.fetch(&mut *remote, tip, &[], 0).unwrap();
        assert_eq!((whole.history(tip), fetched.shallow.len()), (3, 0));

        let mut deepened = Store::new();
        deepened.fetch(&mut *remote, tip, &[], 1).unwrap();
        let fetched = deepened.fetch(&mut *remote, tip, &[tip], 0).unwrap();
        assert_eq!(fetched.unshallow, [tip]);
        assert_eq!(deepened.history(tip), 3);
    }
}

#[test]
fn a_tag_brings_the_commit_it_stands_for() {
    let upstream = Upstream::new();
    upstream.git(&["tag", "-a", "-m", "t", "v1", "main"]);
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    let tip = tip_of(&mut *remote, &RefName::Short("v1".to_owned()));
    let mut store = Store::new();
    store.fetch(&mut *remote, tip.object, &[], 1).unwrap();
    assert_eq!(store.history(tip.commit), 1);
}

#[test]
fn haves_that_the_server_lost_do_no_harm() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        let mut store = Store::new();
        let tip = upstream.tip("main");
        let lost: Commit = "1".repeat(40).parse().unwrap();
        store.shallow = vec![lost];
        store.fetch(&mut *remote, tip, &[lost], 1).unwrap();
    }
}

#[test]
fn a_commit_that_no_ref_points_to_can_be_wanted() {
    let upstream = Upstream::new();
    let old = upstream.tip("main");
    upstream.commit("main", "second");
    let server = upstream.serve();
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        Store::new().fetch(&mut *remote, old, &[], 1).unwrap();
    }
}

#[test]
fn a_commit_that_no_ref_reaches_is_served_in_version_2_and_where_version_0_allows_it() {
    let upstream = Upstream::new();
    let orphan = upstream.commit("side", "orphan");
    upstream.git(&["update-ref", "-d", "refs/heads/side"]);
    let server = upstream.serve();
    let fetch = || Store::new().fetch(&mut *open(&server.url("repo.git")), orphan, &[], 1);
    fetch().unwrap();
    server.only_version_0(true);
    let error = fetch().unwrap_err();
    assert_eq!(
        (error.stage, error.reason),
        (Stage::Fetch, Reason::RefMissing)
    );
    assert!(
        error.hint().unwrap().contains("branch"),
        "{:?}",
        error.hint()
    );
    server.git_config("uploadpack.allowAnySHA1InWant", "true");
    fetch().unwrap();
}

#[test]
fn a_commit_that_the_server_does_not_have_is_a_missing_ref() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let gone: Commit = "1".repeat(40).parse().unwrap();
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        let error = Store::new().fetch(&mut *remote, gone, &[], 1).unwrap_err();
        assert_eq!(error.reason, Reason::RefMissing, "{}", error.chain());
        // The remote can be used again at once.
        let tip = tip_of(&mut *remote, &main_branch()).commit;
        Store::new().fetch(&mut *remote, tip, &[], 1).unwrap();
    }
}

#[test]
fn each_fault_of_a_poll_has_its_reason_and_the_next_poll_works() {
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4).into_bytes();
    let long_ref = line(&format!(
        "{} refs/heads/{}\n",
        "a".repeat(40),
        "x".repeat(60_000)
    ));
    let faults = [
        (Fault::NeverAnswer, Reason::Timeout),
        (Fault::StallInHead, Reason::Timeout),
        (Fault::StallAfter(30), Reason::Timeout),
        (Fault::ResetAfter(30), Reason::Network),
        (Fault::TruncateAfter(30), Reason::Network),
        (Fault::TruncateAfter(0), Reason::Network),
        (Fault::Garbage, Reason::Protocol),
        (Fault::Html, Reason::Protocol),
        (Fault::Body(b"zzzz not packets".to_vec()), Reason::Protocol),
        (Fault::Body(b"0003".to_vec()), Reason::Protocol),
        (Fault::Body(b"fffe".to_vec()), Reason::Protocol),
        (Fault::Body(b"00".to_vec()), Reason::Network),
        (Fault::Body(b"0010ERR go away\n".to_vec()), Reason::Server),
        (Fault::Endless(long_ref), Reason::Limit),
        (Fault::Status(401, vec![]), Reason::Auth),
        (Fault::Status(403, vec![]), Reason::Auth),
        (Fault::Status(404, vec![]), Reason::NotFound),
        (Fault::Status(418, vec![]), Reason::Protocol),
        (Fault::Status(204, vec![]), Reason::Protocol),
        (
            Fault::Status(429, header("Retry-After", "7")),
            Reason::Server,
        ),
        (Fault::Status(500, vec![]), Reason::Server),
        (Fault::Status(503, vec![]), Reason::Server),
        (
            Fault::Status(200, header("X-Long", &"x".repeat(40_000))),
            Reason::Limit,
        ),
        (
            Fault::RedirectTo("ftp://example.com/r".to_owned()),
            Reason::Protocol,
        ),
        (Fault::RedirectTo("/login".to_owned()), Reason::Protocol),
    ];
    let upstream = Upstream::new();
    let server = upstream.serve();
    for steady in [false, true] {
        for (fault, reason) in &faults {
            let mut remote = open(&server.url("repo.git"));
            if steady {
                tip_of(&mut *remote, &main_branch());
            }
            server.inject(fault.clone());
            let started = Instant::now();
            let short = Budget::new(AMPLE, Duration::from_millis(300), Arc::default());
            let error = remote.tip(&main_branch(), &short).unwrap_err();
            assert!(started.elapsed() < Duration::from_secs(10), "{fault:?}");
            assert_eq!(error.reason, *reason, "{fault:?}: {}", error.chain());
            assert_eq!(error.stage, Stage::Poll);
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
            server.clear();
            tip_of(&mut *remote, &main_branch());
        }
    }
}

#[test]
fn each_fault_of_a_fetch_has_its_reason_and_the_next_fetch_works() {
    let line = |text: &[u8]| [format!("{:04x}", text.len() + 4).as_bytes(), text].concat();
    let endless_progress = line(&[&b"\x02"[..], &[b'.'; 60_000]].concat());
    let packfile = line(b"packfile\n");
    let faults = [
        (Fault::NeverAnswer, Reason::Timeout),
        (Fault::StallAfter(20_000), Reason::Timeout),
        (Fault::ResetAfter(20_000), Reason::Network),
        (Fault::TruncateAfter(20_000), Reason::Network),
        (Fault::RefuseObjects, Reason::RefMissing),
        (
            Fault::Body([&packfile[..], b"fffftoo long"].concat()),
            Reason::Protocol,
        ),
        (
            Fault::Body([&packfile[..], &line(b"\x03out of memory\n")].concat()),
            Reason::Server,
        ),
        (
            Fault::Body([&packfile[..], &line(b"\x09what\n")].concat()),
            Reason::Protocol,
        ),
        (
            Fault::Body([&packfile[..], b"0000"].concat()),
            Reason::Protocol,
        ),
        (
            Fault::Body([packfile.clone(), endless_progress.repeat(20)].concat()),
            Reason::Limit,
        ),
        (Fault::Status(503, vec![]), Reason::Server),
    ];
    let upstream = Upstream::new();
    let want = upstream.tip("main");
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    for (fault, reason) in faults {
        server.inject_on(Scope::Fetch, fault.clone());
        let short = Budget::new(AMPLE, Duration::from_millis(300), Arc::default());
        let error = Store::new()
            .fetch_within(&mut *remote, want, &[], 1, &short)
            .unwrap_err();
        assert_eq!(error.reason, reason, "{fault:?}: {}", error.chain());
        assert_eq!(error.stage, Stage::Fetch);
        server.clear();
        Store::new().fetch(&mut *remote, want, &[], 1).unwrap();
    }
}

#[test]
fn a_drip_ends_at_the_total_deadline() {
    let upstream = Upstream::new();
    let want = upstream.tip("main");
    let server = upstream.serve();
    server.inject(Fault::Drip(Duration::from_millis(100)));
    let total = Duration::from_secs(1);
    let mut remote = open(&server.url("repo.git"));
    let started = Instant::now();
    let error = remote.tip(&main_branch(), &budget(total)).unwrap_err();
    assert_eq!(error.reason, Reason::Timeout, "{}", error.chain());
    server.clear();
    server.inject_on(Scope::Fetch, Fault::Drip(Duration::from_millis(100)));
    let error = Store::new()
        .fetch_within(&mut *remote, want, &[], 1, &budget(total))
        .unwrap_err();
    assert_eq!(error.reason, Reason::Timeout, "{}", error.chain());
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_cancellation_ends_a_read_and_a_handshake_at_once() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject(Fault::NeverAnswer);
    let stalled = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let handshake = format!(
        "https://127.0.0.1:{}/r",
        stalled.local_addr().unwrap().port()
    );
    for url in [server.url("repo.git"), handshake] {
        let encrypted = url.starts_with("https");
        let cancelled = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(AMPLE, AMPLE, cancelled.clone());
        let polling = thread::spawn(move || {
            let result = open(&url).tip(&main_branch(), &budget);
            (result, Instant::now())
        });
        // The client has connected and waits for an answer.
        let peer = match encrypted {
            true => Some(stalled.accept().unwrap()),
            false => None,
        };
        let deadline = Instant::now() + AMPLE;
        while peer.is_none() && server.requests().is_empty() {
            assert!(Instant::now() < deadline, "no request came");
            thread::yield_now();
        }
        cancelled.store(true, Ordering::Relaxed);
        let at = Instant::now();
        let (result, ended) = polling.join().unwrap();
        assert!(result.unwrap_err().is_cancelled());
        assert!(ended.duration_since(at) < Duration::from_millis(1500));
    }
}

#[test]
fn a_connection_that_the_server_closed_costs_no_failure() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    for _ in 0..3 {
        tip_of(&mut *remote, &main_branch());
        server.close_connections();
    }
    server.close_each(true);
    for _ in 0..3 {
        tip_of(&mut *remote, &main_branch());
    }
}

#[test]
fn a_server_that_changes_its_version_is_learnt_anew() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    tip_of(&mut *remote, &main_branch());
    server.only_version_0(true);
    // One failure is allowed: nothing tells a server that was downgraded from one that broke.
    let _ = poll(&mut *remote, &main_branch());
    tip_of(&mut *remote, &main_branch());
    server.only_version_0(false);
    tip_of(&mut *remote, &main_branch());
    server.clear_log();
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn remembered_capabilities_are_learnt_anew_within_the_same_poll() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let moved = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    tip_of(&mut *remote, &main_branch());
    // The repository moved: a POST is redirected, and only a GET says where to.
    server.inject(Fault::Redirect(301, moved.base()));
    let commit = upstream.commit("main", "after the move");
    assert_eq!(tip_of(&mut *remote, &main_branch()).commit, commit);
    moved.clear_log();
    server.clear_log();
    tip_of(&mut *remote, &main_branch());
    assert_eq!((server.requests().len(), moved.requests().len()), (0, 1));
}

#[test]
fn a_delay_within_the_deadline_is_waited_for_and_a_stale_answer_is_believed() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    let old = tip_of(&mut *remote, &main_branch()).commit;
    server.inject_on(Scope::Refs, Fault::Stale(Duration::from_secs(60)));
    let new = upstream.commit("main", "new");
    assert_eq!(tip_of(&mut *remote, &main_branch()).commit, old);
    server.clear();
    server.inject(Fault::Delay(Duration::from_millis(300)));
    assert_eq!(tip_of(&mut *remote, &main_branch()).commit, new);
}

#[test]
fn credentials_are_sent_unasked_and_the_password_file_is_read_each_time() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    server.require_auth("user", "first");
    let mut settings = config(&server.url("repo.git"));
    settings.auth.username = Some("user".to_owned());
    settings.auth.password_file = Some(file.path().to_owned());
    let mut remote = remote::open(&settings).unwrap();
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.requests().len(), 2, "no request without credentials");

    server.require_auth("user", "second");
    let error = poll(&mut *remote, &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Auth);
    assert!(error.hint().unwrap().contains("--password-file"));
    assert!(!error.chain().contains("first"));
    std::fs::write(file.path(), "second").unwrap();
    tip_of(&mut *remote, &main_branch());

    for broken in ["empty", "missing"] {
        match broken {
            "empty" => std::fs::write(file.path(), "\n").unwrap(),
            _ => std::fs::remove_file(file.path()).unwrap(),
        }
        let error = poll(&mut *remote, &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Auth);
        assert!(
            error.to_string().contains(file.path().to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn credentials_come_from_the_url_or_the_environment_and_a_token_needs_no_name() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.require_auth("us er", "p@ss");
    let with_user = format!("http://us%20er:p%40ss@127.0.0.1:{}/repo.git", server.port());
    tip_of(&mut *open(&with_user), &main_branch());

    server.require_auth("git", "token");
    let mut settings = config(&server.url("repo.git"));
    settings.auth.password = Some(Secret::new("token"));
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());

    // What is configured wins over what is in the URL.
    let mut both = config(&with_user);
    both.auth.username = Some("git".to_owned());
    both.auth.password = Some(Secret::new("token"));
    tip_of(&mut *remote::open(&both).unwrap(), &main_branch());

    let missing = poll_error(&server.url("repo.git"));
    assert_eq!(missing.reason, Reason::Auth);
    assert!(missing.hint().unwrap().contains("give credentials"));
}

#[test]
fn a_refusal_for_now_says_how_long_to_wait() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let at = std::time::SystemTime::now() + Duration::from_secs(100);
    for (status, value, seconds) in [
        (429, "17".to_owned(), 17..=17),
        (503, httpdate::fmt_http_date(at), 90..=101),
    ] {
        server.inject(Fault::Status(
            status,
            vec![("Retry-After".to_owned(), value)],
        ));
        let error = poll_error(&server.url("repo.git"));
        assert_eq!(error.reason, Reason::Server);
        assert!(
            seconds.contains(&error.retry_after.unwrap().as_secs()),
            "{error:?}"
        );
        server.clear();
    }
}

#[test]
fn a_redirect_is_followed_and_remembered_and_credentials_stay_behind() {
    let upstream = Upstream::new();
    let (from, to) = (upstream.serve(), upstream.serve());
    from.inject(Fault::Redirect(301, to.base()));
    let mut settings = config(&from.url("repo.git"));
    settings.auth.password = Some(Secret::new("token"));
    let mut remote = remote::open(&settings).unwrap();
    tip_of(&mut *remote, &main_branch());
    let want = tip_of(&mut *remote, &main_branch()).commit;
    Store::new().fetch(&mut *remote, want, &[], 1).unwrap();
    assert_eq!(from.requests().len(), 1, "one GET, and nothing after it");
    assert!(from.requests()[0].headers.contains_key("authorization"));
    assert!(
        to.requests()
            .iter()
            .all(|r| !r.headers.contains_key("authorization"))
    );
}

#[test]
fn a_refusal_after_a_redirect_says_that_credentials_stayed_behind() {
    let upstream = Upstream::new();
    let (from, to) = (upstream.serve(), upstream.serve());
    from.inject(Fault::Redirect(301, to.base()));
    to.require_auth("git", "token");
    let mut settings = config(&from.url("repo.git"));
    settings.auth.password = Some(Secret::new("token"));
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Auth);
    assert!(error.to_string().contains(&to.base()), "{error}");
    assert!(
        error.hint().unwrap().contains("new address"),
        "{:?}",
        error.hint()
    );
}

#[test]
fn a_connect_that_hangs_ends_at_the_deadline_and_when_cancelled() {
    // A listener whose queue is full drops what knocks.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let url = format!("http://{address}/r");
    let error = open(&url)
        .tip(&main_branch(), &budget(Duration::from_millis(500)))
        .unwrap_err();
    assert_eq!(error.reason, Reason::Timeout, "{}", error.chain());

    let cancelled = Arc::new(AtomicBool::new(false));
    let endless = Budget::new(AMPLE, AMPLE, cancelled.clone());
    let polling = thread::spawn(move || open(&url).tip(&main_branch(), &endless));
    cancelled.store(true, Ordering::Relaxed);
    let started = Instant::now();
    assert!(polling.join().unwrap().unwrap_err().is_cancelled());
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[test]
fn an_answer_whose_end_never_comes_is_used_all_the_same() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    let length = {
        tip_of(&mut *remote, &main_branch());
        server.clear_log();
        tip_of(&mut *remote, &main_branch());
        // One line for the branch, one for HEAD, and the flush.
        let line = |name: &str| 4 + 40 + 1 + name.len() + 1;
        line("refs/heads/main") + line("HEAD symref-target:refs/heads/main") + 4
    };
    server.inject(Fault::StallAfter(length));
    tip_of(&mut *remote, &main_branch());
    server.clear();
    tip_of(&mut *remote, &main_branch());
}

#[test]
fn a_redirect_on_the_same_host_keeps_the_credentials() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.require_auth("git", "token");
    let location = "/repo.git/info/refs?service=git-upload-pack";
    server.inject_on(
        Scope::Under("/old.git"),
        Fault::RedirectTo(location.to_owned()),
    );
    let mut settings = config(&server.url("old.git"));
    settings.auth.password = Some(Secret::new("token"));
    let mut remote = remote::open(&settings).unwrap();
    for _ in 0..2 {
        tip_of(&mut *remote, &main_branch());
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 4, "two GETs, then POSTs to the new place");
    assert!(requests.iter().all(|request| request.connection == 1));
}

#[test]
fn a_redirect_in_circles_ends() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let location = "/repo.git/info/refs?service=git-upload-pack";
    server.inject(Fault::RedirectTo(location.to_owned()));
    let error = poll_error(&server.url("repo.git"));
    assert_eq!(error.reason, Reason::Protocol, "{}", error.chain());
    assert!(error.to_string().contains("for ever"), "{error}");
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn a_post_that_is_always_redirected_is_refused() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject_on(Scope::Post, Fault::Redirect(307, server.base()));
    let error = poll_error(&server.url("repo.git"));
    assert_eq!(error.reason, Reason::Protocol);
    assert!(error.to_string().contains("redirected a POST"), "{error}");
}

#[test]
fn a_certificate_from_the_given_authority_is_trusted_and_the_connection_kept() {
    let upstream = Upstream::new();
    let server = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let mut settings = config(&server.url("repo.git"));
    settings.ca_file = Some(server.ca_file().to_owned());
    let mut remote = remote::open(&settings).unwrap();
    let mut store = Store::new();
    for text in ["a", "b"] {
        upstream.commit("main", text);
        let tip = tip_of(&mut *remote, &main_branch()).commit;
        store.fetch(&mut *remote, tip, &[], 1).unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn each_fault_of_a_certificate_is_told_apart() {
    let upstream = Upstream::new();
    let valid = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    for (certificate, words) in [
        (Certificate::Expired, "has expired"),
        (Certificate::NotYetValid, "not valid yet"),
        (Certificate::WrongName, "not for the name"),
    ] {
        let server = HttpServer::start_tls(upstream.0.path(), certificate);
        let mut settings = config(&server.url("repo.git"));
        settings.ca_file = Some(server.ca_file().to_owned());
        let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Tls, "{}", error.chain());
        assert!(error.to_string().contains(words), "{error}");

        settings.ca_file = Some(valid.ca_file().to_owned());
        let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Tls);
        if certificate == Certificate::WrongName {
            assert!(error.to_string().contains("authority"), "{error}");
        }
    }
    // An authority of the same name with another key.
    let other = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let mut settings = config(&valid.url("repo.git"));
    settings.ca_file = Some(other.ca_file().to_owned());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Tls);
    assert!(error.to_string().contains("authority"), "{error}");
    assert!(error.hint().unwrap().contains("SSL_CERT_FILE"));
}

#[test]
fn tls_that_cannot_begin_is_a_clear_error() {
    let upstream = Upstream::new();
    let plain = upstream.serve();
    let encrypted = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let mut settings = config(&format!("https://127.0.0.1:{}/repo.git", plain.port()));
    settings.ca_file = Some(encrypted.ca_file().to_owned());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert!(
        matches!(error.reason, Reason::Tls | Reason::Network),
        "{}",
        error.chain()
    );

    settings.ca_file = Some("/nonexistent/ca.pem".into());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Tls);
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}

#[test]
fn a_redirect_to_https_is_followed_and_one_away_from_it_refused() {
    let upstream = Upstream::new();
    let plain = upstream.serve();
    let encrypted = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    plain.inject(Fault::Redirect(308, encrypted.base()));
    let mut settings = config(&plain.url("repo.git"));
    settings.ca_file = Some(encrypted.ca_file().to_owned());
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());
    plain.clear();

    encrypted.inject(Fault::Redirect(302, plain.base()));
    plain.clear_log();
    let mut settings = config(&encrypted.url("repo.git"));
    settings.ca_file = Some(encrypted.ca_file().to_owned());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Tls);
    assert!(error.to_string().contains("from https to http"), "{error}");
    assert!(plain.requests().is_empty());
}

#[test]
fn a_host_that_cannot_be_reached_is_named() {
    let error = poll_error("http://no-such-host.invalid/r");
    assert_eq!(error.reason, Reason::Network);
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );

    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let error = poll_error(&format!("http://127.0.0.1:{port}/r"));
    assert_eq!(error.reason, Reason::Network);
    assert!(
        error.chain().contains(&port.to_string()),
        "{}",
        error.chain()
    );
    assert!(error.chain().contains("refused"), "{}", error.chain());
}

#[test]
fn a_token_in_the_address_is_in_no_error() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    for fault in [
        Fault::Html,
        Fault::Garbage,
        Fault::Status(404, vec![]),
        Fault::Status(500, vec![]),
        Fault::TruncateAfter(3),
        Fault::RedirectTo("/login".to_owned()),
    ] {
        server.inject(fault.clone());
        let url = format!(
            "http://tok3n:tok3n@127.0.0.1:{}/repo.git?access_token=tok3n",
            server.port()
        );
        let error = poll_error(&url);
        let all = format!("{error:?} {} {:?}", error.chain(), error.hint());
        assert!(!all.contains("tok3n"), "{fault:?}: {all}");
        server.clear();
    }
}

/// A proxy that knows `CONNECT`, and keeps the heads it was sent.
struct Proxy {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://us%40er:tok3n@{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let log = heads.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, log) = (client.unwrap(), log.clone());
                thread::spawn(move || {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        let mut byte = [0];
                        client.read_exact(&mut byte).unwrap();
                        head.push(char::from(byte[0]));
                    }
                    log.lock().unwrap().push(head.clone());
                    client.write_all(answer.as_bytes()).unwrap();
                    let target = head.split(' ').nth(1).unwrap();
                    let mut server = TcpStream::connect(target).unwrap();
                    let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
                    let _ = std::io::copy(&mut client, &mut server);
                });
            }
        });
        Self { url, heads }
    }
}

#[test]
fn a_proxy_is_used_with_its_credentials_unless_the_host_is_excepted() {
    let upstream = Upstream::new();
    let server = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let proxy = Proxy::start("HTTP/1.1 200 Connected\r\n\r\n");
    let mut settings = config(&server.url("repo.git"));
    settings.ca_file = Some(server.ca_file().to_owned());
    settings.proxy.https = Some(Secret::new(proxy.url.as_str()));
    let mut remote = remote::open(&settings).unwrap();
    for _ in 0..3 {
        tip_of(&mut *remote, &main_branch());
    }
    let heads = proxy.heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1, "one tunnel is kept");
    assert!(
        heads[0].contains("Proxy-Authorization: Basic dXNAZXI6dG9rM24="),
        "{}",
        heads[0]
    );

    settings.proxy.no_proxy = Some("127.0.0.0/8".to_owned());
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());
    assert_eq!(proxy.heads.lock().unwrap().len(), 1);
}

#[test]
fn a_proxy_that_refuses_or_is_gone_is_a_network_failure() {
    let refusing = Proxy::start("HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n");
    for url in [refusing.url.as_str(), "http://us:tok3n@127.0.0.1:1"] {
        let mut settings = config("http://127.0.0.1:2/r");
        settings.proxy.http = Some(Secret::new(url));
        let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Network, "{}", error.chain());
        assert!(!format!("{error:?}").contains("tok3n"));
    }
}
