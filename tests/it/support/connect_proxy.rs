//! A proxy for TLS, as companies have them: `CONNECT` and then a tunnel.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy that knows `CONNECT`, and keeps the heads it was sent.
pub struct Proxy {
    /// Its address, with credentials.
    pub url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Answers each `CONNECT` like this, and then connects.
    pub fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://us%40er:tok3n@{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let log = heads.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, log) = (client.unwrap(), log.clone());
                thread::spawn(move || {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        let mut byte = [0];
                        client.read_exact(&mut byte).unwrap();
                        head.push(char::from(byte[0]));
                    }
                    log.lock().unwrap().push(head.clone());
                    client.write_all(answer.as_bytes()).unwrap();
                    let target = head.split(' ').nth(1).unwrap();
                    let mut server = TcpStream::connect(target).unwrap();
                    let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
                    let _ = std::io::copy(&mut client, &mut server);
                });
            }
        });
        Self { url, heads }
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}
