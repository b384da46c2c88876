//! Who may get a credential: the only place that decides it.

use url::Url;

use crate::base::repo_url::{HttpUrl, RepoUrl};

/// The URLs that a source is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The configured repository, and other repositories with the same scheme, host and port.
    Repository(HttpUrl),
    /// The same for what stands in the repository's URL: another URL's own password goes before.
    RepositoryUrl(HttpUrl),
    /// This URL and all below it. Goes before the credentials of the configured repository for all
    /// URLs but the repository's own.
    Below(RepoUrl),
    /// Every SSH server: a private key never leaves this process, so that it may sign in anywhere.
    AnySsh,
}

/// How well a scope fits a URL; the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// The repository's host, by what stands in its URL.
    HostByUrl,
    /// What stands in the wanted URL itself.
    OwnUrl,
    /// Any SSH server, or the repository's host by what was configured.
    Host,
    /// A prefix of so many characters.
    Prefix(usize),
    /// The configured repository itself.
    Repository,
}

impl Scope {
    /// How well this scope fits, or None where the credentials must not go.
    pub(super) fn fit(&self, url: &RepoUrl) -> Option<Fit> {
        match (self, url) {
            (Self::Repository(own) | Self::RepositoryUrl(own), RepoUrl::Http(http)) => {
                if own.url == http.url {
                    Some(Fit::Repository)
                } else if own.url.origin() == http.url.origin() {
                    Some(match self {
                        Self::Repository(_) => Fit::Host,
                        _ => Fit::HostByUrl,
                    })
                } else {
                    None
                }
            }
            (Self::Below(prefix), _) => {
                lies_below(url, prefix).then(|| Fit::Prefix(prefix.to_string().len()))
            }
            (Self::AnySsh, RepoUrl::Ssh(_)) => Some(Fit::Host),
            _ => None,
        }
    }
}

/// Whether a header that was meant for `origin` may be sent to `url` after a redirect: to the same
/// scheme, host and port, and to the same host when it only changes from http to https.
pub fn may_follow(origin: &Url, url: &Url) -> bool {
    let upgraded = origin.scheme() == "http"
        && url.scheme() == "https"
        && origin.port().is_none()
        && url.port().is_none();
    origin.host_str() == url.host_str() && (origin.origin() == url.origin() || upgraded)
}

fn lies_below(url: &RepoUrl, prefix: &RepoUrl) -> bool {
    match (url, prefix) {
        (RepoUrl::Http(http), RepoUrl::Http(below)) => {
            http.url.origin() == below.url.origin() && path_below(http.url.path(), below.url.path())
        }
        (RepoUrl::Ssh(ssh), RepoUrl::Ssh(below)) => {
            ssh.host == below.host && ssh.port == below.port && path_below(&ssh.path, &below.path)
        }
        _ => false,
    }
}

fn path_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_matches('/');
    let path = path.trim_start_matches('/');
    prefix.is_empty()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_follows_to_its_own_origin_and_to_its_https_only() {
        for (origin, url, allowed) in [
            ("https://h/r", "https://h/other", true),
            ("https://h/r", "https://h:443/r", true),
            ("https://h/r", "https://h:8443/r", false),
            ("https://h/r", "https://h.evil/r", false),
            ("http://h/r", "https://h/r", true),
            ("http://h:8080/r", "https://h:8443/r", false),
            ("https://h/r", "http://h/r", false),
        ] {
            let parse = |text| Url::parse(text).unwrap();
            assert_eq!(
                may_follow(&parse(origin), &parse(url)),
                allowed,
                "{origin} {url}"
            );
        }
    }

    #[test]
    fn a_prefix_ends_at_a_slash_and_stays_on_its_host() {
        for (prefix, url, below) in [
            ("https://h/team", "https://h/team", true),
            ("https://h/team", "https://h/team/r", true),
            ("https://h/team/", "https://h/team/r", true),
            ("https://h/team", "https://h/teams/r", false),
            ("https://h/", "https://h/r", true),
            ("https://h/", "https://h:444/r", false),
            ("https://h/", "http://h/r", false),
            ("https://h/", "https://h.evil/r", false),
            ("ssh://h/team", "git@h:team/r", true),
            ("ssh://h/team", "ssh://h:2222/team/r", false),
            ("https://h/team", "ssh://h/team/r", false),
            ("/srv", "/srv/r", false),
        ] {
            let parse = |text| RepoUrl::parse(text).unwrap();
            assert_eq!(
                lies_below(&parse(url), &parse(prefix)),
                below,
                "{prefix} {url}"
            );
        }
    }
}
