//! One authenticated connection, and the runtime that runs it.
//!
//! The session only runs while [`Connection::drive`] waits for something; between two operations the
//! kernel's keepalives hold the connection open.
//!
//! This module does not know git, and it does not retry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use russh::Preferred;
use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::net::dial::dial;

use super::endpoint::Endpoint;
use super::host_key::{HostCheck, Verifier};
use super::notes::SharedNotes;

/// How long a cancellation may stay unnoticed.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

/// Enough for one round trip of 100 ms: with russh's default, a fetch over such a connection takes
/// three times as long. No memory is reserved for it.
const WINDOW: u32 = 16 << 20;

/// How long a connection may be idle before the kernel sends keepalive probes, and the interval
/// between them. Below the idle limits of common middleboxes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The context of one operation, which every wait of it needs.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    /// The stage that errors are attributed to.
    pub(super) stage: Stage,
    /// The time that the operation may take.
    pub(super) budget: &'a Budget,
}

/// An authenticated session and its runtime. Dropping it closes the socket at once.
pub(super) struct Connection {
    /// Dropped before the runtime that moves it.
    handle: Option<Handle<Verifier>>,
    runtime: Runtime,
    notes: SharedNotes,
    endpoint: Endpoint,
}

/// Why a connection could not be opened.
pub(super) enum OpenError {
    /// The server does not accept the key.
    KeyRefused(SyncError),
    /// Anything else.
    Failed(SyncError),
}

enum Waited<T> {
    Done(T),
    Late,
    Cancelled,
}

impl From<SyncError> for OpenError {
    fn from(error: SyncError) -> Self {
        Self::Failed(error)
    }
}

impl Operation<'_> {
    pub(super) fn error(&self, reason: Reason, message: impl Into<String>) -> SyncError {
        SyncError::new(self.stage, reason, message)
    }
}

impl Connection {
    /// Connects, checks the host key and logs in.
    pub(super) fn open(
        operation: Operation<'_>,
        endpoint: &Endpoint,
        hosts: HostCheck,
        key: &Arc<PrivateKey>,
        key_name: &str,
    ) -> Result<Self, OpenError> {
        let stream = dial(&endpoint.host, endpoint.port, operation.budget)
            .map_err(|error| error.at(operation.stage))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                operation
                    .error(Reason::Other, "cannot start the runtime of the SSH client")
                    .with_source(error)
            })?;
        let mut connection = Self {
            handle: None,
            runtime,
            notes: SharedNotes::default(),
            endpoint: endpoint.clone(),
        };
        let stream = connection.adopt(operation, stream)?;
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
        let waited = catch_unwind(AssertUnwindSafe(|| {
            self.runtime.block_on(async {
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

    /// Waits for a step of the session, and turns russh's errors into the project's.
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

    /// The error for a connection that ended during a step.
    pub(super) fn lost(&self, operation: Operation<'_>, what: &str) -> SyncError {
        let ending = self.notes.lock().ending.clone();
        let why = ending.as_deref().unwrap_or("the connection was closed");
        operation.error(Reason::Network, format!("{what} {}: {why}", self.endpoint))
    }

    /// Hands a connected socket to the runtime.
    fn adopt(
        &self,
        operation: Operation<'_>,
        stream: std::net::TcpStream,
    ) -> Result<TcpStream, SyncError> {
        if let Err(error) = keep_alive(&stream) {
            tracing::debug!(%error, "no keepalives on this connection");
        }
        let _context = self.runtime.enter();
        stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream))
            .map_err(|error| {
                let message = format!("cannot use the connection to {}", self.endpoint);
                operation.error(Reason::Other, message).with_source(error)
            })
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
        let verifier = Verifier::new(operation.stage, hosts, self.notes.clone());
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
    ) -> Result<(), OpenError> {
        const WHAT: &str = "logging in to";
        let hash = if key.algorithm().is_rsa() {
            let best = self.handle(operation)?.best_supported_rsa_hash();
            let best = self.session(operation, WHAT, None, best)?;
            best.flatten().or(Some(HashAlg::Sha512))
        } else {
            None
        };
        let Some(mut handle) = self.handle.take() else {
            return Err(self.lost(operation, WHAT).into());
        };
        let signer = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
        let login = handle.authenticate_publickey(self.endpoint.user.as_str(), signer);
        let result = self.session(operation, WHAT, None, login)?;
        let closed = handle.is_closed();
        self.handle = Some(handle);
        match result {
            AuthResult::Success => Ok(()),
            // russh reports a connection that ended like this.
            AuthResult::Failure {
                remaining_methods, ..
            } if remaining_methods.is_empty() && closed && !self.notes.lock().unauthenticated => {
                Err(self.lost(operation, WHAT).into())
            }
            AuthResult::Failure {
                partial_success, ..
            } => {
                let more = if partial_success {
                    " alone: it wants a second factor as well"
                } else {
                    ""
                };
                let Endpoint { user, .. } = &self.endpoint;
                let refused = operation
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
                    ));
                Err(OpenError::KeyRefused(refused))
            }
        }
    }

    fn failure(&self, operation: Operation<'_>, what: &str, error: russh::Error) -> SyncError {
        if let Some(refusal) = self.notes.lock().refusal.take() {
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
                .with_hint("check that a current SSH server listens on that port"),
            russh::Error::IO(_) | russh::Error::ConnectionTimeout => {
                operation.error(Reason::Network, message).with_source(error)
            }
            _ => operation
                .error(Reason::Protocol, message)
                .with_source(error),
        }
    }
}

async fn cancelled(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCEL_CHECK).await;
    }
}

fn keep_alive(stream: &std::net::TcpStream) -> Result<(), rustix::io::Errno> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)
}

/// The line to paste where deploy keys are configured, without the comment, which may name a
/// person.
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
            handle: None,
            runtime,
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
