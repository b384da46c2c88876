//! A plain HTTP server that records requests and answers as the test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wait::{PATIENCE, wait_until};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// A server that records requests and answers each as the test says. Its thread ends with the test.
pub struct Listener {
    /// Host and port.
    pub address: String,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<(u16, String)>>,
}

impl Listener {
    /// A server that answers 200.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let answer = Arc::new(Mutex::new((200, String::new())));
        let (records, answers) = (received.clone(), answer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), records, answers) = (stream, records.clone(), answers.clone())
                else {
                    return;
                };
                std::thread::spawn(move || serve(&stream, &records, &answers));
            }
        });
        Self {
            address,
            received,
            answer,
        }
    }

    /// Answers so from now on.
    pub fn answer(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits for so many requests and returns them.
    #[track_caller]
    pub fn wait_for(&self, n: usize) -> Vec<Received> {
        wait_until(PATIENCE, &format!("{n} requests"), || {
            self.received().len() >= n
        });
        self.received()
    }
}

fn serve(
    stream: &TcpStream,
    received: &Mutex<Vec<Received>>,
    answer: &Mutex<(u16, String)>,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut next = || {
            let mut line = String::new();
            let length = reader.read_line(&mut line).ok()?;
            (length > 0).then(|| line.trim_end().to_owned())
        };
        let line = next()?;
        let mut headers = Vec::new();
        while let Some((name, value)) = next()?.split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        received.lock().unwrap().push(Received {
            line,
            headers,
            body: String::from_utf8(body).unwrap(),
        });
        let (status, text) = answer.lock().unwrap().clone();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        let mut stream = stream;
        stream.write_all((head + &text).as_bytes()).ok()?;
    }
}

impl Received {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
