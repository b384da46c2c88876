//! A commit that changes one file of many.

use std::fs;

use crate::report::Unit;
use crate::stages::{Stages, wait_for_changes};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::{Bench, Cpus, git};

pub fn run(bench: &mut Bench) {
    for cpus in Cpus::BOTH {
        one_file(bench, cpus, true);
        one_file(bench, cpus, false);
    }
}

/// `linked_ahead`: whether the commit comes when the links of the next tree have been made, or
/// before that, as it does right after another one.
fn one_file(bench: &mut Bench, cpus: Cpus, linked_ahead: bool) {
    let path = bench.path("root");
    let root = Root::at(&path);
    let store = bench.path("store.git");
    git::clone_bare(&bench.url(), &store);
    // Nothing is pruned while git is timed.
    let mut sidecar = Launch::new(&bench.url(), &root)
        .http()
        .flag("period", "200ms")
        .flag("stale-timeout", "1h")
        .flag("log-level", "debug")
        .under(cpus.wrapper())
        .spawn();
    sidecar.wait_for(&root, &bench.repository.tip());
    wait_for_changes(&mut sidecar, 1);

    let (mut whole, mut builds, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let (mut fetches, mut publishes) = (Vec::new(), Vec::new());
    // One more than is counted: the first one warms both sides up.
    for round in 0..=bench.options.rounds {
        sidecar.wait_while_alive("the links to be made", |sidecar| {
            let log = sidecar.log();
            let made = log.iter().filter(|line| line.contains(r#""linked ahead""#));
            made.count() > round
        });
        if !linked_ahead {
            fs::remove_dir_all(root.state("spare")).unwrap();
        }
        let before = Stages::of(&mut sidecar);
        let commit = bench.repository.push();
        sidecar.wait_for(&root, &commit);
        wait_for_changes(&mut sidecar, round + 2);
        let ours = Stages::of(&mut sidecar).since(before);

        let worktree = bench.path("worktree");
        let fetch = git::fetch(cpus.wrapper(), &store);
        let theirs = fetch + git::worktree_add(cpus.wrapper(), &store, &worktree, &commit);
        git::worktree_remove(&store, &worktree);

        let copy = bench.path("copy");
        let copying = git::copy_links(cpus.wrapper(), &root.tree(), &copy);
        let (all, _) = git::disk_usage(&copy);
        fs::remove_dir_all(copy).unwrap();
        // The manifest counts.
        let (_, own) = git::disk_usage(root.tree().parent().unwrap());
        if round == 0 {
            continue;
        }
        whole.push((ours.total(), theirs));
        builds.push((ours.build, copying));
        shares.push((own as f64, all as f64));
        fetches.push(ours.fetch);
        publishes.push(ours.publish);
    }
    sidecar.stop();
    fs::remove_dir_all(path).unwrap();
    fs::remove_dir_all(store).unwrap();

    let report = &mut bench.report;
    let when = if linked_ahead { "" } else { ", unprepared" };
    let name = |what: &str| format!("{what}{when}{}", cpus.name());
    // The target is for a commit that comes by itself.
    let target = |most: f64| linked_ahead.then_some(most);
    let update = name("1 file / git fetch + worktree add");
    report.ratio(&update, Unit::Seconds, &whole, target(0.1));
    let build = name("1 file: tree building / cp -al");
    report.ratio(&build, Unit::Seconds, &builds, Some(0.8));
    report.value(&name("1 file: fetch stage"), Unit::Seconds, &fetches, None);
    report.value(
        &name("1 file: publish stage"),
        Unit::Seconds,
        &publishes,
        None,
    );
    let disk = name("1 file: extra disk / tree");
    report.ratio(&disk, Unit::Bytes, &shares, Some(0.02));
}
