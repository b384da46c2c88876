//! SIGKILL at every instruction that matters: a sync runs under a tracer that kills it as it enters
//! its n-th call of a kind that changes the file system, for every kind and every n. Whatever is on
//! disk then must be whole, and the next start must make it right and tidy.
//!
//! strace counts calls for each thread and kind; so one kind at a time is traced, and the calls of
//! a busy thread do not hide those of another. The default run takes every call that publishes and
//! a sample of the others; `make soak` takes all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::support::environment::{self, report, soak};
use crate::support::root::Root;
use crate::support::sidecar::{Finished, Launch};
use crate::support::tree_compare::{assert_same, differences};
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// Calls that change the file system. A question mark stands before those that not every
/// architecture has.
const CALLS: [&str; 31] = [
    "?mkdir",
    "mkdirat",
    "?rename",
    "?renameat",
    "renameat2",
    "?link",
    "linkat",
    "?symlink",
    "symlinkat",
    "?unlink",
    "unlinkat",
    "?rmdir",
    "?open",
    "openat",
    "?creat",
    "write",
    "pwrite64",
    "writev",
    "?truncate",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "?chmod",
    "fchmod",
    "fchmodat",
    "?chown",
    "fchown",
    "utimensat",
    "fsync",
    "fdatasync",
    "ioctl",
];

/// Of them those that make something appear under its final name.
const PUBLISHING: [&str; 6] = [
    "rename",
    "renameat",
    "renameat2",
    "symlink",
    "symlinkat",
    "link",
];

/// How many of the other points the default run tries.
const SAMPLE: usize = 40;

/// One moment to kill at: on entry into the n-th call of this name in any thread.
type Point = (String, u32);

/// A sync to interrupt, and what may be on disk afterwards.
struct Scenario {
    upstream: Upstream,
    /// The root before the sync; None for a first one.
    before: Option<Root>,
    /// Whole trees by commit: what may be published at any moment.
    oracles: BTreeMap<String, TempDir>,
    /// The commit that the sync is to publish.
    tip: String,
    /// The commit that a sidecar finds first, where one syncs: it removes the older trees, links the
    /// files ahead, goes to the tip when that is pushed, and does the same again. Without, the sync
    /// is that of an initContainer.
    from: Option<String>,
    /// The path without which a commit is rejected.
    required: Option<&'static str>,
    /// The commit that readers see in the end: the tip, or the one before it if the tip is rejected.
    shown: String,
}

#[test]
fn a_first_sync_may_be_killed_at_any_call() {
    let upstream = Upstream::empty();
    let tip = upstream.commit_changes("main", &first_tree());
    let oracles = BTreeMap::from([(tip.clone(), upstream.checkout(&tip))]);
    let scenario = Scenario {
        upstream,
        before: None,
        oracles,
        shown: tip.clone(),
        tip,
        from: None,
        required: None,
    };
    scenario.kill_everywhere(40);
}

#[test]
fn an_update_may_be_killed_at_any_call() {
    let upstream = Upstream::empty();
    let old = upstream.commit_changes("main", &first_tree());
    let before = Root::new();
    Launch::one_time(&upstream.url(), &before).succeed();
    let tip = upstream.commit_changes("main", &second_tree());
    let oracles = [&old, &tip].map(|commit| (commit.clone(), upstream.checkout(commit)));
    let scenario = Scenario {
        upstream,
        before: Some(before),
        oracles: BTreeMap::from(oracles),
        shown: tip.clone(),
        tip,
        from: None,
        required: None,
    };
    scenario.kill_everywhere(40);
}

#[test]
fn an_update_that_a_check_accepts_or_rejects_may_be_killed_at_any_call() {
    for (required, accepted) in [("kept/file", true), ("deleted/file", false)] {
        let upstream = Upstream::empty();
        let old = upstream.commit_changes("main", &first_tree());
        let before = Root::new();
        Launch::one_time(&upstream.url(), &before).succeed();
        let tip = upstream.commit_changes("main", &second_tree());
        let oracles = [&old, &tip].map(|commit| (commit.clone(), upstream.checkout(commit)));
        let scenario = Scenario {
            upstream,
            before: Some(before),
            oracles: BTreeMap::from(oracles),
            shown: if accepted { tip.clone() } else { old },
            tip,
            from: None,
            required: Some(required),
        };
        scenario.kill_everywhere(30);
    }
}

