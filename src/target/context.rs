//! What every step of one cycle works with, and what it adds up.

use std::time::{Duration, Instant};

use super::settings::Target;
use crate::base::budget::Budget;
use crate::base::error::Stage;
use crate::notify::event::{Outcome, Work};
use crate::notify::{Event, Observers};

/// One cycle in progress: the target's settings, the time that is left, what was done so far, and
/// the observers that hear about it.
#[derive(Debug)]
pub struct Context<'a> {
    /// What the target is.
    pub settings: &'a Target,
    /// How long the cycle may take.
    pub budget: &'a Budget,
    /// Whether a rejected commit is to be checked again.
    pub recheck: bool,
    /// What was done so far.
    pub report: Report,
    observers: &'a mut Observers,
}

/// What a cycle did on its way, whether or not it succeeded.
#[derive(Debug, Default)]
pub struct Report {
    /// How long each step took in all; a cycle may run a step more than once.
    stages: Vec<(Stage, Duration)>,
    /// Bytes of packs received.
    pub fetched_bytes: u64,
    /// Files written from the object store.
    pub files_written: u64,
    /// Files shared with an earlier tree.
    pub files_shared: u64,
    /// Whether readers were given another tree.
    pub flipped: bool,
}

impl<'a> Context<'a> {
    /// A cycle that has done nothing yet.
    pub fn new(settings: &'a Target, budget: &'a Budget, observers: &'a mut Observers) -> Self {
        Self {
            settings,
            budget,
            recheck: false,
            report: Report::default(),
            observers,
        }
    }

    /// Runs one step and adds up how long it took.
    pub(super) fn time<T>(&mut self, stage: Stage, step: impl FnOnce(&mut Self) -> T) -> T {
        let started = Instant::now();
        let result = step(self);
        let took = started.elapsed();
        let stages = &mut self.report.stages;
        match stages.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, total)) => *total += took,
            None => stages.push((stage, took)),
        }
        result
    }

    /// Tells the target's observers.
    pub(super) fn emit(&mut self, event: &Event) {
        self.observers.emit(event);
    }
}

impl Report {
    /// The event that says what the cycle did.
    pub(super) fn into_work(self, outcome: Outcome, took: Duration) -> Work {
        Work {
            outcome,
            took,
            stages: self.stages,
            fetched_bytes: self.fetched_bytes,
            files_written: self.files_written,
            files_shared: self.files_shared,
        }
    }
}
