//! Credentials in a URL are printed nowhere, whatever is wrong with it.

use std::fs;

use crate::support::answers::{Answers, BadServer};
use crate::support::root::Root;
use crate::support::sidecar::Launch;

/// A password that must not be seen anywhere.
const SECRET: &str = "hunter2-s3cr3t";

#[test]
fn credentials_in_a_url_that_cannot_be_used_are_not_printed() {
    let root = Root::new();
    for repo in [
        format!("ftp://user:{SECRET}@host/x"),
        format!("https://user:{SECRET}@/x"),
        format!("https://user:{SECRET}@ho st/x"),
        format!("htps://{SECRET}@host/x"),
        format!("https://user:{SECRET}@host:99999/x"),
        format!("ext::{SECRET}"),
        format!("user:{SECRET}@host/x"),
        format!("https:/user:{SECRET}@host/x"),
    ] {
        let finished = Launch::one_time(&repo, &root).run();
        finished.assert_failed(&[2], &["repo"]);
        for text in [&finished.stdout, &finished.stderr] {
            assert!(!text.contains(SECRET), "{repo}: {text}");
        }
    }
}

#[test]
fn a_url_without_its_flag_is_not_printed() {
    let finished = Launch::bare()
        .subcommand(&[&format!("https://user:{SECRET}@host/x")])
        .run();
    finished.assert_failed(&[2], &["--repo"]);
    assert!(!finished.stderr.contains(SECRET), "{}", finished.stderr);
}

#[test]
fn credentials_in_a_url_are_in_no_log_no_status_no_metric_and_no_error_file() {
    let dir = tempfile::tempdir().unwrap();
    let error_file = dir.path().join("error");
    for answers in [
        Answers::html("401 Unauthorized"),
        Answers::html("404 Not Found"),
        Answers::html("200 OK"),
        Answers::Bytes(Vec::new()),
    ] {
        let server = BadServer::start(answers);
        let repo = format!(
            "{}?private_token={SECRET}",
            server.url(&format!("user:{SECRET}@"))
        );
        let root = Root::new();
        let mut sidecar = Launch::new(&repo, &root)
            .flag("log-level", "trace")
            .flag("error-file", error_file.to_str().unwrap())
            .http()
            .spawn();
        sidecar.wait_for_metric("gvr_consecutive_failures", &[], 2.0);
        let told = [
            sidecar.get("/status").body,
            sidecar.get("/metrics").body,
            sidecar.get("/readyz").body,
            fs::read_to_string(&error_file).unwrap(),
        ];
        let finished = sidecar.stop();
        for text in told.iter().chain([&finished.stdout, &finished.stderr]) {
            assert!(!text.contains(SECRET), "{text}");
        }
        assert!(!finished.stderr.is_empty());
    }
}
