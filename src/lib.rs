//! Keeps a directory on a volume equal to a git ref.
#![warn(missing_docs)]

pub mod budget;
pub mod commit;
pub mod error;
pub mod healthcheck;
pub mod manifest;
pub mod metrics;
pub mod remote;
pub mod repo_url;
pub mod secret;
pub mod serve;
pub mod status;
pub mod store;
pub mod tree;
pub mod volume;
pub mod wake;
