//! The instance's side: an observer that serves the socket while the volume is open.
//!
//! The socket is made anew each time the volume is opened, because its lock is what says that no
//! other instance uses the root. It is never removed, since another instance may own it by then. A
//! disk that does not take a socket is complained about once, and tried again every minute.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt;
use serde_json::json;
use tracing::{debug, warn};

use super::{Answer, MAX_REQUEST, Request, SOCKET, What};
use crate::base::wake::{PinChange, PinRequest};
use crate::notify::{Event, Observer};
use crate::observe::metrics::{NudgeOutcome, Provider};
use crate::serve::{Served, routes};

/// Connections that are served at once; others are closed unanswered.
const MAX_CONNECTIONS: usize = 8;

/// How long a client may take to send its request, and to read its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a request waits for the sync thread.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// When a socket that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The name under which a socket is made, in the directory that a start sweeps.
const NEW: &str = "staging/control.sock.new";

/// The stack of a thread that serves one connection.
const STACK: usize = 256 << 10;

/// Serves the control socket of one target's root.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    /// Ends the thread that serves now.
    stop: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// The place of the target whose root it is.
    home: usize,
    targets: Vec<Served>,
    connections: AtomicUsize,
}

impl Control {
    /// Serves nothing yet: the volume has to be open first. `home` is the place in `targets` of the
    /// target whose root it is.
    pub fn new(root: PathBuf, home: usize, targets: Vec<Served>) -> Self {
        Self {
            shared: Arc::new(Shared {
                root,
                home,
                targets,
                connections: AtomicUsize::new(0),
            }),
            stop: None,
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.end();
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (shared, stopped) = (self.shared.clone(), stop.clone());
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(STACK)
            .spawn(move || span.in_scope(|| serve(&shared, &stopped)))?;
        self.stop = Some(stop);
        Ok(())
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The counter is far from full, so this neither blocks nor fails.
            let _ = rustix::io::write(&*stop, &1_u64.to_ne_bytes());
        }
    }
}

impl Observer for Control {
    fn observe(&mut self, event: &Event) {
        if matches!(event, Event::Opened)
            && let Err(error) = self.restart()
        {
            warn!(%error, "there is no control socket: status, pin and others cannot be asked for");
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes the socket and serves it until `stop` is set.
fn serve(shared: &Arc<Shared>, stop: &OwnedFd) {
    let mut complained = false;
    let listener = loop {
        match listen(&shared.root) {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    let path = shared.root.display();
                    warn!(%error, "there is no control socket in {path}; syncing goes on");
                }
            }
        }
        if wait(stop, None, Some(RETRY)) {
            return;
        }
    };
    while !wait(stop, Some(&listener), None) {
        match listener.accept() {
            Ok((client, _)) => admit(shared, client),
            // A client that is gone again, or no descriptor for it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Waits for a client, the end or the time; whether it is the end.
fn wait(stop: &OwnedFd, listener: Option<&UnixListener>, limit: Option<Duration>) -> bool {
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
    fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) => !fds[0].revents().is_empty(),
        Err(_) => false,
    }
}

/// Makes the socket under another name, closes it to others, and renames it into its place, over
/// one that an ended instance left.
fn listen(root: &Path) -> io::Result<UnixListener> {
    let directory = directory(root)?;
    match rustix::fs::unlinkat(&directory, NEW, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(cause) => return Err(cause.into()),
    }
    let listener = UnixListener::bind(within(&directory, NEW))?;
    let close = || -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::chmodat(&directory, NEW, mode, AtFlags::empty())?;
        rustix::fs::renameat(&directory, NEW, &directory, SOCKET)?;
        listener.set_nonblocking(true)
    };
    close().inspect_err(|_| {
        let _ = rustix::fs::unlinkat(&directory, NEW, AtFlags::empty());
    })?;
    Ok(listener)
}

/// The root's own directory.
pub(super) fn directory(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        CWD,
        root.join(".gvr"),
        flags,
        Mode::empty(),
    )?)
}

/// A path to a name in an open directory that fits into the 108 bytes of a socket's address,
/// however long the directory's own path is (unix(7)).
pub(super) fn within(directory: impl AsFd, name: &str) -> PathBuf {
    let fd = directory.as_fd().as_raw_fd();
    PathBuf::from(format!("/proc/self/fd/{fd}/{name}"))
}

/// Serves a client on a thread of its own, if there is room for one more.
fn admit(shared: &Arc<Shared>, client: UnixStream) {
    if shared.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        shared.connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (served, span) = (shared.clone(), tracing::Span::current());
    let spawned = std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            span.in_scope(|| {
                if let Err(error) = converse(&served, client) {
                    debug!(%error, "a client of the control socket is gone");
                }
            });
            served.connections.fetch_sub(1, Ordering::Relaxed);
        });
    if let Err(error) = spawned {
        shared.connections.fetch_sub(1, Ordering::Relaxed);
        debug!(%error, "no thread for a client of the control socket");
    }
}

