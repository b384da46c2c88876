//! What each route answers, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use git_volume_reloader::app::healthcheck::{self, Unhealthy};
use git_volume_reloader::base::commit::Timestamp;
use git_volume_reloader::base::error::{Reason, Stage, SyncError};
use git_volume_reloader::base::heartbeat::Heartbeat;
use git_volume_reloader::base::wake::{Wake, Woken};
use git_volume_reloader::cli::Probe;
use git_volume_reloader::notify::event::{
    AfterFailure, Failure, Outcome, Pruned, Published, PublishedTree, ShownCommit, Work,
};
use git_volume_reloader::notify::{Event, Observer};
use git_volume_reloader::observe::metrics::{self, Families};
use git_volume_reloader::observe::status::{Identity, TargetStatus};
use git_volume_reloader::remote::RefName;
use git_volume_reloader::serve::bind::Bind;
use git_volume_reloader::serve::hosts::AllowedHosts;
use git_volume_reloader::serve::nudge::NudgeConfig;
use git_volume_reloader::serve::routes::ROUTES;
use git_volume_reloader::serve::{Routes, Served, Server, Shared, start};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How long anything here may take that should take no time at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, with all that a supervisor would hold of it.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) shared: Arc<Shared>,
    heartbeat: Arc<Heartbeat>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Service {
    /// Serves the target `docs` on a free port of the loopback interface.
    pub(crate) fn start(token_file: Option<&Path>, max_staleness: Option<Duration>) -> Self {
        let nudge = token_file.map(|file| NudgeConfig {
            token_file: Some(file.to_owned()),
            ..NudgeConfig::default()
        });
        Self::with(Registry::default(), nudge, Wake::new(), max_staleness)
    }

    /// The same, with the secrets in these files, and with this wake.
    pub(crate) fn with_nudges(nudge: NudgeConfig, wake: Arc<Wake>) -> Self {
        Self::with(Registry::default(), Some(nudge), wake, None)
    }

    fn with(
        mut registry: Registry,
        nudge: Option<NudgeConfig>,
        wake: Arc<Wake>,
        max_staleness: Option<Duration>,
    ) -> Self {
        metrics::register_process(&mut registry, "1.2.3", "abcdef0");
        let metrics = Families::register(&mut registry).target("docs", "refs/heads/main");
        let heartbeat = Arc::new(Heartbeat::new());
        let identity = Identity {
            target: "docs".to_owned(),
            repo: "https://example.org/docs.git".to_owned(),
            reference: "main".to_owned(),
            link: "/volume/current".to_owned(),
            version: "1.2.3".to_owned(),
        };
        let shared = Arc::new(Shared {
            targets: vec![Served {
                status: TargetStatus::new(identity, max_staleness, heartbeat.clone()),
                metrics,
                wake,
                reference: RefName::Short("main".to_owned()),
            }],
            registry: Arc::new(registry),
            routes: Routes::All,
            nudge,
            hosts: AllowedHosts::default(),
        });
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = start(bind, shared.clone()).unwrap();
        Self {
            server,
            shared,
            heartbeat,
        }
    }

    pub(crate) fn ask(&self, request: &str) -> Answer {
        ask(self.server.local_addr(), request.as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.server.local_addr(), path)
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.shared.targets[0].wake
    }

    /// Tells the observers that answers come from.
    pub(crate) fn emit(&self, event: &Event) {
        let target = &self.shared.targets[0];
        target.metrics.clone().observe(event);
        target.status.clone().observe(event);
    }

    fn fail(&self, error: &SyncError) {
        let next = AfterFailure::RetryIn(Duration::from_secs(10));
        self.emit(&Event::Failed(Failure::new(error, 1, next)));
    }

    /// A first cycle that publishes.
    fn publish(&self) {
        let to = ShownCommit {
            id: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
            subject: "Say \"hello\"".to_owned(),
            author: "A. U. Thor".to_owned(),
            time: Timestamp::from_seconds(1_700_000_000),
        };
        self.emit(&Event::Attempt);
        self.emit(&Event::Finished(work(Outcome::Changed)));
        self.emit(&Event::Published(Published {
            from: None,
            to,
            path: std::path::PathBuf::new(),
            reference: "refs/heads/main".to_owned(),
            at: SystemTime::now(),
            tree: PublishedTree::Kept,
        }));
        self.emit(&Event::Pruned(Pruned {
            revisions: 2,
            bytes: Some(1 << 20),
            took: Duration::from_millis(1),
        }));
    }
}

