//! Signals: SIGTERM and SIGINT end the process, one chosen signal triggers a poll.
//!
//! This module does not reap children; [`crate::child`] does.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::base::signal::Signal;
use crate::base::wake::Wake;

/// Routes SIGTERM and SIGINT to [`Wake::shutdown`], and `sync_on` to [`Wake::nudge`], of each wake.
///
/// The default action of SIGTERM and SIGINT is not enough, because the kernel does not apply it to
/// PID 1 (signal(7), pid_namespaces(7)). Every other signal keeps its disposition.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signal_hook::consts::SIGUSR2;

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
}
