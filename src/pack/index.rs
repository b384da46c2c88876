//! Pack indexes of version 2 (gitformat-pack): the offset of each object in a pack.
//!
//! [`Index`] holds an index in memory, for callers that need most of it. [`offset`] looks up one
//! object with a few small reads. Neither reads the pack.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use git2::Oid;

/// The objects of a pack, in ascending order of their ids.
pub(crate) struct Index {
    ids: Vec<u8>,
    offsets: Vec<u64>,
    end: u64,
}

const SIGNATURE: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
const FAN_OUT: usize = SIGNATURE.len();
const IDS: usize = FAN_OUT + 256 * 4;
const ID: usize = 20;
/// Bytes of an object's checksum; the checksums are between the ids and the offsets.
const CHECKSUM: usize = 4;
/// The bit that marks an offset as a position in the table of 64-bit offsets.
const IN_TABLE: u64 = 0x8000_0000;
/// Bytes of the checksum at the end of a pack.
const TRAILER: u64 = 20;

impl Index {
    /// Reads the index of the pack `name` (without extension) in a directory.
    ///
    /// # Errors
    /// The index cannot be read or is not of version 2, or the pack does not exist.
    pub(crate) fn read(dir: &Path, name: &str) -> io::Result<Self> {
        let path: PathBuf = dir.join(format!("{name}.idx"));
        let bytes = fs::read(&path)?;
        let end = fs::metadata(path.with_extension("pack"))?.len();
        Self::parse(&bytes, end.saturating_sub(TRAILER)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a pack index of version 2", path.display()),
            )
        })
    }

    fn parse(bytes: &[u8], end: u64) -> Option<Self> {
        if bytes.get(..FAN_OUT)? != SIGNATURE {
            return None;
        }
        let word = |at: usize| -> Option<u64> {
            Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?).into())
        };
        let count = word(IDS - 4)? as usize;
        let ids = bytes.get(IDS..IDS + count * ID)?.to_vec();
        let short = IDS + count * (ID + CHECKSUM);
        let table = short + count * 4;
        let offsets = (0..count)
            .map(|i| {
                let offset = word(short + i * 4)?;
                if offset & IN_TABLE == 0 {
                    return Some(offset);
                }
                let at = table + (offset & !IN_TABLE) as usize * 8;
                Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
            })
            .collect::<Option<Vec<u64>>>()?;
        Some(Self { ids, offsets, end })
    }

    /// The ids, ascending.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Oid> + '_ {
        // from_bytes() fails only for a length other than 20 bytes.
        self.ids
            .chunks_exact(ID)
            .filter_map(|id| Oid::from_bytes(id).ok())
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The id at a position, which must be below [`Index::len`].
    pub(crate) fn id(&self, position: usize) -> Oid {
        // from_bytes() fails only for a length other than 20 bytes.
        Oid::from_bytes(self.id_bytes(position)).unwrap_or(Oid::ZERO_SHA1)
    }

    /// The offset in the pack of the object at a position, which must be below [`Index::len`].
    pub(crate) fn offset(&self, position: usize) -> u64 {
        self.offsets[position]
    }

    /// The offset in the pack at which the objects end and the checksum begins.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the pack has the object.
    pub(crate) fn contains(&self, id: Oid) -> bool {
        self.position(id).is_some()
    }

    /// The position of an object in the index; `None` if the pack does not have it.
    pub(crate) fn position(&self, id: Oid) -> Option<usize> {
        let (mut low, mut high) = (0, self.offsets.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.id_bytes(middle).cmp(id.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn id_bytes(&self, position: usize) -> &[u8] {
        &self.ids[position * ID..(position + 1) * ID]
    }

    /// The bytes that each object takes in the pack, in the order of [`Index::ids`].
    pub(crate) fn sizes(&self) -> Vec<u64> {
        let mut order: Vec<usize> = (0..self.offsets.len()).collect();
        order.sort_unstable_by_key(|i| self.offsets[*i]);
        let mut sizes = vec![0; order.len()];
        let mut next = self.end;
        for i in order.into_iter().rev() {
            sizes[i] = next.saturating_sub(self.offsets[i]);
            next = self.offsets[i];
        }
        sizes
    }
}

/// The offset in the pack at which an object begins; `None` if the pack does not have it.
///
/// # Errors
/// The file cannot be read, or is not an index of version 2.
pub(super) fn offset(index: &File, id: Oid) -> io::Result<Option<u64>> {
    let mut signature = [0; SIGNATURE.len()];
    index.read_exact_at(&mut signature, 0)?;
    if signature != SIGNATURE {
        return Err(malformed());
    }
    let first = u64::from(id.as_bytes()[0]);
    let up_to = |byte| word(index, FAN_OUT as u64 + byte * 4);
    let count = up_to(255)?;
    let mut low = match first {
        0 => 0,
        _ => up_to(first - 1)?,
    };
    let mut high = up_to(first)?;
    if high > count {
        return Err(malformed());
    }
    while low < high {
        let middle = low + (high - low) / 2;
        let mut found = [0; ID];
        index.read_exact_at(&mut found, IDS as u64 + middle * ID as u64)?;
        match found.as_slice().cmp(id.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                let offsets = IDS as u64 + count * (ID + CHECKSUM) as u64;
                let offset = word(index, offsets + middle * 4)?;
                if offset & IN_TABLE == 0 {
                    return Ok(Some(offset));
                }
                let table = offsets + count * 4;
                let mut offset64 = [0; 8];
                index.read_exact_at(&mut offset64, table + (offset & !IN_TABLE) * 8)?;
                return Ok(Some(u64::from_be_bytes(offset64)));
            }
        }
    }
    Ok(None)
}

fn word(index: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 4];
    index.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_be_bytes(bytes).into())
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is not a pack index of version 2",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// An index of objects, given in ascending order of their ids. Offsets of 2^31 and more are in
    /// the table of 64-bit offsets.
    fn index_of(objects: &[(Oid, u64)]) -> File {
        let mut bytes = SIGNATURE.to_vec();
        for byte in 0..=255 {
            let up_to = objects.iter().filter(|(id, _)| id.as_bytes()[0] <= byte);
            bytes.extend((up_to.count() as u32).to_be_bytes());
        }
        for (id, _) in objects {
            bytes.extend(id.as_bytes());
        }
        bytes.extend(vec![0; objects.len() * CHECKSUM]);
        let mut large = Vec::new();
        for (_, offset) in objects {
            let word = match u32::try_from(*offset) {
                Ok(offset) if offset < 0x8000_0000 => offset,
                _ => {
                    large.push(*offset);
                    0x8000_0000 | (large.len() as u32 - 1)
                }
            };
            bytes.extend(word.to_be_bytes());
        }
        for offset in large {
            bytes.extend(offset.to_be_bytes());
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn id(first: u8, last: u8) -> Oid {
        let mut bytes = [0; ID];
        bytes[0] = first;
        bytes[ID - 1] = last;
        Oid::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn every_object_is_found_at_its_offset_and_no_other_object_is_found() {
        let objects = [
            (id(0, 1), 12),
            (id(0, 3), 0x7fff_ffff),
            (id(7, 0), 0x8000_0000),
            (id(7, 9), 0xffff_ffff),
            (id(255, 1), 1 << 40),
            (id(255, 255), 99),
        ];
        let index = index_of(&objects);
        for (id, at) in objects {
            assert_eq!(offset(&index, id).unwrap(), Some(at), "{id}");
        }
        for missing in [
            id(0, 0),
            id(0, 2),
            id(1, 1),
            id(7, 1),
            id(254, 1),
            id(255, 2),
        ] {
            assert_eq!(offset(&index, missing).unwrap(), None, "{missing}");
        }
        assert_eq!(offset(&index_of(&[]), id(5, 5)).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_not_an_index_or_ends_early_is_an_error() {
        let objects = [(id(1, 1), 12), (id(1, 2), 1 << 40)];
        let cut = index_of(&objects);
        cut.set_len(cut.metadata().unwrap().len() - 1).unwrap();
        assert!(offset(&cut, objects[1].0).is_err());
        let other = index_of(&objects);
        other.write_all_at(b"PACK", 0).unwrap();
        assert!(offset(&other, objects[0].0).is_err());
        let wild = index_of(&objects);
        wild.write_all_at(&[0xff; 4], FAN_OUT as u64 + 4).unwrap();
        assert!(offset(&wild, objects[0].0).is_err());
    }
}
