//! The settings of the network that come from the environment alone.

use std::path::{Path, PathBuf};

use super::environment::variable;
use super::paths::WorkingDirectory;
use crate::base::secret::Secret;
use crate::remote::ProxyConfig;

/// Proxies and certificate authorities.
pub(super) struct Network {
    pub(super) proxy: ProxyConfig,
    pub(super) ca_file: Option<PathBuf>,
}

impl Network {
    /// Reads the variables that curl and OpenSSL read.
    pub(super) fn from_environment(from: &WorkingDirectory) -> Self {
        let proxy = |names: &[&str]| names.iter().copied().find_map(variable).map(Secret::new);
        Self {
            proxy: ProxyConfig {
                https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
                // Like curl, not HTTP_PROXY: a CGI server sets it from the request header "Proxy".
                http: proxy(&["http_proxy", "all_proxy", "ALL_PROXY"]),
                no_proxy: variable("no_proxy").or_else(|| variable("NO_PROXY")),
            },
            ca_file: variable("SSL_CERT_FILE").map(|file| from.absolute(Path::new(&file))),
        }
    }
}
