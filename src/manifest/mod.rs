//! The manifest of a revision: every path with its mode, object id, size and modification time.
//!
//! It is written while the tree is built and has three uses: the next revision shares files that did
//! not change; a check at start-up finds files that somebody changed; and a sub-tree whose object id
//! did not change is shared without reading any object. The header is text. The body has one block
//! per directory, found through an index at the end, so writer and reader hold one directory in
//! memory at a time. The last 8 bytes are a checksum over everything before them, which detects a
//! manifest that a power cut truncated or zeroed.
//!
//! A file that is in a published tree but not in its manifest is not damage: consumers may add
//! files. The manifest is not synced here; sealing the revision does that.

mod block;
mod check;
mod checksum;
mod header;
mod listing;
mod reader;
mod record;
mod writer;

pub(crate) use block::Block;
pub use check::{Damage, verify, verify_contents};
pub use header::Header;
pub use listing::{is_empty, unlisted};
pub(crate) use reader::Manifest;
pub(crate) use record::{Kind, Record, Stat};
pub(crate) use writer::ManifestWriter;

use std::io;

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
