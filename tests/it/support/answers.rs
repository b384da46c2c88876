//! Servers that answer badly: the same bytes to every request, nothing at all, or a fetch that
//! stops in the middle of the pack.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A listening server with one way to answer.
pub struct BadServer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How it answers.
#[derive(Clone, Debug)]
pub enum Answers {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// The answer that this function makes of the head of the request.
    Made(fn(&str) -> Vec<u8>),
    /// Nothing: it accepts, reads and keeps silent.
    Silence,
    /// It names this commit as the tip of `main` and of HEAD; a fetch gets the first bytes of a
    /// pack and no more.
    StallInPack(String),
}

impl Answers {
    /// An HTTP answer with this status line and an HTML body.
    pub fn html(status: &str) -> Self {
        let body = "<!DOCTYPE html><title>Sign in</title>";
        Self::Bytes(http(status, "text/html; charset=utf-8", body.as_bytes()))
    }
}

impl BadServer {
    /// Starts one on a free port of the loopback interface.
    pub fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, open, ended) = (
            Arc::clone(&requests),
            Arc::clone(&connections),
            Arc::clone(&stop),
        );
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let (count, answers) = (Arc::clone(&count), answers.clone());
                open.lock().unwrap().push(connection.try_clone().unwrap());
                // Ends with its connection, which is shut on drop.
                std::thread::spawn(move || serve(connection, &answers, &count));
            }
        });
        Self {
            address,
            requests,
            connections,
            stop,
            thread: Some(thread),
        }
    }

    /// An `http://` address of a repository there; `user` is put before the host.
    pub fn url(&self, user: &str) -> String {
        format!("http://{user}{}/project.git", self.address)
    }

    /// How many requests it has read: for a server that stalls in the pack, how many fetches.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for BadServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut connection: TcpStream, answers: &Answers, count: &AtomicUsize) {
    while let Some(request) = read_request(&mut connection) {
        match answers {
            Answers::Bytes(bytes) => {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = connection.write_all(bytes);
                let _ = connection.shutdown(Shutdown::Both);
                return;
            }
            Answers::Made(make) => {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = connection.write_all(&make(&request));
                let _ = connection.shutdown(Shutdown::Both);
                return;
            }
            Answers::Silence => {
                count.fetch_add(1, Ordering::SeqCst);
            }
            Answers::StallInPack(commit) => {
                let (answer, fetch) = smart_answer(&request, commit);
                if connection.write_all(&answer).is_err() {
                    return;
                }
                if fetch {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

/// The answer to a smart HTTP request (gitprotocol-http, gitprotocol-v2), and whether it was a
/// fetch. The answer to a fetch announces a megabyte and holds only its beginning.
fn smart_answer(request: &str, commit: &str) -> (Vec<u8>, bool) {
    const RESULT: &str = "application/x-git-upload-pack-result";
    if request.starts_with("GET ") {
        let body = [
            packet("# service=git-upload-pack\n"),
            "0000".to_owned(),
            packet("version 2\n"),
            packet("agent=git/2.47.0\n"),
            packet("ls-refs=unborn\n"),
            packet("fetch=shallow wait-for-done filter\n"),
            packet("object-format=sha1\n"),
            "0000".to_owned(),
        ]
        .concat();
        let kind = "application/x-git-upload-pack-advertisement";
        return (http("200 OK", kind, body.as_bytes()), false);
    }
    if request.contains("command=ls-refs") {
        let body = [
            packet(&format!("{commit} HEAD symref-target:refs/heads/main\n")),
            packet(&format!("{commit} refs/heads/main\n")),
            "0000".to_owned(),
        ]
        .concat();
        return (http("200 OK", RESULT, body.as_bytes()), false);
    }
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {RESULT}\r\nContent-Length: 1000000\r\n\r\n")
            .into_bytes();
    let opening = if request.contains("command=fetch") {
        [
            packet("shallow-info\n"),
            packet(&format!("shallow {commit}")),
            "0001".to_owned(),
            packet("packfile\n"),
        ]
        .concat()
    } else {
        [
            packet(&format!("shallow {commit}")),
            "0000".to_owned(),
            packet("NAK\n"),
        ]
        .concat()
    };
    answer.extend_from_slice(opening.as_bytes());
    // Sideband 1, the header of a pack of 1000 objects, and half a kilobyte that never comes.
    answer.extend_from_slice(b"0200\x01PACK\x00\x00\x00\x02\x00\x00\x03\xe8");
    (answer, true)
}

pub fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

pub fn http(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// One request, head and body, as text; None at the end of the connection.
fn read_request(connection: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let complete = if head.contains("transfer-encoding: chunked") {
                body.ends_with("0\r\n\r\n")
            } else {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.trim().parse().unwrap());
                body.len() >= length
            };
            if complete {
                return Some(text);
            }
        }
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::upstream::git;
    use crate::support::wait::{PATIENCE, wait_until};

    #[test]
    fn git_reads_the_refs_of_a_server_that_stalls_and_its_fetch_hangs() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let server = BadServer::start(Answers::StallInPack(commit.to_owned()));
        let home = tempfile::tempdir().unwrap();
        let out = git(home.path())
            .args(["ls-remote", "--symref", &server.url("")])
            .output()
            .unwrap();
        let refs = String::from_utf8(out.stdout).unwrap();
        assert!(
            refs.contains(&format!("{commit}\trefs/heads/main")),
            "{refs}"
        );
        assert_eq!(server.requests(), 0);
        let mut child = git(home.path())
            .args(["clone", "--quiet", "--depth=1", &server.url(""), "clone"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until(PATIENCE, "the fetch", || server.requests() == 1);
        assert!(child.try_wait().unwrap().is_none(), "it did not hang");
        drop(server);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn git_is_told_what_the_answer_says() {
        let home = tempfile::tempdir().unwrap();
        let server = BadServer::start(Answers::html("404 Not Found"));
        let out = git(home.path())
            .args(["ls-remote", &server.url("")])
            .output()
            .unwrap();
        let message = String::from_utf8(out.stderr).unwrap();
        assert!(message.contains("not found"), "{message}");
        assert!(server.requests() > 0);
    }
}
