//! Hostile clients of the port can neither delay a probe nor make the process grow.
//!
//! The server runs in a process of its own, so that the tests can measure its memory, threads and
//! descriptors.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use git_volume_reloader::base::wake::Wake;
use git_volume_reloader::serve::limits::{MAX_BODY, MAX_CONNECTIONS, MAX_HEAD, MAX_WEBHOOK_BODY};
use git_volume_reloader::serve::nudge::NudgeConfig;

use crate::serve::{Service, connect, get, read_answer, wait_until};

/// By how many bytes the process may grow at its peak.
const GROWTH: u64 = 4 << 20;

/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(1);

/// The argument that makes [`a_server_ends_with_its_handle`] the victim: libtest takes it for the
/// name of a test that does not exist.
const SERVE_IN: &str = "serve-in=";

#[test]
fn a_server_ends_with_its_handle() {
    let dir = std::env::args().find_map(|arg| arg.strip_prefix(SERVE_IN).map(PathBuf::from));
    let config = dir.as_ref().map(|dir| NudgeConfig {
        token_file: Some(dir.join("token")),
        secret_files: vec![dir.join("token")],
        ..NudgeConfig::default()
    });
    let service = Service::with_nudges(config.unwrap_or_default(), Wake::new());
    let address = service.server.local_addr();
    if let Some(dir) = dir {
        fs::write(dir.join("address.new"), address.to_string()).unwrap();
        fs::rename(dir.join("address.new"), dir.join("address")).unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let idle = connect(address);
    assert_eq!(get(address, "/livez").status, 200);
    drop(service);
    assert_eq!((&idle).read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(
        TcpStream::connect(address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn three_hundred_half_open_requests_lock_nobody_out() {
    let victim = Victim::start();
    let clients: Vec<_> = (0..300)
        .map(|_| victim.send(b"GET /livez HTTP/1.1\r\nHost: "))
        .collect();
    victim.probe_for(Duration::from_secs(1));
    assert!(victim.open_fds() <= victim.fds + MAX_CONNECTIONS as u64);
    drop(clients);
    victim.assert_unharmed();
}

#[test]
fn connections_that_say_nothing_lock_nobody_out() {
    let victim = Victim::start();
    let clients: Vec<_> = (0..300).map(|_| connect(victim.address)).collect();
    victim.probe_for(Duration::from_secs(1));
    drop(clients);
    victim.assert_unharmed();
}

#[test]
fn a_process_without_descriptors_still_answers_probes() {
    let victim = Victim::start();
    let pid = rustix::process::Pid::from_child(&victim.child);
    let limit = rustix::process::Rlimit {
        current: Some(victim.fds + 8),
        maximum: Some(victim.fds + 8),
    };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).unwrap();
    let clients: Vec<_> = (0..60)
        .map(|_| victim.send(b"GET /livez HTTP/1.1\r\n"))
        .collect();
    victim.probe_for(Duration::from_secs(1));
    drop(clients);
    victim.assert_unharmed();
}

#[test]
fn heads_that_are_almost_full_cost_no_more_than_their_limit() {
    let victim = Victim::start();
    let mut head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    head.resize(MAX_HEAD - 1, b'a');
    let clients: Vec<_> = (0..200).map(|_| victim.send(&head)).collect();
    victim.probe_for(Duration::from_secs(1));
    drop(clients);
    victim.assert_unharmed();
}

#[test]
fn a_header_line_of_a_hundred_megabytes_is_431() {
    let victim = Victim::start();
    let mut client = victim.send(b"GET /livez HTTP/1.1\r\nX: ");
    victim.pour(&mut client, 100 << 20, b'a');
    let mut client = victim.send(b"GET /livez HTTP/1.1\r\nX: ");
    // A client that stops sending in time can read the answer.
    victim.pour(&mut client, MAX_HEAD as u64 * 2, b'a');
    assert_eq!(read_answer(&mut client).status, 431);
    victim.assert_unharmed();
}

#[test]
fn an_endless_body_is_refused_or_ignored() {
    let victim = Victim::start();
    let length = u64::MAX.to_string();
    let nudge = format!(
        "POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: {length}\r\n\r\n"
    );
    assert_eq!(read_answer(&mut victim.send(nudge.as_bytes())).status, 413);
    let get = format!("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    assert_eq!(read_answer(&mut victim.send(get.as_bytes())).status, 200);
    for request in [nudge, get] {
        let mut client = victim.send(request.as_bytes());
        victim.pour(&mut client, 100 << 20, b'x');
    }
    victim.assert_unharmed();
}

#[test]
fn bodies_of_authenticated_clients_are_not_kept() {
    let victim = Victim::start();
    let request = format!(
        "POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: {MAX_BODY}\r\n\r\n"
    );
    let clients: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let mut client = victim.send(request.as_bytes());
            victim.pour(&mut client, MAX_BODY - 1, b'x');
            client
        })
        .collect();
    victim.probe_for(Duration::from_millis(500));
    drop(clients);
    victim.assert_unharmed();
}

#[test]
fn bodies_of_webhooks_share_little_memory() {
    let victim = Victim::start();
    let length = MAX_WEBHOOK_BODY;
    let request = format!(
        "POST /webhook HTTP/1.1\r\nHost: x\r\nX-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={}\r\n\
         Content-Length: {length}\r\n\r\n",
        "0".repeat(64)
    );
    let clients: Vec<_> = (0..MAX_CONNECTIONS / 2)
        .map(|_| {
            let mut client = victim.send(request.as_bytes());
            victim.pour(&mut client, 2 << 20, b'[');
            client
        })
        .collect();
    victim.probe_for(Duration::from_millis(500));
    drop(clients);
    let mut client = victim.send(request.as_bytes());
    victim.pour(&mut client, length, b'[');
    assert_eq!(read_answer(&mut client).status, 401);
    victim.assert_unharmed();
}

#[test]
fn garbage_is_refused_or_dropped() {
    let victim = Victim::start();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..500 {
        let mut garbage = vec![0; random.usize(1..MAX_HEAD * 2)];
        random.fill(&mut garbage);
        if round % 2 == 0 {
            // Far enough into a request to reach the headers.
            garbage.splice(0..0, *b"GET /livez HTTP/1.1\r\nHost: x\r\n");
        }
        let mut client = connect(victim.address);
        // The server may have closed the connection before everything was sent.
        let sent = client.write_all(&garbage);
        let mut answer = Vec::new();
        if client.read_to_end(&mut answer).is_ok() && sent.is_ok() {
            let refused = [&b"HTTP/1.0 400 "[..], b"HTTP/1.0 431 "];
            assert!(
                refused.iter().any(|refused| answer.starts_with(refused)),
                "{answer:?}"
            );
        }
    }
    victim.assert_unharmed();
}

#[test]
fn only_the_first_of_pipelined_requests_is_answered() {
    let victim = Victim::start();
    let requests = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    for _ in 0..50 {
        let mut client = victim.send(&requests);
        let answer = read_answer(&mut client);
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.body.len().to_string(),
            answer.headers["content-length"]
        );
    }
    victim.assert_unharmed();
}

#[test]
fn clients_that_do_not_read_lock_nobody_out() {
    let victim = Victim::start();
    let clients: Vec<_> = (0..300)
        .map(|_| victim.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
        .collect();
    victim.probe_for(Duration::from_secs(1));
    drop(clients);
    victim.assert_unharmed();
}

#[test]
fn a_flood_of_requests_is_answered_to_the_last() {
    let victim = Victim::start();
    let address = victim.address;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                (0..5000).for_each(|_| assert_eq!(get(address, "/livez").status, 200));
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    victim.assert_unharmed();
}

#[test]
fn a_request_that_is_not_sent_in_time_is_408() {
    let victim = Victim::start();
    let clients = [
        victim.send(b"GET /livez HTTP/1.1\r\n"),
        victim.send(b"POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 2\r\n\r\n1"),
    ];
    // Single bytes do not extend the time.
    let drip = Drip::start(victim.send(b"GET /livez HTTP/1.1\r\nX: "));
    for mut client in clients {
        assert_eq!(read_answer(&mut client).status, 408);
    }
    drip.join();
    victim.assert_unharmed();
}

/// A server in a process of its own, probed without a pause.
struct Victim {
    child: Child,
    address: SocketAddr,
    prober: Prober,
    fds: u64,
    threads: u64,
    resident: u64,
    _dir: tempfile::TempDir,
}

impl Victim {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "t").unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "abuse::a_server_ends_with_its_handle"])
            .arg(format!("{SERVE_IN}{}", dir.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut victim = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            prober: Prober::default(),
            fds: 0,
            threads: 0,
            resident: 0,
            _dir: dir,
        };
        let file = victim._dir.path().join("address");
        wait_until("the victim serves", || file.exists());
        victim.address = fs::read_to_string(file).unwrap().parse().unwrap();
        // Memory that is allocated once, at the first request, does not count as growth.
        for path in ["/livez", "/readyz", "/metrics", "/status", "/"] {
            get(victim.address, path);
        }
        let mut nudge =
            victim.send(b"POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n");
        assert_eq!(read_answer(&mut nudge).status, 202);
        victim.fds = victim.open_fds();
        victim.threads = victim.field("Threads:");
        // The high-water mark begins again from here (proc_pid_clear_refs(5)).
        fs::write(victim.proc("clear_refs"), "5").unwrap();
        victim.resident = victim.field("VmRSS:");
        victim.prober = Prober::start(victim.address);
        victim
    }

    /// A client that has sent these bytes and has read nothing.
    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut client = connect(self.address);
        client.write_all(bytes).unwrap();
        client
    }

    /// Sends up to that many bytes, as long as the server takes them.
    fn pour(&self, client: &mut TcpStream, length: u64, byte: u8) {
        let sent = std::io::copy(&mut std::io::repeat(byte).take(length), client);
        if let Err(error) = sent {
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "{error}");
        }
    }

    /// Keeps the current state for this time, while the prober sends probes.
    fn probe_for(&self, time: Duration) {
        let before = self.prober.count();
        std::thread::sleep(time);
        wait_until("probes are answered", || {
            self.prober.count() > before || self.prober.has_failed()
        });
    }

    /// Asserts that every probe was answered in time, that the peak of memory is at most [`GROWTH`]
    /// above the start, and that the numbers of threads and descriptors are as at the start.
    fn assert_unharmed(mut self) {
        self.prober.finish();
        wait_until("all descriptors are closed", || self.open_fds() == self.fds);
        assert_eq!(self.field("Threads:"), self.threads);
        let growth = (self.field("VmHWM:") * 1024).saturating_sub(self.resident * 1024);
        assert!(growth <= GROWTH, "grew by {growth} bytes");
        assert_eq!(get(self.address, "/metrics").status, 200);
    }

    fn open_fds(&self) -> u64 {
        fs::read_dir(self.proc("fd")).unwrap().count() as u64
    }

    fn field(&self, key: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        value.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(file)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `/livez` in a loop, with a new connection for each request.
#[derive(Default)]
struct Prober {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicU64>,
    thread: Option<JoinHandle<Duration>>,
}

impl Prober {
    fn start(address: SocketAddr) -> Self {
        let mut prober = Self::default();
        let (stop, count) = (prober.stop.clone(), prober.count.clone());
        prober.thread = Some(std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            // At least one probe, even if it is stopped immediately.
            loop {
                let asked = Instant::now();
                assert_eq!(get(address, "/livez").status, 200);
                worst = worst.max(asked.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return worst;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
        prober
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a probe was refused; [`Prober::finish`] then panics.
    fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Every probe was answered, and in time.
    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.thread.take().unwrap().join().unwrap();
        assert!(worst < PROBE, "a probe took {worst:?}");
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A client that sends one byte at a time until the server answers 408 or closes the connection.
struct Drip(JoinHandle<()>);

impl Drip {
    fn start(mut client: TcpStream) -> Self {
        Self(std::thread::spawn(move || {
            wait_until("a drip is cut off", || {
                client.write_all(b"a").is_err() || {
                    client
                        .set_read_timeout(Some(Duration::from_millis(100)))
                        .unwrap();
                    let mut answer = [0; 13];
                    client
                        .read_exact(&mut answer)
                        .is_ok_and(|()| answer == *b"HTTP/1.1 408 ")
                }
            });
        }))
    }

    fn join(self) {
        self.0.join().unwrap();
    }
}
