//! The settings that all connections share.

use std::path::PathBuf;

use url::{Host, Url};

use super::proxy::ProxyConfig;

/// How this process reaches other machines, whatever it wants from them.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// Proxies, from the usual variables.
    pub proxy: ProxyConfig,
    /// PEM bundle that replaces the system's certificate authorities (`SSL_CERT_FILE`).
    pub ca_file: Option<PathBuf>,
}

impl NetConfig {
    /// The same, without a proxy if the URL names this machine: a proxy elsewhere cannot reach it.
    #[must_use]
    pub fn direct_to_loopback(self, url: &Url) -> Self {
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if is_loopback {
            Self {
                proxy: ProxyConfig::default(),
                ..self
            }
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    #[test]
    fn a_loopback_address_is_reached_without_a_proxy() {
        let config = NetConfig {
            proxy: ProxyConfig {
                http: Some(Secret::new("http://proxy:3128")),
                ..ProxyConfig::default()
            },
            ca_file: None,
        };
        for (url, proxied) in [
            ("http://localhost:80/", false),
            ("http://127.0.0.2/", false),
            ("http://[::1]:8080/", false),
            ("http://localhost.example/", true),
            ("http://10.0.0.1/", true),
        ] {
            let config = config.clone().direct_to_loopback(&Url::parse(url).unwrap());
            assert_eq!(config.proxy.http.is_some(), proxied, "{url}");
        }
    }
}
