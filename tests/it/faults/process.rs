//! A process that is killed, starved, stuck, or told another time.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::{Readable, Recovery, Row, Told, World, launch, no_failure, noise, serve, unprivileged};
use crate::support::environment;
use crate::support::foreign::Volume;
use crate::support::http_server::{Fault, HttpServer, Scope};
use crate::support::memory_limit::MemoryLimit;
use crate::support::root::Root;
use crate::support::sidecar::field;
use crate::support::tracer::Tracer;
use crate::support::upstream::{Change, Upstream};
use crate::support::wait::{PATIENCE, wait_until};

/// How long the watchdog takes: the deadline of the sync, a grace, and as much again until it is
/// sure; and what a busy machine may add.
const WATCHDOG: Duration = Duration::from_secs(60);

section!("The process", {
    a_kill_in_a_fetch: Row {
        fault: "is killed in the middle of a fetch",
        readers: Readable::LastTree,
        operator: Told::Ends,
        recovery: Recovery::Restart,
        prove: killed_in_a_fetch,
    },
    no_memory: Row {
        fault: "runs out of memory in the middle of a sync",
        readers: Readable::LastTree,
        operator: Told::Ends,
        recovery: Recovery::Restart,
        prove: out_of_memory,
    },
    a_memory_limit: Row {
        fault: "exceeds the memory limit of its container in a sync, and the kernel kills it",
        readers: Readable::LastTree,
        operator: Told::Ends,
        recovery: Recovery::Restart,
        prove: killed_for_memory,
    },
    no_threads: no_failure(
        "may start no more threads",
        out_of_threads,
    ),
    no_threads_at_the_start: Row {
        fault: "may start no thread at all",
        readers: Readable::LastTree,
        operator: Told::Exit("cannot start a thread"),
        recovery: Recovery::Restart,
        prove: no_first_thread,
    },
    a_thread_that_panics: Row {
        fault: "loses a thread to a panic (here: the one that hears signals)",
        readers: Readable::LastTree,
        operator: Told::Exit("thread panicked"),
        recovery: Recovery::Restart,
        prove: panics,
    },
    no_descriptors: Row {
        fault: "runs out of file descriptors",
        readers: Readable::LastTree,
        operator: Told::Failure("fetch", "resources", "Too many open files"),
        recovery: Recovery::NextAttempt,
        prove: out_of_descriptors,
    },
    a_sync_that_hangs: Row {
        fault: "hangs beyond its deadline (here: a local repository whose config is a pipe without a writer)",
        readers: Readable::LastTree,
        operator: Told::Exit("the sync outlived its deadline"),
        recovery: Recovery::Restart,
        prove: hangs,
    },
    a_clock_that_jumps: no_failure(
        "finds the wall clock a year ahead, and then two years back",
        clock_jumps,
    ),
    no_privilege: no_failure(
        "runs as a user without name, home or capabilities, on a read-only root file system",
        without_privilege,
    ),
});

