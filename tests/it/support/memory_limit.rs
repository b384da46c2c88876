//! A memory limit as Kubernetes sets it: a control group whose processes the kernel kills.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::wait::{PATIENCE, wait_until};

/// A control group; removed on drop, when its processes have ended.
pub struct MemoryLimit {
    path: PathBuf,
}

impl MemoryLimit {
    /// A group limited to so many bytes; None where this process may not make one.
    pub fn new(bytes: u64) -> Option<Self> {
        let name = format!("gvr-test-{:016x}", fastrand::u64(..));
        // Version 1 has the controller in its own hierarchy (cgroups(7)).
        let rooms = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (room, limit) in rooms {
            let path = Path::new(room).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self { path };
            if fs::write(group.path.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// Puts a process under the limit; what it has already is not counted.
    pub fn hold(&self, pid: Pid) {
        let pid = pid.as_raw_nonzero().to_string();
        fs::write(self.path.join("cgroup.procs"), pid).unwrap();
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // The kernel lets go of the last process a moment after its end.
        if !std::thread::panicking() {
            wait_until(PATIENCE, "the group to be empty", || {
                fs::remove_dir(&self.path).is_ok()
            });
        }
    }
}
