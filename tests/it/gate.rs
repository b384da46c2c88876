//! The gate: what must accept a commit before readers see it, with the real program.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::hooks::{Script, sidecar};
use crate::support::listener::Listener;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

fn check(launch: Launch, script: &Script) -> Launch {
    launch.flag("check-command", script.path().to_str().unwrap())
}

/// Accepts trees without a file `bad`, and counts its runs by commit.
fn no_bad_file() -> Script {
    Script::new(
        "echo $GVR_COMMIT >> $OUT/runs; [ ! -e $OUT/undecided ] || kill -9 $$\n\
         if [ -e bad ]; then echo 'line one'; echo 'found bad' >&2; exit 9; fi",
    )
}

#[test]
fn a_rejected_commit_is_reported_everywhere_and_readers_keep_the_last_good_one() {
    let (upstream, root, script) = (Upstream::new(), Root::new(), no_bad_file());
    let good = upstream.tip("main");
    let mut sidecar = check(sidecar(&upstream, &root), &script)
        .flag("error-file", "error.json")
        .spawn();
    sidecar.wait_for(&root, &good);
    let bad = upstream.commit(&[("bad", "1")]);
    sidecar.wait_for_metric("gvr_rejected", &[], 1.0);
    sidecar.wait_for_polls(3);
    let status = sidecar.status()["targets"][0].clone();
    assert_eq!(status["rejected"]["commit"], bad.as_str());
    assert!(
        status["rejected"]["reason"]
            .as_str()
            .unwrap()
            .contains("found bad")
    );
    assert_eq!(
        (&status["ready"], &status["consecutive_failures"]),
        (&true.into(), &0.into())
    );
    let error = fs::read_to_string(root.path().join("error.json")).unwrap();
    assert!(error.contains(&bad) && error.contains("found bad") && error.contains("code 9"));
    let line = sidecar.wait_for_log("the commit was rejected");
    assert!(line.contains(&bad) && line.contains("found bad"), "{line}");
    let checks = |sidecar: &mut crate::support::sidecar::Sidecar, outcome| {
        sidecar.metric("gvr_checks_total", &[("outcome", outcome)])
    };
    assert_eq!(checks(&mut sidecar, "accepted"), 1.0);
    assert_eq!(checks(&mut sidecar, "rejected"), 1.0);
    assert_eq!(sidecar.metric("gvr_sync_failures_total", &[]), 0.0);
    root.assert_published(&upstream, &good);

    let better = upstream.commit_changes("main", &[Change::Delete("bad".into())]);
    sidecar.wait_for(&root, &better);
    sidecar.wait_while_alive("no error file", |_| {
        !root.path().join("error.json").exists()
    });
    assert_eq!(sidecar.metric("gvr_rejected", &[]), 0.0);
    assert_eq!(
        sidecar.status()["targets"][0]["rejected"],
        serde_json::Value::Null
    );
    assert_eq!(script.lines("runs"), [good, bad, better]);
    sidecar.stop();
}

#[test]
fn a_check_without_a_verdict_is_repeated_and_readers_keep_the_last_good_one() {
    let (upstream, root, script) = (Upstream::new(), Root::new(), no_bad_file());
    let good = upstream.tip("main");
    let mut sidecar = check(sidecar(&upstream, &root), &script).spawn();
    sidecar.wait_for(&root, &good);
    fs::write(script.out("undecided"), "").unwrap();
    let next = upstream.commit(&[("a", "1")]);
    sidecar.wait_for_metric("gvr_checks_total", &[("outcome", "no_verdict")], 2.0);
    let failures = [("stage", "check"), ("reason", "check")];
    sidecar.wait_for_metric("gvr_sync_failures_total", &failures, 2.0);
    root.assert_published(&upstream, &good);
    fs::remove_file(script.out("undecided")).unwrap();
    sidecar.wait_for(&root, &next);
    // The tree was built once and judged until there was a verdict.
    assert_eq!(root.revision(), 2);
    sidecar.stop();
}

#[test]
fn a_check_that_takes_too_long_has_no_verdict() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new("sleep 600");
    let finished = check(Launch::one_time(&upstream.url(), &root), &script)
        .flag("check-timeout", "200ms")
        .run();
    finished.assert_failed(&[1], &["did not end within 200ms", "--check-timeout"]);
    assert_eq!(root.commit(), None);
}

#[test]
fn a_one_time_sync_names_the_rejected_commit_unless_an_older_tree_will_do() {
    let (upstream, root, script) = (Upstream::new(), Root::new(), no_bad_file());
    let good = upstream.tip("main");
    let launch = || check(Launch::one_time(&upstream.url(), &root), &script);
    launch().succeed();
    let bad = upstream.commit(&[("bad", "1")]);
    launch().run().assert_failed(&[1], &[&bad, "found bad"]);
    launch().run().assert_failed(&[1], &[&bad, "found bad"]);
    launch().flag("allow-stale", "true").succeed();
    root.assert_published(&upstream, &good);
    assert_eq!(script.lines("runs"), [good, bad]);
}

#[test]
fn another_check_and_the_time_to_check_again_overrule_a_rejection() {
    let (upstream, root, script) = (Upstream::new(), Root::new(), no_bad_file());
    let bad = upstream.commit(&[("bad", "1")]);
    let launch = || check(Launch::one_time(&upstream.url(), &root), &script);
    launch().run().assert_failed(&[1], &[&bad]);
    launch()
        .flag("recheck-after", "1ms")
        .run()
        .assert_failed(&[1], &[&bad]);
    assert_eq!(script.lines("runs").len(), 2);
    launch()
        .flag("check-arg", "other")
        .run()
        .assert_failed(&[1], &[&bad]);
    assert_eq!(script.lines("runs").len(), 3);
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &bad);
}

