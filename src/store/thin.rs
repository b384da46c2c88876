//! Completes large thin packs: packs with deltas whose bases only the receiver has.
//!
//! libgit2 adds the bases one by one and searches all unresolved deltas after each, so its time
//! grows with the square of their number. This module spools the pack to a file as it arrives and
//! notes the ids that its deltas name as bases. The completed pack then holds all bases first and
//! the objects of the received pack after them, unchanged: distances between them are relative.
//!
//! A pack that this module cannot parse goes to libgit2 through [`Spool::read_back`], and libgit2's
//! error is reported.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use git2::{Odb, Oid};
use ring::digest;

use super::pack_writer::PackWriter;
use crate::base::budget::Budget;
use crate::pack::entry::{self, DeltaBase};

/// A thin pack in a temporary file.
pub(super) struct Spool {
    /// It has no name, so the kernel removes it with the process.
    file: File,
    length: u64,
    scanner: BaseScanner,
}

/// Finds the bases of a pack's deltas while the pack arrives.
struct BaseScanner {
    position: ScanPosition,
    /// Objects that the header announces.
    count: u32,
    /// Objects that were scanned to their end.
    objects: u32,
    /// The ids that deltas name as bases.
    bases: BTreeSet<Oid>,
    inflate: Decompress,
    scratch: Vec<u8>,
}

/// Which part of the pack the next byte belongs to.
enum ScanPosition {
    /// The pack's header, of which so many bytes are missing.
    PackHeader(usize),
    /// The header of an object, of which these bytes have arrived.
    ObjectHeader(Vec<u8>),
    ObjectData,
    /// After the last object, or after a malformed one.
    End,
}

const HEADER: usize = 12;
const TRAILER: usize = 20;
const PIECE: usize = 64 << 10;

impl Spool {
    /// Begins to spool a pack of `count` objects in `directory`.
    pub(super) fn new(directory: &Path, count: u32) -> io::Result<Self> {
        let path = directory.join("tmp_thin");
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self {
            file,
            length: 0,
            scanner: BaseScanner {
                position: ScanPosition::PackHeader(HEADER),
                count,
                objects: 0,
                bases: BTreeSet::new(),
                inflate: Decompress::new(true),
                scratch: vec![0; PIECE],
            },
        })
    }

    /// Takes the next bytes of the pack.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.scanner.scan(bytes);
        Ok(())
    }

    /// How many objects have arrived.
    pub(super) fn objects(&self) -> u32 {
        self.scanner.objects
    }

    /// Writes the pack with its bases into `directory` and returns its checksum in hexadecimal.
    ///
    /// # Errors
    /// The disk is full, or the budget ran out. Any other error means that libgit2 must complete
    /// the pack: a base is not in `odb`, or is in the pack too, or the pack is damaged.
    pub(super) fn complete(
        &self,
        odb: &Odb<'_>,
        directory: &Path,
        budget: &Budget,
    ) -> Result<String, git2::Error> {
        let bases = &self.scanner.bases;
        let count = self.scanner.count;
        let all = u32::try_from(bases.len())
            .ok()
            .and_then(|bases| count.checked_add(bases))
            .filter(|_| self.scanner.objects == count && self.length >= (HEADER + TRAILER) as u64)
            .ok_or_else(|| git2::Error::from_str("the pack cannot be parsed"))?;
        let mut writer = PackWriter::new(directory, all, budget)?;
        for id in bases {
            check(budget)?;
            let object = odb.read(*id)?;
            let header = entry::whole(object.kind(), object.len() as u64);
            let mut encoder = ZlibEncoder::new(header, Compression::fast());
            let packed = encoder
                .write_all(object.data())
                .and_then(|()| encoder.finish())
                .map_err(unreadable)?;
            writer.write(&packed)?;
        }
        let mut checksum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        let mut header = HEADER;
        let end = self.length.saturating_sub(TRAILER as u64);
        self.each_piece(0, end, |piece| {
            check(budget)?;
            checksum.update(piece);
            writer.write(&piece[std::mem::take(&mut header)..])
        })?;
        let mut trailer = [0; TRAILER];
        self.file
            .read_exact_at(&mut trailer, end)
            .map_err(unreadable)?;
        // The new pack gets a checksum of its own, so damage in transit shows only here.
        if checksum.finish().as_ref() != trailer {
            return Err(git2::Error::from_str("the checksum of the pack is wrong"));
        }
        writer.finish()
    }

    /// Reads the pack back as it arrived, piece by piece.
    ///
    /// # Errors
    /// `sink` failed, or the file cannot be read.
    pub(super) fn read_back(
        &self,
        sink: impl FnMut(&[u8]) -> Result<(), git2::Error>,
    ) -> Result<(), git2::Error> {
        self.each_piece(0, self.length, sink)
    }

    fn each_piece(
        &self,
        start: u64,
        end: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), git2::Error>,
    ) -> Result<(), git2::Error> {
        let mut piece = vec![0; PIECE];
        let mut at = start;
        while at < end {
            let length = (end - at).min(PIECE as u64) as usize;
            self.file
                .read_exact_at(&mut piece[..length], at)
                .map_err(unreadable)?;
            sink(&piece[..length])?;
            at += length as u64;
        }
        Ok(())
    }
}

impl BaseScanner {
    fn scan(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.position {
                ScanPosition::PackHeader(missing) => {
                    let taken = bytes.len().min(*missing);
                    bytes = &bytes[taken..];
                    *missing -= taken;
                    if *missing == 0 {
                        self.position = self.next_object();
                    }
                }
                ScanPosition::ObjectHeader(header) => {
                    header.push(bytes[0]);
                    bytes = &bytes[1..];
                    if let Some(header) = entry::parse(header) {
                        if let DeltaBase::Id(id) = header.base {
                            self.bases.insert(id);
                        }
                        self.inflate.reset(true);
                        self.position = ScanPosition::ObjectData;
                    } else if header.len() >= entry::LONGEST {
                        self.position = ScanPosition::End;
                    }
                }
                ScanPosition::ObjectData => {
                    let (read, made) = (self.inflate.total_in(), self.inflate.total_out());
                    let scratch = &mut self.scratch;
                    let status = self
                        .inflate
                        .decompress(bytes, scratch, FlushDecompress::None);
                    bytes = &bytes[(self.inflate.total_in() - read) as usize..];
                    let moved = (self.inflate.total_in(), self.inflate.total_out()) != (read, made);
                    match status {
                        Ok(Status::StreamEnd) => {
                            self.objects += 1;
                            self.position = self.next_object();
                        }
                        Ok(_) if moved => {}
                        _ => self.position = ScanPosition::End,
                    }
                }
                ScanPosition::End => return,
            }
        }
    }

    fn next_object(&self) -> ScanPosition {
        if self.objects < self.count {
            ScanPosition::ObjectHeader(Vec::new())
        } else {
            ScanPosition::End
        }
    }
}

fn check(budget: &Budget) -> Result<(), git2::Error> {
    budget
        .check()
        .map_err(|cause| git2::Error::from_str(&cause.to_string()))
}

fn unreadable(cause: io::Error) -> git2::Error {
    git2::Error::new(
        git2::ErrorCode::GenericError,
        git2::ErrorClass::Os,
        cause.to_string(),
    )
}
