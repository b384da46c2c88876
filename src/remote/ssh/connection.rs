//! One authenticated connection, and the runtime that moves it.
//!
//! The session only moves while [`Connection::drive`] waits for something: between two operations
//! nothing runs. The kernel's keepalives hold the connection open meanwhile.
//!
//! This module does not know git, and does not try again.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use russh::{Disconnect, Preferred};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};

use super::host_key::{HostCheck, Verifier};

/// How soon a wait notices that it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

/// Enough for one long round trip: with russh's default, a fetch at 100 ms takes three times as
/// long. No memory is set aside for it.
const WINDOW: u32 = 16 << 20;

/// How long a connection may be silent before the kernel asks whether the peer still lives, and
/// then how often it asks. Below the idle limits of common middleboxes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Whom to reach, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Host name or address, without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// The user to log in as.
    pub(super) user: String,
}

/// What every wait of one operation needs to know.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    /// The stage that errors are attributed to.
    pub(super) stage: Stage,
    /// The time that is left.
    pub(super) budget: &'a Budget,
}

/// What the session said on the side, kept for error messages.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Why the host key was refused.
    pub(super) refusal: Option<SyncError>,
    /// Why the connection ended: the server's words, or what broke.
    pub(super) farewell: Option<String>,
    /// Whether the server ended it because authentication failed too often.
    pub(super) unauthenticated: bool,
}

/// Shared between the session's task and whoever waits for it.
pub(super) type SharedNotes = Arc<Mutex<Notes>>;

/// An authenticated session and its runtime. Dropping it closes the socket at once.
pub(super) struct Connection {
    /// Present until dropped.
    runtime: Option<Runtime>,
    handle: Option<Handle<Verifier>>,
    notes: SharedNotes,
    endpoint: Endpoint,
}

enum Waited<T> {
    Done(T),
    Late,
    Cancelled,
}

