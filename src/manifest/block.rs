//! Blocks of a manifest: the records of one directory, or of a part of a large one.

use std::io;

use git2::Oid;

use super::damaged;
use super::record::{Kind, Record, Stat};

/// One directory, or a part of a large one.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// A hash of what sub-directories inherit (attributes): equal contexts and equal trees give
    /// equal files.
    pub(crate) context: Oid,
    /// The block that continues this directory; zero if none does.
    pub(crate) next: u32,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    /// An empty block.
    pub(crate) fn new(context: Oid, next: u32) -> Self {
        Self {
            context,
            next,
            bytes: Vec::new(),
        }
    }

    /// Adds a record. Readers that search by name expect git's order.
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        let bytes = &mut self.bytes;
        bytes.push(record.kind.to_byte());
        // The tree writer refuses longer names and conversions.
        bytes.push(u8::try_from(record.name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(record.name);
        bytes.extend_from_slice(record.id.as_bytes());
        if record.kind.has_block() {
            bytes.extend_from_slice(&record.child.to_le_bytes());
        } else if record.kind.is_file() {
            bytes.extend_from_slice(&record.stat.size.to_le_bytes());
            bytes.extend_from_slice(&record.stat.mtime.to_le_bytes());
            bytes.extend_from_slice(&record.stat.mode.to_le_bytes());
            bytes.push(u8::try_from(record.conversion.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(record.conversion);
            bytes.push(u8::from(record.converted.is_some()));
            bytes.extend_from_slice(record.converted.as_ref().map_or(&[], Oid::as_bytes));
        }
    }

    /// The records in the order in which they were added.
    pub(crate) fn records(&self) -> Records<'_> {
        Records {
            bytes: &self.bytes,
            at: 0,
        }
    }

    /// The record at an offset that [`Records::offset`] returned.
    pub(crate) fn record_at(&self, offset: usize) -> Option<Record<'_>> {
        Records {
            bytes: &self.bytes,
            at: offset,
        }
        .read()
    }
}

/// Iterates over the records of a block. A damaged record yields one error and ends the iteration.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// The offset of the next record.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn read(&mut self) -> Option<Record<'a>> {
        let [kind, length] = self.array()?;
        let kind = Kind::from_byte(kind)?;
        let name = self.take(length.into())?;
        let id = Oid::from_bytes(self.take(20)?).ok()?;
        let mut record = Record {
            name,
            kind,
            id,
            stat: Stat::default(),
            conversion: &[],
            converted: None,
            child: 0,
        };
        if kind.has_block() {
            record.child = u32::from_le_bytes(self.array()?);
        } else if kind.is_file() {
            record.stat = Stat {
                size: u64::from_le_bytes(self.array()?),
                mtime: i64::from_le_bytes(self.array()?),
                mode: u16::from_le_bytes(self.array()?),
            };
            let [length] = self.array()?;
            record.conversion = self.take(length.into())?;
            record.converted = match self.array()? {
                [0] => None,
                [1] => Some(Oid::from_bytes(self.take(20)?).ok()?),
                _ => return None,
            };
        }
        Some(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = io::Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        Some(self.read().ok_or_else(|| {
            self.at = self.bytes.len();
            damaged("a record in it is damaged")
        }))
    }
}
