//! Programs that this process starts: hooks and checks.
//!
//! A program runs in a process group of its own, with exactly the environment that the caller gives,
//! within a time limit. Its output is read all the time, logged up to a limit, and its last lines are
//! kept for the caller. When it ends, everything that it left behind is killed: its process group,
//! and processes that left the group but kept the environment variable [`RUN`].
//!
//! std gives a started program an empty signal mask and the default action for SIGPIPE; handlers do
//! not survive execve(2). Descriptors of this process are close-on-exec, so a program gets three:
//! /dev/null as its input, and one pipe as both outputs.
//!
//! Not handled: a process that leaves the group and also clears its environment. It survives its
//! program; it is reaped when it ends.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, PipeReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, kill_process_group,
    set_child_subreaper, waitid, waitpid,
};
use tracing::{debug, info};

use crate::base::durations;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::processes::{self, Process};
use crate::base::text::excerpt;

/// The variable that marks the processes of one run. Its value is random.
pub const RUN: &str = "GVR_RUN";

/// How long a program may take to end after SIGTERM, when its time is over.
const GRACE: Duration = Duration::from_secs(2);

/// The same at a shutdown: this process itself has 1.5 s.
const GRACE_AT_SHUTDOWN: Duration = Duration::from_millis(500);

/// How often the time limit and the cancellation are looked at.
const SLICE: Duration = Duration::from_millis(20);

/// How long output is read after the program ended and all that it left behind was killed.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// Lines of output that are logged per run.
const LOGGED_LINES: usize = 200;

/// The longest line that is logged, in bytes; the rest of a longer one is not logged.
const LOGGED_LINE: usize = 2048;

/// Bytes of the end of the output that are kept for the report.
const TAIL: usize = 4096;

/// Lines of the end of the output that are kept for the report.
const TAIL_LINES: usize = 20;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Chunks read before the time limit is looked at again.
const CHUNKS: usize = 16;

/// How often the children of this process are listed to find what a program left behind.
const ROUNDS: usize = 100;

/// The most bytes of an environment that are searched for [`RUN`].
const ENVIRONMENT: u64 = 2 << 20;

/// The children that this process has started and not reaped. Held while one is started or reaped,
/// so that nobody takes it for an orphan.
static STARTED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Whether every other child is an orphan that came to this process.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// What the log calls it.
    pub name: &'static str,
    /// The executable; without a slash it is looked up in the `PATH` of `environment`.
    pub path: &'a Path,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// Where it starts.
    pub directory: &'a Path,
    /// Its whole environment, apart from [`RUN`].
    pub environment: &'a [(OsString, OsString)],
    /// How long it may take.
    pub timeout: Duration,
}

/// A program as the operator configured it.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// How long it may take.
    pub timeout: Duration,
    /// The environment that it inherits. Never shown, because it may hold secrets.
    pub environment: Vec<(OsString, OsString)>,
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// The last lines of its output, unprintable characters escaped.
    pub tail: String,
    /// Bytes of output in all.
    pub output: u64,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It exited with this code.
    Exited(i32),
    /// Somebody else's signal of this number ended it.
    Signalled(i32),
    /// Its time was over, so it was killed.
    TimedOut(Duration),
    /// This process shuts down, so it was killed.
    Cancelled,
}

/// A program that has not been reaped yet.
struct Started {
    child: Child,
    pid: Pid,
}