impl Operation<'_> {
    pub(super) fn error(&self, reason: Reason, message: impl Into<String>) -> SyncError {
        SyncError::new(self.stage, reason, message)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Connection {
    /// Resolves, connects, checks the host key and logs in.
    pub(super) fn open(
        operation: Operation<'_>,
        endpoint: &Endpoint,
        hosts: HostCheck,
        key: &Arc<PrivateKey>,
        key_name: &str,
    ) -> Result<Self, SyncError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::from_secs(1))
            .build()
            .map_err(|error| {
                operation
                    .error(Reason::Other, "cannot start the runtime of the SSH client")
                    .with_source(error)
            })?;
        // From here on, every way out goes through Drop, which does not wait for a resolver.
        let mut connection = Self {
            runtime: Some(runtime),
            handle: None,
            notes: SharedNotes::default(),
            endpoint: endpoint.clone(),
        };
        let stream = connection.connect(operation)?;
        connection.handshake(operation, hosts, stream)?;
        connection.authenticate(operation, key, key_name)?;
        tracing::debug!(remote = %endpoint, "ssh connection established");
        Ok(connection)
    }

    /// Waits for a step, no longer than `limit`, the stall limit and what is left of the total.
    ///
    /// A panic in the SSH stack comes back as an error of reason `other`.
    pub(super) fn drive<F: Future>(
        &self,
        operation: Operation<'_>,
        what: &str,
        limit: Option<Duration>,
        future: F,
    ) -> Result<F::Output, SyncError> {
        let interrupted = |cause| {
            let what = format!("{what} {}", self.endpoint);
            SyncError::interrupted(operation.stage, &what, cause)
        };
        let step = operation.budget.step().map_err(interrupted)?;
        let step = limit.map_or(step, |limit| step.min(limit));
        let late = Instant::now() + step;
        let Some(runtime) = &self.runtime else {
            return Err(operation.error(Reason::Other, "the SSH connection is closed"));
        };
        let waited = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    output = future => Waited::Done(output),
                    () = cancelled(operation.budget.cancelled()) => Waited::Cancelled,
                    () = tokio::time::sleep_until(late.into()) => Waited::Late,
                }
            })
        }));
        match waited {
            Ok(Waited::Done(output)) => Ok(output),
            // The budget names the reason, unless only this step was too long.
            Ok(Waited::Late | Waited::Cancelled) => {
                operation.budget.check().map_err(interrupted)?;
                Err(operation
                    .error(
                        Reason::Timeout,
                        format!(
                            "{what} {}: no answer for {}",
                            self.endpoint,
                            humantime::format_duration(Duration::from_millis(
                                step.as_millis().try_into().unwrap_or(u64::MAX)
                            ))
                        ),
                    )
                    .with_hint("raise --stall-timeout if the remote is merely slow"))
            }
            Err(_) => Err(operation.error(
                Reason::Other,
                format!("{what} {}: the SSH client failed", self.endpoint),
            )),
        }
    }

    /// Waits for a step of the session; its errors are put into words.
    pub(super) fn session<T>(
        &self,
        operation: Operation<'_>,
        what: &str,
        limit: Option<Duration>,
        future: impl Future<Output = Result<T, russh::Error>>,
    ) -> Result<T, SyncError> {
        self.drive(operation, what, limit, future)?
            .map_err(|error| self.failure(operation, what, error))
    }

    /// The session.
    pub(super) fn handle(&self, operation: Operation<'_>) -> Result<&Handle<Verifier>, SyncError> {
        self.handle
            .as_ref()
            .ok_or_else(|| self.lost(operation, "using the connection to"))
    }

    /// The error for a connection that ended while something was expected of it.
    pub(super) fn lost(&self, operation: Operation<'_>, what: &str) -> SyncError {
        let farewell = self.notes(|notes| notes.farewell.clone());
        let why = farewell.as_deref().unwrap_or("the connection was closed");
        operation.error(Reason::Network, format!("{what} {}: {why}", self.endpoint))
    }

    fn connect(&self, operation: Operation<'_>) -> Result<TcpStream, SyncError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let lookup = tokio::net::lookup_host((host.as_str(), *port));
        let addresses: Vec<SocketAddr> = self
            .drive(operation, "resolving", None, lookup)?
            .map_err(|error| {
                operation
                    .error(Reason::Network, format!("cannot resolve {host}"))
                    .with_source(error)
                    .with_hint("check the host in --repo, and the cluster's DNS")
            })?
            .collect();
        let mut failure = operation.error(
            Reason::Network,
            format!("{host} has no address that can be used"),
        );
        for (tried, address) in addresses.iter().enumerate() {
            // One address that swallows packets must not use up the time of the others.
            let shares = (addresses.len() - tried).try_into().unwrap_or(u32::MAX);
            let limit = operation.budget.remaining().ok().map(|left| left / shares);
            let connect = TcpStream::connect(address);
            failure = match self.drive(operation, "connecting to", limit, connect) {
                Ok(Ok(stream)) => {
                    if let Err(error) = keep_alive(&stream) {
                        tracing::debug!(%error, "no keepalives on this connection");
                    }
                    return Ok(stream);
                }
                Ok(Err(error)) => operation
                    .error(
                        Reason::Network,
                        format!("cannot connect to {} ({address})", self.endpoint),
                    )
                    .with_source(error)
                    .with_hint("check host and port in --repo, and network policies"),
                Err(error) if operation.budget.check().is_err() => return Err(error),
                Err(error) => error,
            };
        }
        Err(failure)
    }

    fn handshake(
        &mut self,
        operation: Operation<'_>,
        hosts: HostCheck,
        stream: TcpStream,
    ) -> Result<(), SyncError> {
        let config = client::Config {
            nodelay: true,
            window_size: WINDOW,
            preferred: Preferred {
                key: hosts.algorithms().into(),
                host_key_certificates: hosts.certificate_algorithms().into(),
                ..Preferred::DEFAULT
            },
            ..client::Config::default()
        };
        // russh sets this only on sockets that it opened itself.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY on this connection");
        }
        let verifier = Verifier::new(operation.stage, hosts, Arc::clone(&self.notes));
        let connect = client::connect_stream(Arc::new(config), stream, verifier);
        let handle = self.session(operation, "the SSH handshake with", None, connect)?;
        self.handle = Some(handle);
        Ok(())
    }

    fn authenticate(
        &mut self,
        operation: Operation<'_>,
        key: &Arc<PrivateKey>,
        key_name: &str,
    ) -> Result<(), SyncError> {
        const WHAT: &str = "logging in to";
        let hash = if key.algorithm().is_rsa() {
            let best = self.handle(operation)?.best_supported_rsa_hash();
            let best = self.session(operation, WHAT, None, best)?;
            best.flatten().or(Some(HashAlg::Sha512))
        } else {
            None
        };
        let Some(mut handle) = self.handle.take() else {
            return Err(self.lost(operation, WHAT));
        };
        let signer = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
        let login = handle.authenticate_publickey(self.endpoint.user.as_str(), signer);
        let result = self.session(operation, WHAT, None, login)?;
        let closed = handle.is_closed();
        self.handle = Some(handle);
        match result {
            AuthResult::Success => Ok(()),
            // What a connection that ended looks like to russh.
            AuthResult::Failure {
                remaining_methods, ..
            } if remaining_methods.is_empty()
                && closed
                && !self.notes(|notes| notes.unauthenticated) =>
            {
                Err(self.lost(operation, WHAT))
            }
            AuthResult::Failure {
                partial_success, ..
            } => {
                let more = if partial_success {
                    " alone: it wants another proof as well"
                } else {
                    ""
                };
                let Endpoint { user, .. } = &self.endpoint;
                Err(operation
                    .error(
                        Reason::Auth,
                        format!(
                            "{} does not accept the SSH key {key_name} ({}) for user {user}{more}",
                            self.endpoint,
                            key.fingerprint(HashAlg::Sha256),
                        ),
                    )
                    .with_hint(format!(
                        "add its public half as a read-only deploy key: {}",
                        public_line(key)
                    )))
            }
        }
    }

    fn failure(&self, operation: Operation<'_>, what: &str, error: russh::Error) -> SyncError {
        if let Some(refusal) = self.notes(|notes| notes.refusal.take()) {
            return refusal;
        }
        let message = format!("{what} {} failed", self.endpoint);
        match error {
            russh::Error::Disconnect
            | russh::Error::HUP
            | russh::Error::SendError
            | russh::Error::RecvError
            | russh::Error::Inconsistent => self.lost(operation, what),
            russh::Error::WrongServerSig | russh::Error::UnknownKey => {
                operation.error(Reason::Hostkey, message).with_source(error)
            }
            russh::Error::ChannelOpenFailure(reason) => operation.error(
                Reason::Server,
                format!("{} opens no session: {reason:?}", self.endpoint),
            ),
            russh::Error::NoCommonAlgo { .. } | russh::Error::Version => operation
                .error(Reason::Protocol, message)
                .with_source(error)
                .with_hint("check that an SSH server of this decade listens on that port"),
            russh::Error::IO(_) | russh::Error::ConnectionTimeout => {
                operation.error(Reason::Network, message).with_source(error)
            }
            _ => operation
                .error(Reason::Protocol, message)
                .with_source(error),
        }
    }

    fn notes<T>(&self, read: impl FnOnce(&mut Notes) -> T) -> T {
        read(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle = None;
        if let Some(runtime) = self.runtime.take() {
            // A plain drop would wait for a resolver that hangs.
            runtime.shutdown_background();
        }
    }
}

