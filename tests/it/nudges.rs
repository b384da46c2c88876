//! From a nudge to the flip, with the real program and a real server.

use std::time::{Duration, Instant};

use crate::serve::{ask, wait_until};
use crate::support::environment::{report, soak};
use crate::support::http_server::{Fault, HttpServer, Scope};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::upstream::Upstream;

const SECRET: &str = "only for this test";

/// A sidecar that polls only when it is told to.
struct Setup {
    upstream: Upstream,
    server: HttpServer,
    root: Root,
    sidecar: Sidecar,
    first: String,
    _secret: tempfile::NamedTempFile,
}

impl Setup {
    fn start() -> Self {
        Self::with_rate("600")
    }

    /// The same, with so many polls an hour.
    fn with_rate(rate: &str) -> Self {
        let upstream = Upstream::empty();
        let first = upstream.commit(&[("file", "first")]);
        let server = HttpServer::start(upstream.path().parent().unwrap());
        let name = upstream
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let root = Root::new();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), SECRET).unwrap();
        let mut sidecar = Launch::new(&server.url(&name), &root)
            .flag("ref", "main")
            .flag("period", "1h")
            .http()
            .flag("nudge-rate", rate)
            .flag("nudge-secret-file", secret.path().to_str().unwrap())
            .spawn();
        sidecar.wait_for(&root, &first);
        sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "changed")], 1.0);
        Self {
            upstream,
            server,
            root,
            sidecar,
            first,
            _secret: secret,
        }
    }

    /// Sends what Gitea sends for a push to main; the status of the answer.
    fn webhook(&mut self, commit: &str, id: &str) -> u16 {
        let address = self.sidecar.address().parse().unwrap();
        ask(address, &request(commit, id)).status
    }
}

fn request(commit: &str, id: &str) -> Vec<u8> {
    let body = format!(r#"{{"ref":"refs/heads/main","after":"{commit}"}}"#);
    format!(
        "POST /webhook HTTP/1.1\r\nHost: x\r\nX-Gitea-Event: push\r\nX-Gitea-Delivery: {id}\r\n\
         Authorization: Bearer {SECRET}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn a_commit_that_the_server_shows_late_is_published_soon_after() {
    let mut setup = Setup::start();
    let late = Duration::from_secs(8);
    // The server remembers the answer that it gave before.
    setup.server.inject_on(Scope::Refs, Fault::Stale(late));
    let shown_at = Instant::now() + late;
    let commit = setup.upstream.commit(&[("file", "second")]);
    let began = Instant::now();
    assert_eq!(setup.webhook(&commit, "1"), 202);
    setup.sidecar.wait_for(&setup.root, &commit);
    let took = began.elapsed();
    assert!(Instant::now() >= shown_at, "the server was not late");
    assert!(took < Duration::from_millis(9500), "it took {took:?}");
    report(&format!("published {took:?} after the nudge"));
    // Then the period counts again.
    let polls = setup.sidecar.metric("gvr_syncs_total", &[]);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(setup.sidecar.metric("gvr_syncs_total", &[]), polls);
    assert_ne!(setup.first, commit);
}

#[test]
fn ten_thousand_webhooks_cause_a_bounded_number_of_polls() {
    let mut setup = Setup::start();
    let address = setup.sidecar.address().parse().unwrap();
    let before = setup.sidecar.metric("gvr_syncs_total", &[]);
    let began = Instant::now();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            std::thread::spawn(move || {
                for n in 0..2500 {
                    // Each announces another commit that never comes.
                    let commit = format!("{sender:020x}{n:020x}");
                    let id = format!("{sender}-{n}");
                    assert_eq!(ask(address, &request(&commit, &id)).status, 202);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    let flood = began.elapsed();
    // What was begun is followed up for 10 s.
    std::thread::sleep(Duration::from_secs(2));
    let polls = setup.sidecar.metric("gvr_syncs_total", &[]) - before;
    let elapsed = began.elapsed().as_secs_f64();
    report(&format!("10,000 webhooks in {flood:?}: {polls} polls"));
    assert!(polls >= 1.0);
    assert!(
        polls <= 61.0 + elapsed / 6.0,
        "{polls} polls in {elapsed} s"
    );
    let nudges = [("provider", "gitea")];
    assert_eq!(setup.sidecar.metric("gvr_nudges_total", &nudges), 10_000.0);
    // A poll that was held back is served by the next one.
    assert_eq!(setup.sidecar.get("/livez").code, 200);
}

/// With `make soak`, 200 nudges.
#[test]
fn the_time_from_a_nudge_to_the_flip_is_measured() {
    // 200 nudges in a few minutes are more than the default allows.
    let mut setup = Setup::with_rate("36000");
    let rounds = if soak() { 200 } else { 5 };
    let mut times = Vec::new();
    for n in 0..rounds {
        let commit = setup.upstream.commit(&[("file", &n.to_string())]);
        let began = Instant::now();
        assert_eq!(setup.webhook(&commit, &n.to_string()), 202);
        wait_until("the flip", || setup.root.commit().as_ref() == Some(&commit));
        times.push(began.elapsed());
        // At most one poll a second comes from nudges.
        std::thread::sleep(Duration::from_millis(1050).saturating_sub(began.elapsed()));
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    report(&format!(
        "{rounds} nudges to the flip: median {:?}, 99th percentile {:?}",
        at(50),
        at(99)
    ));
}
