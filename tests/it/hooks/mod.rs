//! Hooks: programs that are told about a publish, and what they can do to the process that tells them.

mod abuse;
mod webhook;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// A directory with a hook script and what the script writes.
pub(crate) struct Script {
    dir: TempDir,
}

impl Script {
    /// A script of /bin/sh; `$OUT` names a directory that it may write to.
    pub(crate) fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Self { dir };
        let out = script.dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let text = format!("#!/bin/sh\nOUT={}\n{body}\n", out.display());
        fs::write(script.path(), text).unwrap();
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("hook")
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    /// The lines of a file that the script writes; none before it exists.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.out(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the last line of a file is this.
    #[track_caller]
    pub(crate) fn wait_for_last(&self, name: &str, expected: &str) {
        wait_until(PATIENCE, &format!("{name} to end with {expected}"), || {
            self.lines(name).last().is_some_and(|line| line == expected)
        });
    }
}

pub(crate) fn sidecar(upstream: &Upstream, root: &Root) -> Launch {
    Launch::new(&upstream.url(), root)
        .http()
        .flag("period", "50ms")
}

fn exec(launch: Launch, script: &Script) -> Launch {
    launch
        .flag("exechook-command", script.path().to_str().unwrap())
        .flag("exechook-backoff", "20ms")
}

#[test]
fn a_command_runs_in_the_tree_with_what_it_needs_to_know() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new(
        "pwd -P > $OUT/pwd; env > $OUT/env; echo \"$@\" > $OUT/arguments\n\
         if [ -n \"$GVR_CHANGED_FILES\" ]; then cp \"$GVR_CHANGED_FILES\" $OUT/changed; fi\n\
         echo $GVR_COMMIT >> $OUT/done",
    );
    let first = upstream.tip("main");
    let mut sidecar = exec(sidecar(&upstream, &root), &script)
        .flag("exechook-arg", "--all now")
        .variable("GVR_PASSWORD", "s3cret-value")
        .variable("OURS", "inherited")
        .spawn();
    sidecar.wait_for(&root, &first);
    script.wait_for_last("done", &first);
    let has = |line: &str| script.lines("env").iter().any(|found| found == line);
    assert!(has(&format!("GVR_COMMIT={first}")) && has(&format!("GITSYNC_HASH={first}")));
    assert!(has("GVR_PREVIOUS_COMMIT=") && has("GVR_CHANGED_FILES=") && has("OURS=inherited"));
    assert!(has(&format!("GVR_LINK={}", root.link().display())) && has("GVR_REF=HEAD"));
    assert!(
        !script
            .lines("env")
            .iter()
            .any(|line| line.contains("s3cret-value"))
    );
    assert_eq!(script.lines("arguments"), ["--all now"]);
    let directory = root.tree().canonicalize().unwrap();
    assert_eq!(script.lines("pwd"), [directory.to_str().unwrap()]);

    let second = upstream.commit_changes(
        "main",
        &[
            Change::file("new/file", "x"),
            Change::file("a b", "x"),
            Change::Symlink("README.md".into(), "a".into()),
        ],
    );
    script.wait_for_last("done", &second);
    assert!(has(&format!("GVR_PREVIOUS_COMMIT={first}")));
    let range = [first.as_str(), second.as_str()];
    let expected =
        upstream.git(&[&["diff", "--no-renames", "--name-status", "-z"], &range[..]].concat());
    let changed = fs::read_to_string(script.out("changed")).unwrap();
    assert_eq!(
        changed.trim_end_matches('\0'),
        expected.trim_end_matches(['\0', '\n'])
    );
    sidecar.wait_for_metric(
        "gvr_hook_runs_total",
        &[("hook", "exechook"), ("outcome", "success")],
        2.0,
    );
    sidecar.stop();
}

#[test]
fn a_command_that_fails_is_repeated_and_told_what_changed_since_its_last_success() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new(
        "echo $GVR_COMMIT ${GVR_PREVIOUS_COMMIT:-none} >> $OUT/runs\n\
         [ -e fail ] && exit 3; echo $GVR_COMMIT >> $OUT/done",
    );
    let first = upstream.tip("main");
    let mut sidecar = exec(sidecar(&upstream, &root), &script).spawn();
    script.wait_for_last("done", &first);
    let second = upstream.commit(&[("fail", "1")]);
    let failed = format!("{second} {first}");
    wait_until(PATIENCE, "three failures", || {
        script
            .lines("runs")
            .iter()
            .filter(|line| **line == failed)
            .count()
            >= 3
    });
    let third = upstream.commit_changes("main", &[Change::Delete("fail".into())]);
    sidecar.wait_for(&root, &third);
    script.wait_for_last("done", &third);
    assert_eq!(
        script.lines("runs").last().unwrap(),
        &format!("{third} {first}")
    );
    sidecar.stop();
}

