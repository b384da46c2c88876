//! How to authenticate to the remote, and how to recognise it.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// The flags about credentials and host keys.
#[derive(Args, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct AuthFlags {
    /// The user name for HTTP
    ///
    /// It takes precedence over a user name in the URL.
    #[arg(long, env = "GVR_USERNAME", value_name = "NAME")]
    pub username: Option<String>,

    /// A file with the password or token for HTTP
    ///
    /// The file is read again for every attempt. The environment variable GVR_PASSWORD can hold the
    /// password itself instead; it has no flag.
    #[arg(long, env = "GVR_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Credentials for other URLs, such as submodules; may be repeated
    ///
    /// A JSON object, for example
    /// {"url": "https://host/", "username": "me", "password-file": "/secret"}.
    /// It applies to every URL below "url"; the longest match wins.
    #[arg(
        long,
        env = "GVR_CREDENTIAL",
        value_name = "JSON",
        hide_env_values = true
    )]
    pub credential: Vec<String>,

    /// The private key for SSH
    #[arg(
        long,
        env = "GVR_SSH_KEY_FILE",
        default_value = "/etc/git-secret/ssh",
        value_name = "FILE"
    )]
    pub ssh_key_file: PathBuf,

    /// Whether the known_hosts file must list the key of the SSH server
    ///
    /// With false, any host key is accepted.
    #[arg(long, env = "GVR_SSH_KNOWN_HOSTS", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL",
          action = ArgAction::Set, hide_possible_values = true)]
    pub ssh_known_hosts: bool,

    /// The known_hosts file
    #[arg(
        long,
        env = "GVR_SSH_KNOWN_HOSTS_FILE",
        default_value = "/etc/git-secret/known_hosts",
        value_name = "FILE"
    )]
    pub ssh_known_hosts_file: PathBuf,
}
