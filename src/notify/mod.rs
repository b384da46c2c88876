//! Telling others what happened to a target: events, and the observers that hear them.
//!
//! An observer that only writes to memory or to the log is called by the sync thread. One that may
//! take long (a file on a network volume) is [`Deferred`]: it has a thread and a queue of its own, so
//! that it never delays a sync cycle. A [`hook`] (a command, a request, a signal) can fail and is
//! retried; it has a thread as well, and hears only the newest of each kind of news.
//!
//! This module knows events and nothing else of a target.

mod deferred;
pub mod event;
pub mod exec;
pub mod files;
pub mod hook;
mod log;
pub mod process_signal;
pub mod webhook;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use deferred::Deferred;
pub use event::Event;
pub use hook::Hooked;
pub use log::Log;

/// Hears what happens to one target, in order.
pub trait Observer: Send {
    /// Takes note of an event.
    fn observe(&mut self, event: &Event);
}

/// The observers of one target.
#[derive(Default)]
pub struct Observers {
    immediate: Vec<Box<dyn Observer>>,
    deferred: Vec<Deferred>,
    hooks: Vec<Hooked>,
}

impl Observers {
    /// Adds an observer that never waits for anything but memory.
    pub fn add(&mut self, observer: impl Observer + 'static) {
        self.immediate.push(Box::new(observer));
    }

    /// Adds an observer that may take its time.
    pub fn add_deferred(&mut self, observer: Deferred) {
        self.deferred.push(observer);
    }

    /// Adds a hook.
    pub fn add_hook(&mut self, hook: Hooked) {
        self.hooks.push(hook);
    }

    /// Tells every observer. Returns without waiting for those that are deferred, or for hooks.
    pub fn emit(&mut self, event: &Event) {
        for observer in &mut self.immediate {
            observer.observe(event);
        }
        for observer in &self.deferred {
            observer.enqueue(event);
        }
        for hook in &self.hooks {
            hook.hear(event);
        }
    }

    /// The longest time that [`Observers::finish_hooks`] takes.
    pub fn hooks_limit(&self) -> Duration {
        let longest = self.hooks.iter().map(Hooked::limit).max();
        longest.unwrap_or_default()
    }

    /// Waits until each hook has told all its news once, without retries, or `cancelled` is set.
    /// Returns the failures, in words.
    pub fn finish_hooks(&self, cancelled: &AtomicBool) -> Vec<String> {
        let deadline = Instant::now() + self.hooks_limit();
        for hook in &self.hooks {
            hook.stop_retrying();
        }
        self.hooks
            .iter()
            .filter_map(|hook| hook.finish(deadline, cancelled))
            .collect()
    }

    /// Waits until the deferred observers have heard everything, for `limit` in total. Returns
    /// whether all of them have.
    pub fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.deferred
            .iter()
            .all(|observer| observer.flush(deadline.saturating_duration_since(Instant::now())))
    }
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}