impl Notes {
    /// Keeps the first reason for the end of a connection.
    pub(super) fn say_farewell(&mut self, why: String) {
        self.farewell.get_or_insert(why);
    }

    /// Keeps what the server said when it hung up.
    pub(super) fn hung_up(&mut self, reason: Disconnect, message: &str) {
        self.unauthenticated |= matches!(
            reason,
            Disconnect::NoMoreAuthMethodsAvailable | Disconnect::IllegalUserName
        ) || message.contains("authentication failures");
        let message: String = message.chars().take(300).collect();
        self.say_farewell(format!("the server hung up ({reason:?}): {message}"));
    }
}

async fn cancelled(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCEL_CHECK).await;
    }
}

fn keep_alive(stream: &TcpStream) -> Result<(), rustix::io::Errno> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)
}

/// The line to paste where deploy keys are configured. The comment may name a person: left out.
fn public_line(key: &PrivateKey) -> String {
    let mut public = key.public_key().clone();
    public.set_comment("");
    match public.to_openssh() {
        Ok(line) => line.trim_end().to_owned(),
        Err(_) => format!("(of type {})", key.algorithm()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_ssh_stack_is_an_error_of_the_operation() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let connection = Connection {
            runtime: Some(runtime),
            handle: None,
            notes: SharedNotes::default(),
            endpoint: Endpoint {
                host: "::1".to_owned(),
                port: 22,
                user: "git".to_owned(),
            },
        };
        let budget = Budget::new(Duration::MAX, Duration::MAX, Arc::default());
        let operation = Operation {
            stage: Stage::Poll,
            budget: &budget,
        };
        let error = connection
            .drive(operation, "reading from", None, async {
                panic!("on purpose")
            })
            .unwrap_err();
        assert_eq!(error.reason, Reason::Other);
        assert_eq!(
            error.to_string(),
            "reading from [::1]:22: the SSH client failed"
        );
    }
}
