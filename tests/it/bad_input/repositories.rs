//! Each way in which a repository or a ref cannot be had has its own message and reason, and readers
//! keep their tree.

use std::fs;
use std::net::TcpListener;

use crate::support::answers::{Answers, BadServer};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, field};
use crate::support::upstream::Upstream;

/// What each message says that no other says.
const PHRASES: [&str; 16] = [
    "the path is mounted",
    "is not a git repository",
    "is empty",
    "has no ref",
    "does not have",
    "cannot connect",
    "no-such-host.invalid",
    "web page",
    "HTTP 404",
    "HTTP 401",
    "HTTP 403",
    "HTTP 500",
    "HTTP 503",
    "does not speak valid HTTP",
    "closed the connection",
    "sent nothing",
];

/// Syncs a good repository, then a bad one into the same root.
#[track_caller]
fn assert_fails(repo: &str, reference: &str, reasons: &[&str], phrase: &str) {
    let good = Upstream::new();
    let root = Root::new();
    let dir = tempfile::tempdir().unwrap();
    let error_file = dir.path().join("error");
    Launch::one_time(&good.url(), &root).succeed();
    let finished = Launch::one_time(repo, &root)
        .flag("ref", reference)
        .flag("stall-timeout", "1s")
        .flag("sync-timeout", "2s")
        .flag("error-file", error_file.to_str().unwrap())
        .run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let error = fs::read_to_string(&error_file).unwrap();
    let reason = field(&error, "reason").unwrap_or_default();
    assert!(reasons.contains(&&*reason), "{error} {finished:?}");
    let line = finished.last_line();
    let said = PHRASES.into_iter().filter(|phrase| line.contains(phrase));
    assert_eq!(said.collect::<Vec<_>>(), [phrase], "{line}");
    root.assert_published(&good, &good.tip("HEAD"));
}

/// Serves the same answer to every request.
#[track_caller]
fn assert_answer_fails(answers: Answers, reasons: &[&str], phrase: &str) {
    let server = BadServer::start(answers);
    assert_fails(&server.url(""), "HEAD", reasons, phrase);
}

#[test]
fn a_path_that_does_not_exist_is_not_found() {
    let repo = "file:///nowhere/x.git";
    assert_fails(repo, "HEAD", &["not_found"], "the path is mounted");
}

#[test]
fn a_directory_that_is_no_repository_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let repo = format!("file://{}", directory.path().display());
    assert_fails(&repo, "HEAD", &["not_found"], "is not a git repository");
}

#[test]
fn an_empty_repository_has_no_ref_to_follow() {
    let empty = Upstream::empty();
    assert_fails(&empty.url(), "HEAD", &["ref_missing"], "is empty");
}

#[test]
fn a_branch_that_does_not_exist_is_a_missing_ref() {
    let upstream = Upstream::new();
    let reasons = ["ref_missing"];
    assert_fails(&upstream.url(), "no-such-branch", &reasons, "has no ref");
}

#[test]
fn a_commit_that_does_not_exist_is_a_missing_ref() {
    let upstream = Upstream::new();
    let absent = "0123456789abcdef0123456789abcdef01234567";
    assert_fails(&upstream.url(), absent, &["ref_missing"], "does not have");
}

#[test]
fn a_port_that_nobody_listens_on_is_a_network_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let repo = format!("http://127.0.0.1:{port}/x.git");
    assert_fails(&repo, "HEAD", &["network"], "cannot connect");
}

#[test]
fn a_host_that_does_not_exist_is_a_network_failure() {
    // Where the resolver itself does not answer, the deadline passes first.
    let reasons = ["network", "timeout"];
    let host = "no-such-host.invalid";
    assert_fails(&format!("http://{host}/x"), "HEAD", &reasons, host);
}

#[test]
fn a_web_page_is_not_the_git_protocol() {
    assert_answer_fails(Answers::html("200 OK"), &["protocol"], "web page");
}

#[test]
fn http_404_is_not_found() {
    assert_answer_fails(Answers::html("404 Not Found"), &["not_found"], "HTTP 404");
}

#[test]
fn http_401_is_an_authentication_failure() {
    assert_answer_fails(Answers::html("401 Unauthorized"), &["auth"], "HTTP 401");
}

#[test]
fn http_403_is_an_authentication_failure() {
    assert_answer_fails(Answers::html("403 Forbidden"), &["auth"], "HTTP 403");
}

#[test]
fn http_500_is_a_server_failure() {
    let answers = Answers::html("500 Internal Server Error");
    assert_answer_fails(answers, &["server"], "HTTP 500");
}

#[test]
fn http_503_is_a_server_failure() {
    let answers = Answers::html("503 Service Unavailable");
    assert_answer_fails(answers, &["server"], "HTTP 503");
}

#[test]
fn an_answer_that_is_not_http_is_named_as_such() {
    let answers = Answers::Bytes(b"\x00\xff garbage\r\n\r\n".to_vec());
    let reasons = ["protocol", "network"];
    assert_answer_fails(answers, &reasons, "does not speak valid HTTP");
}

#[test]
fn a_connection_that_is_closed_without_an_answer_is_named_as_such() {
    let reasons = ["network", "protocol"];
    assert_answer_fails(
        Answers::Bytes(Vec::new()),
        &reasons,
        "closed the connection",
    );
}

#[test]
fn a_server_that_never_answers_is_a_timeout() {
    assert_answer_fails(Answers::Silence, &["timeout"], "sent nothing");
}

#[test]
fn a_failure_is_counted_under_its_stage_and_reason_and_told_by_status() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    let server = BadServer::start(Answers::html("404 Not Found"));
    let mut sidecar = Launch::new(&server.url(""), &root).http().spawn();
    let labels = [("stage", "poll"), ("reason", "not_found")];
    sidecar.wait_for_metric("gvr_sync_failures_total", &labels, 2.0);
    assert!(sidecar.metric("gvr_consecutive_failures", &[]) >= 2.0);
    let status = sidecar.status().to_string();
    for part in ["not_found", "poll", "404"] {
        assert!(status.contains(part), "no {part} in {status}");
    }
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn the_last_line_of_a_failing_run_says_what_to_do() {
    let upstream = Upstream::new();
    let root = Root::new();
    let finished = Launch::one_time(&upstream.url(), &root)
        .flag("ref", "no-such-branch")
        .flag("log-format", "text")
        .run();
    finished.assert_failed(&[1], &["no-such-branch"]);
    assert!(finished.last_line().contains("--ref"), "{finished:?}");
}
