//! A git server over HTTP or HTTPS: the real `git http-backend` behind a small server that counts
//! what it answers and can be made to misbehave while it runs.
//!
//! It keeps connections alive, streams what git sends, and stops with everything it started when
//! it is dropped.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// How the server misbehaves. Positions count bytes of the answer's body.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Reads the request and says nothing.
    NeverAnswer,
    /// Sends half of the head, then nothing.
    StallInHead,
    /// Sends this much of the body, then nothing.
    StallAfter(usize),
    /// Sends one byte of the body each time this passes.
    Drip(Duration),
    /// Sends this much of the body, then resets the connection.
    ResetAfter(usize),
    /// Sends this much of the body, then closes the connection.
    TruncateAfter(usize),
    /// Answers with bytes that are not HTTP.
    Garbage,
    /// Answers 200 with a web page.
    Html,
    /// Answers 200 with these bytes as git's own content type.
    Body(Vec<u8>),
    /// Answers with this status and these headers.
    Status(u16, Vec<(String, String)>),
    /// Redirects with this status to this prefix and the request's path and query.
    Redirect(u16, String),
    /// Redirects to exactly this address.
    RedirectTo(String),
    /// Answers after this long.
    Delay(Duration),
    /// Answers questions about refs as it did before, for this long from the injection on.
    Stale(Duration),
    /// Answers every fetch with git's refusal to serve the object.
    RefuseObjects,
    /// Sends a packet of this text first, for ever.
    Endless(Vec<u8>),
}

/// Which requests a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// `git-upload-pack`.
    Post,
    /// `info/refs` and `ls-refs`.
    Refs,
    /// Requests for a pack.
    Fetch,
    /// Requests whose path begins like this.
    Under(&'static str),
}

/// What is wrong with the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    Valid,
    Expired,
    NotYetValid,
    WrongName,
}

