//! A git server over HTTP or HTTPS: the real `git http-backend` behind a small server that counts
//! what it answers and can be made to misbehave while it runs.
//!
//! It keeps connections alive, streams what git sends, and stops with everything it started when
//! it is dropped.

mod backend;
mod connection;
mod fault;
mod request;
mod tls;

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use connection::Connection;
pub use fault::{Fault, Scope};
pub use request::Request;
pub use tls::Certificate;

/// Target and body of a question about refs.
type Asked = (String, Vec<u8>);

/// What happens once between a request with wrong credentials and the answer to it.
type BeforeRefusal = Box<dyn FnOnce() + Send>;

/// The server. Dropping it ends it.
pub struct HttpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    ca: Option<tempfile::NamedTempFile>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    root: PathBuf,
    tls: Option<Arc<rustls::ServerConfig>>,
    stopped: AtomicBool,
    connections: AtomicUsize,
    version_0: AtomicBool,
    close_each: AtomicBool,
    faults: Mutex<Vec<(Scope, Fault, Instant)>>,
    changed: Condvar,
    log: Mutex<Vec<Request>>,
    credentials: Mutex<Option<String>>,
    before_refusal: Mutex<Option<BeforeRefusal>>,
    git_config: Mutex<Vec<(String, String)>>,
    remembered: Mutex<HashMap<Asked, Vec<u8>>>,
    children: Mutex<HashSet<u32>>,
    sockets: Mutex<HashMap<usize, TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl HttpServer {
    /// Serves the repositories under `root` over HTTP.
    pub fn start(root: &Path) -> Self {
        Self::serve(root, None, None)
    }

    /// Serves the repositories under `root` over HTTPS, with a certificate made for this server.
    pub fn start_tls(root: &Path, certificate: Certificate) -> Self {
        let (config, ca_pem) = tls::config(certificate);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(ca_pem.as_bytes()).unwrap();
        Self::serve(root, Some(Arc::new(config)), Some(file))
    }

    fn serve(
        root: &Path,
        tls: Option<Arc<rustls::ServerConfig>>,
        ca: Option<tempfile::NamedTempFile>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            tls,
            ..Shared::default()
        });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self {
            address,
            shared,
            ca,
            acceptor: Some(acceptor),
        }
    }

    /// The address of a repository, by its path under the root.
    pub fn url(&self, repository: &str) -> String {
        format!("{}/{repository}", self.base())
    }

    /// Scheme, host and port.
    pub fn base(&self) -> String {
        let scheme = match self.shared.tls {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The file with the certificate of the authority that vouches for this server.
    pub fn ca_file(&self) -> &Path {
        self.ca.as_ref().unwrap().path()
    }

    /// Answers 401 to everybody else.
    pub fn require_auth(&self, username: &str, password: &str) {
        let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
        *self.shared.credentials.lock().unwrap() = Some(format!("Basic {pair}"));
    }

    /// Runs `action` once, after the next request with wrong credentials has come and before it is
    /// answered.
    pub fn before_refusal(&self, action: impl FnOnce() + Send + 'static) {
        *self.shared.before_refusal.lock().unwrap() = Some(Box::new(action));
    }

    /// Sets a git configuration key for the server's side, as `uploadpack.allowFilter`.
    pub fn git_config(&self, key: &str, value: &str) {
        let mut config = self.shared.git_config.lock().unwrap();
        config.push((key.to_owned(), value.to_owned()));
    }

    /// Whether to hide from git that the client speaks version 2.
    pub fn only_version_0(&self, only: bool) {
        self.shared.version_0.store(only, Ordering::SeqCst);
    }

    /// Whether to close each connection after one answer.
    pub fn close_each(&self, close: bool) {
        self.shared.close_each.store(close, Ordering::SeqCst);
    }

    /// Misbehaves on every request.
    pub fn inject(&self, fault: Fault) {
        self.inject_on(Scope::All, fault);
    }

    /// Misbehaves on some requests. The first fault that fits a request hits it.
    pub fn inject_on(&self, scope: Scope, fault: Fault) {
        let mut faults = self.shared.faults.lock().unwrap();
        faults.push((scope, fault, Instant::now()));
    }

    /// Behaves again; answers that are held back end with their connections.
    pub fn clear(&self) {
        self.shared.faults.lock().unwrap().clear();
        self.shared.changed.notify_all();
    }

    /// Every request since the start or the last [`Self::clear_log`].
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    pub fn clear_log(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every open connection, as an idle timeout would.
    pub fn close_connections(&self) {
        for socket in self.shared.sockets.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.clear();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.close_connections();
        for child in self.shared.children.lock().unwrap().iter() {
            if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(*child).unwrap()) {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
        }
        let threads: Vec<_> = self.shared.threads.lock().unwrap().drain(..).collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = stream.set_nodelay(true);
        if let Ok(clone) = stream.try_clone() {
            shared.sockets.lock().unwrap().insert(number, clone);
        }
        let worker = thread::spawn({
            let shared = shared.clone();
            move || {
                // What breaks a connection is the client's business to notice.
                let _ = Connection::new(stream, &shared, number).serve();
                if let Some(socket) = shared.sockets.lock().unwrap().remove(&number) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
        });
        let mut threads = shared.threads.lock().unwrap();
        threads.retain(|thread| !thread.is_finished());
        threads.push(worker);
    }
}
