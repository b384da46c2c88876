//! The limits of what is read from a remote, and the name that is sent to it.

/// This program's name in the `agent` capability.
pub const AGENT: &str = concat!("git-volume-reloader/", env!("CARGO_PKG_VERSION"));

/// The most bytes that a list of refs may have. One of 100,000 refs has 6.5 MB.
pub const MAX_REF_LIST: u64 = 64 << 20;

/// The most bytes of progress text (sideband 2) that one fetch may send.
pub const MAX_PROGRESS: u64 = 1 << 20;
