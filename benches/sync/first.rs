//! The first sync of a large repository, and what it takes in memory.

use std::fs;
use std::time::{Duration, Instant};

use crate::process::{Memory, Sampler};
use crate::report::Unit;
use crate::stages::{Stages, wait_for_changes};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::{Bench, Cpus, git};

/// After this long without work a process is idle.
const IDLE: Duration = Duration::from_secs(5);

pub fn run(bench: &mut Bench) {
    for cpus in Cpus::BOTH {
        whole(bench, cpus);
    }
    for cpus in Cpus::BOTH {
        tree(bench, cpus);
    }
}

/// From nothing to a published tree, as an init container does it.
fn whole(bench: &mut Bench, cpus: Cpus) {
    let mut pairs = Vec::new();
    for _ in 0..bench.options.rounds {
        let root = bench.path("root");
        let start = Instant::now();
        Launch::one_time(&bench.url(), &Root::at(&root))
            .under(cpus.wrapper())
            .succeed();
        let ours = start.elapsed().as_secs_f64();
        fs::remove_dir_all(root).unwrap();
        let clone = bench.path("clone");
        let theirs = git::clone(cpus.wrapper(), &bench.url(), &clone);
        fs::remove_dir_all(clone).unwrap();
        pairs.push((ours, theirs));
    }
    let name = format!("first sync / git clone --depth 1{}", cpus.name());
    bench.report.ratio(&name, Unit::Seconds, &pairs, Some(0.7));
}

/// The tree alone, and memory.
fn tree(bench: &mut Bench, cpus: Cpus) {
    let store = bench.path("store.git");
    git::clone_bare(&bench.url(), &store);
    let commit = bench.repository.tip();
    let (mut builds, mut fetches, mut publishes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peak, mut peak_resident, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds {
        let path = bench.path("root");
        let root = Root::at(&path);
        let mut sidecar = Launch::new(&bench.url(), &root)
            .http()
            .flag("period", "1s")
            .under(cpus.wrapper())
            .spawn();
        let sampler = Sampler::start(sidecar.pid());
        sidecar.wait_for(&root, &commit);
        wait_for_changes(&mut sidecar, 1);
        let most = sampler.finish();
        peak.push(most.anonymous as f64);
        peak_resident.push(most.peak_resident as f64);
        let stages = Stages::of(&mut sidecar);
        fetches.push(stages.fetch);
        publishes.push(stages.publish);
        std::thread::sleep(IDLE);
        idle.push(Memory::of(sidecar.pid()).anonymous as f64);
        sidecar.stop();
        fs::remove_dir_all(path).unwrap();

        let worktree = bench.path("worktree");
        let theirs = git::worktree_add(cpus.wrapper(), &store, &worktree, &commit);
        git::worktree_remove(&store, &worktree);
        builds.push((stages.build, theirs));
    }
    fs::remove_dir_all(store).unwrap();
    let report = &mut bench.report;
    let name = |what: &str| format!("{what}{}", cpus.name());
    let build = name("tree writing / git worktree add");
    report.ratio(&build, Unit::Seconds, &builds, Some(0.5));
    report.value(
        &name("first sync: fetch stage"),
        Unit::Seconds,
        &fetches,
        None,
    );
    report.value(
        &name("first sync: publish stage"),
        Unit::Seconds,
        &publishes,
        None,
    );
    report.value(
        &name("first sync: peak anonymous memory"),
        Unit::Bytes,
        &peak,
        Some(64e6),
    );
    let resident = name("first sync: peak resident memory, mapped packs too");
    report.value(&resident, Unit::Bytes, &peak_resident, None);
    report.value(
        &name("anonymous memory when idle after it"),
        Unit::Bytes,
        &idle,
        Some(10e6),
    );
}
