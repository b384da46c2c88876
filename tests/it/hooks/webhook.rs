//! Webhooks, as a server sees them.

use std::fs;

use super::sidecar;
use crate::support::listener::Listener;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

fn webhook(launch: Launch, listener: &Listener) -> Launch {
    launch
        .flag(
            "webhook-url",
            &format!("http://{}/hook?token=s3cret-query", listener.address),
        )
        .flag("webhook-backoff", "20ms")
        .flag("webhook-timeout", "20s")
}

#[test]
fn a_webhook_is_sent_as_git_sync_sends_it_and_repeated_until_the_status_is_right() {
    let (upstream, root, listener) = (Upstream::new(), Root::new(), Listener::new());
    listener.answer(500, "not now");
    let first = upstream.tip("main");
    // No proxy is asked for a loopback address.
    let mut sidecar = webhook(sidecar(&upstream, &root), &listener)
        .variable("http_proxy", "http://127.0.0.1:1")
        .spawn();
    let received = listener.wait_for(3);
    assert_eq!(received[0].line, "POST /hook?token=s3cret-query HTTP/1.1");
    assert_eq!(received[0].header("gitsync-hash"), Some(first.as_str()));
    assert_eq!(received[0].body, "");
    sidecar.wait_for_log("answered 500: not now");
    listener.answer(200, "");
    let success = [("hook", "webhook"), ("outcome", "success")];
    sidecar.wait_for_metric("gvr_hook_runs_total", &success, 1.0);
    let second = upstream.commit(&[("a", "1")]);
    sidecar.wait_for_metric("gvr_hook_runs_total", &success, 2.0);
    let last = listener.received().pop().unwrap();
    assert_eq!(
        last.header("gitsync-hash"),
        Some(second.as_str()),
        "{last:?}"
    );
    let finished = sidecar.stop();
    assert!(
        !finished.stderr.contains("s3cret-query"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_json_webhook_is_signed_and_has_the_secret_headers() {
    let (upstream, root, listener) = (Upstream::new(), Root::new(), Listener::new());
    let dir = tempfile::tempdir().unwrap();
    let (key, headers) = (dir.path().join("key"), dir.path().join("headers"));
    fs::write(&key, "the key\n").unwrap();
    fs::write(&headers, "Authorization: Bearer s3cret-token\n").unwrap();
    let finished = webhook(Launch::one_time(&upstream.url(), &root), &listener)
        .flag("webhook-body", "json")
        .flag("webhook-hmac-file", key.to_str().unwrap())
        .flag("webhook-header-file", headers.to_str().unwrap())
        .succeed();
    assert!(!finished.stderr.contains("s3cret-token"));
    let received = listener.received().pop().unwrap();
    assert_eq!(
        received.header("authorization"),
        Some("Bearer s3cret-token")
    );
    assert_eq!(received.header("content-type"), Some("application/json"));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"the key");
    let tag = ring::hmac::sign(&key, received.body.as_bytes());
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        received.header("x-hub-signature-256"),
        Some(format!("sha256={hex}").as_str())
    );
    let json = received.json();
    assert_eq!(json["event"], "published");
    assert_eq!(json["commit"], upstream.tip("main"));
    assert_eq!(
        (&json["target"], &json["ref"]),
        (&"current".into(), &"HEAD".into())
    );
}

#[test]
fn a_chat_hears_of_trouble_and_of_its_end() {
    let (upstream, root, listener) = (Upstream::new(), Root::new(), Listener::new());
    let sidecar = webhook(sidecar(&upstream, &root), &listener)
        .flag("webhook-body", "json")
        .flag("webhook-on", "failed,recovered,stale")
        .flag("max-staleness", "100ms")
        .spawn();
    wait_until(PATIENCE, "the first publish", || root.commit().is_some());
    upstream.remove();
    listener.wait_for(2);
    upstream.restore();
    let events: Vec<_> = listener
        .wait_for(3)
        .iter()
        .map(|received| received.json()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["failed", "stale", "recovered"]);
    sidecar.stop();
}
