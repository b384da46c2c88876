//! Signals: SIGTERM and SIGINT end the process, one chosen signal asks for a poll.
//!
//! This module does not reap children.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::base::wake::Wake;

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

/// Routes SIGTERM and SIGINT to [`Wake::shutdown`], and `sync_on` to [`Wake::nudge`], of each wake.
///
/// Handlers are needed even where the default action would do: the kernel ignores the default
/// action for PID 1 (signal(7), pid_namespaces(7)). Every other signal keeps its disposition.
///
/// The returned thread handles them and never ends by itself.
///
/// # Errors
/// When the handlers or the thread that serves them cannot be set up.
pub fn install(wakes: Vec<Arc<Wake>>, sync_on: Option<Signal>) -> io::Result<JoinHandle<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let nudging = sync_on.map(Signal::number);
    if let Some(number) = nudging {
        signals.add_signal(number)?;
    }
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            for signal in signals.forever() {
                for wake in &wakes {
                    if Some(signal) == nudging {
                        wake.nudge();
                    } else {
                        wake.shutdown();
                    }
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
    use std::time::Duration;

    use super::*;
    use crate::base::wake::Woken;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn the_chosen_signal_nudges() {
        let wake = Wake::new();
        install(vec![wake.clone()], Some(Signal::Usr2)).unwrap();
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
