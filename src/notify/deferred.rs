//! An observer on a thread of its own, behind a bounded queue.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Event, Observer};

/// Events that may wait. When more come, the oldest is dropped: what an observer shows is the
/// latest state.
const QUEUE: usize = 256;

/// Runs an observer on a thread. Dropping it lets the thread end after the event it works on.
#[derive(Debug)]
pub struct Deferred {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// Whether the observer works on an event that has left `waiting`.
    busy: bool,
    closed: bool,
}

impl Deferred {
    /// Starts the thread. Its log lines name the target of the caller's span.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn spawn(name: &str, mut observer: impl Observer + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let _entered = span.enter();
                while let Some(event) = worker.next() {
                    observer.observe(&event);
                }
            })?;
        Ok(Self { shared })
    }

    /// Puts an event into the queue; never waits.
    pub(super) fn enqueue(&self, event: &Event) {
        let mut queue = self.shared.lock();
        if queue.waiting.len() >= QUEUE {
            queue.waiting.pop_front();
        }
        queue.waiting.push_back(event.clone());
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Waits until the observer has heard everything, for at most `limit`; whether it has.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut queue = self.shared.lock();
        while queue.busy || !queue.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self
                .shared
                .changed
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// The next event; `None` once the queue is closed.
    fn next(&self) -> Option<Event> {
        let mut queue = self.lock();
        queue.busy = false;
        self.changed.notify_all();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(event) = queue.waiting.pop_front() {
                queue.busy = true;
                return Some(event);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Each use leaves the queue whole, so a poisoned lock is as good as a sound one.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Forwards a letter for each event, and waits for permission before each.
    struct Slow {
        permits: mpsc::Receiver<()>,
        heard: mpsc::Sender<&'static str>,
    }

    impl Observer for Slow {
        fn observe(&mut self, event: &Event) {
            if self.permits.recv().is_ok() {
                let name = match event {
                    Event::Started => "started",
                    Event::Attempt => "attempt",
                    _ => "other",
                };
                self.heard.send(name).unwrap();
            }
        }
    }

    fn slow() -> (Deferred, mpsc::Sender<()>, mpsc::Receiver<&'static str>) {
        let (permit, permits) = mpsc::channel();
        let (heard, hears) = mpsc::channel();
        let deferred = Deferred::spawn("slow", Slow { permits, heard }).unwrap();
        (deferred, permit, hears)
    }

    #[test]
    fn a_slow_observer_holds_nobody_up_and_hears_events_in_order() {
        let (deferred, permit, heard) = slow();
        deferred.enqueue(&Event::Started);
        deferred.enqueue(&Event::Attempt);
        assert!(!deferred.flush(Duration::from_millis(20)));
        permit.send(()).unwrap();
        permit.send(()).unwrap();
        assert!(deferred.flush(Duration::from_secs(60)));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["started", "attempt"]);
    }

    #[test]
    fn of_too_many_events_the_newest_are_kept() {
        let (deferred, permit, heard) = slow();
        deferred.enqueue(&Event::Started);
        for _ in 0..2 * QUEUE {
            deferred.enqueue(&Event::Unchanged);
        }
        deferred.enqueue(&Event::Attempt);
        for _ in 0..2 * QUEUE + 2 {
            permit.send(()).unwrap();
        }
        assert!(deferred.flush(Duration::from_secs(60)));
        let heard: Vec<_> = heard.try_iter().collect();
        assert!(heard.len() <= QUEUE + 1, "{}", heard.len());
        assert_eq!(heard.last(), Some(&"attempt"));
    }
}
