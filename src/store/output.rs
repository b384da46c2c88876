//! A pack that is written here, and indexed as one that arrives is.
//!
//! It must hold all bases of its deltas. Until [`Output::finish`] nothing refers to it, and
//! dropping it removes it.

use std::path::Path;

use ring::digest;

use super::indexing::Indexing;
use crate::base::budget::Budget;

/// A pack on its way to the disk.
#[must_use = "nothing is kept before finish()"]
pub(super) struct Output {
    indexing: Indexing,
    sum: digest::Context,
    length: u64,
}

impl Output {
    /// Begins a pack of `count` objects (gitformat-pack, version 2).
    pub(super) fn new(directory: &Path, count: u32, budget: &Budget) -> Result<Self, git2::Error> {
        let mut output = Self {
            indexing: Indexing::new(None, directory, budget)?,
            sum: digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            length: 0,
        };
        let mut header = *b"PACK\0\0\0\x02\0\0\0\0";
        header[8..].copy_from_slice(&count.to_be_bytes());
        output.write(&header)?;
        Ok(output)
    }

    /// Bytes written so far: where the next object begins.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes of objects.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), git2::Error> {
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        self.indexing.write(bytes)
    }

    /// Ends the pack; returns its checksum.
    pub(super) fn finish(mut self) -> Result<String, git2::Error> {
        self.indexing.write(self.sum.finish().as_ref())?;
        self.indexing.commit()
    }
}
