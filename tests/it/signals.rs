//! Signals: the process ends within two seconds at any time, and polls on demand.
//!
//! To send a signal during a checkout, a test stops the process (SIGSTOP), checks on the disk that the
//! checkout has begun and is not complete, and only then sends the signal under test.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::answers::{Answers, BadServer};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::upstream::{Change, Upstream};

/// The longest time from the signal to the end.
const AT_MOST: Duration = Duration::from_secs(2);

const ENDING: [Signal; 2] = [Signal::TERM, Signal::INT];

/// Sends a signal and asserts that the process ends in time, with this code.
#[track_caller]
fn assert_ends(sidecar: &mut Sidecar, pid: Pid, signal: Signal, code: i32) {
    let start = Instant::now();
    kill_process(pid, signal).unwrap();
    let finished = sidecar.wait_exit(Duration::from_secs(20));
    let took = start.elapsed();
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert!(took < AT_MOST, "{signal:?}: it took {took:?}");
}

#[test]
fn an_idle_sidecar_ends_with_0() {
    let upstream = Upstream::new();
    for signal in ENDING {
        let root = Root::new();
        let launch = Launch::new(&upstream.url(), &root).flag("period", "1h");
        let mut sidecar = launch.spawn();
        sidecar.wait_for(&root, &upstream.tip("HEAD"));
        let pid = sidecar.pid();
        assert_ends(&mut sidecar, pid, signal, 0);
        root.assert_published(&upstream, &upstream.tip("HEAD"));
        root.assert_tidy(&[]);
    }
}

#[test]
fn a_busy_sidecar_ends_with_0() {
    let upstream = Upstream::new();
    let root = Root::new();
    for signal in ENDING {
        let launch = Launch::new(&upstream.url(), &root).flag("period", "1ms");
        let mut sidecar = launch.http().spawn();
        sidecar.wait_for_polls(3);
        let pid = sidecar.pid();
        assert_ends(&mut sidecar, pid, signal, 0);
    }
}

#[test]
fn a_poll_that_gets_no_answer_does_not_delay_the_end() {
    let root = Root::new();
    for signal in ENDING {
        let server = BadServer::start(Answers::Silence);
        let mut sidecar = Launch::new(&server.url(""), &root).spawn();
        sidecar.wait_while_alive("the request", |_| server.requests() > 0);
        let pid = sidecar.pid();
        assert_ends(&mut sidecar, pid, signal, 0);
    }
}

#[test]
fn a_fetch_that_stalls_in_the_pack_does_not_delay_the_end_and_leaves_nothing() {
    let root = Root::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for signal in ENDING {
        let server = BadServer::start(Answers::StallInPack(commit.to_owned()));
        let mut sidecar = Launch::new(&server.url(""), &root).spawn();
        sidecar.wait_while_alive("the fetch", |_| server.requests() > 0);
        let pid = sidecar.pid();
        assert_ends(&mut sidecar, pid, signal, 0);
        root.assert_tidy(&[]);
    }
}

#[test]
fn a_checkout_is_abandoned_in_the_middle() {
    let upstream = Upstream::new();
    upstream.big_tree(20_000, 100);
    for signal in ENDING {
        let root = Root::new();
        let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
        stop_in_mid_checkout(&mut sidecar, &root);
        let pid = sidecar.pid();
        kill_process(pid, signal).unwrap();
        assert_ends(&mut sidecar, pid, Signal::CONT, 0);
        assert_eq!(root.commit(), None, "the checkout was not abandoned");
    }
}

#[test]
fn a_checkout_that_a_signal_interrupted_is_repeated_at_the_next_start() {
    let upstream = Upstream::new();
    let commit = upstream.big_tree(20_000, 100);
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    stop_in_mid_checkout(&mut sidecar, &root);
    let pid = sidecar.pid();
    kill_process(pid, Signal::TERM).unwrap();
    assert_ends(&mut sidecar, pid, Signal::CONT, 0);
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &commit);
    root.assert_tidy(&[]);
}

#[test]
fn the_first_process_of_a_container_ends_with_0() {
    let upstream = Upstream::new();
    for signal in ENDING {
        let root = Root::new();
        let mut sidecar = as_first_process(Launch::new(&upstream.url(), &root)).spawn();
        sidecar.wait_for(&root, &upstream.tip("HEAD"));
        let pid = sidecar.inner_pid();
        assert_ends(&mut sidecar, pid, signal, 0);
    }
}

#[test]
fn the_first_process_of_a_container_reports_bad_usage_and_failure() {
    let root = Root::new();
    let bad = Launch::new("", &root);
    as_first_process(bad).run().assert_failed(&[2], &["repo"]);
    let missing = Launch::one_time("file:///nowhere/at/all", &root);
    let finished = as_first_process(missing).run();
    finished.assert_failed(&[1], &["/nowhere/at/all"]);
}

#[test]
fn the_configured_signal_triggers_a_poll() {
    let upstream = Upstream::new();
    for (name, signal) in [
        ("HUP", Signal::HUP),
        ("SIGHUP", Signal::HUP),
        ("1", Signal::HUP),
        ("USR1", Signal::USR1),
    ] {
        let root = Root::new();
        let mut sidecar = Launch::new(&upstream.url(), &root)
            .flag("period", "1h")
            .flag("sync-on-signal", name)
            .spawn();
        sidecar.wait_for(&root, &upstream.tip("HEAD"));
        let commit = upstream.commit_changes("main", &[Change::file("by", name)]);
        sidecar.signal(signal);
        sidecar.wait_for(&root, &commit);
        sidecar.stop();
    }
}

#[test]
fn the_last_of_many_signals_is_not_lost() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("period", "1h")
        .flag("sync-on-signal", "HUP")
        .http()
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    for _ in 0..50 {
        sidecar.signal(Signal::HUP);
    }
    let commit = upstream.commit(&[("a", "b")]);
    sidecar.signal(Signal::HUP);
    sidecar.wait_for(&root, &commit);
    sidecar.stop();
}

/// Stops the process while files are being written: some are there, the link is not.
#[track_caller]
fn stop_in_mid_checkout(sidecar: &mut Sidecar, root: &Root) {
    sidecar.wait_while_alive("the checkout to begin", |_| staged_files(root) > 0);
    sidecar.signal(Signal::STOP);
    assert_eq!(root.commit(), None, "the checkout is already complete");
}

/// How many directories of the big tree exist in a staged tree.
fn staged_files(root: &Root) -> usize {
    let Ok(stages) = fs::read_dir(root.state("staging")) else {
        return 0;
    };
    stages
        .flatten()
        .filter_map(|stage| fs::read_dir(stage.path()).ok())
        .flatten()
        .flatten()
        .filter_map(|tree| fs::read_dir(tree.path().join("big")).ok())
        .map(Iterator::count)
        .sum()
}

fn as_first_process(launch: Launch) -> Launch {
    launch.under(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
}
