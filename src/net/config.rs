//! The settings that all connections share.

use std::path::PathBuf;

use super::proxy::ProxyConfig;

/// How this process reaches other machines, whatever it wants from them.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// Proxies, from the usual variables.
    pub proxy: ProxyConfig,
    /// PEM bundle that replaces the system's certificate authorities (`SSL_CERT_FILE`).
    pub ca_file: Option<PathBuf>,
}
