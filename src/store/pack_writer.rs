//! Writes a new pack and indexes it like a pack that was received, so damage is detected.
//!
//! The pack must hold the bases of all its deltas. Until [`PackWriter::finish`] nothing refers to
//! it, and dropping the writer removes it.

use std::path::Path;

use ring::digest;

use super::indexing::Indexing;
use crate::base::budget::Budget;

/// A pack that is being written.
#[must_use = "nothing is kept before finish()"]
pub(super) struct PackWriter {
    indexing: Indexing,
    checksum: digest::Context,
    length: u64,
}

impl PackWriter {
    /// Begins a pack of `count` objects (gitformat-pack, version 2).
    pub(super) fn new(directory: &Path, count: u32, budget: &Budget) -> Result<Self, git2::Error> {
        let mut writer = Self {
            indexing: Indexing::new(None, directory, budget)?,
            checksum: digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            length: 0,
        };
        let mut header = *b"PACK\0\0\0\x02\0\0\0\0";
        header[8..].copy_from_slice(&count.to_be_bytes());
        writer.write(&header)?;
        Ok(writer)
    }

    /// Bytes written so far: the offset of the next object.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes of objects.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), git2::Error> {
        self.checksum.update(bytes);
        self.length += bytes.len() as u64;
        self.indexing.write(bytes)
    }

    /// Ends the pack and returns its checksum in hexadecimal.
    pub(super) fn finish(mut self) -> Result<String, git2::Error> {
        self.indexing.write(self.checksum.finish().as_ref())?;
        self.indexing.commit()
    }
}
