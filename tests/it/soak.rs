//! Thousands of polls: nothing of the process and nothing on disk grows.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use crate::faults::{launch, serve};
use crate::support::environment::{report, soak};
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
