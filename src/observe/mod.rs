//! State that others may look at: metrics for Prometheus, status for people and probes.

pub mod metrics;
pub mod status;
pub mod status_file;
