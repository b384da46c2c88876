//! Writing a manifest: header, blocks, index, footer.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use super::block::Block;
use super::checksum::Checksum;
use super::header::Header;

/// Writes a manifest: blocks in any order, each with a number that its parent's record names.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    file: BufWriter<File>,
    offset: u64,
    checksum: Checksum,
    index: Vec<u64>,
}

impl ManifestWriter {
    /// Creates the file, which must not exist, and writes the header. The block of the root
    /// directory must get number 0.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub(crate) fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 16, file),
            offset: 0,
            checksum: Checksum::default(),
            index: Vec::new(),
        };
        writer.put(header.to_text().as_bytes())?;
        Ok(writer)
    }

    /// Adds a block.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, number: u32, block: &Block) -> io::Result<()> {
        let slot = number as usize;
        if self.index.len() <= slot {
            self.index.resize(slot + 1, 0);
        }
        self.index[slot] = self.offset;
        let length = u32::try_from(block.bytes.len())
            .map_err(|_| io::Error::other("a directory of the manifest exceeds 4 GiB"))?;
        self.put(&length.to_le_bytes())?;
        self.put(&block.next.to_le_bytes())?;
        self.put(block.context.as_bytes())?;
        self.put(&block.bytes)
    }

    /// Writes the index and the footer. Does not sync the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn finish(mut self, entries: u64, bytes: u64) -> io::Result<()> {
        let at = self.offset;
        let index = std::mem::take(&mut self.index);
        for offset in &index {
            self.put(&offset.to_le_bytes())?;
        }
        for number in [at, index.len() as u64, entries, bytes] {
            self.put(&number.to_le_bytes())?;
        }
        let checksum = self.checksum.value().to_le_bytes();
        self.file.write_all(&checksum)?;
        self.file.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}
