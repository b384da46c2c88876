//! What the base revision recorded of one directory.

use std::cmp::Ordering as Order;
use std::path::Path;

use git2::Oid;

use super::worker::Job;
use crate::base::error::{Stage, SyncError};
use crate::manifest::{Block, Entry, Kind};

pub(super) struct BaseDirectory {
    blocks: Vec<Block>,
    /// Block and offset of each entry, in git's order.
    index: Vec<(u32, u32)>,
    /// Whether equal sub-trees are equal in all that readers see.
    pub(super) same_context: bool,
}

impl BaseDirectory {
    fn entry(&self, (block, offset): (u32, u32)) -> Option<Entry<'_>> {
        self.blocks.get(block as usize)?.entry_at(offset as usize)
    }

    pub(super) fn find(&self, name: &[u8], tree: bool) -> Option<Entry<'_>> {
        let position = self.index.binary_search_by(|place| {
            self.entry(*place).map_or(Order::Less, |entry| {
                git_order(entry.name, entry.kind == Kind::Directory, name, tree)
            })
        });
        self.entry(*self.index.get(position.ok()?)?)
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

impl Job<'_> {
    pub(super) fn base_directory(
        &self,
        number: u32,
        context: Oid,
    ) -> Result<BaseDirectory, SyncError> {
        let mut blocks = Vec::new();
        let mut index = Vec::new();
        let mut next = number;
        loop {
            let block = self.base_block(next)?;
            let which = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
            let mut entries = block.entries();
            loop {
                let offset = u32::try_from(entries.offset()).unwrap_or(u32::MAX);
                match entries.next() {
                    Some(entry) => entry.map_err(|error| self.base_error(error))?,
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
        let same_context = self
            .build
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection)
            && blocks[0].context == context;
        Ok(BaseDirectory {
            blocks,
            index,
            same_context,
        })
    }

    pub(super) fn base_block(&self, number: u32) -> Result<Block, SyncError> {
        match &self.build.base {
            Some(base) => base
                .manifest
                .block(number)
                .map_err(|error| self.base_error(error)),
            None => Err(self.base_error(std::io::ErrorKind::NotFound.into())),
        }
    }

    pub(super) fn base_error(&self, error: std::io::Error) -> SyncError {
        let path = self
            .build
            .request
            .base
            .map_or(Path::new(""), |base| base.manifest);
        SyncError::disk(Stage::Build, "read the manifest", path, error)
    }
}
