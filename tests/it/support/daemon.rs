//! A program that runs until its value is dropped, and whose process group ends with it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::wait::{PATIENCE, holds_within};

/// A program that runs in the background.
pub struct Daemon {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Daemon {
    /// Starts the server that `prepare` returns for an empty directory and a port, and waits until it
    /// accepts connections. Another process may take the port first, so it tries several.
    #[track_caller]
    pub fn start(prepare: impl Fn(&Path, u16) -> Command) -> Self {
        let mut log = String::new();
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let port = free_port();
            let command = prepare(dir.path(), port);
            let mut daemon = Self::spawn(command, dir, port);
            if daemon.accepts() {
                return daemon;
            }
            log = daemon.log();
        }
        panic!("the server does not start:\n{log}");
    }

    /// Starts a program that does not listen.
    pub fn run(command: Command) -> Self {
        Self::spawn(command, tempfile::tempdir().unwrap(), 0)
    }

    fn spawn(mut command: Command, dir: TempDir, port: u16) -> Self {
        let output = File::create(dir.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { dir, port, child }
    }

    /// The port of a server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn accepts(&mut self) -> bool {
        let mut exited = false;
        let accepts = holds_within(PATIENCE, || {
            exited = self.child.try_wait().unwrap().is_some();
            exited || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        accepts && !exited
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
