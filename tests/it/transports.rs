//! The main job over the network, through the program: clone once, follow, be nudged; over HTTP,
//! HTTPS, a proxy and SSH, with every way to sign in.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::connect_proxy::Proxy;
use crate::support::environment::command;
use crate::support::http_server::{Certificate, HttpServer};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar, field};
use crate::support::sshd::{Settings, Sshd};
use crate::support::upstream::Upstream;
use crate::support::wait::PATIENCE;

const NUDGE_TOKEN: &str = "n0dge";

/// An upstream, a root, and a place for the files of a launch.
struct Lab {
    upstream: Upstream,
    root: Root,
    files: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            upstream: Upstream::new(),
            root: Root::new(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// The directory that a server has to serve; the repository in it is [`Lab::NAME`].
    fn served(&self) -> &Path {
        self.upstream.path().parent().unwrap()
    }

    const NAME: &str = "upstream.git";

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.files.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// Once as an init container, then as a sidecar that follows a push and is nudged to another.
    fn main_job(&self, launch: impl Fn(&str) -> Launch) {
        let root = &self.root;
        launch("HEAD").switch("one-time").succeed();
        root.assert_published(&self.upstream, &self.upstream.tip("main"));

        let mut sidecar = launch("HEAD").spawn();
        for n in 0..3 {
            let commit = self.upstream.commit(&[("n", &n.to_string())]);
            sidecar.wait_for(root, &commit);
            root.assert_published(&self.upstream, &commit);
        }
        sidecar.stop();

        let mut sidecar = nudged(launch("HEAD"), self).spawn();
        sidecar.wait_for_metric("gvr_ready", &[], 1.0);
        let commit = self.upstream.commit(&[("nudged", "")]);
        nudge(&mut sidecar);
        sidecar.wait_for(root, &commit);
        sidecar.stop();

        // An annotated tag stands for its commit, and is published once.
        let before = self.upstream.tip("main~1");
        self.upstream.annotated_tag("v1", &before);
        let mut sidecar = launch("v1").http().spawn();
        sidecar.wait_for(root, &before);
        let revision = root.revision();
        sidecar.wait_for_polls(2);
        assert_eq!(root.revision(), revision);
        sidecar.stop();
        root.assert_published(&self.upstream, &before);
        root.assert_tidy(&[]);
    }

    /// How many commits of history the store holds.
    fn history(&self, root: &Root) -> usize {
        let store = root.state("store.git");
        let out = command("git")
            .args(["-c", "safe.directory=*", "--git-dir"])
            .arg(store)
            .args(["rev-list", "--count", &root.commit().unwrap()])
            .output()
            .unwrap();
        String::from_utf8(out.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// A full history has all, a depth of 1 only the newest, after updates too.
    fn depths(&self, launch: impl Fn(&Root) -> Launch) {
        for _ in 0..3 {
            self.upstream.commit(&[("n", "")]);
        }
        let (all, one) = (Root::new(), Root::new());
        for n in 0..2 {
            launch(&all).flag("depth", "0").switch("one-time").succeed();
            launch(&one).flag("depth", "1").switch("one-time").succeed();
            let tip = self.upstream.tip("main");
            let count = self.upstream.git(&["rev-list", "--count", &tip]);
            assert_eq!(self.history(&all), count.parse::<usize>().unwrap());
            assert_eq!(self.history(&one), 1);
            all.assert_published(&self.upstream, &tip);
            one.assert_published(&self.upstream, &tip);
            self.upstream.commit(&[("more", &n.to_string())]);
        }
    }
}

/// A launch that polls on a nudge only.
fn nudged(launch: Launch, lab: &Lab) -> Launch {
    launch
        .flag("period", "1h")
        .flag("nudge-token-file", &lab.file("nudge", NUDGE_TOKEN))
        .http()
}

#[track_caller]
fn nudge(sidecar: &mut Sidecar) {
    let url = format!("http://{}/nudge", sidecar.address());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let answer = agent
        .post(&url)
        .header("Authorization", &format!("Bearer {NUDGE_TOKEN}"))
        .send_empty()
        .unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[test]
fn the_main_job_works_over_http() {
    let lab = Lab::new();
    let server = HttpServer::start(lab.served());
    let repo = server.url(Lab::NAME);
    lab.main_job(|reference| Launch::new(&repo, &lab.root).flag("ref", reference));
    lab.depths(|root| Launch::new(&repo, root));
}

#[test]
fn the_main_job_works_with_a_server_that_only_speaks_version_0() {
    let lab = Lab::new();
    let server = HttpServer::start(lab.served());
    server.only_version_0(true);
    let repo = server.url(Lab::NAME);
    lab.main_job(|reference| Launch::new(&repo, &lab.root).flag("ref", reference));
    lab.depths(|root| Launch::new(&repo, root));
}

#[test]
fn an_update_transfers_what_changed_and_one_that_changes_most_files_everything() {
    let lab = Lab::new();
    let server = HttpServer::start(lab.served());
    lab.upstream.big_tree(4000, 1000);
    let mut sidecar = Launch::new(&server.url(Lab::NAME), &lab.root)
        .http()
        .spawn();
    sidecar.wait_for(&lab.root, &lab.upstream.tip("main"));
    // Counted after the flip.
    sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "changed")], 1.0);
    let fetched = |sidecar: &mut Sidecar| sidecar.metric("gvr_fetched_bytes_total", &[]);
    let first = fetched(&mut sidecar);

    let small = lab.upstream.commit(&[("big/0000/000000.txt", "changed")]);
    sidecar.wait_for(&lab.root, &small);
    sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "changed")], 2.0);
    let small_fetch = fetched(&mut sidecar) - first;
    assert!(small_fetch < first / 20.0, "{small_fetch} of {first}");

    // More deltas than are worth completing: the pack comes again, whole.
    let paths: Vec<_> = (0..4000)
        .map(|i| format!("big/{:04}/{i:06}.txt", i / 100))
        .collect();
    let changes: Vec<_> = paths
        .iter()
        .map(|path| (path.as_str(), path.as_str()))
        .collect();
    let large = lab.upstream.commit(&changes);
    sidecar.wait_for(&lab.root, &large);
    lab.root.assert_published(&lab.upstream, &large);
    sidecar.stop();
}

