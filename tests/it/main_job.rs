//! The main job over `file://`: clone once, follow the branch, and report it.

use std::fs;
use std::path::Path;

use crate::support::foreign::Volume;
use crate::support::root::Root;
use crate::support::sidecar::{Launch, field};
use crate::support::tree_compare::assert_same;
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// Some of the series that exist before the first publish: name, labels.
const SERIES: [(&str, &[(&str, &str)]); 12] = [
    ("gvr_syncs_total", &[("outcome", "changed")]),
    ("gvr_syncs_total", &[("outcome", "unchanged")]),
    ("gvr_syncs_total", &[("outcome", "error")]),
    (
        "gvr_sync_failures_total",
        &[("stage", "poll"), ("reason", "auth")],
    ),
    (
        "gvr_sync_failures_total",
        &[("stage", "build"), ("reason", "disk")],
    ),
    ("gvr_consecutive_failures", &[]),
    ("gvr_fetched_bytes_total", &[]),
    ("gvr_files_written_total", &[]),
    ("gvr_files_shared_total", &[]),
    ("gvr_last_publish_timestamp_seconds", &[]),
    ("gvr_ready", &[]),
    ("gvr_revisions", &[]),
];

#[test]
fn one_time_clones_once_and_exits_0() {
    let upstream = Upstream::new();
    let commit = upstream.commit_changes("main", &varied());
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &commit);
    root.assert_tidy(&[]);
}

#[test]
fn the_largest_depth_takes_no_longer_than_the_history() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root)
        .flag("depth", "2147483647")
        .flag("sync-timeout", "20s")
        .succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn a_plain_path_is_a_repository() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(upstream.path().to_str().unwrap(), &root).succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn the_link_is_relative_and_ends_in_the_full_commit_id() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    let target = fs::read_link(root.link()).unwrap();
    assert!(target.is_relative(), "{target:?}");
    let commit = upstream.tip("HEAD");
    assert_eq!(target.file_name().unwrap().to_str(), Some(&*commit));
}

#[test]
fn a_link_outside_the_root_is_relative_so_that_both_may_be_mounted_elsewhere() {
    let upstream = Upstream::new();
    let volume = tempfile::tempdir().unwrap();
    let link = volume.path().join("site/docs/live");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    let root = Root::at(&volume.path().join("state")).with_link(&link);
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
    root.assert_tidy(&[]);
    let moved = tempfile::tempdir().unwrap();
    let elsewhere = moved.path().join("elsewhere");
    fs::rename(volume.path(), &elsewhere).unwrap();
    let readme = fs::read_to_string(elsewhere.join("site/docs/live/README.md")).unwrap();
    assert_eq!(readme, "first\n");
    fs::rename(&elsewhere, volume.path()).unwrap();
}

#[test]
fn a_sidecar_follows_the_branch() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    for changes in [
        varied(),
        vec![
            Change::Delete("dir".into()),
            Change::file("dir", "a file now"),
        ],
        vec![Change::Delete("dir".into()), Change::file("dir/again", "")],
        vec![Change::Symlink("README.md".into(), "dir/again".into())],
        vec![Change::Executable("dir/again".into(), Vec::new())],
    ] {
        let commit = upstream.commit_changes("main", &changes);
        sidecar.wait_for(&root, &commit);
        root.assert_published(&upstream, &commit);
    }
    sidecar.stop();
    root.assert_tidy(&[]);
}

#[test]
fn a_commit_with_the_same_tree_is_published() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    let commit = upstream.commit_changes("main", &[]);
    sidecar.wait_for(&root, &commit);
    root.assert_published(&upstream, &commit);
}

#[test]
fn a_commit_that_holds_no_file_is_an_empty_tree() {
    let upstream = Upstream::empty();
    let commit = upstream.commit_changes("main", &[]);
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &commit);
    assert_eq!(fs::read_dir(root.link()).unwrap().count(), 0);
}

#[test]
fn an_init_container_and_a_sidecar_share_a_root_in_turn() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    let revision = root.revision();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    // Although upstream has nothing new, the sidecar becomes ready, and keeps the tree.
    sidecar.wait_for_metric("gvr_ready", &[], 1.0);
    sidecar.wait_for_polls(2);
    assert_eq!(root.revision(), revision);
    let commit = upstream.commit(&[("new", "")]);
    sidecar.wait_for(&root, &commit);
    sidecar.stop();
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &commit);
}