fn work(outcome: Outcome) -> Work {
    Work {
        outcome,
        took: Duration::from_secs(1),
        stages: Vec::new(),
        fetched_bytes: 0,
        files_written: 0,
        files_shared: 0,
    }
}

/// Sends a whole request and reads the answer until the server closes.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = connect(address);
    socket.write_all(request).unwrap();
    read_answer(&mut socket)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    )
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.0 ").unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status: status[..3].parse().unwrap(),
        headers,
        body: body.to_owned(),
    }
}

#[test]
fn every_listed_route_is_served_and_all_else_is_404() {
    let secrets = NudgeConfig {
        secret_files: vec!["/nowhere/secret".into()],
        ..NudgeConfig::default()
    };
    let service = Service::with_nudges(secrets, Wake::new());
    for (path, methods, _) in ROUTES {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let answer = service.ask(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let taken = methods.split(", ").any(|known| known == method);
            assert_eq!(answer.status == 405, !taken, "{method} {path}");
            assert_ne!(answer.status, 404, "{method} {path}");
            if !taken {
                assert_eq!(answer.headers["allow"], methods);
            }
        }
    }
    for path in [
        "/",
        "/nothing",
        "/livez/",
        "//livez",
        "/LIVEZ",
        "*",
        "/../livez",
        "/%6civez",
    ] {
        assert_eq!(service.get(path).status, 404, "{path}");
    }
}

#[test]
fn head_is_get_without_a_body() {
    let service = Service::start(None, None);
    for path in ["/livez", "/readyz", "/status"] {
        let get = service.get(path);
        let head = service.ask(&format!("HEAD {path} HTTP/1.0\r\n\r\n"));
        assert_eq!((head.status, head.body.as_str()), (get.status, ""));
        assert_eq!(head.headers["content-length"], get.body.len().to_string());
        assert_eq!(head.headers["content-type"], get.headers["content-type"]);
    }
}

#[test]
fn a_query_or_an_absolute_target_reaches_the_same_route() {
    let service = Service::start(None, None);
    for target in ["/livez?verbose", "http://x:1/livez", "http://x/livez?a=b"] {
        assert_eq!(service.get(target).status, 200, "{target}");
    }
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let service = Service::start(None, None);
    let mut socket = connect(service.server.local_addr());
    socket.set_nodelay(true).unwrap();
    for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" {
        socket.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_answer(&mut socket).status, 200);
}

