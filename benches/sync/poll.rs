//! Polls that find nothing, of a repository with very many refs.

use std::time::Duration;

use crate::Bench;
use crate::process::{Memory, cpu_seconds};
use crate::report::Unit;
use crate::support::http_server::HttpServer;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::Upstream;
use crate::support::wait::wait_until;

const REFS: usize = 100_000;
const POLLS: usize = 400;
/// The server starts a process for each poll, on the same CPUs.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run(bench: &mut Bench) {
    let upstream = Upstream::new();
    upstream.many_refs(REFS);
    let tip = upstream.tip("HEAD");
    let server = HttpServer::start(upstream.path().parent().unwrap());
    let path = bench.path("root");
    let root = Root::at(&path);
    let mut sidecar = Launch::new(&server.url("upstream.git"), &root)
        .http()
        .flag("period", "20ms")
        .spawn();
    sidecar.wait_for(&root, &tip);
    // What a process does once is over.
    sidecar.wait_for_polls(10);

    let unchanged = [("outcome", "unchanged")];
    let polls_before = sidecar.metric("gvr_syncs_total", &unchanged);
    let connections = server.connections();
    server.clear_log();
    let cpu = cpu_seconds(sidecar.pid());
    wait_until(PATIENCE, "polls", || server.requests().len() >= POLLS);
    let cpu = cpu_seconds(sidecar.pid()) - cpu;
    let memory = Memory::of(sidecar.pid());
    let requests = server.requests();
    let polls = sidecar.metric("gvr_syncs_total", &unchanged) - polls_before;
    let opened = server.connections() - connections;
    sidecar.stop();

    let answer = requests.iter().map(|request| request.answered()).max();
    let answer = answer.unwrap() as f64;
    // A poll that is under way is in one of the two numbers.
    let each = (requests.len() as f64 / polls * 50.0).round() / 50.0;
    let report = &mut bench.report;
    report.value(
        "poll, 100,000 refs: requests",
        Unit::Count,
        &[each],
        Some(1.0),
    );
    report.value(
        "polls, 100,000 refs: connections opened",
        Unit::Count,
        &[opened as f64],
        Some(0.0),
    );
    report.value(
        "poll, 100,000 refs: bytes of answer",
        Unit::Bytes,
        &[answer],
        Some(1000.0),
    );
    report.value(
        "poll, 100,000 refs: CPU",
        Unit::Seconds,
        &[cpu / polls],
        Some(2e-3),
    );
    let resident = memory.resident as f64;
    report.value(
        "polling: resident memory",
        Unit::Bytes,
        &[resident],
        Some(12e6),
    );
    let anonymous = memory.anonymous as f64;
    report.value("polling: anonymous memory", Unit::Bytes, &[anonymous], None);
}
