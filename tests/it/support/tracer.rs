//! Failing system calls in a running process: strace attached to it, until it is dropped.

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::environment;
use super::wait::{PATIENCE, wait_until};

/// A tracer at work; detached on drop, after which the process goes on undisturbed.
pub struct Tracer {
    child: Child,
}

impl Tracer {
    /// Lets these calls (strace's words) of all threads of a process fail from now on.
    pub fn fail(pid: Pid, calls: &str, error: &str) -> Self {
        let pid = pid.as_raw_nonzero().to_string();
        let child = environment::command("strace")
            .args(["-f", "-qqq", "-o", "/dev/null", "-e", "signal=none"])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .args(["-p", &pid])
            .stdin(Stdio::null())
            .spawn()
            .expect("these tests need strace");
        let tracer = Self { child };
        wait_until(PATIENCE, "the tracer to be attached", || {
            tasks(&pid).all(|status| !status.contains("TracerPid:\t0\n"))
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It detaches when it is told to end; killed, it would leave its tracee stopped.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What the kernel says of each thread of a process.
fn tasks(pid: &str) -> impl Iterator<Item = String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
}