#[test]
fn an_answer_that_fits_no_buffer_reaches_a_slow_reader_whole() {
    let mut registry = Registry::default();
    let help = "x".repeat(16 << 20);
    registry.register("large", help, Gauge::<i64>::default());
    let service = Service::with(registry, None, Wake::new(), None);
    let mut slow = connect(service.server.local_addr());
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    slow.write_all(request).unwrap();
    slow.peek(&mut [0]).unwrap();
    // It waits for its reader, and nobody waits for it.
    assert_eq!(service.get("/livez").status, 200);
    let answer = read_answer(&mut slow);
    assert_eq!(
        answer.headers["content-length"],
        answer.body.len().to_string()
    );
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn liveness_is_the_heartbeat_and_not_the_remote() {
    let service = Service::start(None, None);
    let error = SyncError::new(Stage::Poll, Reason::Network, "gone");
    service.fail(&error);
    assert_eq!(service.get("/livez").status, 200);
    assert_eq!(service.get("/livez").body, "ok\n");
}

#[test]
fn a_stuck_loop_is_not_live_until_it_beats_again() {
    let service = Service::start(None, None);
    service.heartbeat.beat(Duration::ZERO);
    assert_eq!(service.get("/livez").status, 200, "there is a grace");
    wait_until("the grace is over", || service.get("/livez").status == 503);
    assert_eq!(service.get("/livez").body, "the sync loop is stuck\n");
    service.heartbeat.beat(PATIENCE);
    assert_eq!(service.get("/livez").status, 200);
}

#[test]
fn readiness_begins_with_the_first_publish() {
    let service = Service::start(None, None);
    let before = service.get("/readyz");
    assert_eq!(
        (before.status, before.body.as_str()),
        (503, "nothing is published yet\n")
    );
    service.publish();
    assert_eq!(service.get("/readyz").status, 200);
    assert!(
        service
            .get("/metrics")
            .body
            .contains("\ngvr_ready{target=\"docs\"} 1\n")
    );
}

#[test]
fn readiness_and_the_metrics_follow_max_staleness() {
    let service = Service::start(None, Some(Duration::from_millis(50)));
    service.publish();
    wait_until("the tree is stale", || service.get("/readyz").status == 503);
    assert!(service.get("/readyz").body.contains("--max-staleness"));
    let page = service.get("/metrics").body;
    assert!(page.contains("\ngvr_ready{target=\"docs\"} 0\n"));
    assert!(page.contains("\ngvr_stale{target=\"docs\"} 1\n"));
    assert_eq!(service.get("/livez").status, 200);
}

#[test]
fn every_series_exists_at_zero_from_the_start() {
    let service = Service::start(None, None);
    let answer = service.get("/metrics");
    assert_eq!(answer.headers["content-type"], metrics::CONTENT_TYPE);
    let page = Page::parse(&answer.body);
    let expected: BTreeSet<_> = metrics::NAMES.into_iter().collect();
    assert_eq!(
        expected.len(),
        metrics::NAMES.len(),
        "a name is listed twice"
    );
    let mut shown: BTreeSet<_> = page.series().collect();
    assert!(!shown.contains("gvr_revision_info"));
    shown.insert("gvr_revision_info");
    assert_eq!(shown, expected);
    for (series, labels, value) in &page.samples {
        if series.starts_with("gvr_") && series != "gvr_build_info" {
            assert_eq!(value, &0.0, "{series}{{{labels}}}");
            assert!(labels.contains("target=\"docs\""), "{series}{{{labels}}}");
        }
    }
    let failures = page
        .samples
        .iter()
        .filter(|(name, ..)| name == "gvr_sync_failures_total");
    assert_eq!(failures.count(), Stage::ALL.len() * Reason::FAILURES.len());
    let process = |name: &str| page.samples.iter().find(|(n, ..)| n == name).unwrap().2;
    assert!(process("process_resident_memory_bytes") > 1e6);
    assert!(process("process_open_fds") >= 4.0);
    assert!(process("process_threads") >= 2.0);
}

#[test]
fn a_scrape_stays_valid_after_everything_happened() {
    let service = Service::start(None, None);
    service.publish();
    service.fail(&SyncError::new(Stage::Build, Reason::Disk, "full"));
    service.emit(&Event::Finished(Work {
        outcome: Outcome::Error,
        took: Duration::from_millis(70),
        stages: vec![(Stage::Fetch, Duration::from_secs(400))],
        fetched_bytes: 7,
        files_written: 3,
        files_shared: 4,
    }));
    service.emit(&Event::Waiting {
        next_poll: Duration::from_millis(1500),
    });
    let page = Page::parse(&service.get("/metrics").body);
    let value = |name: &str, label: &str| {
        let sample = page
            .samples
            .iter()
            .find(|(n, labels, _)| n == name && labels.contains(label));
        sample.unwrap_or_else(|| panic!("{name} {label}")).2
    };
    assert_eq!(value("gvr_syncs_total", "\"changed\""), 1.0);
    assert_eq!(value("gvr_syncs_total", "error"), 1.0);
    assert_eq!(
        value("gvr_sync_failures_total", "stage=\"build\",reason=\"disk\""),
        1.0
    );
    assert_eq!(value("gvr_stage_duration_seconds_sum", "fetch"), 400.0);
    assert_eq!(
        value(
            "gvr_sync_duration_seconds_bucket",
            "le=\"0.1\",target=\"docs\",outcome=\"error\""
        ),
        1.0
    );
    assert_eq!(value("gvr_fetched_bytes_total", ""), 7.0);
    assert_eq!(value("gvr_files_shared_total", ""), 4.0);
    assert_eq!(value("gvr_volume_bytes", ""), f64::from(1 << 20));
    assert_eq!(value("gvr_poll_interval_seconds", ""), 1.5);
    assert_eq!(value("gvr_commit_timestamp_seconds", ""), 1_700_000_000.0);
    assert_eq!(
        value(
            "gvr_revision_info",
            "ref=\"refs/heads/main\",revision=\"0123456789"
        ),
        1.0
    );
    assert!(value("gvr_last_publish_timestamp_seconds", "") > 1.7e9);
}

#[test]
fn the_status_tells_the_whole_story() {
    let service = Service::start(None, None);
    let status = || -> serde_json::Value {
        let answer = service.get("/status");
        assert_eq!(answer.headers["content-type"], "application/json");
        serde_json::from_str(&answer.body).unwrap()
    };
    let before = &status()["targets"][0];
    assert_eq!(before["repo"], "https://example.org/docs.git");
    assert_eq!(before["ref"], "main");
    for unknown in [
        "commit",
        "published_at",
        "last_attempt",
        "last_success",
        "last_error",
        "next_poll",
    ] {
        assert!(
            before[unknown].is_null() && before.get(unknown).is_some(),
            "{unknown}"
        );
    }
    service.publish();
    let error = SyncError::new(Stage::Poll, Reason::Auth, "example.org refused the token");
    service.fail(&error.with_hint("renew it").with_source("401"));
    service.emit(&Event::Waiting {
        next_poll: Duration::from_secs(10),
    });
    let status = status();
    let after = &status["targets"][0];
    assert_eq!(after["target"], "docs");
    assert_eq!(after["link"], "/volume/current");
    assert_eq!(after["version"], "1.2.3");
    assert_eq!(
        after["commit"]["id"],
        "0123456789abcdef0123456789abcdef01234567"
    );
    assert_eq!(after["commit"]["subject"], "Say \"hello\"");
    assert_eq!(after["commit"]["author"], "A. U. Thor");
    assert_eq!(after["commit"]["time"], "2023-11-14T22:13:20.000Z");
    assert_eq!(after["consecutive_failures"], 1);
    assert_eq!(after["revisions_kept"], 2);
    assert_eq!(after["live"], true);
    assert_eq!(after["ready"], true);
    assert_eq!(after["stale"], false);
    let error = &after["last_error"];
    assert_eq!(
        (&error["stage"], &error["reason"]),
        (&"poll".into(), &"auth".into())
    );
    assert_eq!(error["message"], "example.org refused the token: 401");
    assert_eq!(error["hint"], "renew it");
    for time in ["published_at", "last_attempt", "last_success", "next_poll"] {
        humantime::parse_rfc3339(after[time].as_str().unwrap()).unwrap();
    }
}

#[test]
fn without_a_token_file_there_is_no_nudge_route() {
    let service = Service::start(None, None);
    for method in ["GET", "POST"] {
        let answer = service.ask(&format!("{method} /nudge HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, 404);
    }
}

#[test]
fn only_the_token_that_is_in_the_file_now_nudges() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let service = Service::start(Some(&file), None);
    let nudge = |authorization: &str| {
        service.ask(&format!(
            "POST /nudge HTTP/1.1\r\nHost: x\r\n{authorization}\r\n"
        ))
    };
    // Never a 5xx: senders of webhooks give up on those.
    assert_eq!(nudge("Authorization: Bearer one\r\n").status, 401);
    std::fs::write(&file, "one\n").unwrap();
    for wrong in [
        "",
        "Authorization: Bearer two\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic one\r\n",
    ] {
        let answer = nudge(wrong);
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.headers["www-authenticate"].starts_with("Bearer"));
    }
    assert_eq!(service.wake().wait(Duration::ZERO), Woken::Timeout);
    assert_eq!(nudge("Authorization: Bearer one\r\n").status, 202);
    assert_eq!(service.wake().wait(PATIENCE), Woken::Nudged);
    std::fs::write(&file, "two").unwrap();
    assert_eq!(nudge("Authorization: Bearer one\r\n").status, 401);
    assert_eq!(nudge("authorization: bearer two\r\n").status, 202);
    assert_eq!(service.wake().wait(PATIENCE), Woken::Nudged);
    let page = service.get("/metrics").body;
    assert!(
        page.contains(
            "gvr_nudges_total{target=\"docs\",provider=\"token\",outcome=\"refused\"} 6\n"
        )
    );
}

#[test]
fn a_burst_of_nudges_is_one_poll_now_and_one_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "t").unwrap();
    let service = Service::start(Some(&file), None);
    let began = Instant::now();
    for _ in 0..5 {
        let answer =
            service.ask("POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n");
        assert_eq!(answer.status, 202);
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "too slow to be a burst"
    );
    assert_eq!(service.wake().wait(PATIENCE), Woken::Nudged);
    assert_eq!(service.wake().wait(PATIENCE), Woken::Nudged);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        service.wake().wait(Duration::from_millis(1100)),
        Woken::Timeout
    );
    let page = service.get("/metrics").body;
    for (outcome, count) in [("accepted", 1), ("coalesced", 4)] {
        let line = format!(
            "gvr_nudges_total{{target=\"docs\",provider=\"token\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(page.contains(&line), "{line}");
    }
}

