//! What ends a wait early: a nudge to poll now, or the end of the process. Signals end here.
//!
//! This module does not decide what a nudge leads to, and it reaps no children.

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// Wakes the loop that waits for its next poll.
#[derive(Debug, Default)]
pub struct Wake {
    /// Held while a flag is set, so that whoever is about to wait does not miss it.
    setting: Mutex<()>,
    changed: Condvar,
    nudged: Arc<AtomicBool>,
    cancelled: Arc<AtomicBool>,
}

/// Why [`Wake::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time is over.
    Timeout,
    /// Somebody asks for a poll now.
    Nudged,
    /// The process is to end.
    Shutdown,
}

/// A signal that may be chosen to mean "poll now".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Hup,
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
}

/// A text that names none of the signals that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotASignal;

impl Wake {
    /// A wake that nobody has nudged yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Ends the present wait, or else the next one. Nudges that nobody has waited for yet are one.
    pub fn nudge(&self) {
        self.set(&self.nudged);
    }

    /// Ends every wait from now on, and cancels every budget that shares [`Wake::cancelled`].
    pub fn shutdown(&self) {
        self.set(&self.cancelled);
    }

    /// Whether the process is to end.
    pub fn is_shutdown(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The flag that a shutdown sets, for the budgets of operations that must end with it.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    /// The flag that a nudge sets until somebody waits, for work that is to give way to it.
    pub fn nudged(&self) -> Arc<AtomicBool> {
        self.nudged.clone()
    }

    /// Waits until `timeout` has passed on the monotonic clock, for a nudge, or for a shutdown.
    ///
    /// A shutdown wins over a nudge: after it, every wait returns [`Woken::Shutdown`] at once.
    pub fn wait(&self, timeout: Duration) -> Woken {
        // A deadline that the clock cannot express is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let mut setting = self.lock();
        loop {
            if self.is_shutdown() {
                return Woken::Shutdown;
            }
            if self.nudged.swap(false, Ordering::Relaxed) {
                return Woken::Nudged;
            }
            setting = match deadline {
                None => self
                    .changed
                    .wait(setting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Woken::Timeout;
                    }
                    self.changed
                        .wait_timeout(setting, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    fn set(&self, flag: &AtomicBool) {
        let setting = self.lock();
        flag.store(true, Ordering::Relaxed);
        drop(setting);
        self.changed.notify_all();
    }

    /// It guards no data, so a poisoned lock is as good as a sound one.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Routes SIGTERM and SIGINT to [`Wake::shutdown`], and `sync_on` to [`Wake::nudge`].
///
/// Handlers are needed even where the default action would do: the kernel ignores the default
/// action for PID 1 (signal(7), pid_namespaces(7)). Every other signal keeps its disposition.
///
/// The thread that is returned serves them for ever: when it ends, nobody does.
///
/// # Errors
/// When the handlers or the thread that serves them cannot be set up.
pub fn install_signals(wake: &Arc<Wake>, sync_on: Option<Signal>) -> io::Result<JoinHandle<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let nudging = sync_on.map(Signal::number);
    if let Some(number) = nudging {
        signals.add_signal(number)?;
    }
    let wake = wake.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            for signal in signals.forever() {
                if Some(signal) == nudging {
                    wake.nudge();
                } else {
                    wake.shutdown();
                }
            }
        })
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Hup => SIGHUP,
            Self::Usr1 => SIGUSR1,
            Self::Usr2 => SIGUSR2,
        }
    }
}

impl FromStr for Signal {
    type Err = NotASignal;

    /// `HUP`, `SIGHUP` or the number that kill(1) takes; in any case.
    fn from_str(text: &str) -> Result<Self, NotASignal> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        [
            ("HUP", Self::Hup),
            ("USR1", Self::Usr1),
            ("USR2", Self::Usr2),
        ]
        .into_iter()
        .find(|(known, signal)| name == *known || upper == signal.number().to_string())
        .map(|(_, signal)| signal)
        .ok_or(NotASignal)
    }
}

impl std::fmt::Display for NotASignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not one of the signals HUP, USR1 and USR2 (or their numbers)")
    }
}

impl std::error::Error for NotASignal {}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn nudges_that_nobody_waited_for_are_one() {
        let wake = Wake::new();
        let nudged = wake.nudged();
        assert!(!nudged.load(Ordering::Relaxed));
        wake.nudge();
        wake.nudge();
        assert!(nudged.load(Ordering::Relaxed));
        assert_eq!(wake.wait(LONG), Woken::Nudged);
        assert!(!nudged.load(Ordering::Relaxed));
        assert_eq!(wake.wait(Duration::from_millis(1)), Woken::Timeout);
    }

    #[test]
    fn a_nudge_ends_a_wait_that_has_begun() {
        let wake = Wake::new();
        let waiter = {
            let wake = wake.clone();
            std::thread::spawn(move || wake.wait(Duration::MAX))
        };
        wake.nudge();
        assert_eq!(waiter.join().unwrap(), Woken::Nudged);
    }

    #[test]
    fn a_shutdown_wins_and_lasts() {
        let wake = Wake::new();
        let cancelled = wake.cancelled();
        wake.nudge();
        assert!(!wake.is_shutdown());
        wake.shutdown();
        assert_eq!(wake.wait(LONG), Woken::Shutdown);
        assert_eq!(wake.wait(LONG), Woken::Shutdown);
        assert!(wake.is_shutdown() && cancelled.load(Ordering::Relaxed));
    }

    #[test]
    fn the_chosen_signal_nudges() {
        let wake = Wake::new();
        install_signals(&wake, Some(Signal::Usr2)).unwrap();
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert_eq!(wake.wait(LONG), Woken::Nudged);
    }

    #[test]
    fn a_signal_goes_by_name_or_number() {
        for text in ["HUP", "SIGHUP", "sighup", "1"] {
            assert_eq!(text.parse(), Ok(Signal::Hup), "{text}");
        }
        assert_eq!("SIGUSR1".parse(), Ok(Signal::Usr1));
        for text in ["", "SIG", "TERM", "SIGKILL", "9", "SIG1", "SIGSIGHUP"] {
            assert_eq!(text.parse::<Signal>(), Err(NotASignal), "{text}");
        }
    }
}
