//! Sockets, TLS, proxies and HTTP for every room that talks to another machine.
//!
//! [`dial`] opens a TCP connection within a [`Budget`](crate::base::budget::Budget); [`http`] sends
//! requests over it. Callers say what a status means to them, and which URL a credential is for.
//!
//! This room does not know git, credentials or retries, and it listens on nothing.

pub mod dial;
pub mod http;
mod proxy;
mod tls;
mod wait;

use std::path::PathBuf;

pub use proxy::ProxyConfig;

/// How this process reaches other machines, whatever it wants from them.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// Proxies, from the usual variables.
    pub proxy: ProxyConfig,
    /// PEM bundle that replaces the system's certificate authorities (`SSL_CERT_FILE`).
    pub ca_file: Option<PathBuf>,
}
