//! Which host names requests may be addressed to, against DNS rebinding: a web page may look up its
//! own name as the address of this process, and its visitors' browsers then read `/status` for it.
//!
//! Addresses and names that exist only within a cluster are always allowed, because no page has
//! them. Requests that carry a proof of their own (nudges, webhooks) are not looked at.

use std::net::IpAddr;

/// The last labels of names that no page on the public web has.
const LOCAL: [&str; 5] = ["svc", "local", "localhost", "internal", "test"];

/// The names that are allowed besides.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// These names, in any case; `*` allows all.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let lower = names.into_iter().map(|name| name.to_ascii_lowercase());
        Self(lower.collect())
    }

    /// Whether a request with this Host header is answered. HTTP/1.0 allows none; a browser always
    /// sends one.
    pub(super) fn allow(&self, host: Option<&str>) -> bool {
        let Some(host) = host else {
            return true;
        };
        let name = without_port(host.trim()).trim_end_matches('.');
        let name = name.to_ascii_lowercase();
        is_local(&name) || self.0.iter().any(|known| *known == name || known == "*")
    }
}

fn without_port(host: &str) -> &str {
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    match host.split_once(':') {
        // More colons make it an IPv6 address without its brackets.
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

fn is_local(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || match name.rsplit_once('.') {
            None => true,
            Some((_, last)) => LOCAL.contains(&last),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_within_a_cluster_are_allowed() {
        let none = AllowedHosts::default();
        for host in [
            "10.1.2.3",
            "10.1.2.3:8080",
            "[::1]:80",
            "::1",
            "localhost:80",
            "docs",
            "docs.web.svc",
            "docs.web.svc.cluster.local:8080",
            "DOCS.WEB.SVC.",
        ] {
            assert!(none.allow(Some(host)), "{host}");
        }
        assert!(none.allow(None));
    }

    #[test]
    fn a_public_name_has_to_be_configured() {
        let none = AllowedHosts::default();
        let some = AllowedHosts::new(["Docs.Example.org".to_owned()]);
        let all = AllowedHosts::new(["*".to_owned()]);
        for host in ["docs.example.org", "DOCS.example.org.:443"] {
            assert!(!none.allow(Some(host)) && some.allow(Some(host)), "{host}");
        }
        for host in ["evil.example", "x.docs.example.org", "1.2.3.4.evil.example"] {
            assert!(!none.allow(Some(host)) && !some.allow(Some(host)), "{host}");
            assert!(all.allow(Some(host)));
        }
    }
}
