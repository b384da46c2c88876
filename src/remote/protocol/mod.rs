//! The git wire protocol, version 2 and version 0, independent of what carries it.
//!
//! The owner of the connection gives the received bytes, in pieces of any size, to a [`Decoder`], which cuts them into packets for a [`Machine`]: [`Advertisement`],
//! [`LsRefs`], [`Tags`] or [`FetchAnswer`]. Requests are byte vectors. At most one packet is
//! buffered, so an answer may be of any size.
//!
//! This module opens no connection and knows no deadline, no URL and no store.
//! Sources: gitprotocol-common(5), gitprotocol-pack(5), gitprotocol-v2(5).

mod advertisement;
mod error;
mod fetch;
mod limits;
mod ls_refs;
mod pkt_line;
mod ref_list;
mod refs;
mod tags;

pub use advertisement::{Advertisement, Greeting, V0Capabilities, V2Capabilities};
pub use error::ProtocolError;
pub use fetch::{Dialect, FetchAnswer, fetch_request};
pub use limits::{AGENT, MAX_PROGRESS, MAX_REF_LIST};
pub use ls_refs::{LsRefs, ls_refs_request};
pub use pkt_line::{
    Decoder, MAX_PACKET, Machine, Packet, Step, encode, encode_delim, encode_flush,
};
pub use refs::{RefPicker, pinned};
pub use tags::{Tags, tags_request};