#[test]
fn a_check_that_changes_the_tree_rejects_it() {
    for (change, said) in [
        ("echo x >> README.md", "README.md"),
        ("rm README.md", "README.md is gone"),
        (
            "mkdir -p site/deep; echo x > site/deep/index.html",
            "site was added",
        ),
    ] {
        let (upstream, root) = (Upstream::new(), Root::new());
        let script = Script::new(change);
        let finished = check(Launch::one_time(&upstream.url(), &root), &script).run();
        finished.assert_failed(&[1], &["the check changed the tree", said]);
        assert_eq!(root.commit(), None, "{change}");
    }
}

#[test]
fn a_scratch_directory_may_be_written_to() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let scratch = tempfile::tempdir().unwrap();
    let script = Script::new("test -d \"$GVR_TREE\" && cp -r \"$GVR_TREE\" built");
    check(Launch::one_time(&upstream.url(), &root), &script)
        .flag("check-dir", scratch.path().to_str().unwrap())
        .succeed();
    assert!(scratch.path().join("built/README.md").exists());
    root.assert_published(&upstream, &upstream.tip("main"));
}

#[test]
fn a_container_beside_accepts_with_200_rejects_with_422_and_decides_nothing_otherwise() {
    let (upstream, root, listener) = (Upstream::new(), Root::new(), Listener::new());
    let good = upstream.tip("main");
    let mut sidecar = sidecar(&upstream, &root)
        .flag("check-url", &format!("http://{}/check", listener.address))
        .spawn();
    sidecar.wait_for(&root, &good);
    let request = listener.received().pop().unwrap().json();
    assert_eq!(request["commit"], good.as_str());
    let path = root.path().join(request["path"].as_str().unwrap());
    assert!(path.join("README.md").is_file(), "{request}");

    listener.answer(503, "starting");
    let next = upstream.commit(&[("a", "1")]);
    sidecar.wait_for_metric("gvr_checks_total", &[("outcome", "no_verdict")], 1.0);
    root.assert_published(&upstream, &good);
    listener.answer(422, "mkdocs: broken link");
    sidecar.wait_for_metric("gvr_rejected", &[], 1.0);
    assert_eq!(
        sidecar.status()["targets"][0]["rejected"]["reason"],
        "mkdocs: broken link"
    );
    root.assert_published(&upstream, &good);
    listener.answer(200, "");
    let better = upstream.commit(&[("a", "2")]);
    sidecar.wait_for(&root, &better);
    assert_ne!(next, better);
    sidecar.stop();
}

#[test]
fn a_commit_without_a_required_path_is_rejected() {
    let (upstream, root) = (Upstream::new(), Root::new());
    upstream.commit(&[("docs/index.html", "x")]);
    let launch =
        || Launch::one_time(&upstream.url(), &root).flag("require-path", "docs/index.html");
    launch().succeed();
    let good = upstream.tip("main");
    let bad = upstream.commit_changes("main", &[Change::Delete("docs".into())]);
    launch()
        .run()
        .assert_failed(&[1], &[&bad, "docs/index.html", "--require-path"]);
    root.assert_published(&upstream, &good);
}

#[test]
fn a_commit_in_which_the_selected_path_is_gone_does_not_empty_the_tree() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let good = upstream.commit(&[("docs/index.html", "x")]);
    let launch = || Launch::one_time(&upstream.url(), &root).flag("path", "docs");
    launch().succeed();
    let renamed = [
        Change::Delete("docs".into()),
        Change::file("manual/index.html", "x"),
    ];
    let bad = upstream.commit_changes("main", &renamed);
    launch()
        .run()
        .assert_failed(&[1], &[&bad, "--path", "matches nothing"]);
    assert_eq!(root.commit(), Some(good));
    assert!(root.tree().join("docs/index.html").exists());
    launch().flag("allow-empty", "true").succeed();
    assert_eq!(root.commit(), Some(bad));
}

#[test]
fn a_typo_in_the_selected_path_publishes_nothing() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let finished = Launch::one_time(&upstream.url(), &root)
        .flag("path", "dosc")
        .run();
    finished.assert_failed(&[1], &["matches nothing", "--allow-empty"]);
    assert_eq!(root.commit(), None);
}

#[test]
fn twenty_rejected_commits_with_kills_in_between_leave_readers_on_the_last_good_one() {
    let (upstream, root, script) = (Upstream::new(), Root::new(), no_bad_file());
    let good = upstream.tip("main");
    let launch = || {
        check(sidecar(&upstream, &root), &script)
            .flag("keep", "0")
            .flag("stale-timeout", "0s")
    };
    let mut running = launch().spawn();
    running.wait_for(&root, &good);
    for n in 0..20 {
        let bad = upstream.commit(&[("bad", &n.to_string())]);
        if n % 2 == 0 {
            running.wait_while_alive("the check", |_| script.lines("runs").last() == Some(&bad));
        } else {
            running.wait_while_alive("the rejection", |sidecar| {
                sidecar
                    .log()
                    .iter()
                    .any(|line| line.contains("rejected") && line.contains(&bad))
            });
        }
        running.kill();
        root.assert_published(&upstream, &good);
        running = launch().spawn();
    }
    let tip = upstream.tip("main");
    running.wait_for_metric("gvr_rejected", &[], 1.0);
    running.wait_for_polls(3);
    let runs = script
        .lines("runs")
        .iter()
        .filter(|run| **run == tip)
        .count();
    assert!(
        (1..=2).contains(&runs),
        "{runs} checks of the newest commit"
    );
    wait_until(PATIENCE, "the older rejected trees to be removed", || {
        root.revisions().len() <= 2
    });
    root.assert_published(&upstream, &good);
    running.signal(Signal::TERM);
    running.wait_exit(Duration::from_secs(60));
}
