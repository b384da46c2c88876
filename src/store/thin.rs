//! Completing large thin packs: those that hold deltas of what only the receiver has.
//!
//! libgit2 adds one base after another, and looks through all deltas that wait for theirs in
//! between: time that grows with the square of their number. Here the pack is put aside as it
//! arrives, and what its deltas name as bases is noted; then the bases go first, all at once, and
//! the pack after them as it came. Offsets in it are relative, so nothing in it changes.
//!
//! What this does not understand it leaves to libgit2, which says what is wrong with it: see
//! [`Spool::pour`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use git2::{Odb, Oid};
use ring::digest;

use super::output::Output;
use crate::base::budget::Budget;
use crate::pack::entry::{self, Base};

/// A thin pack that was put aside.
pub(super) struct Spool {
    /// Without a name: it is gone with the process.
    file: File,
    length: u64,
    scan: Scan,
}

/// Where in the pack the next byte is, and what came before.
struct Scan {
    at: At,
    /// Objects that the header announces.
    count: u32,
    /// Objects that have ended.
    objects: u32,
    bases: BTreeSet<Oid>,
    inflate: Decompress,
    scratch: Vec<u8>,
}

enum At {
    /// So many bytes of the pack's header are missing.
    Header(usize),
    /// What has come of an object's head.
    Head(Vec<u8>),
    Data,
    /// After the last object, or after what is none.
    End,
}

const HEADER: usize = 12;
const TRAILER: usize = 20;
const PIECE: usize = 64 << 10;

impl Spool {
    /// A place for a pack of `count` objects in `directory`.
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
            scan: Scan {
                at: At::Header(HEADER),
                count,
                objects: 0,
                bases: BTreeSet::new(),
                inflate: Decompress::new(true),
                scratch: vec![0; PIECE],
            },
        })
    }

    /// Takes what comes next.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.scan.read(bytes);
        Ok(())
    }

    /// How many objects have come so far.
    pub(super) fn objects(&self) -> u32 {
        self.scan.objects
    }

    /// Writes the pack with its bases into `directory`, and returns its checksum.
    ///
    /// # Errors
    /// The disk is full, the budget ran out, or libgit2 is to look at it: a base is not in `odb`,
    /// or in the pack as well, or the pack is damaged.
    pub(super) fn complete(
        &self,
        odb: &Odb<'_>,
        directory: &Path,
        budget: &Budget,
    ) -> Result<String, git2::Error> {
        let bases = &self.scan.bases;
        let count = self.scan.count;
        let all = u32::try_from(bases.len())
            .ok()
            .and_then(|bases| count.checked_add(bases))
            .filter(|_| self.scan.objects == count && self.length >= (HEADER + TRAILER) as u64)
            .ok_or_else(|| git2::Error::from_str("the pack is not understood"))?;
        let mut output = Output::new(directory, all, budget)?;
        for id in bases {
            stop(budget)?;
            let object = odb.read(*id)?;
            let head = entry::whole(object.kind(), object.len() as u64);
            let mut encoder = ZlibEncoder::new(head, Compression::fast());
            let packed = encoder
                .write_all(object.data())
                .and_then(|()| encoder.finish())
                .map_err(unread)?;
            output.write(&packed)?;
        }
        let mut sum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        let mut header = HEADER;
        let end = self.length.saturating_sub(TRAILER as u64);
        self.each_piece(0, end, |piece| {
            stop(budget)?;
            sum.update(piece);
            output.write(&piece[std::mem::take(&mut header)..])
        })?;
        let mut trailer = [0; TRAILER];
        self.file.read_exact_at(&mut trailer, end).map_err(unread)?;
        // The trailer that is written answers for what was read here; this one, for the sender.
        if sum.finish().as_ref() != trailer {
            return Err(git2::Error::from_str("the pack is not what was sent"));
        }
        output.finish()
    }

    /// Hands the pack as it came to somebody else.
    ///
    /// # Errors
    /// What `sink` says, or that the pack cannot be read back.
    pub(super) fn pour(
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
                .map_err(unread)?;
            sink(&piece[..length])?;
            at += length as u64;
        }
        Ok(())
    }
}

impl Scan {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Header(missing) => {
                    let taken = bytes.len().min(*missing);
                    bytes = &bytes[taken..];
                    *missing -= taken;
                    if *missing == 0 {
                        self.at = self.next();
                    }
                }
                At::Head(head) => {
                    head.push(bytes[0]);
                    bytes = &bytes[1..];
                    if let Some(head) = entry::parse(head) {
                        if let Base::Id(id) = head.base {
                            self.bases.insert(id);
                        }
                        self.inflate.reset(true);
                        self.at = At::Data;
                    } else if head.len() >= entry::LONGEST {
                        self.at = At::End;
                    }
                }
                At::Data => {
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
                            self.at = self.next();
                        }
                        Ok(_) if moved => {}
                        _ => self.at = At::End,
                    }
                }
                At::End => return,
            }
        }
    }

    fn next(&self) -> At {
        if self.objects < self.count {
            At::Head(Vec::new())
        } else {
            At::End
        }
    }
}

fn stop(budget: &Budget) -> Result<(), git2::Error> {
    budget
        .check()
        .map_err(|cause| git2::Error::from_str(&cause.to_string()))
}

fn unread(cause: io::Error) -> git2::Error {
    git2::Error::new(
        git2::ErrorCode::GenericError,
        git2::ErrorClass::Os,
        cause.to_string(),
    )
}
