//! The sidecar as a child process: started with flags and an otherwise empty environment, its
//! streams captured, its port learnt from its log, killed on drop.
//!
//! A test that fails while one runs prints its command, its root and both streams.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use super::environment;
use super::root::Root;
use super::wait::{PATIENCE, holds_within, wait_until};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_git-volume-reloader");

/// A command line in the making.
#[derive(Clone, Debug)]
pub struct Launch {
    wrapper: Vec<String>,
    binary: PathBuf,
    subcommand: Vec<String>,
    flags: Vec<(String, Option<String>)>,
    variables: BTreeMap<String, String>,
    root: Option<PathBuf>,
}

/// A running sidecar.
pub struct Sidecar {
    child: Child,
    launch: Launch,
    status: Option<ExitStatus>,
    stdout: Stream,
    stderr: Stream,
}

/// What a sidecar that ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

/// An answer of the sidecar's port.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The `Content-Type`, empty if there is none.
    pub content_type: String,
    /// The body.
    pub body: String,
}

struct Stream {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Launch {
    /// A command line with no flag at all.
    pub fn bare() -> Self {
        Self {
            wrapper: Vec::new(),
            binary: PathBuf::from(BINARY),
            subcommand: Vec::new(),
            flags: Vec::new(),
            variables: BTreeMap::new(),
            root: None,
        }
    }

    /// A sidecar that polls every 50 ms and logs JSON.
    pub fn new(repo: &str, root: &Root) -> Self {
        let mut launch = Self::bare();
        launch.root = Some(root.path().to_owned());
        launch
            .flag("repo", repo)
            .flag("root", root.path().to_str().unwrap())
            .flag("link", root.link().to_str().unwrap())
            .flag("period", "50ms")
            .flag("log-format", "json")
    }

    /// The same as an init container.
    pub fn one_time(repo: &str, root: &Root) -> Self {
        Self::new(repo, root).switch("one-time")
    }

    /// Sets a flag, in place of an earlier value.
    pub fn flag(self, name: &str, value: &str) -> Self {
        let mut launch = self.without(name);
        launch.flags.push((name.to_owned(), Some(value.to_owned())));
        launch
    }

    /// Sets several of them.
    pub fn flags(self, flags: &[(&str, &str)]) -> Self {
        flags
            .iter()
            .fold(self, |launch, (name, value)| launch.flag(name, value))
    }

    /// Adds one more value of a flag that may be repeated.
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.flags.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// Sets a flag that takes no value.
    pub fn switch(self, name: &str) -> Self {
        let mut launch = self.without(name);
        launch.flags.push((name.to_owned(), None));
        launch
    }

    /// Takes a flag out.
    pub fn without(mut self, name: &str) -> Self {
        self.flags.retain(|(flag, _)| flag != name);
        self
    }

    /// Sets an environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Serves HTTP on a port of the system's choice.
    pub fn http(self) -> Self {
        self.flag("http-bind", "127.0.0.1:0")
    }

    /// Runs it under another command.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Runs it under one more command, inside the others.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper
            .extend(wrapper.iter().map(|&word| word.to_owned()));
        self
    }

    /// Runs a copy of the binary, for a user who cannot reach the build directory.
    pub fn binary(mut self, binary: &Path) -> Self {
        self.binary = binary.to_owned();
        self
    }

    /// A subcommand and its operands, after the flags.
    pub fn subcommand(mut self, words: &[&str]) -> Self {
        self.subcommand = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Sidecar {
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Sidecar {
            stdout: Stream::capture(child.stdout.take().unwrap()),
            stderr: Stream::capture(child.stderr.take().unwrap()),
            child,
            launch: self,
            status: None,
        }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        let mut sidecar = self.spawn();
        sidecar.wait_exit(PATIENCE * 4)
    }

    /// Runs it to its end, which must be a success.
    #[track_caller]
    pub fn succeed(self) -> Finished {
        let finished = self.clone().run();
        assert_eq!(
            finished.code,
            Some(0),
            "{:?}:\n{}",
            self.command(),
            finished.stderr
        );
        finished
    }

    fn command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, words)) => {
                let mut command = environment::command(wrapper);
                command.args(words).arg(&self.binary);
                command
            }
            None => environment::command(self.binary.to_str().unwrap()),
        };
        for (name, value) in &self.flags {
            // One word, so that a value which begins with a dash stays a value.
            command.arg(match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            });
        }
        command.args(&self.subcommand);
        command.envs(&self.variables);
        command
    }
}

