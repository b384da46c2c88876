//! Git over SSH: one authenticated connection that is kept across polls, one channel an operation.
//!
//! The git protocol is spoken directly over `git-upload-pack`, version 2 where the server lets the
//! environment through and version 0 where it does not. An async runtime lives inside this module,
//! moves only while an operation waits, and shows nowhere outside it.
//!
//! This module does not know agents, passphrases, `~/.ssh/config`, jump hosts or passwords, and
//! decides nothing about the next attempt, but for one: a connection that was idle may have died
//! unnoticed, so whatever fails on it is tried once more on a fresh one.

mod connection;
mod exec;
mod host_key;
mod keys;
pub mod known_hosts;

use std::path::PathBuf;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::repo_url::{RepoUrl, SshUrl};
use crate::remote::protocol::{
    Advertisement, Dialect, FetchAnswer, Greeting, LsRefs, ProtocolError, Tags, fetch_request,
    ls_refs_request, pinned, tags_request,
};
use crate::remote::{
    Advertised, FetchRequest, Fetched, PackSink, RefName, Remote, RemoteConfig, Tip,
};

use connection::{Connection, Endpoint, Operation};
use exec::Exec;
use host_key::HostCheck;
use keys::KeyFile;

/// The user that hosting services log everybody in as.
const DEFAULT_USER: &str = "git";

/// `0000`: tells `git-upload-pack` that nothing more is asked.
const FLUSH: &[u8] = b"0000";

/// A repository reached by SSH.
pub struct SshRemote {
    /// The address as it is printed.
    address: String,
    endpoint: Endpoint,
    command: String,
    key: Option<KeyFile>,
    check_hosts: bool,
    known_hosts: Option<PathBuf>,
    connection: Option<Connection>,
}

impl SshRemote {
    /// A remote that is not connected yet; key and known_hosts files are read when it connects.
    ///
    /// # Errors
    /// When the address is not one of SSH.
    pub fn new(config: &RemoteConfig) -> Result<Self, SyncError> {
        let RepoUrl::Ssh(url) = &config.url else {
            return Err(SyncError::new(
                Stage::Start,
                Reason::Other,
                format!("{} is not an SSH address", config.url),
            ));
        };
        let SshUrl {
            user,
            host,
            port,
            path,
        } = url;
        let auth = &config.auth;
        if !auth.ssh_known_hosts {
            tracing::warn!(
                remote = %config.url,
                "the SSH host key is not checked: whoever intercepts the connection can replace \
                 the content"
            );
        }
        Ok(Self {
            address: config.url.to_string(),
            endpoint: Endpoint {
                host: host.clone(),
                port: *port,
                user: user.clone().unwrap_or_else(|| DEFAULT_USER.to_owned()),
            },
            command: format!("git-upload-pack {}", shell_quote(path)),
            key: auth.ssh_key_file.clone().map(KeyFile::new),
            check_hosts: auth.ssh_known_hosts,
            known_hosts: auth.ssh_known_hosts_file.clone(),
            connection: None,
        })
    }

    /// Runs an operation on the kept connection, or on a fresh one. `attempt` says whether the
    /// connection can be kept, and sets its flag once another attempt would do harm.
    fn run<T>(
        &mut self,
        operation: Operation<'_>,
        mut attempt: impl FnMut(Exec<'_>, &mut bool) -> Result<(T, bool), SyncError>,
    ) -> Result<T, SyncError> {
        loop {
            let (connection, reused) = match self.connection.take() {
                Some(connection) => (connection, true),
                None => (self.connect(operation)?, false),
            };
            let mut final_attempt = !reused;
            let result = Exec::start(&connection, operation, &self.address, &self.command, reused)
                .and_then(|exec| attempt(exec, &mut final_attempt));
            match result {
                Ok((answer, keep)) => {
                    if keep {
                        self.connection = Some(connection);
                    }
                    return Ok(answer);
                }
                Err(error) if final_attempt || !may_differ(&error, operation.budget) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(
                        remote = %self.address,
                        error = %error.chain(),
                        "the kept ssh connection failed: connecting anew"
                    );
                }
            }
        }
    }

