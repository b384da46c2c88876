//! A real OpenSSH server on a port of its own, with keys of its own, run by the current user.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use super::environment::command;
use super::wait::{PATIENCE, holds_within};

/// How the server is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether clients may ask for protocol version 2.
    pub accept_git_protocol: bool,
    /// Channels that one connection may have open at a time.
    pub max_sessions: u32,
    /// Key types of the host, as `ssh-keygen -t` names them.
    pub host_keys: Vec<&'static str>,
    /// What the host's Ed25519 key is certified for, by an authority of the server's own.
    pub certificate: Option<Certified>,
}

/// A host certificate.
#[derive(Clone, Copy, Debug)]
pub struct Certified {
    /// Host names, separated by commas; empty for all.
    pub principals: &'static str,
    /// As `ssh-keygen -V` has it.
    pub validity: &'static str,
}

/// The server; it and all its children end with it.
pub struct Sshd {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accept_git_protocol: true,
            max_sessions: 10,
            host_keys: vec!["ed25519"],
            certificate: None,
        }
    }
}

impl Sshd {
    /// A server with these settings.
    pub fn with(settings: &Settings) -> Self {
        if getuid().is_root() {
            // Where a root sshd separates its privileges; distributions make it at boot.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("authorized_keys"), "").unwrap();
        for kind in &settings.host_keys {
            generate_key(&dir.path().join(format!("host_{kind}")), kind, "");
        }
        if let Some(certified) = settings.certificate {
            certify(dir.path(), certified);
        }
        // Another process may take the port between the choice and the server's start.
        for _ in 0..5 {
            let port = free_port();
            write_config(dir.path(), port, settings);
            let mut child = launch(dir.path());
            if is_listening(dir.path(), &mut child) {
                return Self { dir, port, child };
            }
        }
        panic!("sshd does not start: {}", log(dir.path()));
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new key of this type that may log in; the path of its private half.
    pub fn client_key(&self, kind: &str) -> PathBuf {
        self.authorize(kind, "")
    }

    /// A new key that runs this shell command (without double quotes) whatever the client asks for.
    pub fn client_key_running(&self, command: &str) -> PathBuf {
        self.authorize("ed25519", &format!("command=\"{command}\" "))
    }

    /// A new key that nobody knows.
    pub fn stranger_key(&self, kind: &str) -> PathBuf {
        let path = self.dir.path().join(format!(
            "client_{kind}_{}",
            fs::read_dir(self.dir.path()).unwrap().count()
        ));
        generate_key(&path, kind, "");
        path
    }

    /// The public half of a host key: type and base64, as known_hosts has it.
    pub fn host_key(&self, kind: &str) -> String {
        public_key(&self.dir.path().join(format!("host_{kind}.pub")))
    }

    /// The public key of the authority that certified the host.
    pub fn authority(&self) -> String {
        public_key(&self.dir.path().join("authority.pub"))
    }

    /// Writes a known_hosts file with this text.
    pub fn known_hosts(&self, text: &str) -> PathBuf {
        let count = fs::read_dir(self.dir.path()).unwrap().count();
        let path = self.dir.path().join(format!("known_hosts_{count}"));
        fs::write(&path, text).unwrap();
        path
    }

    /// How many logins succeeded since the last start.
    pub fn logins(&self) -> usize {
        log(self.dir.path()).matches("Accepted publickey").count()
    }

    /// Ends the server and every connection, and starts it on the same port.
    pub fn restart(&mut self) {
        kill_tree(&mut self.child);
        self.child = launch(self.dir.path());
        let listening = is_listening(self.dir.path(), &mut self.child);
        assert!(listening, "sshd does not start: {}", log(self.dir.path()));
    }

    /// Replaces a host key; takes effect with a restart.
    pub fn replace_host_key(&self, kind: &str) {
        let path = self.dir.path().join(format!("host_{kind}"));
        fs::remove_file(&path).unwrap();
        generate_key(&path, kind, "");
    }

    fn authorize(&self, kind: &str, options: &str) -> PathBuf {
        let path = self.stranger_key(kind);
        let authorized = self.dir.path().join("authorized_keys");
        let mut keys = fs::read_to_string(&authorized).unwrap();
        keys.push_str(options);
        keys.push_str(&fs::read_to_string(path.with_extension("pub")).unwrap());
        fs::write(authorized, keys).unwrap();
        path
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        kill_tree(&mut self.child);
    }
}

/// Makes a key pair, encrypted unless the passphrase is empty.
pub fn generate_key(path: &Path, kind: &str, passphrase: &str) {
    let mut keygen = command("ssh-keygen");
    keygen.args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"]);
    if kind == "rsa" {
        keygen.args([path.to_str().unwrap(), "-b", "2048"]);
    } else {
        keygen.arg(path);
    }
    run(&mut keygen);
}

/// Rewrites a private key in another format of `ssh-keygen -m`.
pub fn convert_key(path: &Path, format: &str) {
    run(command("ssh-keygen")
        .args(["-q", "-p", "-N", "", "-m", format, "-f"])
        .arg(path));
}

fn certify(dir: &Path, certified: Certified) {
    let authority = dir.join("authority");
    generate_key(&authority, "ed25519", "");
    let mut keygen = command("ssh-keygen");
    keygen.args(["-q", "-h", "-I", "test", "-V", certified.validity, "-s"]);
    keygen.arg(&authority);
    if !certified.principals.is_empty() {
        keygen.args(["-n", certified.principals]);
    }
    run(keygen.arg(dir.join("host_ed25519.pub")));
}

fn write_config(dir: &Path, port: u16, settings: &Settings) {
    let at = dir.display();
    // SHLVL: bash then does not read the user's start-up files, which are none of the tests'
    // business and may take longer than all the rest.
    let mut config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         AuthorizedKeysFile {at}/authorized_keys\nMaxSessions {}\nMaxStartups 100\n\
         LogLevel VERBOSE\nPrintMotd no\nSetEnv SHLVL=2\n",
        settings.max_sessions
    );
    for kind in &settings.host_keys {
        config.push_str(&format!("HostKey {at}/host_{kind}\n"));
    }
    if settings.accept_git_protocol {
        config.push_str("AcceptEnv GIT_PROTOCOL\n");
    }
    if settings.certificate.is_some() {
        config.push_str(&format!("HostCertificate {at}/host_ed25519-cert.pub\n"));
    }
    fs::write(dir.join("sshd_config"), config).unwrap();
}

fn launch(dir: &Path) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    // sshd starts itself again for each connection and needs its absolute path for that.
    command("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("the tests need OpenSSH's server (package openssh-server)")
}

fn is_listening(dir: &Path, child: &mut Child) -> bool {
    let mut exited = false;
    let listening = holds_within(PATIENCE, || {
        exited = child.try_wait().unwrap().is_some();
        exited || log(dir).contains("Server listening")
    });
    listening && !exited
}

fn log(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(dir.join("log")).unwrap_or_default()).into_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn public_key(path: &Path) -> String {
    let line = fs::read_to_string(path).unwrap();
    let mut words = line.split_whitespace();
    format!("{} {}", words.next().unwrap(), words.next().unwrap())
}

fn run(keygen: &mut std::process::Command) {
    let out = keygen.stdin(Stdio::null()).output().unwrap();
    assert!(
        out.status.success(),
        "{keygen:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Kills a process and its descendants, which sshd puts into sessions of their own.
fn kill_tree(child: &mut Child) {
    let mut doomed = vec![i32::try_from(child.id()).unwrap()];
    let parents = parents();
    let mut at = 0;
    while let Some(&parent) = doomed.get(at) {
        doomed.extend(parents.iter().filter(|p| p.1 == parent).map(|p| p.0));
        at += 1;
    }
    for pid in doomed {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    }
    child.wait().unwrap();
}

/// Every process and its parent.
fn parents() -> Vec<(i32, i32)> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything; the state and the parent follow it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect()
}