#[test]
fn a_poll_that_finds_nothing_touches_nothing_and_logs_nothing() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    sidecar.wait_for_polls(2);
    let (listing, lines) = (root.listing(), sidecar.log().len());
    sidecar.wait_for_polls(5);
    assert_eq!(root.listing(), listing);
    assert_eq!(sidecar.log()[lines..], [] as [String; 0]);
}

#[test]
fn every_log_line_carries_the_target() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("name", "docs-site")
        .http()
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    upstream.remove();
    sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "error")], 1.0);
    upstream.restore();
    let commit = upstream.commit(&[("new", "")]);
    sidecar.wait_for(&root, &commit);
    let finished = sidecar.stop();
    assert!(finished.stderr.lines().count() >= 3, "{}", finished.stderr);
    for line in finished.stderr.lines() {
        let carried = line.contains("docs-site");
        assert!(carried, "a line without the target: {line}");
    }
    assert!(finished.stderr.contains(&commit), "{}", finished.stderr);
}

#[test]
fn the_target_is_in_every_line_at_every_level() {
    let root = Root::new();
    let finished = Launch::one_time("/no/such/repository", &root)
        .flag("name", "docs-site")
        .flag("log-level", "error")
        .run();
    let logged: Vec<_> = finished
        .stderr
        .lines()
        .filter(|l| l.starts_with('{'))
        .collect();
    assert!(!logged.is_empty(), "{}", finished.stderr);
    for line in logged {
        assert!(line.contains("docs-site"), "{line}");
    }
}

#[test]
fn a_json_log_has_an_object_on_each_line() {
    let upstream = Upstream::new();
    let root = Root::new();
    let finished = Launch::one_time(&upstream.url(), &root).succeed();
    assert!(!finished.stderr.is_empty());
    for line in finished.stderr.lines() {
        assert!(field(line, "level").is_some(), "{line}");
    }
}

#[test]
fn a_text_log_has_neither_json_nor_colours() {
    let upstream = Upstream::new();
    let root = Root::new();
    let finished = Launch::one_time(&upstream.url(), &root)
        .flag("log-format", "text")
        .succeed();
    assert!(!finished.stderr.is_empty());
    assert!(!finished.stderr.contains('\u{1b}'), "{}", finished.stderr);
    for line in finished.stderr.lines() {
        assert!(!line.starts_with('{'), "{line}");
    }
}

#[test]
fn every_flag_is_an_environment_variable() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::bare()
        .variable("GVR_REPO", &upstream.url())
        .variable("GVR_ROOT", root.path().to_str().unwrap())
        .variable("GVR_ONE_TIME", "true")
        .succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn a_flag_takes_precedence_over_its_variable() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root)
        .variable("GVR_REPO", "file:///nowhere")
        .succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn the_touch_files_are_touched_at_each_publish_and_only_then() {
    let upstream = Upstream::new();
    let root = Root::new();
    let dir = tempfile::tempdir().unwrap();
    let files = [dir.path().join("one"), dir.path().join("two")];
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .also("touch-file", files[0].to_str().unwrap())
        .also("touch-file", files[1].to_str().unwrap())
        .http()
        .spawn();
    sidecar.wait_while_alive("the touch files", |_| {
        files.iter().all(|file| file.exists())
    });
    let touched = || files.each_ref().map(|file| modified(file));
    sidecar.wait_for_polls(1);
    let first = touched();
    sidecar.wait_for_polls(3);
    assert_eq!(touched(), first, "a poll that found nothing touched them");
    let commit = upstream.commit(&[("new", "")]);
    sidecar.wait_for(&root, &commit);
    sidecar.wait_while_alive("a new time on the touch files", |_| {
        touched().iter().zip(&first).all(|(now, then)| now > then)
    });
}

#[test]
fn the_error_file_holds_the_error_and_is_deleted_after_a_success() {
    let upstream = Upstream::new();
    let root = Root::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("error");
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("error-file", file.to_str().unwrap())
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    upstream.remove();
    sidecar.wait_while_alive("the error file", |_| {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("upstream.git"))
    });
    upstream.restore();
    sidecar.wait_while_alive("the end of the error file", |_| {
        fs::read_to_string(&file).map_or(true, |text| text.is_empty())
    });
}

