//! The process itself, read from `/proc/self` at each scrape under the names that every Prometheus
//! client library gives these series.
//!
//! What cannot be read (no `/proc` mounted) is left out of the scrape, not reported as zero.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// USER_HZ: what the kernel counts in when it talks to user space (time(7)); 100 on every
/// architecture this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The collector for `process_*`.
#[derive(Debug)]
pub(super) struct Process {
    /// In seconds since the epoch; taken once, so that a clock jump does not look like a restart.
    start: Option<f64>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            start: start_time(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = seconds(clock_gettime(ClockId::ProcessCPUTime));
        encode(
            &mut encoder,
            "process_cpu",
            "Processor time spent in user and system mode",
            Some(&Unit::Seconds),
            &ConstCounter::new(cpu),
        )?;
        if let Some(start) = self.start {
            encode(
                &mut encoder,
                "process_start_time",
                "When the process started, since the epoch",
                Some(&Unit::Seconds),
                &ConstGauge::new(start),
            )?;
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            for (key, factor, name, help, unit) in [
                (
                    "VmRSS:",
                    1024,
                    "process_resident_memory",
                    "Resident memory",
                    Some(&Unit::Bytes),
                ),
                (
                    "VmSize:",
                    1024,
                    "process_virtual_memory",
                    "Virtual memory",
                    Some(&Unit::Bytes),
                ),
                ("Threads:", 1, "process_threads", "Threads", None),
            ] {
                if let Some(value) = status_field(&status, key) {
                    let gauge = ConstGauge::new(value * factor);
                    encode(&mut encoder, name, help, unit, &gauge)?;
                }
            }
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory being read.
            let open = i64::try_from(entries.count().saturating_sub(1)).unwrap_or(i64::MAX);
            let help = "Open file descriptors";
            let gauge = ConstGauge::new(open);
            encode(&mut encoder, "process_open_fds", help, None, &gauge)?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            let help = "Limit on open file descriptors";
            let gauge = ConstGauge::new(i64::try_from(limit).unwrap_or(i64::MAX));
            encode(&mut encoder, "process_max_fds", help, None, &gauge)?;
        }
        Ok(())
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    // A full stop, as the registry adds one to the help of its own metrics.
    let help = format!("{help}.");
    metric.encode(encoder.encode_descriptor(name, &help, unit, metric.metric_type())?)
}

/// A number in `/proc/self/status` (proc_pid_status(5)); sizes are in kB there.
fn status_field(status: &str, key: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Now, less the age of the process: both ends of the age are on the boot clock.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let age = seconds(clock_gettime(ClockId::Boottime)) - started_after_boot(&stat)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Some(now.unwrap_or(Duration::ZERO).as_secs_f64() - age)
}

/// Field 22 of proc_pid_stat(5), counted after the command name, which may hold anything.
fn started_after_boot(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: f64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a clock's seconds are far below 2^52"
)]
fn seconds(time: rustix::time::Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_brackets_shifts_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 3 0 4200 99 5";
        assert_eq!(started_after_boot(stat), Some(42.0));
    }

    #[test]
    fn the_process_started_in_the_past_and_not_long_ago() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - start_time().unwrap();
        assert!((-0.1..3600.0).contains(&age), "{age}");
    }
}
