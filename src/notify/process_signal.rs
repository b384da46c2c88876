//! The hook that sends a signal to processes of another container in a shared process namespace.
//!
//! A process matches by the name that the kernel shows (comm) or by the file name of its executable
//! or of its first argument. Only the topmost processes that match get the signal, because a server
//! passes it on to its workers. Without a name, the main process of every other container gets it:
//! those whose parent is outside the namespace, except PID 1, which is the pause container.
//!
//! Not handled: waiting for what the signal leads to. A process that does not handle the signal is
//! ended by it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tracing::info;

use super::hook::{Hook, HookKind, Notice, Occasion, Told};
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::processes::{self, Process};

/// The wait after a failure: the process may not have started yet.
const BACKOFF: Duration = Duration::from_secs(3);

/// The longest command line that is read for its first word, in bytes.
const MAX_COMMAND_LINE: usize = 4096;

/// A comm is cut to this many bytes (proc_pid_comm(5)).
const COMM: usize = 15;

/// Whom to send which signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalSettings {
    signal: NamedSignal,
    /// The name of the process; `None` for the main process of every other container.
    process: Option<String>,
}

/// A signal that programs take as a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamedSignal {
    name: &'static str,
    signal: Signal,
}

/// The signals that may be sent.
const SIGNALS: [NamedSignal; 7] = [
    NamedSignal {
        name: "HUP",
        signal: Signal::HUP,
    },
    NamedSignal {
        name: "INT",
        signal: Signal::INT,
    },
    NamedSignal {
        name: "QUIT",
        signal: Signal::QUIT,
    },
    NamedSignal {
        name: "USR1",
        signal: Signal::USR1,
    },
    NamedSignal {
        name: "USR2",
        signal: Signal::USR2,
    },
    NamedSignal {
        name: "TERM",
        signal: Signal::TERM,
    },
    NamedSignal {
        name: "WINCH",
        signal: Signal::WINCH,
    },
];

/// A text that is not `NAME[:process]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotASignal;

/// Sends a signal after each publish.
#[derive(Debug)]
pub struct SendSignal {
    settings: SignalSettings,
}

impl SendSignal {
    /// A hook for these settings.
    pub fn new(settings: SignalSettings) -> Self {
        Self { settings }
    }
}

impl Hook for SendSignal {
    fn kind(&self) -> HookKind {
        HookKind::Signal
    }

    fn tells(&self, occasion: Occasion) -> bool {
        occasion == Occasion::Published
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn backoff(&self) -> Duration {
        BACKOFF
    }

    fn tell(&mut self, _: &Notice, _: &Arc<AtomicBool>) -> Result<Told, SyncError> {
        let NamedSignal { name, signal } = self.settings.signal;
        let found = self.settings.find();
        let whom = match &self.settings.process {
            Some(process) => format!("a process named {process}"),
            None => "the main process of another container".to_owned(),
        };
        if found.is_empty() {
            return Err(SyncError::new(
                Stage::Notify,
                Reason::Other,
                format!("cannot find {whom}"),
            )
            .with_hint("set shareProcessNamespace: true in the pod, and check the name with ps"));
        }
        for pid in &found {
            kill_process(*pid, signal).map_err(|cause| {
                let pid = pid.as_raw_nonzero();
                let what = format!("cannot send SIG{name} to process {pid}");
                SyncError::new(Stage::Notify, Reason::Other, what)
                    .with_source(std::io::Error::from(cause))
                    .with_hint("run both containers as the same user, or grant CAP_KILL")
            })?;
            info!(signal = name, pid = pid.as_raw_nonzero(), "sent the signal");
        }
        Ok(Told::Yes)
    }
}

impl SignalSettings {
    /// The processes that get the signal; never this one.
    fn find(&self) -> Vec<Pid> {
        let own = getpid();
        let others: Vec<_> = processes::all()
            .filter(|process| process.pid != own && !process.is_zombie)
            .collect();
        let chosen: Vec<&Process> = match &self.process {
            None => others
                .iter()
                .filter(|process| process.parent.is_none() && !process.pid.is_init())
                .collect(),
            Some(name) => {
                let matching: Vec<_> = others
                    .iter()
                    .filter(|process| is_named(process.pid, name))
                    .collect();
                let is_child = |process: &Process| {
                    let parent = process.parent;
                    parent.is_some_and(|parent| matching.iter().any(|other| other.pid == parent))
                };
                matching
                    .iter()
                    .copied()
                    .filter(|process| !is_child(process))
                    .collect()
            }
        };
        chosen.iter().map(|process| process.pid).collect()
    }
}

fn is_named(pid: Pid, name: &str) -> bool {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    let file_name = |path: &Path| path.file_name().is_some_and(|file| file == name);
    let comm = fs::read_to_string(format!("{directory}/comm")).unwrap_or_default();
    let cut = &name.as_bytes()[..name.len().min(COMM)];
    if comm.trim_end_matches('\n').as_bytes() == cut {
        return true;
    }
    // Only the same user or CAP_SYS_PTRACE may read where the link leads.
    if fs::read_link(format!("{directory}/exe")).is_ok_and(|exe| file_name(&exe)) {
        return true;
    }
    let line = fs::read(format!("{directory}/cmdline")).unwrap_or_default();
    let line = &line[..line.len().min(MAX_COMMAND_LINE)];
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(first).is_ok_and(|first| file_name(Path::new(first)))
}

impl FromStr for SignalSettings {
    type Err = NotASignal;

