//! One connection: what it has in hand, and how answers are framed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use super::request::Request;

pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

pub(super) struct Connection<'a> {
    wire: Wire,
    pub(super) shared: &'a Shared,
    pub(super) number: usize,
    pub(super) input: Vec<u8>,
    answered: Arc<AtomicU64>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: TcpStream, shared: &'a Shared, number: usize) -> Self {
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

    pub(super) fn serve(&mut self) -> io::Result<()> {
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
                if let Some(action) = self.shared.before_refusal.lock().unwrap().take() {
                    action();
                }
                self.plain(401, &[("WWW-Authenticate", "Basic realm=\"git\"")], b"")
            }
            None => self.git(request, None),
            Some((_, fault, since)) => self.misbehave(request, fault, since),
        }
    }

    pub(super) fn hung_up(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let result = recv(self.socket(), &mut [0_u8; 1][..], flags);
        !matches!(result, Err(rustix::io::Errno::AGAIN)) && !matches!(result, Ok((_, 1..)))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(tls) => &tls.sock,
        }
    }

    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let length = match &mut self.wire {
            Wire::Plain(stream) => stream.read(&mut chunk)?,
            Wire::Tls(tls) => tls.read(&mut chunk)?,
        };
        self.input.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }

    pub(super) fn plain(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("Content-Length", &length));
        self.head(status, &all)?;
        self.write(body)
    }

    pub(super) fn head(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
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

    pub(super) fn chunk(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
        self.write(&framed)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answered
            .fetch_add(bytes.len() as u64, Ordering::SeqCst);
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(bytes),
            Wire::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }
}