fn killed_in_a_fetch(row: &Row) {
    let (server, mut world) = World::over_http();
    server.inject_on(Scope::Fetch, Fault::StallAfter(200_000));
    let pushed = world.push_heavy(1, 1 << 20);
    server.clear_log();
    wait_until(PATIENCE, "the middle of a pack", || {
        let requests = server.requests();
        requests.iter().any(|request| request.answered() > 100_000)
    });
    world.sidecar.kill();
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    server.clear();
    world.sidecar = launch(&server.url("upstream.git"), &world.root).spawn();
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

/// Deadlines for commits with much in them: no server is to be blamed for being slow with those.
const PATIENT: [(&str, &str); 2] = [("stall-timeout", "30s"), ("sync-timeout", "60s")];

/// The end of a world whose process is gone: another one, without its limit, publishes the commit.
fn with_more_memory(row: &Row, mut world: World, server: &HttpServer, commit: &str) {
    world.sidecar = launch(&server.url("upstream.git"), &world.root)
        .flags(&PATIENT)
        .spawn();
    world.sidecar.wait_for(&world.root, commit);
    world.end(row, commit);
}

fn out_of_memory(row: &Row) {
    let (server, mut world) = World::at(Root::new(), &PATIENT);
    world.sidecar.wait_for_polls(2);
    let pid = world.sidecar.pid();
    // A little more than it has now: a sync of this blob cannot do with it.
    let now = status_kib(pid, "VmSize:") * 1024;
    limit(pid, &format!("--as={}", now + (1 << 20)));
    let pushed = world.push_heavy(1, 8 << 20);
    wait_until(PATIENCE, "the process to end or a sync to fail", || {
        let told = |line: &String| line.contains("the sync failed");
        !world.sidecar.is_alive() || world.sidecar.log().iter().any(told)
    });
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    if let Some(line) = world
        .sidecar
        .log()
        .iter()
        .find(|line| line.contains("the sync failed"))
    {
        // The remote and the disk are innocent.
        assert_eq!(
            field(line, "reason").as_deref(),
            Some("resources"),
            "{line}"
        );
        assert!(field(line, "hint").unwrap().contains("memory"), "{line}");
    }
    world.sidecar.kill();
    with_more_memory(row, world, &server, &pushed);
}

fn killed_for_memory(row: &Row) {
    let (server, mut world) = World::at(Root::new(), &PATIENT);
    world.sidecar.wait_for_polls(2);
    let group = MemoryLimit::new(16 << 20);
    if let Some(group) = &group {
        // Enough for polls; not for a large file whose lines are to end in another way.
        group.hold(world.sidecar.pid());
        world.sidecar.wait_for_polls(2);
    }
    let attributes = Change::file("noise/.gitattributes", "* text eol=crlf\n");
    let pushed = world.push_beside(1, [attributes, noise(64 << 20)]);
    if group.is_none() {
        // Where no group can be made: what the kernel does.
        world.sidecar.kill();
    }
    let finished = world.sidecar.wait_exit(PATIENCE * 4);
    assert_eq!(finished.signal, Some(9), "{finished:?}");
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    drop(group);
    with_more_memory(row, world, &server, &pushed);
}

fn out_of_threads(row: &Row) {
    let (_volume, server, mut world, _) = unprivileged(&[("jobs", "4")]);
    // Set by the user himself: nobody else may without a capability that root can lack.
    let pid = world.sidecar.pid().as_raw_nonzero().to_string();
    let limited = environment::command("setpriv")
        .args(["--reuid=65533", "--regid=65533", "--clear-groups"])
        .args(["prlimit", "--pid", &pid, "--nproc=0:0"])
        .status()
        .unwrap();
    assert!(limited.success());
    for n in 1..=2 {
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
    }
    // The next poll needs another connection.
    server.close_connections();
    let pushed = world.push(3);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn no_first_thread(row: &Row) {
    let (_volume, _server, mut world, launch) = unprivileged(&[("jobs", "4")]);
    world.sidecar.kill();
    let pushed = world.push(1);
    let starved = launch.clone().through(&["prlimit", "--nproc=0:0"]).run();
    let Told::Exit(last_line) = row.operator else {
        unreachable!("the row is an exit");
    };
    assert_eq!(starved.code, Some(1), "{starved:?}");
    assert!(starved.last_line().contains(last_line), "{starved:?}");
    assert!(!starved.stderr.contains("panicked"), "{starved:?}");
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    world.sidecar = launch.spawn();
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn panics(row: &Row) {
    let (server, mut world) = World::over_http();
    // The library that hears signals for us panics when it cannot read its pipe.
    let tracer = Tracer::fail(world.sidecar.pid(), "recvfrom", "EIO");
    let finished = world.sidecar.wait_exit(PATIENCE);
    drop(tracer);
    let Told::Exit(last_line) = row.operator else {
        unreachable!("the row is an exit");
    };
    assert_eq!(finished.code, Some(1), "{finished:?}");
    // The thread that syncs may say something yet after the last words.
    let mut words = finished.stderr.lines();
    assert!(
        words.any(|line| line.starts_with("git-volume-reloader: ") && line.contains(last_line)),
        "{finished:?}"
    );
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    let pushed = world.push(1);
    world.sidecar = launch(&server.url("upstream.git"), &world.root).spawn();
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn out_of_descriptors(row: &Row) {
    let (_server, mut world) = World::over_http();
    world.sidecar.wait_for_polls(2);
    let pid = world.sidecar.pid();
    let before = descriptors(pid);
    // What is open stays open; nothing more can be, not even a connection that asks for metrics.
    limit(pid, "--nofile=1:");
    let pushed = world.push(1);
    let Told::Failure(stage, reason, message) = row.operator else {
        unreachable!("the row is a failure");
    };
    let line = world.sidecar.wait_for_log(message);
    assert_eq!(field(&line, "stage").as_deref(), Some(stage), "{line}");
    assert_eq!(field(&line, "reason").as_deref(), Some(reason), "{line}");
    let first = world.first.clone();
    world.root.assert_published(&world.upstream, &first);
    limit(pid, "--nofile=1024:");
    world.sidecar.wait_for(&world.root, &pushed);
    world
        .sidecar
        .wait_while_alive("no more descriptors to be open than before", |_| {
            descriptors(pid) <= before + 2
        });
    world.end(row, &pushed);
}

fn hangs(row: &Row) {
    let upstream = Upstream::empty();
    let url = upstream.url();
    let root = Root::new();
    let hasty = |root: &Root| launch(&url, root).flag("sync-timeout", "1s");
    let first_launch = hasty(&root);
    let mut world = World::new(upstream, root, first_launch);
    let config = world.upstream.path().join("config");
    let kept = world.upstream.path().join("config.kept");
    // Stopped, so that it cannot publish the push before the pipe is there.
    world.sidecar.signal(Signal::STOP);
    let pushed = world.push(1);
    // libgit2 opens the file and waits for a writer, and nothing can interrupt it.
    fs::rename(&config, &kept).unwrap();
    let made = environment::command("mkfifo")
        .arg(&config)
        .status()
        .unwrap();
    assert!(made.success());
    world.sidecar.signal(Signal::CONT);
    wait_until(WATCHDOG, "liveness to go", || {
        world.sidecar.get("/livez").code == 503
    });
    let first = world.first.clone();
    // git would wait for the pipe as well, so only the link is compared here.
    assert_eq!(world.root.commit(), Some(first));
    let finished = world.sidecar.wait_exit(WATCHDOG);
    let Told::Exit(last_line) = row.operator else {
        unreachable!("the row is an exit");
    };
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.last_line().contains(last_line), "{finished:?}");
    // The same again, and Kubernetes loses patience first.
    let mut stuck = hasty(&world.root).spawn();
    stuck.address();
    stuck.signal(Signal::TERM);
    let finished = stuck.wait_exit(Duration::from_secs(5));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    fs::rename(&kept, &config).unwrap();
    world.sidecar = launch(&url, &world.root).spawn();
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

/// What stands between the program and the wall clock: an offset in seconds from a file.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *ts) {
    int done = syscall(SYS_clock_gettime, id, ts);
    if (done == 0 && id == CLOCK_REALTIME) {
        char text[32] = {0};
        int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (read(fd, text, sizeof text - 1) > 0) ts->tv_sec += atol(text);
            close(fd);
        }
    }
    return done;
}
"#;

fn clock_jumps(row: &Row) {
    const YEAR: i64 = 365 * 24 * 3600;
    let dir = tempfile::tempdir().unwrap();
    let (source, shim) = (dir.path().join("clock.c"), dir.path().join("clock.so"));
    let offset = dir.path().join("offset");
    fs::write(&source, SHIM).unwrap();
    let built = environment::command("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&shim, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let set = |seconds: i64| {
        let next = dir.path().join("next");
        fs::write(&next, seconds.to_string()).unwrap();
        fs::rename(next, &offset).unwrap();
    };
    set(0);
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let root = Root::new();
    let launch = launch(&server.url("upstream.git"), &root)
        .flag("max-staleness", "1h")
        .flag("keep", "0")
        .flag("stale-timeout", "1h")
        .variable("LD_PRELOAD", shim.to_str().unwrap())
        .variable("CLOCK_OFFSET", offset.to_str().unwrap());
    let mut world = World::new(upstream, root, launch);
    let old = world.root.tree();
    let mut years = Vec::new();
    for (n, jump) in [(1, YEAR), (2, -YEAR)] {
        set(jump);
        world.sidecar.wait_for_polls(2);
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
        world.sidecar.wait_for_polls(2);
        // What is judged by elapsed time does not notice; what is shown does.
        assert_eq!(world.sidecar.get("/livez").code, 200);
        assert_eq!(world.sidecar.get("/readyz").code, 200);
        assert!(old.exists(), "the old tree went before its time");
        let told = super::told(&mut world.sidecar);
        let shown = told["last_success"].as_str().unwrap();
        years.push(shown[..4].parse::<i32>().unwrap());
    }
    assert_eq!(years[0] - years[1], 2, "the clock did not jump: {years:?}");
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    set(0);
    let pushed = world.push(3);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn without_privilege(row: &Row) {
    let volume = Volume::new(0o775);
    let place = volume.path().join("volume");
    fs::create_dir(&place).unwrap();
    volume.share(&place);
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let root = Root::at(&place.join("root"));
    let launch = volume.launch(launch(&server.url("upstream.git"), &root));
    // Only the volume can be written; the mounts are this process's own and end with it.
    let script = format!(
        "mount --bind '{0}' '{0}' && mount -o remount,bind,ro / && \
         {{ ! touch /written 2>/dev/null; }} && \
         exec setpriv --reuid=65533 --regid=65533 --clear-groups --inh-caps=-all \
         --bounding-set=-all --no-new-privs \"$@\"",
        place.display()
    );
    let wrapper = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-ec",
        &script,
        "sh",
    ];
    let mut world = World::new(upstream, root, launch.under(&wrapper));
    let capabilities = status_line(world.sidecar.pid(), "CapEff:");
    assert_eq!(capabilities.trim_start_matches('0'), "", "{capabilities}");
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    let mut seen = 0;
    each(&place.join("root"), &mut |path| {
        let meta = fs::symlink_metadata(path).unwrap();
        seen += 1;
        assert_eq!(meta.uid(), 65533, "{}", path.display());
        if !meta.is_symlink() {
            let mode = meta.permissions().mode();
            assert_eq!(mode & 0o002, 0, "{} {mode:o}", path.display());
        }
    });
    assert!(seen > 50, "only {seen} files were looked at");
    world.end(row, &pushed);
}

/// Visits a directory and everything in it.
fn each(path: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(path);
    if fs::symlink_metadata(path).unwrap().is_dir() {
        let entries: Vec<PathBuf> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        for entry in entries {
            each(&entry, visit);
        }
    }
}

/// Sets a limit of a running process, in prlimit(1)'s words.
fn limit(pid: Pid, what: &str) {
    let status = environment::command("prlimit")
        .args(["--pid", &pid.as_raw_nonzero().to_string(), what])
        .status()
        .unwrap();
    assert!(status.success(), "prlimit {what}");
}

/// How many descriptors a process has open.
fn descriptors(pid: Pid) -> usize {
    let directory = format!("/proc/{}/fd", pid.as_raw_nonzero());
    fs::read_dir(directory).unwrap().count()
}

fn status_kib(pid: Pid, name: &str) -> u64 {
    let line = status_line(pid, name);
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// What the kernel says of a process under this name.
fn status_line(pid: Pid, name: &str) -> String {
    let file = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().to_owned()
}