    fn connect(&mut self, operation: Operation<'_>) -> Result<Connection, SyncError> {
        let stage = operation.stage;
        let hosts = match (&self.known_hosts, self.check_hosts) {
            (_, false) => HostCheck::accept_any(&self.endpoint),
            (Some(path), true) => HostCheck::load(stage, &self.endpoint, path)?,
            (None, true) => {
                return Err(SyncError::new(
                    stage,
                    Reason::Hostkey,
                    format!("no known_hosts file is configured for {}", self.address),
                )
                .with_hint("set --ssh-known-hosts-file"));
            }
        };
        let Some(key) = &mut self.key else {
            return Err(SyncError::new(
                stage,
                Reason::Auth,
                format!("no SSH key is configured for {}", self.address),
            )
            .with_hint("set --ssh-key-file"));
        };
        let private = key.load(stage)?;
        let key_name = key.path().display().to_string();
        Connection::open(operation, &self.endpoint, hosts, &private, &key_name)
    }
}

impl Remote for SshRemote {
    fn tip(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, SyncError> {
        if let Some(tip) = pinned(name) {
            return Ok(tip);
        }
        let stage = Stage::Poll;
        let address = self.address.clone();
        self.run(Operation { stage, budget }, |mut exec, _| {
            let tip = match greeting(&mut exec, name, stage, &address)? {
                Greeting::V0(_, tip) => tip,
                Greeting::V2(_) => {
                    exec.send(ls_refs_request(name))?;
                    let mut answer = LsRefs::new(name);
                    exec.read(&mut answer)?;
                    answer.finish().map_err(|error| error.at(stage, &address))?
                }
            };
            Ok((tip, exec.finish(FLUSH)))
        })
    }

    fn tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, SyncError> {
        let stage = Stage::Fetch;
        let address = self.address.clone();
        self.run(Operation { stage, budget }, |mut exec, _| {
            let tags = match greeting(&mut exec, &RefName::Head, stage, &address)? {
                Greeting::V0(..) => Vec::new(),
                Greeting::V2(_) => {
                    exec.send(tags_request())?;
                    let mut answer = Tags::default();
                    exec.read(&mut answer)?;
                    answer.finish().map_err(|error| error.at(stage, &address))?
                }
            };
            Ok((tags, exec.finish(FLUSH)))
        })
    }

    fn fetch(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, SyncError> {
        let stage = Stage::Fetch;
        let address = self.address.clone();
        let at = |error: ProtocolError| error.at(stage, &address);
        self.run(Operation { stage, budget }, |mut exec, final_attempt| {
            let greeting = greeting(&mut exec, &RefName::Head, stage, &address)?;
            let (dialect, goodbye) = match &greeting {
                Greeting::V2(capabilities) => (Dialect::V2(capabilities), FLUSH),
                // After a pack, version 0 has nothing more to ask.
                Greeting::V0(capabilities, _) => (Dialect::V0(capabilities), &b""[..]),
            };
            exec.send(fetch_request(request, dialect).map_err(at)?)?;
            let mut answer = FetchAnswer::new(request, dialect, pack);
            let read = exec.read(&mut answer);
            // The sink cannot take back what it has.
            *final_attempt |= answer.bytes() > 0;
            read?;
            let fetched = answer.finish().map_err(at)?;
            Ok((fetched, exec.finish(goodbye)))
        })
    }
}

fn greeting(
    exec: &mut Exec<'_>,
    name: &RefName,
    stage: Stage,
    address: &str,
) -> Result<Greeting, SyncError> {
    let mut greeting = Advertisement::new(name);
    exec.read(&mut greeting)?;
    greeting.finish().map_err(|error| error.at(stage, &address))
}

/// Whether a fresh connection may do better.
fn may_differ(error: &SyncError, budget: &Budget) -> bool {
    budget.check().is_ok()
        && !matches!(
            error.reason,
            Reason::Cancelled
                | Reason::Disk
                | Reason::Store
                | Reason::Limit
                | Reason::Hostile
                | Reason::RefMissing
        )
}

/// The path as one word for the server's shell, quoted as git does (`sq_quote`): servers that are
/// no shell only understand this form.
fn shell_quote(path: &str) -> String {
    let mut quoted = String::with_capacity(path.len() + 2);
    quoted.push('\'');
    for c in path.chars() {
        match c {
            '\'' | '!' => {
                quoted.push_str("'\\");
                quoted.push(c);
                quoted.push('\'');
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_as_git_quotes_it() {
        for (path, quoted) in [
            ("/srv/r.git", "'/srv/r.git'"),
            ("~me/r", "'~me/r'"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("wow!", "'wow'\\!''"),
            ("$(x) `y` \\", "'$(x) `y` \\'"),
        ] {
            assert_eq!(shell_quote(path), quoted);
        }
    }
}