#[test]
fn a_poll_of_a_hundred_thousand_refs_is_one_small_request() {
    let lab = Lab::new();
    lab.upstream.many_refs(100_000);
    let server = HttpServer::start(lab.served());
    let mut sidecar = nudged(Launch::new(&server.url(Lab::NAME), &lab.root), &lab).spawn();
    sidecar.wait_for(&lab.root, &lab.upstream.tip("main"));
    sidecar.wait_for_metric("gvr_ready", &[], 1.0);
    let unchanged = [("outcome", "unchanged")];
    for _ in 0..3 {
        let before = sidecar.metric("gvr_syncs_total", &unchanged);
        server.clear_log();
        nudge(&mut sidecar);
        sidecar.wait_for_metric("gvr_syncs_total", &unchanged, before + 1.0);
        let requests = server.requests();
        let polls = sidecar.metric("gvr_syncs_total", &unchanged) - before;
        // One more poll may be under way on a busy machine.
        assert!(
            requests.len() as f64 <= polls + 1.0,
            "{polls} polls: {requests:?}"
        );
        for request in requests {
            assert!(request.answered() < 1000, "{}", request.answered());
        }
    }
    assert_eq!(server.connections(), 1, "the connection is kept");
}

#[test]
fn the_main_job_works_over_https_with_an_authority_of_ones_own() {
    let lab = Lab::new();
    let server = HttpServer::start_tls(lab.served(), Certificate::Valid);
    let repo = server.url(Lab::NAME);
    Launch::one_time(&repo, &lab.root)
        .run()
        .assert_failed(&[1], &["SSL_CERT_FILE"]);
    let authority = server.ca_file().to_str().unwrap();
    lab.main_job(|reference| {
        Launch::new(&repo, &lab.root)
            .flag("ref", reference)
            .variable("SSL_CERT_FILE", authority)
    });
}

#[test]
fn the_usual_variables_name_a_proxy_and_its_exceptions() {
    let lab = Lab::new();
    let server = HttpServer::start_tls(lab.served(), Certificate::Valid);
    let proxy = Proxy::start("HTTP/1.1 200 Connected\r\n\r\n");
    let launch = Launch::new(&server.url(Lab::NAME), &lab.root)
        .variable("SSL_CERT_FILE", server.ca_file().to_str().unwrap())
        .variable("HTTPS_PROXY", &proxy.url);
    let mut sidecar = launch.clone().spawn();
    sidecar.wait_for(&lab.root, &lab.upstream.tip("main"));
    let commit = lab.upstream.commit(&[("a", "")]);
    sidecar.wait_for(&lab.root, &commit);
    let finished = sidecar.stop();
    assert!(!finished.stderr.contains("tok3n"), "{}", finished.stderr);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "one tunnel is kept: {heads:?}");
    let target = format!("CONNECT 127.0.0.1:{} ", server.port());
    assert!(heads[0].starts_with(&target), "{heads:?}");

    let commit = lab.upstream.commit(&[("b", "")]);
    launch
        .variable("NO_PROXY", "example.com,127.0.0.1")
        .switch("one-time")
        .succeed();
    assert_eq!(lab.root.commit(), Some(commit));
    assert_eq!(proxy.heads().len(), 1);
}

