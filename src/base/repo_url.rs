//! The address of a repository: parsed once, and safe to print.
//!
//! It accepts `http://`, `https://`, `ssh://` (also `git+ssh://`, `ssh+git://`), the scp-like
//! `[user@]host:path`, `file://` and plain paths (gitrevisions and `git help clone`, "GIT URLS").
//! `git://` is refused, because it has neither encryption nor authentication.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::base::secret::Secret;

/// The address of a repository. Display and Debug never show a password, a query or a fragment.
#[derive(Clone, PartialEq, Eq)]
pub enum RepoUrl {
    /// Smart HTTP.
    Http(HttpUrl),
    /// SSH, as a URL or in the scp-like form.
    Ssh(SshUrl),
    /// A repository on this machine: an absolute path, or one relative to the working directory.
    Local(PathBuf),
}

/// An `http://` or `https://` address without its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// The address without user information and fragment; its query is kept (and never printed).
    pub url: Url,
    /// The user name in the address.
    pub username: Option<String>,
    /// The password or token in the address.
    pub password: Option<Secret>,
}

/// An SSH address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshUrl {
    /// The user to log in as.
    pub user: Option<String>,
    /// The host name or address, without brackets.
    pub host: String,
    /// The TCP port; 22 unless given.
    pub port: u16,
    /// The path that is sent to the server.
    pub path: String,
}

/// Why a text is not the address of a repository. It never quotes the text, which may hold a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRepoUrl(&'static str);

impl RepoUrl {
    /// Parses an address.
    ///
    /// # Errors
    /// When it is empty, names a scheme that is not supported, or lacks a host or a path.
    pub fn parse(text: &str) -> Result<Self, BadRepoUrl> {
        if text.trim().is_empty() {
            return Err(BadRepoUrl("it is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(BadRepoUrl("it contains a control character"));
        }
        if text.starts_with('-') {
            return Err(BadRepoUrl("it begins with a dash"));
        }
        match text.split_once("://") {
            Some((scheme, _)) => match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Self::http(text),
                "ssh" | "git+ssh" | "ssh+git" => Self::ssh(text),
                "file" => Self::file(text),
                "git" => Err(BadRepoUrl(
                    "git:// is neither encrypted nor authenticated; use https:// or ssh://",
                )),
                _ => Err(BadRepoUrl(
                    "its scheme is none of http, https, ssh and file",
                )),
            },
            None if names_a_remote_helper(text) => Err(BadRepoUrl(
                "remote helpers (transport::address) are not supported",
            )),
            None => Self::scp_or_path(text),
        }
    }

    /// Whether the repository is on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    fn http(text: &str) -> Result<Self, BadRepoUrl> {
        let mut url = Url::parse(text).map_err(|_| BadRepoUrl("it is not a valid URL"))?;
        // The WHATWG parser would take the host from the path of "https:///host".
        if text
            .split_once("://")
            .is_some_and(|(_, rest)| rest.starts_with('/'))
            || url.host_str().is_none_or(str::is_empty)
        {
            return Err(BadRepoUrl("it names no host"));
        }
        let decode = |part: &str| {
            percent_decode(part).ok_or(BadRepoUrl("its user information is not UTF-8"))
        };
        let username = match url.username() {
            "" => None,
            name => Some(decode(name)?),
        };
        let password = match url.password() {
            None => None,
            Some(password) => Some(Secret::new(decode(password)?)),
        };
        // Neither call fails for a URL with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Self::Http(HttpUrl {
            url,
            username,
            password,
        }))
    }

    fn ssh(text: &str) -> Result<Self, BadRepoUrl> {
        let url = Url::parse(text).map_err(|_| BadRepoUrl("it is not a valid URL"))?;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let path = percent_decode(url.path()).ok_or(BadRepoUrl("its path is not UTF-8"))?;
        // As in git, ssh://host/~user/repo is relative to a home directory.
        let path = match path.strip_prefix("/~") {
            Some(_) => path[1..].to_owned(),
            None => path,
        };
        let user = match url.username() {
            "" => None,
            name => Some(percent_decode(name).ok_or(BadRepoUrl("its user name is not UTF-8"))?),
        };
        Self::checked_ssh(user, host, url.port().unwrap_or(22), &path)
    }

    fn checked_ssh(
        user: Option<String>,
        host: &str,
        port: u16,
        path: &str,
    ) -> Result<Self, BadRepoUrl> {
        if host.is_empty() {
            return Err(BadRepoUrl("it names no host"));
        }
        if host.starts_with('-') || user.as_deref().is_some_and(|user| user.starts_with('-')) {
            return Err(BadRepoUrl("its host or user begins with a dash"));
        }
        if path.trim_matches('/').is_empty() {
            return Err(BadRepoUrl("it names no repository on that host"));
        }
        if path.starts_with('-') {
            return Err(BadRepoUrl("its path begins with a dash"));
        }
        Ok(Self::Ssh(SshUrl {
            user,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }))
    }

    fn file(text: &str) -> Result<Self, BadRepoUrl> {
        let url = Url::parse(text).map_err(|_| BadRepoUrl("it is not a valid URL"))?;
        match url.to_file_path() {
            Ok(path) => Ok(Self::Local(path)),
            Err(()) => Err(BadRepoUrl("a file:// URL must hold an absolute path")),
        }
    }

    /// The rule of `git help clone`: the text is scp-like only if no slash is before the first colon.
    fn scp_or_path(text: &str) -> Result<Self, BadRepoUrl> {
        let (user, rest) = match text.split_once('@') {
            Some((user, rest)) if !user.contains(['/', ':']) => (Some(user), rest),
            _ => (None, text),
        };
        let split = if let Some(bracketed) = rest.strip_prefix('[') {
            bracketed.split_once("]:")
        } else {
            rest.split_once(':').filter(|(host, _)| !host.contains('/'))
        };
        match split {
            // A URL without its scheme would be printed with its password as the path.
            Some((_, path))
                if user.is_none()
                    && path
                        .trim_start_matches('/')
                        .split('/')
                        .next()
                        .is_some_and(|first| first.contains('@')) =>
            {
                Err(BadRepoUrl(
                    "it looks like user:password@host without https:// in front",
                ))
            }
            Some((host, path)) => Self::checked_ssh(user.map(str::to_owned), host, 22, path),
            None if text.contains('@') && !Path::new(text).exists() => Err(BadRepoUrl(
                "it is neither a URL, nor user@host:path, nor an existing path",
            )),
            None => Ok(Self::Local(PathBuf::from(text))),
        }
    }
}

