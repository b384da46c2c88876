//! The commands that ask a running instance: status, nudge, pin, unpin, recheck.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::http_server::{Fault, HttpServer};
use crate::support::root::Root;
use crate::support::sidecar::{Finished, Launch, Sidecar};
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

/// Runs a command against the instance that uses this root.
fn ask(root: &Root, words: &[&str]) -> Finished {
    let path = root.path().to_str().unwrap();
    Launch::bare()
        .subcommand(&[words, &["--root", path]].concat())
        .run()
}

#[track_caller]
fn done(root: &Root, words: &[&str]) -> String {
    let finished = ask(root, words);
    assert_eq!(finished.code, Some(0), "{words:?}: {finished:?}");
    finished.stdout
}

#[track_caller]
fn refused(root: &Root, words: &[&str], text: &str) {
    let finished = ask(root, words);
    assert_eq!(finished.code, Some(1), "{words:?}: {finished:?}");
    assert!(finished.stderr.contains(text), "{words:?}: {finished:?}");
}

/// A sidecar that has published two commits in a row.
fn two_published(upstream: &Upstream, root: &Root, url: &str) -> (Sidecar, String, String) {
    let first = upstream.commit(&[("file", "first")]);
    let mut sidecar = launch(url, root).spawn();
    sidecar.wait_for(root, &first);
    let second = upstream.commit(&[("file", "second")]);
    sidecar.wait_for(root, &second);
    (sidecar, first, second)
}

fn launch(url: &str, root: &Root) -> Launch {
    Launch::new(url, root)
        .flag("ref", "main")
        .flag("period", "100ms")
        .flag("stale-timeout", "0s")
        .http()
}

#[test]
fn a_pin_rolls_back_outlives_a_kill_and_keeps_its_revision() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let (mut sidecar, first, _) = two_published(&upstream, &root, &upstream.url());
    assert!(done(&root, &["pin", "previous"]).contains(&first));
    root.assert_published(&upstream, &first);
    let third = upstream.commit(&[("file", "third")]);
    wait_until(PATIENCE, "the status to show what is upstream", || {
        sidecar.status()["targets"][0]["upstream"] == third.as_str()
    });
    let status = sidecar.status();
    assert_eq!(status["targets"][0]["pinned"]["commit"], first.as_str());
    assert_eq!(sidecar.metric("gvr_pinned", &[]), 1.0);
    assert!(sidecar.metric("gvr_pinned_timestamp_seconds", &[]) > 1.7e9);
    sidecar.wait_for_log("pinned");
    sidecar.kill();
    let mut sidecar = launch(&upstream.url(), &root).flag("keep", "0").spawn();
    sidecar.wait_for_polls(5);
    root.assert_published(&upstream, &first);
    let text = done(&root, &["status"]);
    assert!(
        text.contains(&format!("pinned        {first} since ")),
        "{text}"
    );
    assert!(text.contains(&format!("upstream      {third}")), "{text}");
    assert!(done(&root, &["unpin"]).contains("follow the ref again"));
    sidecar.wait_for(&root, &third);
    root.assert_published(&upstream, &third);
    assert_eq!(sidecar.metric("gvr_pinned", &[]), 0.0);
    refused(&root, &["unpin"], "nothing is pinned");
    sidecar.stop();
    root.assert_tidy(&[]);
}

#[test]
fn a_pin_needs_a_commit_that_is_kept() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let (sidecar, first, second) = two_published(&upstream, &root, &upstream.url());
    refused(
        &root,
        &["pin", "dead"],
        "no sound revision of this commit is kept",
    );
    refused(&root, &["pin", "dead"], &second);
    refused(&root, &["pin", "main"], "give 4 digits of a commit");
    assert!(done(&root, &["pin", &first[..10]]).contains(&first));
    assert!(done(&root, &["pin", "previous"]).contains(&second));
    assert!(done(&root, &["pin", "current"]).contains(&second));
    sidecar.stop();
}

#[test]
fn readers_are_rolled_back_while_the_remote_hangs() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let server = HttpServer::start(upstream.path().parent().unwrap());
    let name = upstream
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let (sidecar, first, _) = two_published(&upstream, &root, &server.url(&name));
    server.inject(Fault::NeverAnswer);
    // A poll is waiting for its answer by now, or soon.
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    assert!(done(&root, &["pin", "previous"]).contains(&first));
    root.assert_published(&upstream, &first);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    server.clear();
    sidecar.stop();
}

