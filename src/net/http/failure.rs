//! What a connection or an answer that failed means, in words for an operator.

use std::io;

use crate::base::error::{Reason, Stage, SyncError};
use crate::net::dial::DialError;
use crate::net::tls;
use crate::net::wait::{self, Stop};

/// Why there is no answer, or only a part of it.
#[derive(Debug)]
pub struct Failure {
    /// The error as the project reports it.
    pub error: SyncError,
    /// Whether something answered that broke the rules of HTTP: it may be another server than the
    /// caller expects.
    pub malformed: bool,
}

impl Failure {
    pub(super) fn malformed(error: SyncError) -> Self {
        Self {
            error,
            malformed: true,
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        Self {
            error,
            malformed: false,
        }
    }
}

/// Whom an exchange is with, for its errors.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The step of the cycle that wants the answer.
    pub stage: Stage,
    /// The URL without anything secret.
    pub shown: String,
    /// The host name or address.
    pub host: String,
}

impl Peer {
    pub(super) fn error(&self, reason: Reason, what: &str) -> SyncError {
        SyncError::new(self.stage, reason, format!("{} {what}", self.shown))
    }

    /// What ureq's error means, or why the watch ended the operation.
    pub(super) fn failure(&self, error: ureq::Error, stop: Option<Stop>) -> Failure {
        let Self { stage, shown, host } = self;
        let stage = *stage;
        match stop {
            Some(Stop::Interrupted(cause)) => {
                return SyncError::interrupted(stage, &format!("the exchange with {shown}"), cause)
                    .into();
            }
            Some(Stop::Stalled(limit)) => {
                let what = format!("sent nothing for {}", wait::shown(limit));
                return self
                    .error(Reason::Timeout, &what)
                    .with_hint("raise --stall-timeout if the remote is merely slow")
                    .into();
            }
            None => {}
        }
        if let Some(error) = tls_cause(&error) {
            return tls::failure(stage, host, error.clone()).into();
        }
        let network = |what: String| SyncError::new(stage, Reason::Network, what);
        match error {
            ureq::Error::Other(cause) => match cause.downcast::<DialError>() {
                Ok(error) => error.at(stage).into(),
                Err(cause) => network(format!("cannot exchange data with {shown}"))
                    .with_source(cause)
                    .into(),
            },
            ureq::Error::Io(cause) => network(match cause.kind() {
                io::ErrorKind::UnexpectedEof => {
                    format!("{shown} closed the connection before its answer was complete")
                }
                _ => format!("the connection to {shown} broke"),
            })
            .with_source(cause)
            .into(),
            ureq::Error::ConnectProxyFailed(what) => {
                network(format!("the proxy on the way to {shown} refused: {what}"))
                    .with_hint("check HTTPS_PROXY, http_proxy and NO_PROXY")
                    .into()
            }
            ureq::Error::LargeResponseHeader(..) => self
                .error(Reason::Limit, "sends a head that is too large")
                .into(),
            ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::Decompress(..) => {
                Failure::malformed(
                    self.error(Reason::Protocol, "does not speak valid HTTP")
                        .with_source(error)
                        .with_hint("check the scheme and the port in the URL"),
                )
            }
            other => network(format!("cannot exchange data with {shown}"))
                .with_source(other)
                .into(),
        }
    }
}

/// The error of rustls, however it is wrapped.
fn tls_cause(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