/// `transport::address`, as in gitremote-helpers(7).
fn names_a_remote_helper(text: &str) -> bool {
    text.split_once("::").is_some_and(|(transport, _)| {
        !transport.is_empty()
            && transport
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.ok().map(Cow::into_owned)
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => http.fmt(f),
            Self::Ssh(ssh) => ssh.fmt(f),
            Self::Local(path) => {
                f.write_str(&crate::base::text::printable(&path.to_string_lossy()))
            }
        }
    }
}

impl fmt::Debug for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SshUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        // ssh does not accept "user:password@", but a user may type it.
        if let Some(user) = &self.user {
            let name = user.split(':').next().unwrap_or_default();
            write!(f, "{}@", crate::base::text::printable(name))?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port != 22 {
            write!(f, ":{}", self.port)?;
        }
        if !self.path.starts_with('/') {
            f.write_str("/")?;
        }
        f.write_str(&crate::base::text::printable(&self.path))
    }
}

impl fmt::Display for BadRepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadRepoUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        RepoUrl::parse(text).unwrap().to_string()
    }

    #[test]
    fn no_credential_survives_display_or_debug() {
        for text in [
            "https://user:tok3n@host/org/repo.git",
            "https://tok3n@host/org/repo.git",
            "https://user:p%40tok3n@host/org/repo.git?access_token=tok3n#tok3n",
            "HTTPS://x-access-token:tok3n@host:8443/r",
            "ssh://git:tok3n@host/repo",
        ] {
            let url = RepoUrl::parse(text).unwrap();
            assert!(!format!("{url} {url:?}").contains("tok3n"), "{text}");
        }
        // A URL without its scheme is refused and not quoted.
        for text in [
            "https//user:tok3n@host/x",
            "https:/user:tok3n@host/x",
            "user:tok3n@host/org/repo",
            "user:tok3n@host:org/repo",
        ] {
            let error = RepoUrl::parse(text).unwrap_err();
            assert!(!error.to_string().contains("tok3n"), "{text}");
        }
    }

    #[test]
    fn credentials_in_an_http_url_are_percent_decoded() {
        let Ok(RepoUrl::Http(http)) = RepoUrl::parse("https://us%40er:p%3Aw@host/r") else {
            panic!("not parsed as HTTP");
        };
        assert_eq!(http.username.as_deref(), Some("us@er"));
        assert_eq!(http.password, Some(Secret::new("p:w")));
    }

    #[test]
    fn ssh_addresses_are_read_in_both_forms() {
        assert_eq!(
            shown("git@host:org/repo.git"),
            "ssh://git@host/org/repo.git"
        );
        assert_eq!(
            shown("ssh://git@host:2222/org/repo"),
            "ssh://git@host:2222/org/repo"
        );
        assert_eq!(shown("[::1]:repo"), "ssh://[::1]/repo");
        let Ok(RepoUrl::Ssh(home)) = RepoUrl::parse("ssh://host/~me/repo") else {
            panic!("not parsed as SSH");
        };
        assert_eq!(home.path, "~me/repo");
    }

    #[test]
    fn paths_and_file_urls_are_local() {
        assert_eq!(
            RepoUrl::parse("/srv/r:1"),
            Ok(RepoUrl::Local("/srv/r:1".into()))
        );
        assert_eq!(RepoUrl::parse("./a:b"), Ok(RepoUrl::Local("./a:b".into())));
        assert_eq!(
            RepoUrl::parse("file:///srv/a%20b"),
            Ok(RepoUrl::Local("/srv/a b".into()))
        );
    }

    #[test]
    fn a_text_that_is_no_address_is_refused() {
        for text in [
            "",
            " ",
            "git://h/r",
            "ext::sh -c x",
            "ftp://h/r",
            "https:///r",
            "ssh://h",
            "-oProxyCommand=x:y",
            "h:-x",
            "ssh://-h/r",
            "host:",
            "https://h/\n",
        ] {
            assert!(RepoUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
