//! The revision that unchanged files are shared from: its manifest, directory by directory.

use std::cmp::Ordering as Order;
use std::io;
use std::path::{Path, PathBuf};

use git2::Oid;

use crate::base::error::{Stage, SyncError};
use crate::manifest::{Block, Kind, Manifest, Record};

/// The manifest of the base revision.
pub(super) struct BaseRevision {
    manifest: Manifest,
    path: PathBuf,
    /// Whether it was built with the same sparse patterns and submodule mode.
    pub(super) same_selection: bool,
}

/// What the base revision recorded about one directory.
pub(super) struct BaseDirectory {
    blocks: Vec<Block>,
    /// Block and offset of each record, in git's order.
    index: Vec<(u32, u32)>,
    /// Whether a sub-tree with the same object id has the same files with the same contents.
    pub(super) same_context: bool,
}

impl BaseRevision {
    /// `selection` is the selection of the new tree.
    pub(super) fn new(manifest: Manifest, path: &Path, selection: &str) -> Self {
        Self {
            same_selection: manifest.header.selection == selection,
            path: path.to_owned(),
            manifest,
        }
    }

    /// The object id of the root tree.
    pub(super) fn tree(&self) -> Oid {
        self.manifest.header.tree
    }

    pub(super) fn block(&self, number: u32) -> Result<Block, SyncError> {
        self.manifest
            .block(number)
            .map_err(|error| self.unreadable(error))
    }

    /// Reads the records of the directory whose first block is `number`. `context` is the context
    /// of the same directory in the new tree.
    pub(super) fn directory(&self, number: u32, context: Oid) -> Result<BaseDirectory, SyncError> {
        let mut blocks = Vec::new();
        let mut index = Vec::new();
        let mut next = number;
        loop {
            let block = self.block(next)?;
            let which = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
            let mut records = block.records();
            loop {
                let offset = u32::try_from(records.offset()).unwrap_or(u32::MAX);
                match records.next() {
                    Some(record) => record.map_err(|error| self.unreadable(error))?,
                    None => break,
                };
                index.push((which, offset));
            }
            next = block.next;
            blocks.push(block);
            if next == 0 {
                break;
            }
        }
        let same_context = self.same_selection && blocks[0].context == context;
        Ok(BaseDirectory {
            blocks,
            index,
            same_context,
        })
    }

    /// The error for a manifest that cannot be read.
    pub(super) fn unreadable(&self, error: io::Error) -> SyncError {
        SyncError::disk(Stage::Build, "read the manifest", &self.path, error)
    }
}

impl BaseDirectory {
    /// The record of a name, where `tree` says whether the name is that of a tree.
    pub(super) fn find(&self, name: &[u8], tree: bool) -> Option<Record<'_>> {
        let position = self.index.binary_search_by(|place| {
            self.record(*place).map_or(Order::Less, |record| {
                git_order(record.name, record.kind == Kind::Directory, name, tree)
            })
        });
        self.record(*self.index.get(position.ok()?)?)
    }

    fn record(&self, (block, offset): (u32, u32)) -> Option<Record<'_>> {
        self.blocks.get(block as usize)?.record_at(offset as usize)
    }
}

/// The order of names in a tree object: a directory sorts as if its name ended with a slash.
fn git_order(a: &[u8], a_tree: bool, b: &[u8], b_tree: bool) -> Order {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let next = |name: &[u8], tree: bool| match name.get(common) {
            Some(byte) => Some(*byte),
            None => tree.then_some(b'/'),
        };
        next(a, a_tree).cmp(&next(b, b_tree))
    })
}
