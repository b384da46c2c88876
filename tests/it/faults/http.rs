//! A remote over HTTP that misbehaves.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    Readable, Recovery, Row, Told, World, failure, file, launch, no_failure, nudge, serve, told,
};
use crate::support::environment::soak;
use crate::support::http_server::{Fault, HttpServer, Scope};
use crate::support::readers::{generation, read_tree};
use crate::support::root::Root;
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

/// Bytes of a fetch's answer that are well within the pack.
const MID_PACK: usize = 100_000;

/// Endures a fault of the server that hits these requests, during a push.
#[track_caller]
fn endure(row: &Row, scope: Scope, fault: Fault) {
    let (server, mut world) = World::over_http();
    server.inject_on(scope, fault);
    let pushed = world.push_heavy(1, 2 * MID_PACK);
    world.endure(row);
    world.recover(row, || server.clear(), &pushed);
}

/// The same at the first contact of another start, which asks more than a poll does.
#[track_caller]
fn endure_at_start(row: &Row, scope: Scope, fault: Fault) {
    let (server, mut world) = World::over_http();
    server.inject_on(scope, fault);
    let pushed = world.push(1);
    let launch = launch(&server.url("upstream.git"), &world.root);
    world.sidecar.kill();
    world.sidecar = launch.spawn();
    world.endure(row);
    world.recover(row, || server.clear(), &pushed);
}

fn status(code: u16) -> Fault {
    Fault::Status(code, Vec::new())
}