#[test]
fn a_sidecar_that_links_ahead_and_prunes_may_be_killed_at_any_call() {
    let upstream = Upstream::empty();
    let before = Root::new();
    let mut oracles = BTreeMap::new();
    let mut oldest_first = Vec::new();
    for n in 0..3 {
        let changes = [first_tree(), vec![Change::file("n", n.to_string())]].concat();
        let commit = upstream.commit_changes("main", &changes);
        Launch::one_time(&upstream.url(), &before)
            .flag("keep", "5")
            .succeed();
        oracles.insert(commit.clone(), upstream.checkout(&commit));
        oldest_first.push(commit);
    }
    let tip = upstream.commit_changes("main", &second_tree());
    oracles.insert(tip.clone(), upstream.checkout(&tip));
    let scenario = Scenario {
        upstream,
        before: Some(before),
        oracles,
        shown: tip.clone(),
        tip,
        from: oldest_first.pop(),
        required: None,
    };
    scenario.kill_everywhere(60);
}

/// A sidecar that is asked to change the pin.
struct PinChange {
    upstream: Upstream,
    /// The root before; readers see `from`.
    before: Root,
    oracles: BTreeMap<String, TempDir>,
    from: String,
    to: String,
    command: &'static [&'static str],
}

#[test]
fn a_pin_may_be_killed_at_any_call() {
    let (upstream, before, [old, new]) = two_published();
    PinChange::new(upstream, before, &new, &old, &["pin", "previous"]).kill_everywhere();
}

#[test]
fn an_unpin_may_be_killed_at_any_call() {
    let (upstream, before, [old, new]) = two_published();
    // In the format that `pin` writes.
    fs::write(before.state("pin"), format!("{old} 1 1700000000\n")).unwrap();
    Launch::one_time(&upstream.url(), &before)
        .flag("keep", "5")
        .succeed();
    assert_eq!(before.commit().as_ref(), Some(&old));
    PinChange::new(upstream, before, &old, &new, &["unpin"]).kill_everywhere();
}

/// A root on which two commits were published, the second one last.
fn two_published() -> (Upstream, Root, [String; 2]) {
    let (upstream, before) = (Upstream::empty(), Root::new());
    let commits = [first_tree(), second_tree()].map(|changes| {
        let commit = upstream.commit_changes("main", &changes);
        Launch::one_time(&upstream.url(), &before)
            .flag("keep", "5")
            .succeed();
        commit
    });
    (upstream, before, commits)
}

