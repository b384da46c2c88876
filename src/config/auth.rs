//! Credentials: who gets which.

use std::path::PathBuf;

use serde::Deserialize;

use super::environment::{non_empty, variable};
use super::error::{ConfigError, bad};
use super::paths::WorkingDirectory;
use crate::base::repo_url::RepoUrl;
use crate::base::secret::Secret;
use crate::cli::AuthFlags;
use crate::remote::Auth;

/// A user name and password for every URL below a prefix.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Applies to this URL and all below it.
    pub url: RepoUrl,
    /// What to authenticate with.
    pub auth: Auth,
}

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

/// The credentials of `--repo`.
pub(super) fn auth(flags: &AuthFlags, from: &WorkingDirectory) -> Result<Auth, ConfigError> {
    let auth = Auth {
        username: non_empty(flags.username.clone()),
        password_file: flags
            .password_file
            .as_deref()
            .map(|file| from.absolute(file)),
        password: variable("GVR_PASSWORD").map(Secret::new),
        ssh_key_file: Some(from.absolute(&flags.ssh_key_file)),
        ssh_known_hosts: flags.ssh_known_hosts,
        ssh_known_hosts_file: Some(from.absolute(&flags.ssh_known_hosts_file)),
    };
    if auth.password.is_some() && auth.password_file.is_some() {
        return Err(bad(
            "--password-file",
            "the variable GVR_PASSWORD is set, too: set only one of them",
        ));
    }
    Ok(auth)
}

/// The credentials of other URLs. What an object leaves out about SSH comes from `main`.
pub(super) fn credentials(
    flags: &AuthFlags,
    main: &Auth,
    from: &WorkingDirectory,
) -> Result<Vec<Credential>, ConfigError> {
    flags
        .credential
        .iter()
        .map(|json| credential(json, main, from))
        .collect()
}

fn credential(json: &str, main: &Auth, from: &WorkingDirectory) -> Result<Credential, ConfigError> {
    // serde_json quotes no values in its messages, only positions and field names.
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
    Ok(Credential {
        url,
        auth: Auth {
            username: non_empty(parsed.username),
            password_file: parsed
                .password_file
                .as_deref()
                .map(|file| from.absolute(file)),
            password: non_empty(parsed.password).map(Secret::new),
            ssh_key_file: parsed
                .ssh_key_file
                .as_deref()
                .map(|file| from.absolute(file))
                .or_else(|| main.ssh_key_file.clone()),
            ..main.clone()
        },
    })
}
