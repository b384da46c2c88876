//! Keeps a directory on a volume equal to a git ref.
#![warn(missing_docs)]

pub mod budget;
pub mod commit;
pub mod error;
pub mod manifest;
pub mod remote;
pub mod repo_url;
pub mod secret;
pub mod tree;