impl PinChange {
    fn new(
        upstream: Upstream,
        before: Root,
        from: &str,
        to: &str,
        command: &'static [&'static str],
    ) -> Self {
        let oracles = [from, to].map(|commit| (commit.to_owned(), upstream.checkout(commit)));
        Self {
            upstream,
            before,
            oracles: BTreeMap::from(oracles),
            from: from.to_owned(),
            to: to.to_owned(),
            command,
        }
    }

    fn kill_everywhere(&self) {
        let root = copy(&self.before);
        let log = root.path().with_file_name("trace");
        let trace = format!("trace={}", CALLS.join(","));
        let (sidecar, asked) = self.run(&root, &recorder(&trace, log.to_str().unwrap()));
        assert_eq!((sidecar.code, asked), (Some(0), true), "{sidecar:?}");
        assert_eq!(root.commit().as_ref(), Some(&self.to));
        let log = fs::read_to_string(log).unwrap();
        let concerns = |line: &str| {
            ["/pin.new", "/pin>", "\"pin\"", "control.sock"]
                .iter()
                .any(|name| line.contains(name))
        };
        let points: Vec<_> = points_where(&log, root.path(), |name, line| {
            PUBLISHING.contains(&name) || concerns(line)
        })
        .into_iter()
        .collect();
        assert!(points.len() >= 4, "{points:?}");
        let killed = points.iter().filter(|point| self.kill_at(point)).count();
        report(&format!(
            "{:?}: {} points, {killed} kills, no violation",
            self.command,
            points.len()
        ));
        assert!(killed * 10 >= points.len() * 7, "only {killed} kills");
    }

    fn kill_at(&self, (call, n): &Point) -> bool {
        let case = format!("killed at {call} {n}");
        let root = copy(&self.before);
        let (sidecar, asked) = self.run(&root, &injector(call, *n).each_ref().map(|w| &**w));
        let killed = was_killed(&sidecar);
        assert!(killed || sidecar.code == Some(0), "{case}: {sidecar:?}");
        let is_pinned = root.state("pin").exists();
        let wanted = self.command[0] == "pin";
        assert!(
            !asked || is_pinned == wanted,
            "{case}: it was said to be done"
        );
        let seen = root.commit().expect("the link is there");
        assert_same(&root.tree(), self.oracles[&seen].path());
        let finished = self.launch(&root).switch("one-time").run();
        assert_eq!(finished.code, Some(0), "{case}: {finished:?}");
        let expected = match is_pinned == wanted {
            true => &self.to,
            false => &self.from,
        };
        assert_eq!(root.commit().as_ref(), Some(expected), "{case}");
        assert_same(&root.tree(), self.oracles[expected].path());
        assert_eq!(root.litter(&[]), [] as [&Path; 0], "{case}: {finished:?}");
        killed
    }

    /// Asks a sidecar under a tracer. How it ended, and whether it said that it was done.
    fn run(&self, root: &Root, tracer: &[&str]) -> (Finished, bool) {
        let mut sidecar = self.launch(root).under(tracer).spawn();
        let socket = root.state("control.sock");
        wait_until(PATIENCE, "the socket, or a kill", || {
            socket.exists() || !sidecar.is_alive()
        });
        let root_path = root.path().to_str().unwrap();
        let words = [self.command, &["--root", root_path]].concat();
        let asked = Launch::bare().subcommand(&words).run().code == Some(0);
        wait_until(PATIENCE, "the flip, or a kill", || {
            root.commit().as_ref() == Some(&self.to) || !sidecar.is_alive()
        });
        if sidecar.is_alive() {
            let _ = kill_process(sidecar.inner_pid(), Signal::TERM);
        }
        (sidecar.wait_exit(PATIENCE), asked)
    }

    fn launch(&self, root: &Root) -> Launch {
        Launch::new(&self.upstream.url(), root)
            .flag("period", "1h")
            .flag("keep", "5")
            .flag("jobs", "1")
    }
}

/// The tracer that kills at a point.
fn injector(call: &str, n: u32) -> [String; 10] {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let trace = format!("trace={call}");
    [
        "strace",
        "-f",
        "-qqq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        "signal=none",
        // One word, so that the array has a fixed length.
        &format!("--inject={}", inject.trim_start_matches("inject=")),
    ]
    .map(str::to_owned)
}

/// The tracer that writes every call to a log.
fn recorder<'a>(trace: &'a str, log: &'a str) -> [&'a str; 12] {
    [
        "strace",
        "-f",
        "-qqq",
        "-y",
        "-s",
        "8",
        "-e",
        "signal=none",
        "-o",
        log,
        "-e",
        trace,
    ]
}

/// A copy of a root.
fn copy(before: &Root) -> Root {
    let root = Root::new();
    let status = environment::command("cp")
        .arg("-a")
        .args([before.path(), root.path()])
        .status()
        .unwrap();
    assert!(status.success());
    root
}

