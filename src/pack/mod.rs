//! Objects as packs hold them (gitformat-pack): indexes, the headers of entries, objects that are too
//! large for memory, and the content of commits and tags.
//!
//! Used by [`store`](crate::store), which writes packs, and by [`tree`](crate::tree) and the local
//! `remote`, which read them. This module does not decide which packs a store has, does not resolve
//! deltas, does not read loose objects and does not hash: libgit2 does that.

mod commit;
pub(crate) mod entry;
mod index;
mod tag;
mod whole;

pub(crate) use commit::CommitObject;
pub(crate) use index::Index;
pub(crate) use tag::{Peeled, peel};
pub(crate) use whole::{LARGE, Whole};