#[test]
fn before_the_first_publish_the_sidecar_is_alive_and_not_ready_and_every_series_is_zero() {
    let upstream = Upstream::empty();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("init-period", "1h")
        .http()
        .spawn();
    // The only poll finds no commit, which counts as an error.
    sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "error")], 1.0);
    assert_eq!(sidecar.get("/livez").code, 200);
    assert_eq!(sidecar.get("/readyz").code, 503);
    for (name, labels) in SERIES {
        let failed = name == "gvr_consecutive_failures" || labels.contains(&("outcome", "error"));
        let value = sidecar.metric(name, labels);
        assert_eq!(value > 0.0, failed, "{name} {labels:?} is {value}");
    }
}

#[test]
fn after_a_publish_probes_metrics_and_status_show_it() {
    let upstream = Upstream::new();
    let commit = upstream.commit_changes("main", &varied());
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("ref", "main")
        .flag("name", "docs")
        .http()
        .spawn();
    sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "changed")], 1.0);
    sidecar.wait_for_polls(1);
    assert_eq!(sidecar.get("/readyz").code, 200);
    let target = ("target", "docs");
    assert_eq!(sidecar.metric("gvr_ready", &[target]), 1.0);
    assert_eq!(sidecar.metric("gvr_revisions", &[target]), 1.0);
    let revision = [target, ("ref", "main"), ("revision", &*commit)];
    assert_eq!(sidecar.metric("gvr_revision_info", &revision), 1.0);
    let files = fs::read_dir(root.link()).unwrap().count() as f64;
    assert!(sidecar.metric("gvr_files_written_total", &[target]) >= files);
    assert!(sidecar.metric("gvr_last_success_timestamp_seconds", &[target]) > 1e9);
    assert_eq!(sidecar.metric("gvr_build_info", &[]), 1.0);
    let metrics = sidecar.get("/metrics");
    assert!(
        metrics
            .content_type
            .starts_with("application/openmetrics-text"),
        "{metrics:?}"
    );
    assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
    let status = sidecar.status().to_string();
    for part in [&*commit, "docs", "main", upstream.path().to_str().unwrap()] {
        assert!(status.contains(part), "no {part} in {status}");
    }
}

#[test]
fn the_link_becomes_a_directory_and_a_link_again() {
    let upstream = Upstream::new();
    let root = Root::new();
    let first = upstream.commit(&[("page", "1")]);
    let exchange = Launch::one_time(&upstream.url(), &root).flag("publish", "exchange");
    let symlink = Launch::one_time(&upstream.url(), &root);
    let second = upstream.commit(&[("page", "2")]);
    for (commit, page) in [(&first, "1"), (&second, "2"), (&first, "1")] {
        upstream.force_push("main", commit);
        for launch in [&symlink, &exchange, &exchange, &symlink] {
            launch.clone().succeed();
            assert_eq!(fs::read_to_string(root.link().join("page")).unwrap(), page);
        }
        root.assert_published(&upstream, commit);
    }
    // Each exchange moves trees, and none of them may count as altered because of that.
    let mut sidecar = exchange.without("one-time").http().spawn();
    let page_is =
        |page: &str| fs::read_to_string(root.link().join("page")).ok().as_deref() == Some(page);
    for (commit, page) in [(&second, "2"), (&first, "1"), (&second, "2"), (&first, "1")] {
        upstream.force_push("main", commit);
        sidecar.wait_while_alive(page, |_| page_is(page));
        sidecar.wait_for_polls(1);
    }
    let finished = sidecar.stop();
    assert!(!finished.stderr.contains("altered"), "{}", finished.stderr);
}

#[test]
fn unchanged_files_are_shared_between_revisions() {
    let upstream = Upstream::new();
    upstream.big_tree(200, 10);
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    let commit = upstream.commit(&[("big/0000/000000.txt", "changed")]);
    sidecar.wait_for(&root, &commit);
    sidecar.wait_for_metric("gvr_files_shared_total", &[], 200.0);
    root.assert_published(&upstream, &commit);
}

#[test]
fn the_health_check_asks_the_port_and_answers_by_its_exit_code() {
    let upstream = Upstream::empty();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    let address = sidecar.address();
    let check = |route: &[&str]| {
        let words = [&["healthcheck"], route].concat();
        Launch::bare()
            .variable("GVR_HTTP_BIND", &address)
            .subcommand(&words)
            .run()
            .code
    };
    assert_eq!(check(&["livez"]), Some(0));
    assert_eq!(check(&["readyz"]), Some(1));
    let commit = upstream.commit(&[("a", "b")]);
    sidecar.wait_for(&root, &commit);
    sidecar.wait_for_metric("gvr_ready", &[], 1.0);
    assert_eq!(check(&["readyz"]), Some(0));
    assert_eq!(check(&[]), Some(0));
    sidecar.stop();
    assert_eq!(check(&["livez"]), Some(1));
}