#[test]
fn a_nudge_may_have_a_body_up_to_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "t").unwrap();
    let service = Service::start(Some(&file), None);
    let head = |length: u64, more: &str| {
        format!(
            "POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: {length}\r\n{more}\r\n"
        )
    };
    let body = "x".repeat(1 << 20);
    assert_eq!(service.ask(&(head(1 << 20, "") + &body)).status, 202);
    assert_eq!(service.wake().wait(PATIENCE), Woken::Nudged);
    assert_eq!(service.ask(&head((1 << 20) + 1, "")).status, 413);
    let chunked = "POST /nudge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(service.ask(chunked).status, 411);

    let mut socket = connect(service.server.local_addr());
    socket
        .write_all(head(3, "Expect: 100-continue\r\n").as_bytes())
        .unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"abc").unwrap();
    assert_eq!(read_answer(&mut socket).status, 202);
}

#[test]
fn the_healthcheck_says_what_the_probe_says() {
    let service = Service::start(None, None);
    let bind = Bind::At(service.server.local_addr());
    healthcheck::run(bind, Probe::Livez, PATIENCE).unwrap();
    let error = healthcheck::run(bind, Probe::Readyz, PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "nothing is published yet (HTTP 503)");
    service.publish();
    healthcheck::run(bind, Probe::Readyz, PATIENCE).unwrap();
    drop(service);
    let error = healthcheck::run(bind, Probe::Livez, PATIENCE).unwrap_err();
    assert!(matches!(error, Unhealthy::Unreachable(..)), "{error}");
}

