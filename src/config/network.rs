//! The settings of the network that come from the environment alone.

use std::path::Path;

use super::environment::variable;
use super::paths::WorkingDirectory;
use crate::base::secret::Secret;
use crate::net::{NetConfig, ProxyConfig};

/// Reads the variables that curl and OpenSSL read.
pub(super) fn from_environment(from: &WorkingDirectory) -> NetConfig {
    let proxy = |names: &[&str]| names.iter().copied().find_map(variable).map(Secret::new);
    NetConfig {
        proxy: ProxyConfig {
            https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            // Like curl, not HTTP_PROXY: a CGI server sets it from the request header "Proxy".
            http: proxy(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            no_proxy: variable("no_proxy").or_else(|| variable("NO_PROXY")),
        },
        ca_file: variable("SSL_CERT_FILE").map(|file| from.absolute(Path::new(&file))),
    }
}
