//! A real nginx with a configuration of this repository's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use rustix::process::getuid;

use super::daemon::Daemon;
use super::environment;
use super::tools::{checkout, tools};
use super::wait::PATIENCE;

/// Starts nginx with the file at `configuration`. Its port 8080 is the daemon's, `/volume` is
/// `volume`, other ports are closed, and what it keeps in `/etc` and `/tmp` is in directories of the
/// test.
pub fn nginx(configuration: &str, volume: &Path) -> Daemon {
    let tools = tools();
    let text = fs::read_to_string(checkout().join(configuration)).unwrap();
    for needed in ["listen 8080;", "/volume", "/etc/nginx/mime.types", "/tmp/"] {
        assert!(text.contains(needed), "{configuration} has no {needed}");
    }
    Daemon::start(|dir, port| {
        let dir = dir.to_str().unwrap();
        let text = text
            .replace("/tmp/", &format!("{dir}/"))
            .replace("/volume", volume.to_str().unwrap())
            .replace(
                "/etc/nginx/mime.types",
                tools.join("share/mime.types").to_str().unwrap(),
            )
            .replace("listen 8080;", &format!("listen 127.0.0.1:{port};"))
            .replace("listen 8081;", &format!("listen unix:{dir}/8081;"));
        let file = format!("{dir}/nginx.conf");
        fs::write(&file, text).unwrap();
        // Workers of root's nginx run as nobody, who may not enter the test's directories.
        let user = if getuid().is_root() { "user root;" } else { "" };
        let mut command = environment::command(tools.join("bin/nginx").to_str().unwrap());
        command.args(["-p", dir, "-c", &file, "-e", "/dev/stderr"]);
        command.args(["-g", &format!("daemon off; {user}")]);
        command
    })
}

/// The head and the body of the answer to `GET path` with this `Host` header.
#[track_caller]
pub fn ask(port: u16, host: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
