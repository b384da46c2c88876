//! Where a sidecar's time went, from its own metrics.

use crate::support::sidecar::Sidecar;

/// Seconds in the stages between seeing a push and flipping the link.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    pub fetch: f64,
    pub build: f64,
    pub publish: f64,
}

impl Stages {
    /// All time since the start.
    pub fn of(sidecar: &mut Sidecar) -> Self {
        let mut stage = |name| sidecar.metric("gvr_stage_duration_seconds_sum", &[("stage", name)]);
        Self {
            fetch: stage("fetch"),
            build: stage("build"),
            publish: stage("publish"),
        }
    }

    /// The time since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            fetch: self.fetch - earlier.fetch,
            build: self.build - earlier.build,
            publish: self.publish - earlier.publish,
        }
    }

    pub fn total(self) -> f64 {
        self.fetch + self.build + self.publish
    }
}

/// Waits until the sidecar has recorded this many changes: it does so after the flip.
pub fn wait_for_changes(sidecar: &mut Sidecar, changes: usize) {
    let outcome = [("outcome", "changed")];
    sidecar.wait_for_metric("gvr_syncs_total", &outcome, changes as f64);
}