section!("The remote, over HTTP", {
    a_server_that_accepts_and_never_answers: failure(
        "accepts the connection and never answers",
        "poll", "timeout", "sent nothing for",
        |row| endure(row, Scope::All, Fault::NeverAnswer),
    ),
    a_server_that_stalls_in_its_header: failure(
        "stalls in the middle of the header",
        "poll", "timeout", "sent nothing for",
        |row| endure(row, Scope::All, Fault::StallInHead),
    ),
    a_server_that_stalls_in_its_advertisement: failure(
        "stalls in the middle of the list of refs",
        "poll", "timeout", "sent nothing for",
        |row| endure_at_start(row, Scope::All, Fault::StallAfter(40)),
    ),
    a_server_that_stalls_in_its_pack: failure(
        "stalls in the middle of a pack",
        "fetch", "timeout", "sent nothing for",
        |row| endure(row, Scope::Fetch, Fault::StallAfter(MID_PACK)),
    ),
    a_server_that_drips: failure(
        "sends a byte every now and then, so that something always moves",
        "poll", "timeout", "did not finish within its deadline",
        |row| endure(row, Scope::All, Fault::Drip(Duration::from_millis(200))),
    ),
    a_server_that_drips_its_pack: failure(
        "sends a pack byte by byte",
        "fetch", "timeout", "did not finish within its deadline",
        |row| endure(row, Scope::Fetch, Fault::Drip(Duration::from_millis(100))),
    ),
    a_server_that_resets_in_its_pack: failure(
        "resets the connection in the middle of a pack",
        "fetch", "network", "closed the connection before its answer was complete",
        |row| endure(row, Scope::Fetch, Fault::ResetAfter(MID_PACK)),
    ),
    a_server_that_resets_every_poll: failure(
        "resets the connection at every poll",
        "poll", "network", "closed the connection before its answer was complete",
        |row| endure(row, Scope::Refs, Fault::ResetAfter(30)),
    ),
    a_server_that_truncates_a_list_of_refs: failure(
        "ends the list of refs too early",
        "poll", "network", "closed the connection before its answer was complete",
        |row| endure(row, Scope::Refs, Fault::TruncateAfter(30)),
    ),
    a_server_that_truncates_a_pack: failure(
        "ends a pack too early",
        "fetch", "network", "closed the connection before its answer was complete",
        |row| endure(row, Scope::Fetch, Fault::TruncateAfter(MID_PACK)),
    ),
    a_server_that_speaks_no_http: failure(
        "answers with bytes that are no HTTP",
        "poll", "protocol", "does not speak valid HTTP",
        |row| endure(row, Scope::All, Fault::Garbage),
    ),
    a_server_that_answers_garbage_as_git: failure(
        "answers with bytes that are no git protocol",
        "poll", "protocol", "does not speak the git protocol",
        |row| endure(row, Scope::All, Fault::Body(b"zzzz not packets".to_vec())),
    ),
    a_server_that_sends_a_damaged_pack: failure(
        "sends a pack that is none",
        "fetch", "protocol", "the pack is damaged",
        |row| endure(row, Scope::Fetch, Fault::Body(no_pack())),
    ),
    a_server_that_answers_a_web_page: failure(
        "answers with a web page (a login form, say)",
        "poll", "protocol", "answers with a web page",
        |row| endure(row, Scope::All, Fault::Html),
    ),
    a_server_that_answers_401: failure(
        "answers 401",
        "poll", "auth", "HTTP 401",
        |row| endure(row, Scope::All, status(401)),
    ),
    a_server_that_answers_403: failure(
        "answers 403",
        "poll", "auth", "HTTP 403",
        |row| endure(row, Scope::All, status(403)),
    ),
    a_server_that_answers_404: failure(
        "answers 404",
        "poll", "not_found", "HTTP 404",
        |row| endure(row, Scope::All, status(404)),
    ),
    a_server_that_answers_500: failure(
        "answers 500",
        "poll", "server", "HTTP 500",
        |row| endure(row, Scope::All, status(500)),
    ),
    a_server_that_fails_at_the_fetch_only: failure(
        "answers polls, and 500 to every fetch",
        "fetch", "server", "HTTP 500",
        |row| endure(row, Scope::Fetch, status(500)),
    ),
    a_server_that_asks_for_fewer_requests: Row {
        fault: "answers 429 with `Retry-After`",
        readers: Readable::LastTree,
        operator: Told::Failure("poll", "server", "HTTP 429"),
        recovery: Recovery::AfterRetryAfter,
        prove: |row| wait_as_asked(row, 429),
    },
    a_server_in_maintenance: Row {
        fault: "answers 503 with `Retry-After`",
        readers: Readable::LastTree,
        operator: Told::Failure("poll", "server", "HTTP 503"),
        recovery: Recovery::AfterRetryAfter,
        prove: |row| wait_as_asked(row, 503),
    },
    a_redirect_on_the_same_host: no_failure(
        "redirects to another path on the same host",
        redirected_on_the_same_host,
    ),
    a_redirect_to_another_host: no_failure(
        "redirects to another host, which is given no credentials",
        redirected_to_another_host,
    ),
    a_redirect_to_another_host_that_wants_credentials: failure(
        "redirects to another host that wants credentials",
        "poll", "auth", "HTTP 401",
        redirected_to_a_host_that_wants_credentials,
    ),
    a_redirect_in_circles: failure(
        "redirects in circles",
        "poll", "protocol", "redirects more than 5 times",
        |row| endure(
            row,
            Scope::All,
            Fault::RedirectTo("/upstream.git/info/refs?service=git-upload-pack".to_owned()),
        ),
    ),
    a_server_that_refuses_objects: failure(
        "lists a ref and refuses its objects",
        "fetch", "ref_missing", "refused: upload-pack: not our ref",
        |row| endure(row, Scope::Fetch, Fault::RefuseObjects),
    ),
    a_push_between_poll_and_fetch: no_failure(
        "is pushed to between a poll and the fetch after it, and has lost what was polled",
        pushed_between_poll_and_fetch,
    ),
    a_ref_that_flaps: no_failure(
        "moves a ref to and fro",
        flaps,
    ),
    a_ref_that_is_deleted_and_made_again: failure(
        "loses the ref, and has it again later",
        "poll", "ref_missing", "has no ref",
        ref_deleted,
    ),
    a_repository_that_is_deleted_and_restored: failure(
        "loses the whole repository, and has it again later",
        "poll", "not_found", "HTTP 404",
        repository_deleted,
    ),
    a_stale_answer_after_a_nudge: Row {
        fault: "answers with the old ref for some seconds after a nudge",
        readers: Readable::LastTree,
        operator: Told::Nothing,
        recovery: Recovery::FollowUp,
        prove: stale_after_nudge,
    },
    a_server_that_closes_idle_connections: no_failure(
        "closes the connection between two polls",
        closes_idle_connections,
    ),
});

/// An answer to a fetch whose pack has no end and no sense.
fn no_pack() -> Vec<u8> {
    let line = |text: &[u8]| [format!("{:04x}", text.len() + 4).as_bytes(), text].concat();
    [
        line(b"packfile\n"),
        line(b"\x01PACK\0\0\0\x02\0\0\0\x01 no pack at all, and certainly no sum"),
        b"0000".to_vec(),
    ]
    .concat()
}