fn converse(shared: &Shared, mut client: UnixStream) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(PATIENCE))?;
    let peer = sockopt::socket_peercred(&client)?;
    let ours = rustix::process::geteuid();
    let answer = if peer.uid != ours && !peer.uid.is_root() {
        Answer::Failed("only the user that the instance runs as may ask".to_owned())
    } else {
        match read_request(&client)? {
            Some(request) => shared.answer(&request),
            None => Answer::Failed("this is no request that this version knows".to_owned()),
        }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    client.write_all(&line)
}

/// Reads up to the end of a line, within [`PATIENCE`]. `None`: it is no request.
fn read_request(mut client: &UnixStream) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    while !bytes.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() as u64 > MAX_REQUEST {
            return Ok(None);
        }
        client.set_read_timeout(Some(left))?;
        match client.read(&mut piece)? {
            0 => break,
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
    Ok(serde_json::from_slice(&bytes).ok())
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        if request.what == What::Status {
            let document = routes::status_document(&self.targets, request.target.as_deref());
            let value = document
                .and_then(|document| serde_json::to_value(document).map_err(|e| e.to_string()));
            return value.map_or_else(Answer::Failed, Answer::Done);
        }
        let target = match &request.target {
            None => self.targets.get(self.home),
            Some(name) => self.targets.iter().find(|t| t.status.target() == name),
        };
        let Some(target) = target else {
            return Answer::Failed("no target has this name".to_owned());
        };
        let change = match &request.what {
            What::Nudge => {
                target
                    .metrics
                    .nudge(Provider::Local, NudgeOutcome::Accepted);
                target.wake.nudge();
                return Answer::Done(json!("polling now"));
            }
            What::Recheck => {
                target.wake.recheck();
                return Answer::Done(json!("polling now; a rejected commit is judged again"));
            }
            What::Pin(to) => match to.as_str() {
                "previous" => PinChange::Previous,
                "current" => PinChange::Current,
                commit => PinChange::Commit(commit.to_owned()),
            },
            // Answered above.
            What::Status | What::Unpin => PinChange::Unpin,
        };
        change_pin(target, change)
    }
}

/// Asks the sync thread, and waits for its answer.
fn change_pin(target: &Served, change: PinChange) -> Answer {
    let (answer, answered) = mpsc::sync_channel(1);
    target.wake.pin(PinRequest { change, answer });
    match answered.recv_timeout(ANSWER_WITHIN) {
        Ok(Ok(Some(commit))) => Answer::Done(json!(format!("readers are held on {commit}"))),
        Ok(Ok(None)) => Answer::Done(json!("readers follow the ref again")),
        Ok(Err(why)) => Answer::Failed(why),
        Err(RecvTimeoutError::Disconnected) => {
            Answer::Failed("a later request took the place of this one".to_owned())
        }
        Err(RecvTimeoutError::Timeout) => Answer::Failed(format!(
            "the sync thread has not answered within {} s; it does this as soon as it can",
            ANSWER_WITHIN.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_replaces_a_stale_one_however_long_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("long".repeat(50)).join("long".repeat(50));
        std::fs::create_dir_all(root.join(".gvr/staging")).unwrap();
        drop(listen(&root).unwrap());
        let listener = listen(&root).unwrap();
        let socket = root.join(".gvr").join(SOCKET);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&socket).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        let directory = directory(&root).unwrap();
        UnixStream::connect(within(&directory, SOCKET)).unwrap();
        listener.accept().unwrap();
        let left = std::fs::read_dir(root.join(".gvr/staging")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn what_is_in_the_way_is_an_error_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".gvr/staging")).unwrap();
        std::fs::create_dir(dir.path().join(".gvr").join(SOCKET)).unwrap();
        listen(dir.path()).unwrap_err();
        let left = std::fs::read_dir(dir.path().join(".gvr/staging")).unwrap();
        assert_eq!(left.count(), 0);
        listen(&dir.path().join("nothing")).unwrap_err();
    }

    #[test]
    fn only_one_line_within_the_limit_is_a_request() {
        let ask = |text: &str| {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(text.as_bytes()).unwrap();
            drop(client);
            read_request(&server).unwrap()
        };
        let pin = ask("{\"do\":{\"pin\":\"previous\"}}\n").unwrap();
        assert_eq!(pin.what, What::Pin("previous".to_owned()));
        let status = ask("{\"do\":\"status\",\"target\":\"docs\"}\n").unwrap();
        assert_eq!(
            (status.what, status.target.as_deref()),
            (What::Status, Some("docs"))
        );
        let long = format!(
            "{{\"do\":\"status\",\"target\":\"{}\"}}\n",
            "x".repeat(8000)
        );
        for bad in ["", "\n", "status\n", "{\"do\":\"format\"}\n", &long] {
            assert_eq!(ask(bad), None, "{bad}");
        }
    }
}
