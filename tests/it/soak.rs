//! Thousands of polls: nothing of the process and nothing on disk grows. And random actions, hostile
//! commits and kills among them, while readers look on.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use crate::faults::{commits, launch, serve};
use crate::support::environment::{report, soak};
use crate::support::readers::{Readers, generation};
use crate::support::root::Root;
use crate::support::upstream::Upstream;
use crate::support::wait::wait_until;

/// Memory that comes and goes with the moment it is measured in.
const NOISE_KIB: u64 = 1024;

/// What a process has in use.
#[derive(Debug)]
struct Usage {
    resident_kib: u64,
    threads: u64,
    descriptors: usize,
    disk: Vec<String>,
}

#[test]
fn thousands_of_polls_every_10_ms_leave_no_trace() {
    let polls: f64 = if soak() { 50_000.0 } else { 300.0 };
    let upstream = Upstream::new();
    let server = serve(&upstream);
    let root = Root::new();
    let mut sidecar = launch(&server.url("upstream.git"), &root)
        .flag("period", "10ms")
        // A busy machine may keep the server waiting.
        .flag("stall-timeout", "30s")
        .flag("sync-timeout", "120s")
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    // What is set up once is set up by now.
    sidecar.wait_for_polls(100);
    let pid = sidecar.pid();
    let before = Usage::of(pid, &root);
    let unchanged = [("outcome", "unchanged")];
    let goal = sidecar.metric("gvr_syncs_total", &unchanged) + polls;
    let patience = Duration::from_secs(3600);
    let mut scraped = 0;
    wait_until(patience, "the polls", || {
        std::thread::sleep(Duration::from_millis(100));
        scraped += 1;
        sidecar.metric("gvr_syncs_total", &unchanged) >= goal
    });
    let after = Usage::of(pid, &root);
    report(&format!(
        "{polls} polls and {scraped} scrapes: resident {} KiB, then {} KiB; threads {}, then {}; \
         files and pipes open {}, then {}",
        before.resident_kib,
        after.resident_kib,
        before.threads,
        after.threads,
        before.descriptors,
        after.descriptors,
    ));
    assert!(
        after.resident_kib <= before.resident_kib + NOISE_KIB,
        "{before:?} {after:?}"
    );
    assert_eq!(after.threads, before.threads);
    assert_eq!(after.descriptors, before.descriptors);
    assert_eq!(after.disk, before.disk);
    assert_eq!(sidecar.metric("gvr_sync_failures_total", &[]), 0.0);
    sidecar.stop();
    root.assert_tidy(&[]);
}

/// One action of [`hostile_commits_and_kills_in_any_order_harm_no_reader`].
#[derive(Clone, Copy, Debug)]
enum Action {
    /// Pushes an ordinary commit and waits until it is published.
    Push,
    /// Pushes a hostile commit of one kind, waits until it is refused, and pushes an ordinary one.
    Hostile(commits::Kind),
    /// Kills the process, whatever it is doing, and starts it again.
    Kill,
    /// Pushes a hostile commit, and kills the process while it works on it.
    HostileAndKill(commits::Kind),
}

#[test]
fn hostile_commits_and_kills_in_any_order_harm_no_reader() {
    let actions = if soak() { 400 } else { 8 };
    let seed = if soak() { fastrand::u64(..) } else { 5 };
    report(&format!("{actions} random actions, seed {seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let (upstream, root) = (Upstream::empty(), Root::new());
    let server = serve(&upstream);
    let launch = launch(&server.url("upstream.git"), &root)
        .flag("sync-timeout", "60s")
        .flag("stall-timeout", "30s");
    let mut commit = upstream.commit_changes("main", &generation(0));
    let mut sidecar = launch.clone().spawn();
    sidecar.wait_for(&root, &commit);
    let readers = Readers::start(1, root.link());
    let mut refused = 0;
    for n in 1..=actions {
        let kind = commits::Kind::any(&mut random);
        let action = match random.u32(..6) {
            0 => Action::Kill,
            1 => Action::HostileAndKill(kind),
            2 | 3 => Action::Hostile(kind),
            _ => Action::Push,
        };
        if let Action::Hostile(kind) | Action::HostileAndKill(kind) = action {
            let (changes, refusal) = commits::hostile(&upstream, &commit, kind);
            upstream.commit_changes("main", &changes);
            if let (Action::Hostile(_), Some((_, text))) = (action, refusal) {
                sidecar.wait_while_alive(text, |sidecar| {
                    sidecar.log().iter().any(|line| line.contains(text))
                });
                assert_eq!(root.commit().as_deref(), Some(&*commit), "{action:?}");
                refused += 1;
            }
            // What is pushed next does not have what the hostile commit brought.
            upstream.force_push("main", &commit);
        }
        if matches!(action, Action::Kill | Action::HostileAndKill(_)) {
            std::thread::sleep(Duration::from_millis(random.u64(..200)));
            sidecar.kill();
            sidecar = launch.clone().spawn();
        }
        commit = upstream.commit_changes("main", &generation(n));
        sidecar.wait_for(&root, &commit);
    }
    let seen = readers.finish();
    assert_eq!(seen.torn, [] as [String; 0], "seed {seed}");
    root.assert_published(&upstream, &commit);
    report(&format!(
        "{refused} hostile commits refused, {} looks",
        seen.whole
    ));
    sidecar.stop();
    root.assert_tidy(&[]);
}

impl Usage {
    fn of(pid: Pid, root: &Root) -> Self {
        let proc = format!("/proc/{}", pid.as_raw_nonzero());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.unwrap().trim().trim_end_matches("kB").trim();
            value.parse().unwrap()
        };
        // Connections of the scrapes come and go; files, pipes and the like do not.
        let descriptors = fs::read_dir(format!("{proc}/fd"))
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| !target.to_string_lossy().starts_with("socket:"))
            .count();
        Self {
            resident_kib: number("VmRSS:"),
            threads: number("Threads:"),
            descriptors,
            disk: root.listing().lines().map(str::to_owned).collect(),
        }
    }
}
