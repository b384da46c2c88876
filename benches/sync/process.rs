//! What the kernel says about a process: memory and CPU time.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Pid;

/// The unit of times in `/proc` on every Linux architecture that matters here (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// Memory of a process, in bytes (proc_pid_status(5)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, whatever it maps.
    pub resident: u64,
    /// Resident and not backed by a file.
    pub anonymous: u64,
    /// The most that was ever resident.
    pub peak_resident: u64,
}

impl Memory {
    /// What the process has now; zeros once it is gone.
    pub fn of(pid: Pid) -> Self {
        let file = format!("/proc/{}/status", pid.as_raw_nonzero());
        let status = fs::read_to_string(file).unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
                .map_or(0, |kibibytes| kibibytes.parse::<u64>().unwrap() * 1024)
        };
        Self {
            resident: field("VmRSS:"),
            anonymous: field("RssAnon:"),
            peak_resident: field("VmHWM:"),
        }
    }
}

/// CPU seconds of all threads of a process, ended ones included; to a hundredth.
pub fn cpu_seconds(pid: Pid) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    // The name of the program may hold anything but is in parentheses; then field 3 and on.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / TICKS_A_SECOND
}

/// Watches a process and keeps the most memory that it had.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Memory>,
}

impl Sampler {
    /// Begins to watch.
    pub fn start(pid: Pid) -> Self {
        const INTERVAL: Duration = Duration::from_millis(5);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut most = Memory::default();
                while !stop.load(Ordering::SeqCst) {
                    let now = Memory::of(pid);
                    most.resident = most.resident.max(now.resident);
                    most.anonymous = most.anonymous.max(now.anonymous);
                    most.peak_resident = most.peak_resident.max(now.peak_resident);
                    std::thread::sleep(INTERVAL);
                }
                most
            }
        });
        Self { stop, thread }
    }

    /// The most of each that was seen.
    pub fn finish(self) -> Memory {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}
