//! Which proxy a request goes through, as curl decides it.
//!
//! Proxies are used by `CONNECT` for `http://` URLs as well.

use std::net::IpAddr;

use url::Url;

use crate::base::secret::Secret;

/// Proxy settings as curl reads them from the environment.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// For `https://` URLs; may hold credentials.
    pub https: Option<Secret>,
    /// For `http://` URLs; may hold credentials.
    pub http: Option<Secret>,
    /// Comma-separated hosts to reach directly.
    pub no_proxy: Option<String>,
}

/// The proxy for this URL, if it is not to be reached directly.
pub(super) fn proxy_for<'a>(config: &'a ProxyConfig, url: &Url) -> Option<&'a Secret> {
    let proxy = match url.scheme() {
        "https" => config.https.as_ref(),
        _ => config.http.as_ref(),
    }?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let direct = config
        .no_proxy
        .as_deref()
        .unwrap_or_default()
        .split([',', ' '])
        .any(|entry| excludes(entry.trim(), host, url.port_or_known_default()));
    (!direct).then_some(proxy)
}

/// Whether an entry of `NO_PROXY` names the host: `*`, a name (which covers the names below it),
/// an address, or a range of addresses; with or without a port.
fn excludes(entry: &str, host: &str, port: Option<u16>) -> bool {
    if entry.is_empty() {
        return false;
    }
    if entry == "*" {
        return true;
    }
    let (entry, entry_port) = match entry.rsplit_once(':') {
        // More than one colon is an IPv6 address, unless brackets say otherwise.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse().ok())
        }
        _ => (entry, None),
    };
    if entry_port.is_some() && entry_port != port {
        return false;
    }
    let entry = entry.trim_matches(['[', ']']);
    if let Ok(address) = host.parse::<IpAddr>() {
        return match entry.split_once('/') {
            Some((network, bits)) => match (network.parse(), bits.parse()) {
                (Ok(network), Ok(bits)) => in_range(address, network, bits),
                _ => false,
            },
            None => entry.parse() == Ok(address),
        };
    }
    let entry = entry.trim_start_matches("*.").trim_matches('.');
    let host = host.trim_end_matches('.');
    let Some(above) = host.len().checked_sub(entry.len()) else {
        return false;
    };
    host.is_char_boundary(above)
        && host[above..].eq_ignore_ascii_case(entry)
        && (above == 0 || host[..above].ends_with('.'))
}

fn in_range(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let differing = (a.to_bits() ^ n.to_bits()).leading_zeros();
            differing >= bits
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let differing = (a.to_bits() ^ n.to_bits()).leading_zeros();
            differing >= bits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_as_curl_has_it() {
        let config = |no_proxy: &str| ProxyConfig {
            https: Some(Secret::new("http://proxy:3128")),
            http: None,
            no_proxy: Some(no_proxy.to_owned()),
        };
        for (no_proxy, url, direct) in [
            ("", "https://git.example.com/r", false),
            ("*", "https://git.example.com/r", true),
            ("example.com", "https://git.example.com/r", true),
            (".example.com", "https://git.EXAMPLE.com/r", true),
            ("*.example.com", "https://git.example.com/r", true),
            ("ample.com", "https://git.example.com/r", false),
            (
                "a, git.example.com:8443",
                "https://git.example.com:8443/r",
                true,
            ),
            ("git.example.com:8443", "https://git.example.com/r", false),
            ("10.0.0.0/8", "https://10.1.2.3/r", true),
            ("10.0.0.0/8", "https://11.1.2.3/r", false),
            ("0.0.0.0/0", "https://11.1.2.3/r", true),
            ("fd00::/8", "https://[fd00::1]/r", true),
            ("::1", "https://[::1]/r", true),
        ] {
            let proxy = config(no_proxy);
            let url = Url::parse(url).unwrap();
            assert_eq!(
                proxy_for(&proxy, &url).is_none(),
                direct,
                "{no_proxy} {url}"
            );
        }
    }

    #[test]
    fn each_scheme_has_its_own_proxy() {
        let config = ProxyConfig {
            https: Some(Secret::new("http://proxy:3128")),
            ..ProxyConfig::default()
        };
        assert!(proxy_for(&config, &Url::parse("http://h/r").unwrap()).is_none());
        assert!(proxy_for(&config, &Url::parse("https://h/r").unwrap()).is_some());
    }
}
