//! Many small updates in a row: nothing may grow.

use std::fs;
use std::path::Path;

use crate::process::Memory;
use crate::report::Unit;
use crate::stages::{Stages, wait_for_changes};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::{Bench, git};

pub fn run(bench: &mut Bench) {
    let updates = bench.options.updates;
    let path = bench.path("root");
    let root = Root::at(&path);
    let mut sidecar = Launch::new(&bench.url(), &root)
        .http()
        .flag("stale-timeout", "1s")
        .spawn();
    sidecar.wait_for(&root, &bench.repository.tip());
    wait_for_changes(&mut sidecar, 1);
    let (mut times, mut stages) = (Vec::new(), Vec::new());
    // What else the machine does changes while this runs: `cp -al` of the same tree is the clock.
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let tenth = (updates / 10).max(1);
    let (mut packs, mut store_bytes, mut revisions) = (0, 0, 0);
    for update in 0..updates {
        let before = Stages::of(&mut sidecar);
        let commit = bench.repository.push();
        sidecar.wait_for(&root, &commit);
        wait_for_changes(&mut sidecar, update + 2);
        let ours = Stages::of(&mut sidecar).since(before);
        times.push(ours.total());
        stages.push(ours);
        packs = packs.max(count_packs(&root.state("store.git")));
        store_bytes = store_bytes.max(git::disk_usage(&root.state("store.git")).0);
        revisions = revisions.max(root.revisions().len());
        for (tenth, wanted) in [
            (&mut first, update < tenth),
            (&mut last, update >= updates - tenth),
        ] {
            if wanted {
                let copy = bench.path("copy");
                let copying = git::copy_links(&[], &root.tree(), &copy);
                fs::remove_dir_all(copy).unwrap();
                tenth.push((ours.total(), copying));
            }
        }
    }
    let anonymous = Memory::of(sidecar.pid()).anonymous;
    sidecar.stop();
    fs::remove_dir_all(path).unwrap();

    let fresh = bench.path("store.git");
    git::clone_bare(&bench.url(), &fresh);
    let (fresh_bytes, _) = git::disk_usage(&fresh);
    fs::remove_dir_all(fresh).unwrap();

    let report = &mut bench.report;
    let name = |what: &str| format!("{updates} updates: {what}");
    let size = [(store_bytes as f64, fresh_bytes as f64)];
    let store = name("largest store / fresh shallow clone");
    report.ratio(&store, Unit::Bytes, &size, Some(2.0));
    report.value(
        &name("most packs"),
        Unit::Count,
        &[packs as f64],
        Some(20.0),
    );
    for (what, tenth) in [("first", first), ("last", last)] {
        let time = name(&format!("{what} tenth, an update / cp -al"));
        report.ratio(&time, Unit::Seconds, &tenth, None);
    }
    for (what, stage) in [
        ("median fetch stage", (|s| s.fetch) as fn(&Stages) -> f64),
        ("median build stage", |s| s.build),
        ("median publish stage", |s| s.publish),
    ] {
        let values: Vec<f64> = stages.iter().map(stage).collect();
        report.value(&name(what), Unit::Seconds, &values, None);
    }
    report.value(&name("slowest update"), Unit::Seconds, &[max(&times)], None);
    report.value(
        &name("most revisions at once"),
        Unit::Count,
        &[revisions as f64],
        None,
    );
    report.value(
        &name("anonymous memory after"),
        Unit::Bytes,
        &[anonymous as f64],
        None,
    );
}

fn count_packs(store: &Path) -> usize {
    fs::read_dir(store.join("objects/pack"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".pack")
        })
        .count()
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