#[test]
fn a_password_file_is_read_again_so_that_it_can_be_rotated() {
    let lab = Lab::new();
    let server = HttpServer::start(lab.served());
    server.require_auth("me", "tok3n-1");
    let password = lab.file("password", "tok3n-1\n");
    let error_file = lab.files.path().join("error");
    let launch = |reference: &str| {
        Launch::new(&server.url(Lab::NAME), &lab.root)
            .flag("ref", reference)
            .flag("username", "me")
            .flag("password-file", &password)
            .flag("error-file", error_file.to_str().unwrap())
    };
    lab.main_job(launch);

    let mut sidecar = launch("HEAD").spawn();
    sidecar.wait_for(&lab.root, &lab.upstream.tip("main"));
    let before = lab.root.commit();
    server.require_auth("me", "tok3n-2");
    let commit = lab.upstream.commit(&[("rotated", "")]);
    sidecar.wait_while_alive("the refusal", |_| error_file.exists());
    let error = fs::read_to_string(&error_file).unwrap();
    assert_eq!(field(&error, "reason").as_deref(), Some("auth"), "{error}");
    assert_eq!(lab.root.commit(), before);
    lab.file("password", "tok3n-2\n");
    sidecar.wait_for(&lab.root, &commit);
    sidecar.wait_while_alive("the error to be over", |_| !error_file.exists());
    let finished = sidecar.stop();
    assert!(!finished.stderr.contains("tok3n"), "{}", finished.stderr);
    assert!(!error.contains("tok3n"), "{error}");
}

#[test]
fn a_password_may_come_from_the_environment_or_stand_in_the_url() {
    let lab = Lab::new();
    let server = HttpServer::start(lab.served());
    server.require_auth("me", "p@ss tok3n");
    let repo = server.url(Lab::NAME);
    Launch::one_time(&repo, &lab.root)
        .flag("username", "me")
        .variable("GVR_PASSWORD", "p@ss tok3n")
        .succeed();
    lab.root
        .assert_published(&lab.upstream, &lab.upstream.tip("main"));

    let commit = lab.upstream.commit(&[("a", "")]);
    let with = repo.replace("http://", "http://me:p%40ss%20tok3n@");
    let mut sidecar = Launch::new(&with, &lab.root).http().spawn();
    sidecar.wait_for(&lab.root, &commit);
    let status = sidecar.get("/status").body;
    let metrics = sidecar.get("/metrics").body;
    let finished = sidecar.stop();
    for text in [&status, &metrics, &finished.stderr] {
        assert!(!text.contains("tok3n"), "{text}");
    }

    let wrong = repo.replace("http://", "http://me:tok3n-wrong@");
    let finished = Launch::one_time(&wrong, &lab.root).run();
    finished.assert_failed(&[1], &["auth"]);
    assert!(!finished.stderr.contains("tok3n"), "{}", finished.stderr);
    assert_eq!(lab.root.commit(), Some(commit));
}

/// A server, and a launch with a key that it knows and its host key.
fn ssh(lab: &Lab) -> (Sshd, impl Fn(&Root) -> Launch) {
    let sshd = Sshd::with(&Settings::default());
    let key = sshd.client_key("ed25519");
    let hosts = format!("[127.0.0.1]:{} {}\n", sshd.port(), sshd.host_key("ed25519"));
    let hosts: PathBuf = sshd.known_hosts(&hosts);
    let out = command("id").arg("-un").output().unwrap();
    let user = String::from_utf8(out.stdout).unwrap();
    let repo = format!(
        "ssh://{}@127.0.0.1:{}{}",
        user.trim(),
        sshd.port(),
        lab.upstream.path().display()
    );
    let launch = move |root: &Root| {
        Launch::new(&repo, root)
            .flag("ssh-key-file", key.to_str().unwrap())
            .flag("ssh-known-hosts-file", hosts.to_str().unwrap())
    };
    (sshd, launch)
}

#[test]
fn the_main_job_works_over_ssh() {
    let lab = Lab::new();
    let (_sshd, launch) = ssh(&lab);
    lab.main_job(|reference| launch(&lab.root).flag("ref", reference));
    lab.depths(&launch);

    lab.upstream.annotated_tag("v2", &lab.upstream.tip("main"));
    let root = Root::new();
    launch(&root).switch("git-dir").switch("one-time").succeed();
    let out = command("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(root.link())
        .arg("describe")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "v2");
}

#[test]
fn ssh_polls_share_one_login_and_a_hundred_thousand_refs_are_no_matter() {
    let lab = Lab::new();
    lab.upstream.many_refs(100_000);
    let (sshd, launch) = ssh(&lab);
    let mut sidecar = launch(&lab.root).http().spawn();
    sidecar.wait_for(&lab.root, &lab.upstream.tip("main"));
    sidecar.wait_for_polls(3);
    let commit = lab.upstream.commit(&[("a", "")]);
    sidecar.wait_for(&lab.root, &commit);
    assert_eq!(sshd.logins(), 1);
    sidecar.stop();
}
