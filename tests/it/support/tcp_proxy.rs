//! A TCP proxy on a port of its own that can misbehave the way networks do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happens to connections; byte counts are of what the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: all bytes pass.
    None,
    /// Connections are accepted and never answered.
    Silent,
    /// After so many bytes nothing more comes, and nothing is closed.
    StallAfter(u64),
    /// After so many bytes the connection is reset.
    ResetAfter(u64),
}

/// The proxy; its threads and connections end with it.
pub struct TcpProxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: u16,
    fault: Mutex<Fault>,
    accepted: AtomicUsize,
    stopped: AtomicBool,
    connections: Mutex<Vec<Weak<Connection>>>,
}

struct Connection {
    client: TcpStream,
    server: Option<TcpStream>,
    frozen: AtomicBool,
}

impl TcpProxy {
    /// A proxy in front of a port of this machine, without fault.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::new(Fault::None),
            accepted: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Self {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What happens to connections from now on; bytes are counted per connection.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open().len()
    }

    /// From now on, what is open swallows all bytes without a word, as when a middlebox forgot
    /// the connection. New connections are not concerned.
    pub fn freeze(&self) {
        for connection in self.shared.open() {
            connection.frozen.store(true, Ordering::Relaxed);
        }
    }

    /// Closes what is open.
    pub fn disconnect(&self) {
        for connection in self.shared.open() {
            connection.close();
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.disconnect();
        // Wakes the acceptor.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
        self.disconnect();
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            let Ok(client) = client else { continue };
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let silent = *self.fault.lock().unwrap() == Fault::Silent;
            let server = if silent {
                None
            } else {
                TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)).ok()
            };
            if server.is_none() && !silent {
                continue;
            }
            let connection = Arc::new(Connection {
                client,
                server,
                frozen: AtomicBool::new(false),
            });
            self.connections
                .lock()
                .unwrap()
                .push(Arc::downgrade(&connection));
            std::thread::spawn({
                let connection = Arc::clone(&connection);
                move || connection.pump_up()
            });
            let shared = Arc::clone(&self);
            std::thread::spawn(move || connection.pump_down(&shared));
        }
    }

    fn open(&self) -> Vec<Arc<Connection>> {
        let connections = self.connections.lock().unwrap();
        connections.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Connection {
    fn close(&self) {
        // Either may be gone already.
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(server) = &self.server {
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    fn pump_up(&self) {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = (&self.client).read(&mut buffer) {
            if self.frozen.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(mut server) = self.server.as_ref()
                && server.write_all(&buffer[..n]).is_err()
            {
                break;
            }
        }
        self.close();
    }

    fn pump_down(&self, shared: &Shared) {
        let Some(mut server) = self.server.as_ref() else {
            return;
        };
        let mut buffer = [0; 16 << 10];
        let mut passed = 0;
        while let Ok(n @ 1..) = server.read(&mut buffer) {
            if self.frozen.load(Ordering::Relaxed) {
                continue;
            }
            let fault = *shared.fault.lock().unwrap();
            let room = match fault {
                Fault::StallAfter(limit) | Fault::ResetAfter(limit) => limit - passed.min(limit),
                Fault::None | Fault::Silent => u64::MAX,
            };
            let n = n.min(room.try_into().unwrap_or(usize::MAX));
            passed += n as u64;
            if (&self.client).write_all(&buffer[..n]).is_err() {
                break;
            }
            match fault {
                Fault::StallAfter(limit) if passed == limit => {
                    self.frozen.store(true, Ordering::Relaxed);
                }
                Fault::ResetAfter(limit) if passed == limit => {
                    // Closing with no time to linger sends RST once the last handle is gone.
                    let none = Some(Duration::ZERO);
                    rustix::net::sockopt::set_socket_linger(&self.client, none).unwrap();
                    let _ = self.client.shutdown(Shutdown::Read);
                    let _ = server.shutdown(Shutdown::Both);
                    return;
                }
                _ => {}
            }
        }
        self.close();
    }
}
