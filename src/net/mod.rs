//! Sockets, TLS, proxies and HTTP for every room that talks to another machine.
//!
//! [`dial`] opens a TCP connection within a [`Budget`](crate::base::budget::Budget); [`http`] sends
//! requests over it. Callers say what a status means to them, and which URL a credential is for.
//!
//! This room does not know git, credentials or retries, and it listens on nothing.

mod config;
pub mod dial;
pub mod http;
mod proxy;
mod tls;
mod wait;

pub use config::NetConfig;
pub use proxy::ProxyConfig;
