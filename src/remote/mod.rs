//! The upstream repository: what a ref points to, and the pack that brings a commit here.
//!
//! This room knows the git protocol and its transports. It does not know the store or the volume,
//! and it does not decide when to try again after a failure, except where the kept connection or
//! what is remembered of the server was the cause.

mod config;
mod errors;
mod http;
pub mod local;
pub mod protocol;
pub mod ssh;
mod upstream;

use crate::base::error::SyncError;
use crate::base::repo_url::RepoUrl;

pub use crate::base::transfer::{Advertised, Fetched, PackSink};
pub use config::{RemoteConfig, SshHosts};
pub use errors::no_commit;
pub use http::HttpRemote;
pub use local::LocalRemote;
pub use ssh::SshRemote;
pub use upstream::{FetchRequest, RefName, Remote, Tip};

/// The remote that an address needs.
///
/// # Errors
/// When the address, or what it takes to reach it, is not usable.
pub fn open(config: &RemoteConfig) -> Result<Box<dyn Remote>, SyncError> {
    match &config.url {
        RepoUrl::Http(_) => Ok(Box::new(HttpRemote::new(config)?)),
        RepoUrl::Ssh(_) => Ok(Box::new(SshRemote::new(config)?)),
        RepoUrl::Local(path) => Ok(Box::new(LocalRemote::new(path))),
    }
}
