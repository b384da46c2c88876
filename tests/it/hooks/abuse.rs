//! Hooks that misbehave, under a process that is PID 1 of its namespace.

use std::fs;

use rustix::process::Pid;

use super::{Script, exec, sidecar};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

fn as_pid_1(launch: Launch) -> Launch {
    launch.under(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
}

/// The children of a process, with the state of each.
fn children(parent: Pid) -> Vec<(i32, char)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut fields = rest.split(' ');
        let state = fields.next().and_then(|state| state.chars().next());
        let its_parent: Option<i32> = fields.next().and_then(|pid| pid.parse().ok());
        if its_parent == Some(parent.as_raw_nonzero().get()) {
            let pid = head.split(' ').next().unwrap().parse().unwrap();
            found.push((pid, state.unwrap()));
        }
    }
    found
}

fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .unwrap()
        .count()
}

fn memory(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn wait_for_no_child(sidecar: &Sidecar) {
    let pid = sidecar.inner_pid();
    wait_until(PATIENCE, "no child and no zombie", || {
        children(pid).is_empty()
    });
}

#[test]
fn a_thousand_failing_commands_leave_no_zombie_and_no_descriptor() {
    let (upstream, root) = (Upstream::new(), Root::new());
    // Each leaves an orphan behind that ends after it, in a session of its own.
    let script = Script::new("setsid sleep 0.01 & exit 1");
    let launch = sidecar(&upstream, &root)
        .flag("exechook-command", script.path().to_str().unwrap())
        .flag("exechook-backoff", "1ms");
    let mut sidecar = as_pid_1(launch).spawn();
    let failed = [("hook", "exechook"), ("outcome", "error")];
    sidecar.wait_for_metric("gvr_hook_runs_total", &failed, 10.0);
    let pid = sidecar.inner_pid();
    let before = descriptors(pid);
    wait_until(PATIENCE * 8, "1000 runs", || {
        sidecar.metric("gvr_hook_runs_total", &failed) >= 1000.0
    });
    let zombies = || {
        children(pid)
            .iter()
            .filter(|(_, state)| *state == 'Z')
            .count()
    };
    // One may have ended just now.
    wait_until(PATIENCE, "at most the zombie of this instant", || {
        zombies() == 0
    });
    // The pipe of the present run, and the connection of this test.
    assert!(
        descriptors(pid) <= before + 8,
        "{before} -> {}",
        descriptors(pid)
    );
    assert!(children(pid).len() <= 3, "{:?}", children(pid));
}

#[test]
fn a_command_that_leaves_a_daemon_ignores_sigterm_and_prints_a_gigabyte_is_bounded_and_killed() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new(
        "trap '' TERM; setsid sh -c 'echo $$ > $OUT/daemon; exec sleep 600' & \n\
         head -c 1000000000 /dev/zero | tr '\\0' x; echo printed >> $OUT/printed; sleep 600; sleep 600",
    );
    // The daemon's shell reads the variable of the script.
    let text = fs::read_to_string(script.path())
        .unwrap()
        .replace("OUT=", "export OUT=");
    fs::write(script.path(), text).unwrap();
    let launch = exec(sidecar(&upstream, &root), &script).flag("exechook-timeout", "20s");
    let mut sidecar = as_pid_1(launch).spawn();
    let timeout = [("hook", "exechook"), ("outcome", "timeout")];
    wait_until(PATIENCE * 4, "the time-out", || {
        sidecar.metric("gvr_hook_runs_total", &timeout) >= 1.0
    });
    assert_eq!(
        script.lines("printed").first().map(String::as_str),
        Some("printed")
    );
    let pid = sidecar.inner_pid();
    assert!(memory(pid) < 64 << 10, "{} KiB", memory(pid));
    let log: usize = sidecar.log().iter().map(String::len).sum();
    assert!(log < 1 << 20, "{log} bytes of log");
    // Without the hook, nothing of its first run is left.
    fs::remove_file(script.path()).unwrap();
    let daemons = || {
        children(pid)
            .iter()
            .filter(|(_, state)| *state == 'Z')
            .count()
    };
    wait_until(PATIENCE, "no zombie", || daemons() == 0);
    sidecar.wait_for_log("did not end within 20s");
}

#[test]
fn orphans_of_a_command_are_killed_with_it() {
    let (upstream, root) = (Upstream::new(), Root::new());
    let script = Script::new("setsid sleep 600 & sleep 600 & echo >> $OUT/done");
    let mut sidecar = as_pid_1(exec(sidecar(&upstream, &root), &script)).spawn();
    let success = [("hook", "exechook"), ("outcome", "success")];
    sidecar.wait_for_metric("gvr_hook_runs_total", &success, 1.0);
    wait_for_no_child(&sidecar);
}