impl Sidecar {
    /// The process id of the child: of the wrapper, if there is one.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The most that the process had in memory at any time, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse().unwrap()
    }

    /// The process id of the wrapper's only child.
    pub fn inner_pid(&self) -> Pid {
        let outer = self.child.id();
        let file = format!("/proc/{outer}/task/{outer}/children");
        let mut inner = None;
        wait_until(PATIENCE, "the wrapper's child", || {
            let children = fs::read_to_string(&file).unwrap_or_default();
            inner = children
                .split_whitespace()
                .next()
                .and_then(|pid| Pid::from_raw(pid.parse().ok()?));
            inner.is_some()
        });
        inner.unwrap()
    }

    /// Waits until the root's link names this commit.
    #[track_caller]
    pub fn wait_for(&mut self, root: &Root, commit: &str) {
        self.wait_while_alive(&format!("the link to name {commit}"), |_| {
            root.commit().as_deref() == Some(commit)
        });
    }

    /// Waits for a condition that only a living sidecar can bring about.
    #[track_caller]
    pub fn wait_while_alive(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let mut died = None;
        let held = holds_within(PATIENCE, || {
            // Looked at first: what the process did last counts.
            let status = self.child.try_wait().unwrap();
            if condition(self) {
                return true;
            }
            died = status;
            died.is_some()
        });
        if let Some(status) = died {
            self.status = Some(status);
            panic!("the sidecar ended ({status}) before {what}");
        }
        assert!(held, "waited {PATIENCE:?} for {what}");
    }

    /// Waits for a log line that holds this text, and returns it.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let mut found = None;
        self.wait_while_alive(&format!("{text:?} in the log"), |sidecar| {
            found = sidecar.log().into_iter().find(|line| line.contains(text));
            found.is_some()
        });
        found.unwrap()
    }

    /// The lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it without notice and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit(PATIENCE);
    }

    /// Ends it as Kubernetes does; it must succeed.
    #[track_caller]
    pub fn stop(mut self) -> Finished {
        self.signal(Signal::TERM);
        let finished = self.wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status.is_none()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait_exit(&mut self, patience: Duration) -> Finished {
        wait_until(patience, "the sidecar to end", || !self.is_alive());
        self.stdout.join();
        self.stderr.join();
        let status = self.status.unwrap();
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.lines().join("\n"),
            stderr: self.stderr.lines().join("\n"),
        }
    }

    /// Where it listens, as it says in its log.
    #[track_caller]
    pub fn address(&mut self) -> String {
        let mut address = None;
        self.wait_while_alive("the log to say where it listens", |sidecar| {
            address = sidecar
                .log()
                .iter()
                .filter(|line| line.contains("listening"))
                .find_map(|line| field(line, "address"));
            address.is_some()
        });
        address.unwrap()
    }

    /// Asks its port for a path.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.address());
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut response = agent.get(&url).call().unwrap();
        Answer {
            code: response.status().as_u16(),
            content_type: response
                .headers()
                .get("content-type")
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    /// The sum of the series of a metric whose labels include these.
    ///
    /// # Panics
    /// When there is none: every series exists from the start.
    #[track_caller]
    pub fn metric(&mut self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let body = self.get("/metrics").body;
        sum(&body, name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{body}"))
    }

    /// Waits until a metric is at least this.
    #[track_caller]
    pub fn wait_for_metric(&mut self, name: &str, labels: &[(&str, &str)], at_least: f64) {
        wait_until(PATIENCE, &format!("{name} {labels:?}"), || {
            self.metric(name, labels) >= at_least
        });
    }

    /// Waits for this many more polls that found nothing, so that whatever a poll does was done.
    #[track_caller]
    pub fn wait_for_polls(&mut self, n: u32) {
        let unchanged = [("outcome", "unchanged")];
        let now = self.metric("gvr_syncs_total", &unchanged);
        self.wait_for_metric("gvr_syncs_total", &unchanged, now + f64::from(n));
    }

    /// What `/status` says.
    #[track_caller]
    pub fn status(&mut self) -> Value {
        let answer = self.get("/status");
        assert_eq!(answer.code, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if self.is_alive() {
            // The whole group: killing a tracer alone would set its tracee free.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            self.report();
        }
    }
}

impl Sidecar {
    #[allow(clippy::print_stderr, reason = "the report of a test that fails")]
    fn report(&self) {
        eprintln!("command: {:?}", self.launch.command());
        if let Some(root) = &self.launch.root {
            // The objects of the store would drown the rest.
            eprintln!("root:");
            let listing = Root::at(root).listing();
            for line in listing.lines().filter(|line| !line.contains("/objects/")) {
                eprintln!("{line}");
            }
        }
        eprintln!("status: {:?}", self.status);
        eprintln!("stdout:\n{}", self.stdout.lines().join("\n"));
        eprintln!("stderr:\n{}", self.stderr.lines().join("\n"));
    }
}

impl Finished {
    /// The last line logged.
    pub fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// Asserts an exit code and that the log holds each of these texts, whatever their case.
    #[track_caller]
    pub fn assert_failed(&self, codes: &[i32], texts: &[&str]) {
        assert!(
            self.code.is_some_and(|code| codes.contains(&code)),
            "exit code {:?} instead of {codes:?}:\n{}",
            self.code,
            self.stderr
        );
        let log = self.stderr.to_lowercase();
        for text in texts {
            assert!(
                log.contains(&text.to_lowercase()),
                "no {text:?} in:\n{}",
                self.stderr
            );
        }
        assert!(!log.contains("panicked"), "{}", self.stderr);
    }
}

impl Stream {
    fn capture(from: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                shared.lock().unwrap().push(text);
                line.clear();
            }
        });
        Self {
            lines,
            reader: Some(reader),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

/// A field of a JSON log line or error file, as text: at the top, or among the event's fields.
pub fn field(line: &str, name: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let value = match line.get(name) {
        Some(value) => value,
        None => line.get("fields")?.get(name)?,
    };
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// The sum of a metric's series whose labels include these; None if there is none.
fn sum(exposition: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    exposition
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (series, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let matches = labels
                .iter()
                .all(|(key, wanted)| series.contains(&format!("{key}=\"{wanted}\"")));
            if matches {
                value.split(' ').next()?.parse::<f64>().ok()
            } else {
                None
            }
        })
        .reduce(|a, b| a + b)
}

#[test]
fn a_metric_is_found_by_name_and_labels() {
    let text = "# TYPE gvr_syncs counter\n\
                gvr_syncs_total{target=\"current\",outcome=\"changed\"} 2\n\
                gvr_syncs_total{target=\"current\",outcome=\"error\"} 3\n\
                gvr_ready 1\n# EOF\n";
    let changed = [("outcome", "changed")];
    assert_eq!(sum(text, "gvr_syncs_total", &changed), Some(2.0));
    assert_eq!(sum(text, "gvr_syncs_total", &[]), Some(5.0));
    assert_eq!(sum(text, "gvr_ready", &[]), Some(1.0));
    assert_eq!(sum(text, "gvr_syncs", &changed), None);
}

#[test]
fn a_log_field_is_found_at_the_top_and_among_the_fields() {
    assert_eq!(field(r#"{"a":"b"}"#, "a").as_deref(), Some("b"));
    assert_eq!(field(r#"{"fields":{"a":1}}"#, "a").as_deref(), Some("1"));
    assert_eq!(field("not json", "a"), None);
}
