//! The real `git http-backend`, run once a request.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;

use super::connection::Connection;
use super::fault::Fault;
use super::request::{Request, find};

impl Connection<'_> {
    /// Runs the real thing and streams what it says.
    pub(super) fn git(&mut self, request: &Request, fault: Option<Fault>) -> io::Result<()> {
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
}