#[test]
fn routes_that_do_not_exist_are_404_and_wrong_methods_405() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    for path in ["/", "/healthz", "/metrics/", "/livez/x"] {
        assert_eq!(sidecar.get(path).code, 404, "{path}");
    }
    // Without a token, /nudge does not exist.
    assert!([404, 405].contains(&sidecar.get("/nudge").code));
}

#[test]
fn failures_do_not_end_a_sidecar() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).http().spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    upstream.remove();
    sidecar.wait_for_metric("gvr_consecutive_failures", &[], 3.0);
    assert_eq!(sidecar.get("/livez").code, 200);
    upstream.restore();
    sidecar.wait_for_polls(1);
    assert_eq!(sidecar.metric("gvr_consecutive_failures", &[]), 0.0);
}

#[test]
fn max_failures_ends_a_sidecar_and_leaves_the_tree() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("max-failures", "1")
        .http()
        .spawn();
    sidecar.wait_for(&root, &upstream.tip("HEAD"));
    sidecar.wait_for_polls(1);
    upstream.remove();
    let finished = sidecar.wait_exit(PATIENCE * 2);
    finished.assert_failed(&[1], &["upstream.git"]);
    assert!(root.commit().is_some());
}

#[test]
fn with_allow_stale_an_init_container_accepts_an_existing_tree() {
    let upstream = Upstream::new();
    let root = Root::new();
    let launch = Launch::one_time(&upstream.url(), &root);
    upstream.remove();
    let finished = launch.clone().switch("allow-stale").run();
    finished.assert_failed(&[1], &["upstream.git"]);
    upstream.restore();
    launch.clone().succeed();
    upstream.remove();
    launch.clone().run().assert_failed(&[1], &["upstream.git"]);
    launch.switch("allow-stale").succeed();
    assert!(root.link().join("README.md").exists());
}

#[test]
fn max_staleness_ends_readiness_until_the_next_success() {
    let upstream = Upstream::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("max-staleness", "1s")
        .http()
        .spawn();
    sidecar.wait_for_metric("gvr_ready", &[], 1.0);
    upstream.remove();
    wait_until(PATIENCE, "not ready", || sidecar.get("/readyz").code == 503);
    assert_eq!(sidecar.metric("gvr_stale", &[]), 1.0);
    assert_eq!(sidecar.get("/livez").code, 200);
    upstream.restore();
    wait_until(PATIENCE, "ready again", || {
        sidecar.get("/readyz").code == 200
    });
}

#[test]
fn a_user_without_name_and_home_can_run_it() {
    let upstream = Upstream::new();
    let volume = Volume::new(0o2775);
    volume.give(upstream.path());
    let root = Root::at(&volume.path().join("root"));
    fs::create_dir(root.path()).unwrap();
    volume.share(root.path());
    volume
        .launch(Launch::one_time(&upstream.url(), &root))
        .succeed();
    assert_same(
        &root.tree(),
        upstream.checkout(&upstream.tip("HEAD")).path(),
    );
}

fn varied() -> Vec<Change> {
    vec![
        Change::file("dir/sub/file.txt", "text\n"),
        Change::file("dir/empty", ""),
        Change::file("dir/with space and ümlaut", "x"),
        Change::Executable("bin/tool".into(), b"#!/bin/sh\nexit 0\n".to_vec()),
        Change::Symlink("links/good".into(), "../bin/tool".into()),
        Change::Symlink("links/dangling".into(), "nowhere".into()),
        Change::Symlink("links/absolute".into(), "/etc/passwd".into()),
        Change::file(".gitattributes", "*.crlf text eol=crlf\n*.id ident\n"),
        Change::file("windows.crlf", "one\ntwo\n"),
        Change::file("version.id", "$Id$\n"),
        Change::file("binary", (0..=255).collect::<Vec<u8>>()),
    ]
}

fn modified(file: &Path) -> std::time::SystemTime {
    fs::metadata(file).unwrap().modified().unwrap()
}