    fn from_str(text: &str) -> Result<Self, NotASignal> {
        let (signal, process) = match text.split_once(':') {
            Some((_, "")) => return Err(NotASignal),
            Some((signal, process)) => (signal, Some(process.to_owned())),
            None => (text, None),
        };
        let upper = signal.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let signal = SIGNALS
            .into_iter()
            .find(|known| known.name == name)
            .ok_or(NotASignal)?;
        Ok(Self { signal, process })
    }
}

impl fmt::Display for NotASignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = SIGNALS.map(|signal| signal.name).join(", ");
        write!(
            f,
            "not NAME or NAME:PROCESS with one of the signals {names}"
        )
    }
}

impl std::error::Error for NotASignal {}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::time::SystemTime;

    use super::*;
    use crate::notify::hook::News;

    #[test]
    fn a_setting_is_a_signal_and_perhaps_a_process() {
        let settings: SignalSettings = "sighup:nginx".parse().unwrap();
        assert_eq!(settings.signal.signal, Signal::HUP);
        assert_eq!(settings.process.as_deref(), Some("nginx"));
        assert_eq!("USR1".parse::<SignalSettings>().unwrap().process, None);
        for wrong in ["", "KILL", "HUP:", ":nginx", "STOP:nginx"] {
            assert_eq!(wrong.parse::<SignalSettings>(), Err(NotASignal), "{wrong}");
        }
    }

    #[test]
    fn the_topmost_process_of_a_name_gets_the_signal() {
        let dir = tempfile::tempdir().unwrap();
        // A name that no other run of this test on the machine has.
        let name = format!("gvr-t-{}", std::process::id());
        let program = dir.path().join(&name);
        fs::copy("/bin/sh", &program).unwrap();
        // The worker has the same name; it would end at the signal.
        let script = "\"$0\" -c 'trap \"\" TERM; exec sleep 600' & trap 'kill -9 $!; exit 7' USR1; \
                      echo ready; while :; do sleep 0.05; done";
        let mut server = Command::new(&program)
            .args(["-c", script])
            .arg(&program)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let mut hook = SendSignal::new(format!("USR1:{name}").parse().unwrap());
        let notice = Notice {
            news: News::Recovered { failures: 1 },
            at: SystemTime::now(),
        };
        assert_eq!(hook.tell(&notice, &Arc::default()).unwrap(), Told::Yes);
        assert_eq!(server.wait().unwrap().code(), Some(7));
        // The worker was killed, and is gone when the kernel has ended it.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let error = loop {
            match hook.tell(&notice, &Arc::default()) {
                Err(error) => break error,
                Ok(_) => assert!(std::time::Instant::now() < deadline, "the worker lives on"),
            }
        };
        assert!(error.to_string().contains(&name));
    }
}