/// Target and body of a question about refs.
type Asked = (String, Vec<u8>);

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Lower-case names.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// The number of its connection, from 1.
    pub connection: usize,
    answered: Arc<AtomicU64>,
}

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
    git_config: Mutex<Vec<(String, String)>>,
    remembered: Mutex<HashMap<Asked, Vec<u8>>>,
    children: Mutex<HashSet<u32>>,
    sockets: Mutex<HashMap<usize, TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Request {
    /// Bytes sent in answer so far, the head included (before encryption).
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    fn is_fetch(&self) -> bool {
        self.method == "POST" && !self.is_ls_refs()
    }

    fn is_ls_refs(&self) -> bool {
        contains(&self.body, b"command=ls-refs")
    }

    fn in_scope(&self, scope: Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Post => self.method == "POST",
            Scope::Refs => !self.is_fetch(),
            Scope::Fetch => self.is_fetch(),
            Scope::Under(path) => self.target.starts_with(path),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl HttpServer {
    /// Serves the repositories under `root` over HTTP.
    pub fn start(root: &Path) -> Self {
        Self::serve(root, None, None)
    }

    /// Serves the repositories under `root` over HTTPS, with a certificate made for this server.
    pub fn start_tls(root: &Path, certificate: Certificate) -> Self {
        let (config, ca_pem) = tls_config(certificate);
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

enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

struct Connection<'a> {
    wire: Wire,
    shared: &'a Shared,
    number: usize,
    input: Vec<u8>,
    answered: Arc<AtomicU64>,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, shared: &'a Shared, number: usize) -> Self {
        let wire = match &shared.tls {
            None => Wire::Plain(stream),
            Some(config) => {
                let tls = rustls::ServerConnection::new(config.clone()).unwrap();
                Wire::Tls(Box::new(rustls::StreamOwned::new(tls, stream)))
            }
        };
        Self {
            wire,
            shared,
            number,
            input: Vec::new(),
            answered: Arc::default(),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        while let Some(request) = self.request()? {
            self.answered = request.answered.clone();
            self.shared.log.lock().unwrap().push(request.clone());
            self.answer(&request)?;
            if self.shared.close_each.load(Ordering::SeqCst) {
                break;
            }
        }
        if let Wire::Tls(tls) = &mut self.wire {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> io::Result<()> {
        let fault = {
            let faults = self.shared.faults.lock().unwrap();
            faults
                .iter()
                .find(|(scope, ..)| request.in_scope(*scope))
                .cloned()
        };
        let credentials = self.shared.credentials.lock().unwrap().clone();
        let admitted =
            credentials.is_none() || credentials.as_deref() == request.header("authorization");
        match fault {
            None if !admitted => {
                self.plain(401, &[("WWW-Authenticate", "Basic realm=\"git\"")], b"")
            }
            None => self.git(request, None),
            Some((_, fault, since)) => self.misbehave(request, fault, since),
        }
    }

    fn misbehave(&mut self, request: &Request, fault: Fault, since: Instant) -> io::Result<()> {
        let result_type = match request.method.as_str() {
            "GET" => "application/x-git-upload-pack-advertisement",
            _ => "application/x-git-upload-pack-result",
        };
        match fault {
            Fault::NeverAnswer => self.hold(None),
            Fault::StallInHead => {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Ty")?;
                self.hold(None)
            }
            Fault::Garbage => {
                self.write(b"\x00\x01\x02SMTP ready\r\n\r\n\xff\xfe")?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Fault::Html => {
                let page = b"<!DOCTYPE html><html><body>Sign in</body></html>";
                self.plain(200, &[("Content-Type", "text/html; charset=utf-8")], page)
            }
            Fault::Body(body) => self.plain(200, &[("Content-Type", result_type)], &body),
            Fault::Status(status, headers) => {
                let headers: Vec<_> = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                self.plain(status, &headers, b"no")
            }
            Fault::Redirect(status, prefix) => {
                let location = format!("{prefix}{}", request.target);
                self.plain(status, &[("Location", location.as_str())], b"moved")
            }
            Fault::RedirectTo(location) => {
                self.plain(302, &[("Location", location.as_str())], b"moved")
            }
            Fault::Delay(delay) => {
                // Ends early only with the server or the fault.
                let _ = self.hold(Some(delay));
                self.git(request, None)
            }
            Fault::Stale(duration) => {
                let key = (request.target.clone(), request.body.clone());
                let old = self.shared.remembered.lock().unwrap().get(&key).cloned();
                match old {
                    Some(body) if since.elapsed() < duration => {
                        self.plain(200, &[("Content-Type", result_type)], &body)
                    }
                    _ => self.git(request, None),
                }
            }
            Fault::RefuseObjects => {
                let text = "ERR upload-pack: not our ref 0123456789abcdef0123456789abcdef01234567";
                let body = format!("{:04x}{text}", text.len() + 4);
                self.plain(200, &[("Content-Type", result_type)], body.as_bytes())
            }
            Fault::Endless(packet) => {
                self.head(
                    200,
                    &[
                        ("Content-Type", result_type),
                        ("Transfer-Encoding", "chunked"),
                    ],
                )?;
                let piece = packet.repeat((64 << 10) / packet.len().max(1) + 1);
                loop {
                    self.chunk(&piece)?;
                }
            }
            Fault::StallAfter(_)
            | Fault::Drip(_)
            | Fault::ResetAfter(_)
            | Fault::TruncateAfter(_) => self.git(request, Some(fault)),
        }
    }

    /// Runs the real thing and streams what it says.
    fn git(&mut self, request: &Request, fault: Option<Fault>) -> io::Result<()> {
        let mut child = self.spawn(request)?;
        let pid = child.id();
        self.shared.children.lock().unwrap().insert(pid);
        let result = self.relay(request, &mut child, fault);
        if result.is_err() {
            let _ = child.kill();
        }
        drop(child.stdout.take());
        let _ = child.wait();
        self.shared.children.lock().unwrap().remove(&pid);
        result
    }

    fn relay(
        &mut self,
        request: &Request,
        child: &mut Child,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let mut stdin = child.stdin.take().unwrap();
        if request.body.len() <= 32 << 10 {
            let _ = stdin.write_all(&request.body);
            drop(stdin);
        } else {
            let body = request.body.clone();
            thread::spawn(move || stdin.write_all(&body));
        }
        let mut stdout = child.stdout.take().unwrap();
        let mut chunk = vec![0; 64 << 10];
        let mut head = Vec::new();
        let split = loop {
            let length = stdout.read(&mut chunk)?;
            head.extend_from_slice(&chunk[..length]);
            if let Some(at) = find(&head, b"\r\n\r\n") {
                break at + 4;
            }
            if length == 0 {
                return self.plain(500, &[], b"git http-backend said nothing");
            }
        };
        let body = head.split_off(split);
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut status = 200;
        let mut headers: Vec<(&str, &str)> = Vec::new();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("Status", value)) => status = value[..3].parse().unwrap(),
                Some((name, value)) => headers.push((name, value)),
                None => {}
            }
        }
        headers.push(("Transfer-Encoding", "chunked"));
        self.head(status, &headers)?;
        let mut kept = (!request.is_fetch()).then(Vec::new);
        let mut sent = 0;
        let mut piece = &body[..];
        let mut length;
        loop {
            if !piece.is_empty() {
                self.piece(piece, &mut sent, fault.as_ref())?;
                if let Some(kept) = kept.as_mut().filter(|kept| kept.len() < 1 << 20) {
                    kept.extend_from_slice(piece);
                }
            }
            length = stdout.read(&mut chunk)?;
            if length == 0 {
                break;
            }
            piece = &chunk[..length];
        }
        if let Some(kept) = kept {
            let key = (request.target.clone(), request.body.clone());
            self.shared.remembered.lock().unwrap().insert(key, kept);
        }
        self.write(b"0\r\n\r\n")
    }

    /// Sends one piece of a body, or as much of it as the fault lets through.
    fn piece(&mut self, piece: &[u8], sent: &mut usize, fault: Option<&Fault>) -> io::Result<()> {
        let limit = match fault {
            Some(
                Fault::StallAfter(limit) | Fault::ResetAfter(limit) | Fault::TruncateAfter(limit),
            ) => *limit,
            Some(Fault::Drip(pause)) => {
                for byte in piece {
                    self.chunk(&[*byte])?;
                    self.hold(Some(*pause))?;
                }
                return Ok(());
            }
            _ => usize::MAX,
        };
        let allowed = piece.len().min(limit - *sent);
        if allowed > 0 {
            self.chunk(&piece[..allowed])?;
            *sent += allowed;
        }
        if *sent < limit {
            return Ok(());
        }
        match fault {
            Some(Fault::StallAfter(_)) => self.hold(None),
            Some(Fault::ResetAfter(_)) => {
                let zero = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(self.socket(), zero)?;
                self.shared.sockets.lock().unwrap().remove(&self.number);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Waits until the time is over, or for ever; ends with an error when the fault is cleared,
    /// the server stops, or the client hangs up.
    fn hold(&self, duration: Option<Duration>) -> io::Result<()> {
        let until = duration.map(|duration| Instant::now() + duration);
        let mut faults = self.shared.faults.lock().unwrap();
        loop {
            if faults.is_empty() || self.shared.stopped.load(Ordering::SeqCst) || self.hung_up() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let left = match until {
                Some(until) => until.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(1),
            };
            if left.is_zero() {
                return Ok(());
            }
            let slice = left.min(Duration::from_millis(50));
            faults = self.shared.changed.wait_timeout(faults, slice).unwrap().0;
        }
    }

    fn hung_up(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let result = recv(self.socket(), &mut [0_u8; 1][..], flags);
        !matches!(result, Err(rustix::io::Errno::AGAIN)) && !matches!(result, Ok((_, 1..)))
    }

    fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(tls) => &tls.sock,
        }
    }

    fn spawn(&self, request: &Request) -> io::Result<Child> {
        use std::os::unix::process::CommandExt as _;
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        let mut command = Command::new("git");
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.shared.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", "/nonexistent")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", request.header("content-type").unwrap_or(""))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("REMOTE_USER", "tester")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env_remove("GIT_PROTOCOL")
            .env_remove("GIT_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(encoding) = request.header("content-encoding") {
            command.env("HTTP_CONTENT_ENCODING", encoding);
        }
        if let Some(protocol) = request.header("git-protocol")
            && !self.shared.version_0.load(Ordering::SeqCst)
        {
            command.env("GIT_PROTOCOL", protocol);
        }
        let config = self.shared.git_config.lock().unwrap();
        let fixed = [("safe.directory".to_owned(), "*".to_owned())];
        for (at, (key, value)) in fixed.iter().chain(config.iter()).enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command.env("GIT_CONFIG_COUNT", (config.len() + 1).to_string());
        command.spawn()
    }

    /// The next request, or `None` when the client is done.
    fn request(&mut self) -> io::Result<Option<Request>> {
        let split = loop {
            if let Some(at) = find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return Ok(None);
            }
            // A TLS handshake on a plain port.
            if self.input.first() == Some(&0x16) {
                self.plain(400, &[("Connection", "close")], b"")?;
                return Ok(None);
            }
        };
        let mut parsed = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut parsed);
        head.parse(&self.input[..split]).map_err(io::Error::other)?;
        let mut request = Request {
            method: head.method.unwrap_or_default().to_owned(),
            target: head.path.unwrap_or_default().to_owned(),
            headers: head
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).into_owned();
                    (header.name.to_ascii_lowercase(), value)
                })
                .collect(),
            body: Vec::new(),
            connection: self.number,
            answered: Arc::default(),
        };
        self.input.drain(..split);
        if request.header("expect").is_some() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if request.header("transfer-encoding").is_some() {
            request.body = self.chunked()?;
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            request.body = self.take(length)?;
        }
        Ok(Some(request))
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                match find(&self.input, b"\r\n") {
                    Some(at) => break at,
                    None if !self.fill()? => return Err(io::ErrorKind::UnexpectedEof.into()),
                    None => {}
                }
            };
            let line = self.take(at + 2)?;
            let digits = String::from_utf8_lossy(&line[..at]).into_owned();
            let length = usize::from_str_radix(&digits, 16).map_err(io::Error::other)?;
            let piece = self.take(length + 2)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&piece[..length]);
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.input.drain(..length).collect())
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let length = match &mut self.wire {
            Wire::Plain(stream) => stream.read(&mut chunk)?,
            Wire::Tls(tls) => tls.read(&mut chunk)?,
        };
        self.input.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }

    fn plain(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("Content-Length", &length));
        self.head(status, &all)?;
        self.write(body)
    }

    fn head(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} Answer\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.shared.close_each.load(Ordering::SeqCst) {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        self.write(head.as_bytes())
    }

    fn chunk(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
        self.write(&framed)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answered
            .fetch_add(bytes.len() as u64, Ordering::SeqCst);
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(bytes),
            Wire::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }
}

/// A server configuration, and the PEM of the authority that signed it.
fn tls_config(certificate: Certificate) -> (rustls::ServerConfig, String) {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
    };

    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = format!("Authority for {certificate:?}");
    authority.distinguished_name.push(DnType::CommonName, name);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);

    let names = match certificate {
        Certificate::WrongName => vec!["elsewhere.example".to_owned()],
        _ => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
    };
    let mut leaf = CertificateParams::new(names).unwrap();
    match certificate {
        Certificate::Expired => {
            leaf.not_before = date_time_ymd(2001, 1, 1);
            leaf.not_after = date_time_ymd(2002, 1, 1);
        }
        Certificate::NotYetValid => leaf.not_before = date_time_ymd(3000, 1, 1),
        Certificate::Valid | Certificate::WrongName => {}
    }
    let key = KeyPair::generate().unwrap();
    let signed = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![signed.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    (config, authority_pem)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    find(haystack, needle).is_some()
}