impl Scenario {
    fn kill_everywhere(&self, at_least: usize) {
        let all = self.points();
        assert!(
            all.len() >= at_least,
            "only {} points to kill at: {all:?}",
            all.len()
        );
        let (publishing, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(call, _)| PUBLISHING.contains(&&**call));
        assert!(publishing.len() >= 3, "{publishing:?}");
        let stride = if soak() {
            1
        } else {
            others.len().div_ceil(SAMPLE).max(1)
        };
        let chosen: Vec<_> = publishing
            .into_iter()
            .chain(others.into_iter().step_by(stride))
            .collect();
        let killed = chosen.iter().filter(|point| self.kill_at(point)).count();
        report(&format!(
            "{} points, {killed} kills, no violation",
            chosen.len()
        ));
        // Threads share the work differently each time, so a few points may not be reached.
        assert!(
            killed * 10 >= chosen.len() * 8,
            "only {killed} of {} syncs were killed",
            chosen.len()
        );
    }

    /// Kills a sync at a point, looks at what it left, and lets another one finish the work.
    /// Whether there was a kill: the sync may have come to its end before.
    fn kill_at(&self, (call, n): &Point) -> bool {
        let case = format!("killed at {call} {n}");
        let root = self.root();
        let tracer = injector(call, *n);
        let tracer = tracer.each_ref().map(|word| &**word);
        let finished = self.trace(&root, &tracer);
        let killed = was_killed(&finished);
        let code = self.code();
        assert!(killed || finished.code == code, "{case}: {finished:?}");
        self.assert_whole(&root, &case);
        let finished = self.launch(&root).run();
        assert_eq!(finished.code, code, "{case}: {finished:?}");
        assert_eq!(root.commit().as_ref(), Some(&self.shown), "{case}");
        self.assert_whole(&root, &case);
        assert_eq!(root.litter(&[]), [] as [&Path; 0], "{case}: {finished:?}");
        killed
    }

    /// Everything that goes by a final name is whole: the link's tree and every revision.
    #[track_caller]
    fn assert_whole(&self, root: &Root, case: &str) {
        match root.commit() {
            None => assert!(self.before.is_none(), "{case}: the link is gone"),
            Some(commit) => {
                let oracle = self.oracles.get(&commit);
                let oracle = oracle.unwrap_or_else(|| panic!("{case}: {commit} is no commit"));
                let rejected = commit == self.tip && commit != self.shown;
                assert!(!rejected, "{case}: readers see the rejected commit");
                let found = differences(&root.tree(), oracle.path());
                assert!(found.is_empty(), "{case}: {found:?}");
            }
        }
        for (n, commit) in root.revisions() {
            let revision = root.state("revisions").join(format!("{n:06}"));
            if revision.join("manifest").exists() {
                assert_same(&revision.join(&commit), self.oracles[&commit].path());
            }
        }
    }

    /// Every point of one undisturbed sync.
    fn points(&self) -> BTreeSet<Point> {
        let root = self.root();
        let log = root.path().with_file_name("trace");
        let trace = format!("trace={}", CALLS.join(","));
        let tracer = recorder(&trace, log.to_str().unwrap());
        let finished = self.trace(&root, &tracer);
        assert_eq!(finished.code, self.code(), "{finished:?}");
        let points = points_in(&fs::read_to_string(log).unwrap(), root.path());
        assert_eq!(root.commit().as_ref(), Some(&self.shown));
        points
    }

    /// Runs the sync under a tracer until it is over or killed.
    #[track_caller]
    fn trace(&self, root: &Root, tracer: &[&str]) -> Finished {
        let Some(from) = &self.from else {
            return self.launch(root).under(tracer).run();
        };
        self.upstream.force_push("main", from);
        let launch = self.launch(root).without("one-time");
        let mut sidecar = launch.under(tracer).spawn();
        for commit in [from, &self.tip] {
            self.upstream.force_push("main", commit);
            wait_until(PATIENCE, "the sync to be over or killed", || {
                let over = root.commit().as_ref() == Some(commit)
                    && root.revisions().len() == 1
                    && root.litter(&[]).is_empty()
                    && root.is_linked_ahead();
                over || !sidecar.is_alive()
            });
        }
        if sidecar.is_alive() {
            // It may be killed at the very last moment, by the injection.
            let _ = kill_process(sidecar.inner_pid(), Signal::TERM);
        }
        sidecar.wait_exit(PATIENCE)
    }