#[test]
fn a_command_runs_at_the_start_although_the_tree_is_already_right() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new("echo $GVR_COMMIT >> $OUT/done");
    Launch::one_time(&upstream.url(), &root).succeed();
    let sidecar = exec(sidecar(&upstream, &root), &script).spawn();
    script.wait_for_last("done", &upstream.tip("main"));
    sidecar.stop();
}

#[test]
fn a_command_runs_only_when_a_watched_path_changed() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new("echo $GVR_COMMIT >> $OUT/done");
    let mut sidecar = exec(sidecar(&upstream, &root), &script)
        .flag("exechook-on-path", "dags")
        .spawn();
    script.wait_for_last("done", &upstream.tip("main"));
    upstream.commit(&[("other/file", "1")]);
    let skipped = [("hook", "exechook"), ("outcome", "skipped")];
    sidecar.wait_for_metric("gvr_hook_runs_total", &skipped, 1.0);
    assert_eq!(script.lines("done").len(), 1);
    let watched = upstream.commit(&[("dags/deep/file", "1")]);
    script.wait_for_last("done", &watched);
    sidecar.stop();
}

#[test]
fn a_slow_command_delays_no_sync_and_runs_for_the_newest_commit() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new(
        "echo $GVR_COMMIT >> $OUT/begun; while [ ! -e $OUT/go ]; do sleep 0.02; done\n\
         echo $GVR_COMMIT >> $OUT/done",
    );
    let first = upstream.tip("main");
    let mut sidecar = exec(sidecar(&upstream, &root), &script).spawn();
    script.wait_for_last("begun", &first);
    let mut newest = String::new();
    for n in 0..20 {
        newest = upstream.commit(&[("n", &n.to_string())]);
        sidecar.wait_for(&root, &newest);
    }
    assert_eq!(script.lines("done"), [] as [&str; 0]);
    fs::write(script.out("go"), "").unwrap();
    script.wait_for_last("done", &newest);
    // The hook may hear of the newest commit just after the command was let go.
    let done = script.lines("done");
    assert!(done[0] == first && done.len() <= 3, "{done:?}");
    sidecar.stop();
}

#[test]
fn a_one_time_sync_waits_for_its_hooks_and_fails_with_them() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let one_time = |script: &Script| exec(Launch::one_time(&upstream.url(), &root), script);
    let script = Script::new("sleep 0.3; echo $GVR_COMMIT >> $OUT/done");
    one_time(&script).succeed();
    assert_eq!(script.lines("done"), [upstream.tip("main")]);
    let failing = Script::new("echo broken >&2; echo >> $OUT/runs; exit 4");
    let finished = one_time(&failing).run();
    finished.assert_failed(&[1], &["hook failed", "exited with code 4", "broken"]);
    assert_eq!(failing.lines("runs").len(), 1);
    root.assert_published(&upstream, &upstream.tip("main"));
}

#[test]
fn a_missing_command_is_reported_with_advice_and_does_not_stop_the_syncs() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let mut sidecar = sidecar(&upstream, &root)
        .flag("exechook-command", "/does/not/exist")
        .flag("exechook-backoff", "20ms")
        .spawn();
    sidecar.wait_for_log("cannot run /does/not/exist");
    let next = upstream.commit(&[("a", "1")]);
    sidecar.wait_for(&root, &next);
    sidecar.stop();
}

#[test]
fn the_status_file_holds_the_status_and_says_when_the_process_has_ended() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let mut sidecar = sidecar(&upstream, &root)
        .flag("status-file", "status.json")
        .spawn();
    let status = |path: &Path| -> serde_json::Value {
        let text = fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    };
    let (path, tip) = (root.path().join("status.json"), upstream.tip("main"));
    sidecar.wait_while_alive("the commit in the status file", |_| {
        status(&path)["commit"]["id"] == tip.as_str() && status(&path)["running"] == true
    });
    sidecar.stop();
    assert_eq!(status(&path)["running"], false);
}