fn wait_as_asked(row: &Row, code: u16) {
    const ASKED: Duration = Duration::from_secs(2);
    let (_dir, token) = file("token\n");
    let flags = [("nudge-token-file", token.to_str().unwrap())];
    let (server, mut world) = World::at(Root::new(), &flags);
    let asked = vec![("Retry-After".to_owned(), ASKED.as_secs().to_string())];
    let since = Instant::now();
    server.inject(Fault::Status(code, asked));
    let pushed = world.push(1);
    world.endure(row);
    let told = told(&mut world.sidecar);
    let at = |name: &str| {
        let Value::String(text) = &told[name] else {
            panic!("no {name} in {told}");
        };
        humantime::parse_rfc3339(text).unwrap()
    };
    let wait = at("next_poll").duration_since(at("last_attempt")).unwrap();
    assert!(wait >= ASKED / 2, "{wait:?}: {told}");
    // Polls come every 50 ms otherwise, and at once after a nudge.
    let address = world.sidecar.address();
    let nudged = Instant::now();
    while nudged.elapsed() < ASKED + ASKED / 2 {
        nudge(&address, "token");
        std::thread::sleep(Duration::from_millis(200));
    }
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    let allowed = since.elapsed().div_duration_f64(ASKED) + 1.0;
    assert!(failures <= allowed, "{failures} requests in spite of it");
    server.clear();
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

/// What the operator sees of what is no failure.
#[track_caller]
fn assert_quiet(world: &mut World, row: &Row) {
    assert_eq!(row.operator, Told::Nothing);
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    for line in world.sidecar.log() {
        assert!(!line.contains("\"level\":\"ERROR\""), "{line}");
    }
}

/// A world whose server wants credentials, and the sidecar has them.
fn with_credentials() -> (HttpServer, World, tempfile::TempDir) {
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    server.require_auth("user", "secret");
    let root = Root::new();
    let (dir, password) = file("secret\n");
    let launch = launch(&server.url("upstream.git"), &root)
        .flag("username", "user")
        .flag("password-file", password.to_str().unwrap());
    (server, World::new(upstream, root, launch), dir)
}

fn redirected_on_the_same_host(row: &Row) {
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let address = "/upstream.git/info/refs?service=git-upload-pack".to_owned();
    server.inject_on(Scope::Under("/old.git"), Fault::RedirectTo(address));
    let root = Root::new();
    let launch = launch(&server.url("old.git"), &root);
    let mut world = World::new(upstream, root, launch);
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    assert_quiet(&mut world, row);
    world.end(row, &pushed);
}

fn redirected_to_another_host(row: &Row) {
    let (server, mut world, _dir) = with_credentials();
    // Another port is another origin.
    let other = serve(&world.upstream);
    world.sidecar.kill();
    server.inject(Fault::Redirect(302, other.base()));
    let (_password_dir, password) = file("secret\n");
    world.sidecar = launch(&server.url("upstream.git"), &world.root)
        .flag("username", "user")
        .flag("password-file", password.to_str().unwrap())
        .spawn();
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    assert_quiet(&mut world, row);
    let requests = other.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request.headers.get("authorization"), None, "{request:?}");
    }
    world.end(row, &pushed);
}

fn redirected_to_a_host_that_wants_credentials(row: &Row) {
    let (server, mut world, _dir) = with_credentials();
    let other = serve(&world.upstream);
    other.require_auth("user", "secret");
    server.inject(Fault::Redirect(302, other.base()));
    let pushed = world.push(1);
    world.endure(row);
    for request in other.requests() {
        assert_eq!(request.headers.get("authorization"), None, "{request:?}");
    }
    world.recover(row, || server.clear(), &pushed);
}