/// Makes this process the parent of every orphan among its descendants, and lets it reap them.
/// Only for a process whose children are all started here: any other one is taken for an orphan.
///
/// # Errors
/// When the kernel refuses; as PID 1 orphans come to this process all the same.
pub fn adopt_orphans() -> io::Result<()> {
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Reaps orphans that have ended. Without one it costs one system call.
pub fn reap_orphans() {
    if !ADOPTS.load(Ordering::Relaxed) {
        return;
    }
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if matches!(waitid(WaitId::All, peek), Ok(Some(_))) {
        let started = started();
        for child in orphans(&started).filter(|child| child.is_zombie) {
            reap(child.pid);
        }
    }
}

/// Kills the process group of every running program, for a process that ends now.
pub fn kill_all() {
    for pid in started().iter() {
        let _ = kill_process_group(*pid, Signal::KILL);
    }
}

/// Runs a program to its end, which comes by itself, when its time is over, or soon after
/// `cancelled` is set.
///
/// # Errors
/// When it cannot be started. A missing executable and a missing directory are both `NotFound`.
pub fn run(program: &Program<'_>, cancelled: &AtomicBool) -> io::Result<Ended> {
    let run = format!("{:016x}", fastrand::u64(..));
    let (reader, writer) = io::pipe()?;
    let mut command = process::Command::new(program.path);
    command
        .args(program.arguments)
        .current_dir(program.directory)
        .env_clear()
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .env(RUN, &run)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let flags = rustix::fs::fcntl_getfl(&reader)?;
    rustix::fs::fcntl_setfl(&reader, flags | OFlags::NONBLOCK)?;
    let started = Started::start(&mut command)?;
    // It holds the ends of the pipe that only the program may hold.
    drop(command);
    let mut output = Output::new(program.name);
    let killed = started.watch(program, &reader, &mut output, cancelled);
    let status = started.end(&run)?;
    let deadline = Instant::now() + LAST_OUTPUT;
    while output.read(&reader) && Instant::now() < deadline {
        wait(&reader, SLICE);
    }
    let how = killed.unwrap_or_else(|| match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited(code),
        (None, signal) => How::Signalled(signal.unwrap_or_default()),
    });
    Ok(output.ended(how))
}

