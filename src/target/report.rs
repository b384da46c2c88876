//! What a cycle did, for those who count and time it.

use std::time::{Duration, Instant};

use crate::base::error::Stage;

/// What a cycle did on its way, whether or not it succeeded.
#[derive(Debug, Default)]
pub struct Report {
    /// How long each step took in all; a cycle may seal and flip, or poll again.
    pub stages: Vec<(Stage, Duration)>,
    /// Bytes of packs received.
    pub fetched_bytes: u64,
    /// Files written from the object store.
    pub files_written: u64,
    /// Files taken over from an earlier tree.
    pub files_shared: u64,
}

impl Report {
    /// Runs one step and adds up how long it took.
    pub(super) fn time<T>(&mut self, stage: Stage, step: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        match self.stages.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, total)) => *total += took,
            None => self.stages.push((stage, took)),
        }
        result
    }
}
