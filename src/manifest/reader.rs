//! Reading a manifest: its checksum first, then single blocks through the index.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use git2::Oid;

use super::block::Block;
use super::checksum::Checksum;
use super::damaged;
use super::header::{HEADER_LIMIT, Header};

/// Bytes of the footer: offset of the index, number of its slots, records, file bytes, checksum.
const FOOTER: usize = 8 * 5;

/// Bytes of a block before its records: their length, the next block, the context.
const BLOCK_HEADER: usize = 4 + 4 + 20;

/// A complete manifest, opened for reading. Threads may share it.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The commit and the settings of the revision.
    pub(crate) header: Header,
    file: File,
    index: Vec<u64>,
}

impl Manifest {
    /// Opens the manifest at `path` and verifies its checksum.
    ///
    /// # Errors
    /// The file cannot be read; `InvalidData` if it is not a complete manifest.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let body = length
            .checked_sub(8)
            .filter(|body| *body >= FOOTER as u64 - 8)
            .ok_or_else(|| damaged("it is too short"))?;
        let mut checksum = Checksum::default();
        let mut buffer = vec![0; 1 << 16];
        let mut rest = (&mut file).take(body);
        loop {
            let read = rest.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            checksum.update(&buffer[..read]);
        }
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, length - FOOTER as u64)?;
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&footer[at * 8..at * 8 + 8]);
            u64::from_le_bytes(word)
        };
        if number(4) != checksum.value() {
            return Err(damaged("its checksum does not match"));
        }
        let (at, slots) = (number(0), number(1));
        if slots.checked_mul(8).and_then(|size| size.checked_add(at))
            != Some(length - FOOTER as u64)
        {
            return Err(damaged("its index is damaged"));
        }
        let mut index = vec![0; usize::try_from(slots * 8).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut index, at)?;
        let index = index
            .chunks_exact(8)
            .map(|slot| {
                let mut word = [0; 8];
                word.copy_from_slice(slot);
                u64::from_le_bytes(word)
            })
            .collect();
        file.seek(SeekFrom::Start(0))?;
        let mut text = Vec::new();
        (&mut file).take(HEADER_LIMIT).read_to_end(&mut text)?;
        let (header, _) = Header::parse(&text)?;
        Ok(Self {
            header,
            file,
            index,
        })
    }

    /// Reads one block. The root directory is block 0.
    ///
    /// # Errors
    /// The file cannot be read; `InvalidData` if there is no such block.
    pub(crate) fn block(&self, number: u32) -> io::Result<Block> {
        let offset = match self.index.get(number as usize) {
            Some(0) | None => return Err(damaged("it lacks a directory")),
            Some(offset) => *offset,
        };
        let mut header = [0; BLOCK_HEADER];
        self.file.read_exact_at(&mut header, offset)?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let mut bytes = vec![0; word(0) as usize];
        self.file
            .read_exact_at(&mut bytes, offset + BLOCK_HEADER as u64)?;
        Ok(Block {
            context: Oid::from_bytes(&header[8..])
                .map_err(|_| damaged("a directory of it is damaged"))?,
            next: word(4),
            bytes,
        })
    }
}