impl Command {
    /// Runs it in a directory, with variables that take precedence over the inherited ones.
    ///
    /// # Errors
    /// When it cannot be started; stage `notify`, reason `other`.
    pub fn run(
        &self,
        name: &'static str,
        directory: &Path,
        variables: &[(&str, OsString)],
        cancelled: &AtomicBool,
    ) -> Result<Ended, SyncError> {
        let added = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), value.clone()));
        let environment: Vec<_> = self.environment.iter().cloned().chain(added).collect();
        let program = Program {
            name,
            path: &self.path,
            arguments: &self.arguments,
            directory,
            environment: &environment,
            timeout: self.timeout,
        };
        run(&program, cancelled).map_err(|cause| {
            let kind = cause.kind();
            let what = format!(
                "cannot run {} in {}",
                self.path.display(),
                directory.display()
            );
            let error = SyncError::new(Stage::Notify, Reason::Other, what).with_source(cause);
            match kind {
                io::ErrorKind::NotFound => error.with_hint(
                    "mount the program into this container, and the interpreter that its first \
                     line names: the image has no shell",
                ),
                io::ErrorKind::PermissionDenied => error.with_hint(
                    "make the file executable (defaultMode: 0755 of a ConfigMap volume)",
                ),
                _ => error,
            }
        })
    }

    /// How a run ended, in words, with its last lines.
    pub fn what(&self, ended: &Ended) -> String {
        let what = format!("{} {}", self.path.display(), ended.how);
        match &*ended.tail {
            "" => what,
            tail => format!("{what}; its last output:\n{tail}"),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("path", &self.path)
            .field("arguments", &self.arguments)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Started {
    fn start(command: &mut process::Command) -> io::Result<Self> {
        let mut started = started();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        started.push(pid);
        Ok(Self { child, pid })
    }

    /// Reads the output until the program has ended; kills it when it must. Why, if it did.
    fn watch(
        &self,
        program: &Program<'_>,
        reader: &PipeReader,
        output: &mut Output,
        cancelled: &AtomicBool,
    ) -> Option<How> {
        // A deadline that the clock cannot express is no deadline.
        let deadline = Instant::now().checked_add(program.timeout);
        let mut asked: Option<(How, Instant)> = None;
        loop {
            let open = output.read(reader);
            if self.has_ended() {
                return asked.map(|(why, _)| why);
            }
            let now = Instant::now();
            let cancels = cancelled.load(Ordering::Relaxed);
            match asked {
                None if cancels => {
                    self.signal(Signal::TERM);
                    asked = Some((How::Cancelled, now));
                }
                None if deadline.is_some_and(|deadline| now >= deadline) => {
                    self.signal(Signal::TERM);
                    asked = Some((How::TimedOut(program.timeout), now));
                }
                Some((_, since)) => {
                    let grace = if cancels { GRACE_AT_SHUTDOWN } else { GRACE };
                    if now.saturating_duration_since(since) >= grace {
                        self.signal(Signal::KILL);
                    }
                }
                None => {}
            }
            if open {
                wait(reader, SLICE);
            } else {
                std::thread::sleep(SLICE);
            }
        }
    }

    /// Whether it is a zombie, which keeps its process id from being used again.
    fn has_ended(&self) -> bool {
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // The only error is that somebody else has reaped it.
        !matches!(waitid(WaitId::Pid(self.pid), peek), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Kills what the program left behind, and reaps it.
    fn end(mut self, run: &str) -> io::Result<ExitStatus> {
        // The group exists at least until its leader is reaped.
        self.signal(Signal::KILL);
        let status = {
            let mut started = started();
            let status = self.child.wait();
            started.retain(|pid| *pid != self.pid);
            status
        };
        if ADOPTS.load(Ordering::Relaxed) {
            kill_left_behind(run);
        }
        status
    }
}

/// Kills the orphans of a run, and their orphans, and reaps whatever has ended.
fn kill_left_behind(run: &str) {
    let mark = format!("{RUN}={run}");
    for _ in 0..ROUNDS {
        let mut waits = false;
        let started = started();
        for child in orphans(&started) {
            if child.is_zombie {
                reap(child.pid);
            } else if is_marked(child.pid, mark.as_bytes()) {
                debug!(
                    pid = child.pid.as_raw_nonzero(),
                    "killing what a program left behind"
                );
                let _ = kill_process(child.pid, Signal::KILL);
                waits = true;
            }
        }
        drop(started);
        if !waits {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The children of this process that are not in the list.
fn orphans(started: &[Pid]) -> impl Iterator<Item = Process> {
    let parent = Some(getpid());
    processes::all().filter(move |found| found.parent == parent && !started.contains(&found.pid))
}

fn is_marked(pid: Pid, mark: &[u8]) -> bool {
    let mut environment = Vec::new();
    fs::File::open(format!("/proc/{}/environ", pid.as_raw_nonzero()))
        .and_then(|file| file.take(ENVIRONMENT).read_to_end(&mut environment))
        .is_ok()
        && environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark)
}

/// Takes the status of one child, so that it is no zombie any more.
fn reap(pid: Pid) {
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
}

/// Each use leaves the list whole, so a poisoned lock is as good as a sound one.
fn started() -> MutexGuard<'static, Vec<Pid>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until there is something to read; a signal or an error ends the wait early.
fn wait(reader: &PipeReader, limit: Duration) {
    let limit = Timespec::try_from(limit).ok();
    let _ = poll(&mut [PollFd::new(reader, PollFlags::IN)], limit.as_ref());
}

/// What a program writes.
struct Output {
    name: &'static str,
    total: u64,
    /// The line that is not complete yet.
    line: Vec<u8>,
    logged: usize,
    tail: Vec<u8>,
    chunk: Vec<u8>,
}

impl Output {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            total: 0,
            line: Vec::new(),
            logged: 0,
            tail: Vec::new(),
            chunk: vec![0; CHUNK],
        }
    }

    /// Reads what is there, up to 1 MiB; whether there may be more later.
    fn read(&mut self, mut reader: &PipeReader) -> bool {
        let mut chunk = std::mem::take(&mut self.chunk);
        let mut open = true;
        for _ in 0..CHUNKS {
            match reader.read(&mut chunk) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(length) => self.take(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    open = error.kind() == io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.chunk = chunk;
        open
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(kept);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.logged >= LOGGED_LINES {
                return;
            }
            let room = LOGGED_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.log_line();
            }
        }
    }

    fn log_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            info!(
                program = self.name,
                output = excerpt(line, LOGGED_LINE),
                "output"
            );
            self.logged += 1;
        }
        self.line.clear();
    }

    fn ended(mut self, how: How) -> Ended {
        if self.logged < LOGGED_LINES {
            self.log_line();
        } else {
            info!(
                program = self.name,
                bytes = self.total,
                "only the first {LOGGED_LINES} lines of the output are logged"
            );
        }
        Ended {
            how,
            tail: last_lines(&self.tail, self.total > self.tail.len() as u64),
            output: self.total,
        }
    }
}

/// The last lines of the text; the first one is left out if it is `cut`.
fn last_lines(text: &[u8], cut: bool) -> String {
    let text = String::from_utf8_lossy(text);
    let mut lines: Vec<_> = text.lines().skip(usize::from(cut)).collect();
    lines.drain(..lines.len().saturating_sub(TAIL_LINES));
    if lines.is_empty() && cut {
        lines.push(&text);
    }
    let lines: Vec<_> = lines.into_iter().map(|line| excerpt(line, TAIL)).collect();
    lines.join("\n").trim_end().to_owned()
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut(limit) => {
                write!(
                    f,
                    "did not end within {} and was killed",
                    durations::shown(*limit)
                )
            }
            Self::Cancelled => f.write_str("was killed because this process shuts down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Ended {
        sh_until(script, timeout, &AtomicBool::new(false))
    }

    fn sh_until(script: &str, timeout: Duration, cancelled: &AtomicBool) -> Ended {
        let arguments = ["-c".into(), script.into()];
        let environment = [
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("A".into(), "b".into()),
        ];
        let program = Program {
            name: "test",
            path: Path::new("/bin/sh"),
            arguments: &arguments,
            directory: Path::new("/"),
            environment: &environment,
            timeout,
        };
        run(&program, cancelled).unwrap()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_exit_code_and_the_last_lines_of_both_streams_are_reported() {
        let ended = sh("echo one; echo two >&2; exit 3", MINUTE);
        assert_eq!(ended.how, How::Exited(3));
        assert_eq!(ended.tail, "one\ntwo");
        assert_eq!(sh("kill -USR1 $$", MINUTE).how, How::Signalled(10));
    }

    #[test]
    fn a_program_gets_the_given_environment_and_directory_and_no_input() {
        let ended = sh("pwd; echo $A$HOME; cat", MINUTE);
        assert_eq!(ended.tail, "/\nb");
    }

    #[test]
    fn a_program_gets_no_descriptor_that_this_process_opened() {
        let count = || sh("ls /proc/self/fd | wc -l", MINUTE).tail;
        let before = count();
        let _files: Vec<_> = (0..10).map(|_| fs::File::open("/proc").unwrap()).collect();
        assert_eq!(count(), before);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let program = Program {
            name: "test",
            path: Path::new("/does/not/exist"),
            arguments: &[],
            directory: Path::new("/"),
            environment: &[],
            timeout: MINUTE,
        };
        let error = run(&program, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_ignores_sigterm_is_killed_with_its_group_when_its_time_is_over() {
        let limit = Duration::from_millis(300);
        let begun = Instant::now();
        let ended = sh(
            "trap '' TERM; sleep 600 & echo $!; sleep 600; sleep 600",
            limit,
        );
        assert_eq!(ended.how, How::TimedOut(limit));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let background: i32 = ended.tail.parse().unwrap();
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{background}/stat")).ok()?;
            stat.rsplit_once(')')?
                .1
                .split_whitespace()
                .next()
                .map(str::to_owned)
        };
        // It is killed; another process reaps it.
        while state().is_some_and(|state| state != "Z") {
            assert!(begun.elapsed() < MINUTE, "{:?}", state());
            std::thread::yield_now();
        }
    }

    #[test]
    fn cancelling_ends_a_program() {
        let cancelled = AtomicBool::new(true);
        assert_eq!(
            sh_until("sleep 600", MINUTE, &cancelled).how,
            How::Cancelled
        );
    }

    #[test]
    fn endless_output_is_read_and_counted_but_not_kept() {
        let ended = sh("yes 0123456789 | head -c 50000000; echo end", MINUTE);
        assert_eq!(ended.how, How::Exited(0));
        assert_eq!(ended.output, 50_000_004);
        assert!(
            ended.tail.len() <= TAIL && ended.tail.ends_with("end"),
            "{}",
            ended.tail
        );
        assert_eq!(ended.tail.lines().count(), TAIL_LINES);
        let ended = sh("head -c 5000000 /dev/zero", MINUTE);
        assert_eq!(ended.output, 5_000_000);
        assert!(!ended.tail.is_empty());
    }
}
