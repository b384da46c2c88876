//! The signals that an operator may choose as a request to poll.
//!
//! This module installs no handler.

use std::fmt;
use std::str::FromStr;

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

/// A signal that may be chosen to trigger a poll.
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

impl Signal {
    /// The number that signal(7) gives it.
    pub fn number(self) -> i32 {
        match self {
            Self::Hup => SIGHUP,
            Self::Usr1 => SIGUSR1,
            Self::Usr2 => SIGUSR2,
        }
    }
}

impl FromStr for Signal {
    type Err = NotASignal;

    /// `HUP`, `SIGHUP` or the number that kill(1) takes, in upper or lower case.
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

impl fmt::Display for NotASignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of the signals HUP, USR1 and USR2 (or their numbers)")
    }
}

impl std::error::Error for NotASignal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_by_name_or_number() {
        for text in ["HUP", "SIGHUP", "sighup", "1"] {
            assert_eq!(text.parse(), Ok(Signal::Hup), "{text}");
        }
        assert_eq!("SIGUSR1".parse(), Ok(Signal::Usr1));
        for text in ["", "SIG", "TERM", "SIGKILL", "9", "SIG1", "SIGSIGHUP"] {
            assert_eq!(text.parse::<Signal>(), Err(NotASignal), "{text}");
        }
    }
}
