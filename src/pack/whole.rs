//! Streams an object out of a pack, decompressing it piece by piece.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};
use git2::Oid;

use super::entry::{self, DeltaBase};
use super::index;

/// An object that a pack holds whole, that is, not as a delta.
///
/// [`Read::read`] returns 0 once it has returned as many bytes as the header announces and zlib's
/// checksum matches. Anything else is an error of the kind `InvalidData` or `UnexpectedEof`. The
/// pack may be removed while it is read.
pub(crate) struct Whole {
    pack: File,
    /// The offset in the pack of the next read.
    at: u64,
    input: Box<[u8]>,
    /// The part of `input` that was read and not yet decompressed.
    pending: std::ops::Range<usize>,
    inflate: Decompress,
    size: u64,
    /// Decompressed bytes that were not returned yet.
    left: u64,
    ended: bool,
}

/// Objects larger than this, in bytes, are read by [`Whole`] if a pack holds them whole.
pub(crate) const LARGE: usize = 8 << 20;

/// Bytes that are read from a pack at a time.
const PIECE: usize = 256 << 10;

impl Whole {
    /// Looks for an object in the packs of a directory; `None` if no pack holds it whole.
    ///
    /// # Errors
    /// The directory, an index or a pack cannot be read or is malformed. A pack that is removed
    /// during the search is not an error.
    pub(crate) fn find(packs: &Path, id: Oid) -> io::Result<Option<Self>> {
        let files = match fs::read_dir(packs) {
            Ok(files) => files,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(cause),
        };
        for file in files {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "idx") {
                continue;
            }
            let Some(index) = open(&path)? else { continue };
            let Some(offset) = index::offset(&index, id)? else {
                continue;
            };
            if let Some(pack) = open(&path.with_extension("pack"))?
                && let Some(whole) = Self::at(pack, offset)?
            {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    /// Size of the object in bytes, from its header.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn at(pack: File, offset: u64) -> io::Result<Option<Self>> {
        let mut header = [0; entry::LONGEST];
        let length = pack.read_at(&mut header, offset)?;
        let header = entry::parse(&header[..length])
            .ok_or_else(|| damaged("an object in a pack has a malformed header"))?;
        if header.base != DeltaBase::None {
            return Ok(None);
        }
        Ok(Some(Self {
            pack,
            at: offset + header.length as u64,
            input: vec![0; PIECE].into(),
            pending: 0..0,
            inflate: Decompress::new(true),
            size: header.size,
            left: header.size,
            ended: false,
        }))
    }
}

impl Read for Whole {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        while !self.ended {
            if self.pending.is_empty() {
                let length = self.pack.read_at(&mut self.input, self.at)?;
                if length == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "a pack ends in the middle of an object",
                    ));
                }
                self.at += length as u64;
                self.pending = 0..length;
            }
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let input = &self.input[self.pending.clone()];
            let status = self
                .inflate
                .decompress(input, output, FlushDecompress::None)
                .map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))?;
            let taken = (self.inflate.total_in() - taken) as usize;
            let given = (self.inflate.total_out() - given) as usize;
            self.pending.start += taken;
            self.left = self
                .left
                .checked_sub(given as u64)
                .ok_or_else(|| damaged("an object in a pack is larger than its header says"))?;
            if status == Status::StreamEnd {
                if self.left > 0 {
                    return Err(damaged(
                        "an object in a pack is smaller than its header says",
                    ));
                }
                self.ended = true;
            }
            if given > 0 {
                return Ok(given);
            }
            if taken == 0 && !self.ended {
                return Err(damaged("an object in a pack cannot be decompressed"));
            }
        }
        Ok(0)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use git2::ObjectType;

    use super::*;

    /// A pack with one object whose header announces `size` bytes, and the offset of that object.
    fn pack(size: u64, content: &[u8]) -> (File, u64) {
        let offset = 1234;
        let mut bytes = vec![0x55; offset];
        bytes.extend(entry::whole(ObjectType::Blob, size));
        let mut encoder = ZlibEncoder::new(bytes, Compression::fast());
        encoder.write_all(content).unwrap();
        let mut bytes = encoder.finish().unwrap();
        // Bytes of a next object.
        bytes.extend([0xaa; 100]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, offset as u64)
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        std::iter::repeat_with(|| random.u8(..))
            .take(length)
            .collect()
    }

    fn read(pack: File, offset: u64) -> io::Result<Vec<u8>> {
        let mut whole = Whole::at(pack, offset)?.unwrap();
        let mut content = Vec::new();
        let mut piece = [0; 10_000];
        loop {
            match whole.read(&mut piece)? {
                0 => return Ok(content),
                length => content.extend_from_slice(&piece[..length]),
            }
        }
    }

    #[test]
    fn an_object_of_any_size_is_read_byte_for_byte() {
        for length in [0, 1, 9_999, 10_000, 10_001, PIECE, 3 * PIECE + 17] {
            for content in [noise(length), vec![0; length]] {
                let (pack, offset) = pack(length as u64, &content);
                assert!(read(pack, offset).unwrap() == content, "{length}");
            }
        }
    }

    #[test]
    fn a_header_with_another_size_than_the_content_is_damage() {
        let content = noise(30_000);
        for size in [0, 29_999, 30_001] {
            let (pack, offset) = pack(size, &content);
            let error = read(pack, offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{size}");
        }
    }

    #[test]
    fn a_flipped_bit_or_a_truncated_pack_is_damage() {
        let content = noise(30_000);
        let (flipped, offset) = pack(30_000, &content);
        flipped.write_all_at(&[0], offset + 15_000).unwrap();
        flipped.write_all_at(&[1], offset + 15_001).unwrap();
        assert!(read(flipped, offset).is_err());
        let (cut, offset) = pack(30_000, &content);
        cut.set_len(offset + 15_000).unwrap();
        let error = read(cut, offset).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
