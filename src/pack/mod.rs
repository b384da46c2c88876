//! Objects as packs hold them (gitformat-pack): where, the heads of entries, and single objects that
//! are too large to be in memory.
//!
//! For [`store`](crate::store), which writes packs, and [`tree`](crate::tree) and the local
//! `remote`, which read from them. It does not say which packs a store has or
//! should have, resolves no deltas, reads no loose objects, and does not hash: libgit2 does that.

pub(crate) mod entry;
mod index;
mod whole;

pub(crate) use index::Index;
pub(crate) use whole::{LARGE, Whole};
