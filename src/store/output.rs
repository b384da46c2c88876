//! A pack that is written here, and indexed as one that arrives is.
//!
//! It must hold all bases of its deltas. Until [`Output::finish`] nothing refers to it, and
//! dropping it removes it.

use std::io::Write;
use std::path::Path;

use git2::Indexer;
use ring::digest;

use crate::budget::Budget;

/// A pack on its way to the disk.
#[must_use = "nothing is kept before finish()"]
pub(super) struct Output {
    indexer: Indexer<'static>,
    sum: digest::Context,
    buffer: Vec<u8>,
    length: u64,
}

/// What is handed to the indexer at a time: each call makes it map the file anew.
const CHUNK: usize = 256 << 10;

impl Output {
    /// Begins a pack of `count` objects (gitformat-pack, version 2).
    pub(super) fn new(directory: &Path, count: u32, budget: &Budget) -> Result<Self, git2::Error> {
        let mut indexer = Indexer::new(None, directory, 0o444, false)?;
        let limits = budget.clone();
        indexer.progress(move |_| limits.check().is_ok());
        let mut output = Self {
            indexer,
            sum: digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            buffer: Vec::with_capacity(CHUNK),
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
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < CHUNK {
            return Ok(());
        }
        self.flush()
    }

    /// Ends the pack; returns its checksum.
    pub(super) fn finish(mut self) -> Result<String, git2::Error> {
        let sum = self.sum.clone().finish();
        self.buffer.extend_from_slice(sum.as_ref());
        self.flush()?;
        self.indexer.commit()
    }

    fn flush(&mut self) -> Result<(), git2::Error> {
        let written = self.indexer.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|cause| {
            cause
                .downcast::<git2::Error>()
                .unwrap_or_else(|cause| git2::Error::from_str(&cause.to_string()))
        })
    }
}