    /// A fresh copy of the root as it is before the sync.
    fn root(&self) -> Root {
        self.before.as_ref().map_or_else(Root::new, copy)
    }

    fn launch(&self, root: &Root) -> Launch {
        let launch = Launch::one_time(&self.upstream.url(), root)
            .flag("jobs", "1")
            .flag("keep", "0")
            .flag("stale-timeout", "0s");
        match self.required {
            None => launch,
            Some(path) => launch.flag("require-path", path),
        }
    }

    /// How an undisturbed sync exits.
    fn code(&self) -> Option<i32> {
        Some(i32::from(self.shown != self.tip))
    }
}

/// strace ends as its tracee did.
fn was_killed(finished: &Finished) -> bool {
    finished.signal == Some(9) || finished.code == Some(128 + 9)
}

/// The points in a log of strace: each call that concerns a path below `root` and may change
/// something, by its number among the calls of its name in its thread.
fn points_in(log: &str, root: &Path) -> BTreeSet<Point> {
    points_where(log, root, |_, _| true)
}

/// Those of them whose name and line are wanted.
fn points_where(log: &str, root: &Path, wanted: impl Fn(&str, &str) -> bool) -> BTreeSet<Point> {
    let root = root.to_str().unwrap();
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut points = BTreeSet::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let Some((name, arguments)) = call.trim_start().split_once('(') else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        let reads = name.starts_with("open")
            && !arguments.contains("O_CREAT")
            && !arguments.contains("O_TRUNC");
        if arguments.contains(root) && !reads && wanted(name, line) {
            points.insert((name.to_owned(), *count));
        }
    }
    points
}

fn first_tree() -> Vec<Change> {
    vec![
        Change::file("README.md", "read me\n"),
        Change::file("kept/file", "kept\n"),
        Change::file("changed/file", "one\n"),
        Change::file("deleted/file", "deleted\n"),
        Change::Executable("bin/tool".into(), b"#!/bin/sh\n".to_vec()),
        Change::Symlink("link".into(), "README.md".into()),
    ]
}

fn second_tree() -> Vec<Change> {
    vec![
        Change::file("changed/file", "two\n"),
        Change::Delete("deleted".into()),
        Change::file("added/deep/file", "added\n"),
        Change::Symlink("link".into(), "kept/file".into()),
    ]
}

#[test]
fn a_point_is_a_call_below_the_root_that_may_change_something() {
    let log = "\
7  openat(AT_FDCWD</>, \"/etc/hosts\", O_RDONLY) = 3</etc/hosts>
7  openat(AT_FDCWD</>, \"/v/root/a\", O_RDWR|O_CREAT, 0644) = 4</v/root/a>
7  openat(AT_FDCWD</>, \"/v/root/a\", O_RDONLY) = 5</v/root/a>
8  write(4</v/root/a>, \"x\", 1) = 1
7  write(2</dev/null>, \"x\", 1 <unfinished ...>
7  <... write resumed>) = 1
7  write(4</v/root/a>, \"x\", 1) = 1
7  +++ exited with 0 +++";
    let expected = [("openat", 2), ("write", 1), ("write", 2)];
    let expected = expected.map(|(name, n)| (name.to_owned(), n));
    assert_eq!(
        points_in(log, Path::new("/v/root")),
        BTreeSet::from(expected)
    );
}

#[test]
fn the_tracer_kills_on_entry_into_the_call_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["one", "two", "three"].map(|name| dir.path().join(name));
    let finished = environment::command("strace")
        .args(["-f", "-qqq", "-o", "/dev/null", "-e", "signal=none"])
        .args(["-e", "trace=?mkdir,mkdirat"])
        .args(["-e", "inject=?mkdir,mkdirat:signal=KILL:when=2"])
        .arg("mkdir")
        .args(&paths)
        .status()
        .expect("these tests need strace");
    assert!(!finished.success());
    assert_eq!(paths.map(|path| path.exists()), [true, false, false]);
}