#[test]
fn the_healthcheck_waits_for_nobody() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = Bind::At(silent.local_addr().unwrap());
    let error = healthcheck::run(bind, Probe::Livez, Duration::from_millis(100)).unwrap_err();
    assert!(
        error.to_string().contains("no answer within the timeout"),
        "{error}"
    );
}

#[test]
fn a_taken_port_is_an_error_with_advice() {
    let service = Service::start(None, None);
    let bind = Bind::At(service.server.local_addr());
    let error = start(bind, service.shared.clone()).unwrap_err();
    assert!(
        error
            .chain()
            .contains(&format!("cannot serve on {bind}: Address already in use"))
    );
    assert!(error.hint().unwrap().contains("--http-bind"));
}

/// A page in the OpenMetrics text format, as strict about it as these tests need.
struct Page {
    /// Name, labels as written, value.
    samples: Vec<(String, String, f64)>,
}

impl Page {
    fn parse(text: &str) -> Self {
        assert!(text.ends_with("\n# EOF\n"));
        let mut types: BTreeMap<&str, &str> = BTreeMap::new();
        let mut current = "";
        let mut seen = BTreeSet::new();
        let mut samples = Vec::new();
        for line in text.trim_end_matches("# EOF\n").lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let words: Vec<_> = meta.splitn(3, ' ').collect();
                match words[0] {
                    "TYPE" => assert!(types.insert(words[1], words[2]).is_none(), "twice: {line}"),
                    "HELP" => assert!(
                        words[2].ends_with('.') && !words[2].ends_with(".."),
                        "{line}"
                    ),
                    "UNIT" => assert!(words[1].ends_with(words[2]), "{line}"),
                    _ => panic!("{line}"),
                }
                current = words[1];
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series.to_owned()), "twice: {series}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = name
                .strip_prefix(current)
                .unwrap_or_else(|| panic!("{line} in {current}"));
            let allowed: &[&str] = match types[current] {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{other}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            let labels = labels.strip_suffix('}').unwrap().to_owned();
            samples.push((name.to_owned(), labels, value.parse().unwrap()));
        }
        Self { samples }
    }

    /// The names of all series, histograms without their suffixes.
    fn series(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|(name, ..)| {
            ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name)
        })
    }
}

pub(crate) fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
