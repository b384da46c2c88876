//! Git over SSH: one authenticated connection that is kept across polls, one channel per operation.
//!
//! The server runs `git-upload-pack`, with version 2 of the protocol if it accepts the environment
//! variable `GIT_PROTOCOL` and with version 0 otherwise. The async runtime of the SSH client is used
//! in this module only, and it runs only while an operation waits.
//!
//! Not handled: agents, passphrases, `~/.ssh/config`, jump hosts and passwords. Retries are the
//! caller's decision, with two exceptions: an operation that fails on a kept connection is tried once
//! more on a new one, because an idle connection may have died unnoticed; and a refused key is
//! replaced once if its source has another one by then.

mod connection;
mod endpoint;
mod exec;
mod host_key;
pub mod known_hosts;
mod notes;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Remedy, Stage, SyncError};
use crate::base::repo_url::{RepoUrl, SshUrl};
use crate::base::transfer::{Advertised, Fetched, PackSink};
use crate::credentials::{self, Credential, Keyring, Proof};
use crate::remote::config::{RemoteConfig, SshHosts};
use crate::remote::protocol::{
    Advertisement, Dialect, FetchAnswer, Greeting, LsRefs, ProtocolError, Tags, fetch_request,
    ls_refs_request, pinned, tags_request,
};
use crate::remote::upstream::{FetchRequest, RefName, Remote, Tip};

use connection::{Connection, OpenError, Operation};
use endpoint::Endpoint;
use exec::Exec;
use host_key::HostCheck;

/// The login user at hosting services.
const DEFAULT_USER: &str = "git";

/// `0000`: tells `git-upload-pack` that there is no further request.
const FLUSH: &[u8] = b"0000";

/// A repository reached by SSH.
pub struct SshRemote {
    /// The address as it is printed.
    address: String,
    endpoint: Endpoint,
    command: String,
    url: RepoUrl,
    credentials: Keyring,
    hosts: SshHosts,
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
        if config.ssh_hosts == SshHosts::Any {
            tracing::warn!(
                remote = %config.url,
                "the SSH host key is not checked, so an attacker who intercepts the connection can \
                 replace the content"
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
            url: config.url.clone(),
            credentials: config.credentials.clone(),
            hosts: config.ssh_hosts.clone(),
            connection: None,
        })
    }

    /// Runs an operation on the kept connection, or on a new one. `attempt` returns whether the
    /// connection can be kept, and sets its flag when it must not be repeated.
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
                        "the kept SSH connection failed: opening a new one"
                    );
                }
            }
        }
    }

    /// Opens a connection. If the server refuses the key, and the key's source has another one by
    /// then, tries that one at once: the file may have been replaced in between.
    fn connect(&self, operation: Operation<'_>) -> Result<Connection, SyncError> {
        let Operation { stage, budget } = operation;
        let wanted = credentials::Request {
            url: &self.url,
            stage,
            challenge: None,
        };
        let credential = self.credentials.get(&wanted, budget)?;
        let credential = credential.ok_or_else(|| {
            SyncError::new(
                stage,
                Reason::Auth,
                format!("no SSH key is configured for {}", self.address),
            )
            .with_hint("set --ssh-key-file")
        })?;
        let (connection, accepted) = match self.open(operation, &credential) {
            Ok(connection) => (connection, credential),
            Err(OpenError::Failed(error)) => return Err(error),
            Err(OpenError::KeyRefused(error)) => {
                match self.credentials.rejected(&wanted, &credential, budget)? {
                    None => return Err(error),
                    Some(renewed) => match self.open(operation, &renewed) {
                        Ok(connection) => (connection, renewed),
                        Err(OpenError::KeyRefused(error) | OpenError::Failed(error)) => {
                            return Err(error);
                        }
                    },
                }
            }
        };
        self.credentials.accepted(&wanted, &accepted);
        Ok(connection)
    }

    fn open(
        &self,
        operation: Operation<'_>,
        credential: &Credential,
    ) -> Result<Connection, OpenError> {
        let Proof::SshKey { key, name } = &credential.proof else {
            return Err(operation
                .error(
                    Reason::Auth,
                    format!("the credentials for {} are not an SSH key", self.address),
                )
                .into());
        };
        let hosts = match &self.hosts {
            SshHosts::Any => HostCheck::accept_any(&self.endpoint),
            SshHosts::Known(Some(path)) => HostCheck::load(operation.stage, &self.endpoint, path)?,
            SshHosts::Known(None) => {
                return Err(operation
                    .error(
                        Reason::Hostkey,
                        format!("no known_hosts file is configured for {}", self.address),
                    )
                    .with_hint("set --ssh-known-hosts-file")
                    .into());
            }
        };
        Connection::open(operation, &self.endpoint, hosts, key, name)
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
                // After a pack, version 0 has no further request.
                Greeting::V0(capabilities, _) => (Dialect::V0(capabilities), &b""[..]),
            };
            exec.send(fetch_request(request, dialect).map_err(at)?)?;
            let mut answer = FetchAnswer::new(request, dialect, pack);
            let read = exec.read(&mut answer);
            // The sink cannot undo what it has written.
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

/// Whether a new connection may succeed: not when the error has another remedy than to retry.
fn may_differ(error: &SyncError, budget: &Budget) -> bool {
    budget.check().is_ok() && error.remedy == Remedy::Retry
}

/// The path as one word for the server's shell, quoted as git does (`sq_quote`), because servers
/// without a shell understand only this form.
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