fn pushed_between_poll_and_fetch(row: &Row) {
    let flags = [("stall-timeout", "30s"), ("sync-timeout", "60s")];
    let (server, mut world) = World::at(Root::new(), &flags);
    server.clear_log();
    // Every fetch is held up until the push is over that overtakes it.
    server.inject_on(Scope::Fetch, Fault::Delay(PATIENCE));
    let polled = world.push(1);
    wait_until(PATIENCE, "a fetch of the first push", || {
        server
            .requests()
            .iter()
            .any(|request| String::from_utf8_lossy(&request.body).contains(&polled))
    });
    let next = world.upstream.rewrite_from_nothing("main", &generation(2));
    world
        .upstream
        .git(&["reflog", "expire", "--expire=now", "--all"]);
    world.upstream.git(&["gc", "--quiet", "--prune=now"]);
    server.clear();
    world.sidecar.wait_for(&world.root, &next);
    assert_quiet(&mut world, row);
    world.end(row, &next);
}

fn flaps(row: &Row) {
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let root = Root::new();
    let commits = [0, 1].map(|n| upstream.commit_changes("main", &generation(n)));
    let mut sidecar = launch(&server.url("upstream.git"), &root).spawn();
    sidecar.wait_for(&root, &commits[1]);
    // The reader of the other scenarios takes a step back for a failure.
    for n in 0..60 {
        upstream.force_push("main", &commits[n % 2]);
        let seen = read_tree(root.link());
        assert!(matches!(seen, Ok(0 | 1)), "{seen:?}");
    }
    sidecar.wait_for(&root, &commits[1]);
    let failures = sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    root.assert_published(&upstream, &commits[1]);
    sidecar.stop();
    root.assert_tidy(&[]);
}

fn ref_deleted(row: &Row) {
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let root = Root::new();
    let launch = launch(&server.url("upstream.git"), &root).flag("ref", "main");
    let mut world = World::new(upstream, root, launch);
    // Of a repository without its default branch nobody can tell whether it holds anything.
    world.upstream.update_ref("refs/heads/other", &world.first);
    world.upstream.set_default_branch("other");
    world.upstream.delete_ref("refs/heads/main");
    world.endure(row);
    world.upstream.update_ref("refs/heads/main", &world.first);
    let pushed = world.push(1);
    world.recover(row, || {}, &pushed);
}

fn repository_deleted(row: &Row) {
    let (_server, mut world) = World::over_http();
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.upstream.remove();
    // The oracle needs the repository as well.
    let Told::Failure(stage, reason, message) = row.operator else {
        unreachable!("the row is a failure");
    };
    let labels = [("stage", stage), ("reason", reason)];
    world
        .sidecar
        .wait_for_metric("gvr_sync_failures_total", &labels, 1.0);
    let told = told(&mut world.sidecar);
    let shown = told["last_error"]["message"].as_str().unwrap();
    assert!(shown.contains(message), "{shown}");
    assert_eq!(world.root.commit().as_ref(), Some(&pushed));
    world.upstream.restore();
    world.root.assert_published(&world.upstream, &pushed);
    let next = world.push(2);
    world.recover(row, || {}, &next);
}

fn stale_after_nudge(row: &Row) {
    let stale = if soak() { 10 } else { 2 };
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let root = Root::new();
    let (_dir, token) = file("token\n");
    let launch = launch(&server.url("upstream.git"), &root)
        .flag("period", "1h")
        .flag("nudge-token-file", token.to_str().unwrap());
    let mut world = World::new(upstream, root, launch);
    let address = world.sidecar.address();
    // Once before, so that the server has an answer to repeat.
    nudge(&address, "token");
    world.sidecar.wait_for_polls(0);
    let polls = || server.requests().len();
    wait_until(PATIENCE, "a poll", || polls() >= 3);
    server.inject_on(Scope::Refs, Fault::Stale(Duration::from_secs(stale)));
    let pushed = world.push(1);
    let before = polls();
    nudge(&address, "token");
    wait_until(
        PATIENCE,
        "the poll that is answered with the old ref",
        || polls() > before,
    );
    assert_eq!(world.root.commit().as_ref(), Some(&world.first));
    world.sidecar.wait_for(&world.root, &pushed);
    assert_quiet(&mut world, row);
    world.end(row, &pushed);
}

fn closes_idle_connections(row: &Row) {
    let (server, mut world) = World::over_http();
    let before = server.connections();
    for _ in 0..5 {
        server.close_connections();
        let asked = server.requests().len();
        wait_until(PATIENCE, "two more polls", || {
            server.requests().len() >= asked + 2
        });
    }
    assert!(server.connections() > before, "no connection was closed");
    // What was cut in the middle of an answer may be told; a poll that failed is not.
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}
