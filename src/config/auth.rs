//! How to reach the remote: the sources of credentials with their scopes, and trusted SSH servers.
//!
//! This module reads no file: a source reads its file when it is asked.

use std::path::PathBuf;

use serde::Deserialize;

use super::environment::{non_empty, variable};
use super::error::{ConfigError, bad};
use super::network;
use super::paths::WorkingDirectory;
use crate::base::repo_url::{HttpUrl, RepoUrl};
use crate::base::secret::Secret;
use crate::cli::AuthFlags;
use crate::credentials::{KeyFile, Keyring, Password, PasswordFile, Scope, UserInformation};
use crate::remote::{RemoteConfig, SshHosts};

/// `--credential`, with git-sync's field names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CredentialJson {
    url: String,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    ssh_key_file: Option<PathBuf>,
}

/// A user name and a password from one place.
struct Login {
    username: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
}

/// How to reach the repository at `url`, and the others that it refers to.
pub(super) fn remote(
    flags: &AuthFlags,
    url: RepoUrl,
    from: &WorkingDirectory,
) -> Result<RemoteConfig, ConfigError> {
    let login = Login {
        username: non_empty(flags.username.clone()),
        password: variable("GVR_PASSWORD").map(Secret::new),
        password_file: flags
            .password_file
            .as_deref()
            .map(|file| from.absolute(file)),
    };
    if login.password.is_some() && login.password_file.is_some() {
        return Err(bad(
            "--password-file",
            "the variable GVR_PASSWORD is set, too: set only one of them",
        ));
    }
    let mut credentials = Keyring::default();
    if let RepoUrl::Http(http) = &url {
        if login.is_given() {
            login
                .completed_by(http)
                .add_to(&mut credentials, Scope::Repository(http.clone()));
        } else if let Some(in_url) = UserInformation::of(&url) {
            credentials.add(Scope::RepositoryUrl(http.clone()), in_url);
        }
    }
    let ssh_key = from.absolute(&flags.ssh_key_file);
    credentials.add(Scope::AnySsh, KeyFile::new(ssh_key));
    for json in &flags.credential {
        add_credential(json, &mut credentials, from)?;
    }
    Ok(RemoteConfig {
        url,
        credentials,
        ssh_hosts: match flags.ssh_known_hosts {
            true => SshHosts::Known(Some(from.absolute(&flags.ssh_known_hosts_file))),
            false => SshHosts::Any,
        },
        net: network::from_environment(from),
    })
}

impl Login {
    fn is_given(&self) -> bool {
        self.username.is_some() || self.password.is_some() || self.password_file.is_some()
    }

    /// Takes what was not configured from the URL of the repository.
    fn completed_by(self, url: &HttpUrl) -> Self {
        Self {
            username: self.username.or_else(|| url.username.clone()),
            password: self.password.or_else(|| url.password.clone()),
            ..self
        }
    }

    fn add_to(self, credentials: &mut Keyring, scope: Scope) {
        match self.password_file {
            Some(file) => credentials.add(scope, PasswordFile::new(self.username, file)),
            None => credentials.add(scope, Password::new(self.username, self.password)),
        }
    }
}

fn add_credential(
    json: &str,
    credentials: &mut Keyring,
    from: &WorkingDirectory,
) -> Result<(), ConfigError> {
    // The error gives only the position, because the message of serde_json would quote field names.
    let parsed: CredentialJson = serde_json::from_str(json).map_err(|error| {
        bad(
            "--credential",
            &format!(
                "it is not a JSON object as in the example of --help (line {}, column {})",
                error.line(),
                error.column()
            ),
        )
    })?;
    let url = RepoUrl::parse(&parsed.url)
        .map_err(|error| bad("--credential", &format!("its url: {error}")))?;
    if parsed.password.is_some() && parsed.password_file.is_some() {
        return Err(bad(
            "--credential",
            "it has both password and password-file: give only one of them",
        ));
    }
    let scope = Scope::Below(url.clone());
    match url {
        RepoUrl::Ssh(_) => {
            // Without a key here, the key of --ssh-key-file applies, as for every SSH host.
            if let Some(file) = parsed.ssh_key_file {
                credentials.add(scope, KeyFile::new(from.absolute(&file)));
            }
        }
        RepoUrl::Http(_) => Login {
            username: non_empty(parsed.username),
            password: non_empty(parsed.password).map(Secret::new),
            password_file: parsed
                .password_file
                .as_deref()
                .map(|file| from.absolute(file)),
        }
        .add_to(credentials, scope),
        // A path on this machine needs no credentials.
        RepoUrl::Local(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::base::budget::Budget;
    use crate::base::error::Stage;
    use crate::cli::Cli;
    use crate::config::Config;
    use crate::credentials::{Proof, Request};

    fn resolve(args: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from([&["gvr", "--root", "/v"], args].concat())
            .map_err(|e| e.to_string())?;
        Config::resolve(&cli.flags).map_err(|e| e.to_string())
    }

    /// The configured `user:password` for a URL.
    fn login(config: &Config, url: &str) -> Option<String> {
        let remote = config.targets[0].remote_for(&RepoUrl::parse(url).unwrap());
        let request = Request {
            url: &remote.url,
            stage: Stage::Poll,
            challenge: None,
        };
        let budget = Budget::new(Duration::MAX, Duration::MAX, Arc::default());
        let credential = remote.credentials.get(&request, &budget).unwrap()?;
        let Proof::Password { username, password } = credential.proof else {
            panic!("not a password");
        };
        let password = password.as_ref().map_or("", Secret::expose);
        Some(format!("{}:{password}", username.unwrap_or_default()))
    }

    #[test]
    fn a_bad_credential_is_refused_without_being_quoted() {
        for json in [
            "tok3n",
            r#"{"url":"https://h","pass":"tok3n"}"#,
            r#"{"url":"tok3n@://"}"#,
        ] {
            let error = resolve(&["--repo", "https://h/r", "--credential", json]).unwrap_err();
            assert!(
                error.starts_with("--credential") && !error.contains("tok3n"),
                "{error}"
            );
        }
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let credential = r#"{"url":"https://other/team","username":"u","password":"p"}"#;
        let config =
            resolve(&["--repo", "https://me:mine@h/r", "--credential", credential]).unwrap();
        for (url, expected) in [
            ("https://me:mine@h/r", Some("me:mine")),
            ("https://h/sub", Some("me:mine")),
            ("https://h:444/sub", None),
            ("https://other/team/x", Some("u:p")),
            ("https://other/teams/x", None),
        ] {
            assert_eq!(login(&config, url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_flag_takes_precedence_over_its_part_of_the_url_only() {
        let config = resolve(&["--repo", "https://me:mine@h/r", "--username", "you"]).unwrap();
        for url in ["https://me:mine@h/r", "https://h/sub"] {
            assert_eq!(login(&config, url).as_deref(), Some("you:mine"), "{url}");
        }
    }
}
