//! What this process proves its identity with: passwords, tokens, SSH keys, and who may get them.
//!
//! A [`Source`] gives credentials and is told whether they were accepted. The [`Keyring`] holds the
//! sources with their [`Scope`] and asks the one that a URL is for; [`may_follow`] says whether a
//! header may go along with a redirect. No other room decides who may get a credential.
//!
//! To add a source: one file here, and one line in `config` that adds it to the keyring.
//!
//! Not handled: git credential helpers, askpass URLs, cookie files, client certificates, ssh-agent
//! and passphrases.

mod file;
mod keyring;
mod password;
pub mod read;
mod scope;
mod source;
mod ssh_key;
mod url;

pub use file::PasswordFile;
pub use keyring::Keyring;
pub use password::Password;
pub use scope::{Scope, may_follow};
pub use source::{Credential, Proof, Request, Source};
pub use ssh_key::KeyFile;
pub use url::UserInformation;