#[test]
fn a_pinned_tree_that_was_damaged_is_built_anew() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let (mut sidecar, first, _) = two_published(&upstream, &root, &upstream.url());
    done(&root, &["pin", "previous"]);
    let revision = root.revision();
    sidecar.kill();
    fs::write(root.tree().join("file"), "somebody else's").unwrap();
    let mut sidecar = launch(&upstream.url(), &root).spawn();
    sidecar.wait_while_alive("the tree to be mended", |_| root.revision() != revision);
    root.assert_published(&upstream, &first);
    sidecar.stop();
}

#[test]
fn a_pin_that_nobody_can_read_keeps_readers_where_they_are() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let (mut sidecar, _, second) = two_published(&upstream, &root, &upstream.url());
    fs::write(root.state("pin"), "\0\0\0").unwrap();
    sidecar.wait_for_log("does not name a commit");
    upstream.commit(&[("file", "third")]);
    sidecar.wait_for_metric("gvr_sync_failures_total", &[("stage", "poll")], 3.0);
    assert_eq!(root.commit(), Some(second));
    done(&root, &["unpin"]);
    sidecar.wait_for(&root, &upstream.tip("main"));
    sidecar.stop();
}

#[test]
fn a_nudge_and_a_recheck_poll_now() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let first = upstream.commit(&[("file", "first")]);
    let mut sidecar = launch(&upstream.url(), &root).flag("period", "1h").spawn();
    sidecar.wait_for(&root, &first);
    for (n, command) in ["nudge", "recheck"].into_iter().enumerate() {
        let commit = upstream.commit(&[("file", &n.to_string())]);
        assert!(done(&root, &[command]).contains("polling now"));
        sidecar.wait_for(&root, &commit);
    }
    let local = [("provider", "local"), ("outcome", "accepted")];
    assert_eq!(sidecar.metric("gvr_nudges_total", &local), 1.0);
    sidecar.stop();
}

#[test]
fn the_status_is_the_document_that_the_port_serves() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let first = upstream.commit(&[("file", "first")]);
    let mut sidecar = launch(&upstream.url(), &root)
        .flag("period", "1h")
        .flag("name", "docs")
        .spawn();
    sidecar.wait_for(&root, &first);
    sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "changed")], 1.0);
    wait_until(PATIENCE, "both to agree", || {
        let text = done(&root, &["status", "--json"]);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        document == sidecar.status()
    });
    done(&root, &["status", "--target", "docs"]);
    refused(
        &root,
        &["status", "--target", "dags"],
        "no target has this name",
    );
    refused(
        &root,
        &["pin", "previous", "--target", "dags"],
        "no target has this name",
    );
    sidecar.stop();
    refused(&root, &["status"], "has ended");
}

#[test]
fn the_socket_is_for_the_owner_and_bears_clients_that_say_nothing() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let first = upstream.commit(&[("file", "first")]);
    // A socket that an ended instance left.
    fs::create_dir_all(root.state("")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.state("control.sock")).unwrap());
    let mut sidecar = launch(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &first);
    done(&root, &["status"]);
    let socket = root.state("control.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let silent: Vec<_> = (0..50)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    let mut long = UnixStream::connect(&socket).unwrap();
    let _ = long.write_all(&[b'x'; 100_000]);
    // They are closed after 2 s at the latest.
    wait_until(PATIENCE, "an answer", || {
        ask(&root, &["status"]).code == Some(0)
    });
    for mut client in silent {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    let second = upstream.commit(&[("file", "second")]);
    sidecar.wait_for(&root, &second);
    sidecar.stop();
}

#[test]
fn a_socket_that_cannot_be_made_stops_nothing() {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let first = upstream.commit(&[("file", "first")]);
    fs::create_dir_all(root.state("control.sock")).unwrap();
    let mut sidecar = launch(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &first);
    sidecar.wait_for_log("there is no control socket");
    refused(&root, &["status"], "nobody listens");
    sidecar.stop();
}
