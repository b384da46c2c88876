//! The git wire protocol, version 2 and version 0, independent of what carries it.
//!
//! Answers are read by push: whoever owns the connection gives the bytes it got, in pieces of any
//! size, to a [`Decoder`], which cuts them into packets for a [`Machine`]: [`Advertisement`],
//! [`LsRefs`], [`Tags`] or [`FetchAnswer`]. Requests are byte vectors. Nothing is buffered beyond
//! one packet, so an answer may be of any size.
//!
//! This module opens no connection and knows no deadline, no URL and no store.
//! Sources: gitprotocol-common(5), gitprotocol-pack(5), gitprotocol-v2(5).

mod advertisement;
mod error;
mod fetch;
mod ls_refs;
mod pkt_line;
mod ref_list;
mod refs;
mod tags;

pub use advertisement::{Advertisement, Greeting, V0Capabilities, V2Capabilities};
pub use error::ProtocolError;
pub use fetch::{Dialect, FetchAnswer, fetch_request};
pub use ls_refs::{LsRefs, ls_refs_request};
pub use pkt_line::{
    Decoder, MAX_PACKET, Machine, Packet, Step, encode, encode_delim, encode_flush,
};
pub use refs::{RefPicker, pinned};
pub use tags::{Tags, tags_request};

/// What this program calls itself in the `agent` capability.
pub const AGENT: &str = concat!("git-volume-reloader/", env!("CARGO_PKG_VERSION"));

/// The most bytes that a list of refs may have. One of 100,000 refs has 6.5 MB.
pub const MAX_REF_LIST: u64 = 64 << 20;

/// The most bytes of progress text (sideband 2) that one fetch may send.
pub const MAX_PROGRESS: u64 = 1 << 20;
