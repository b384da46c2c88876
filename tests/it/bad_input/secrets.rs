//! Credentials in a URL are printed nowhere, whatever is wrong with it.

use std::fs;

use crate::support::answers::{Answers, BadServer, http, packet};
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

/// What a request says about the credentials, in the three forms in which a server may quote them.
fn quoted(request: &str) -> String {
    let header = request
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("authorization:"))
        .unwrap_or("no credentials");
    format!("refused: {header}; the password is p@ss:{SECRET}, in a URL p%40ss%3A{SECRET}")
}

#[test]
fn credentials_that_a_server_quotes_are_in_no_log_no_status_and_no_error_file() {
    use base64::Engine as _;

    let password = format!("p@ss:{SECRET}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
    let dir = tempfile::tempdir().unwrap();
    let error_file = dir.path().join("error");
    let password_file = dir.path().join("password");
    fs::write(&password_file, &password).unwrap();
    let forbidden = |request: &str| {
        let challenge = "WWW-Authenticate: Basic realm=\"x\"\r\n";
        let has = request.to_ascii_lowercase().contains("\nauthorization:");
        match has {
            true => http("403 Forbidden", "text/plain", quoted(request).as_bytes()),
            false => format!("HTTP/1.1 401 Unauthorized\r\n{challenge}Content-Length: 0\r\n\r\n")
                .into_bytes(),
        }
    };
    let error_line = |request: &str| {
        let body = [
            packet("# service=git-upload-pack\n"),
            "0000".to_owned(),
            packet(&format!("ERR {}", quoted(request))),
        ]
        .concat();
        let kind = "application/x-git-upload-pack-advertisement";
        http("200 OK", kind, body.as_bytes())
    };
    let page = |request: &str| http("200 OK", "text/html", quoted(request).as_bytes());
    for make in [forbidden as fn(&str) -> Vec<u8>, error_line, page] {
        let server = BadServer::start(Answers::Made(make));
        let root = Root::new();
        let mut sidecar = Launch::new(&server.url(""), &root)
            .flag("username", "user")
            .flag("password-file", password_file.to_str().unwrap())
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
            for form in [password.as_str(), &encoded, "p%40ss%3Ahunter2-s3cr3t"] {
                assert!(!text.contains(form), "{form}: {text}");
            }
        }
    }
}
