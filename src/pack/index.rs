//! Where a pack has an object: one look-up in an index of version 2 (gitformat-pack), by a few
//! small reads. Nothing of the index stays in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use git2::Oid;

const SIGNATURE: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
const FAN_OUT: u64 = 8;
const IDS: u64 = FAN_OUT + 256 * 4;
const ID: u64 = 20;
/// A checksum stands between the ids and the offsets.
const CHECKSUM: u64 = 4;

/// The offset in the pack at which an object begins; none if the pack does not have it.
///
/// # Errors
/// The file cannot be read, or is no index of version 2.
pub(super) fn offset(index: &File, id: Oid) -> io::Result<Option<u64>> {
    let mut signature = [0; SIGNATURE.len()];
    index.read_exact_at(&mut signature, 0)?;
    if signature != SIGNATURE {
        return Err(malformed());
    }
    let first = u64::from(id.as_bytes()[0]);
    let up_to = |byte| word(index, FAN_OUT + byte * 4);
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
        let mut found = [0; ID as usize];
        index.read_exact_at(&mut found, IDS + middle * ID)?;
        match found.as_slice().cmp(id.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                let offsets = IDS + count * (ID + CHECKSUM);
                let offset = word(index, offsets + middle * 4)?;
                if offset & 0x8000_0000 == 0 {
                    return Ok(Some(offset));
                }
                let large = offsets + count * 4;
                let mut offset64 = [0; 8];
                index.read_exact_at(&mut offset64, large + (offset & 0x7fff_ffff) * 8)?;
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
    io::Error::new(io::ErrorKind::InvalidData, "no pack index of version 2")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// An index of objects by ascending id; offsets from 2^31 on are in the table of large ones.
    fn index_of(objects: &[(Oid, u64)]) -> File {
        let mut bytes = SIGNATURE.to_vec();
        for byte in 0..=255 {
            let up_to = objects.iter().filter(|(id, _)| id.as_bytes()[0] <= byte);
            bytes.extend((up_to.count() as u32).to_be_bytes());
        }
        for (id, _) in objects {
            bytes.extend(id.as_bytes());
        }
        bytes.extend(vec![0; objects.len() * CHECKSUM as usize]);
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
        let mut bytes = [0; ID as usize];
        bytes[0] = first;
        bytes[ID as usize - 1] = last;
        Oid::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn every_object_is_found_where_it_is_and_no_other() {
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
    fn what_is_no_index_or_ends_early_is_an_error() {
        let objects = [(id(1, 1), 12), (id(1, 2), 1 << 40)];
        let cut = index_of(&objects);
        cut.set_len(cut.metadata().unwrap().len() - 1).unwrap();
        assert!(offset(&cut, objects[1].0).is_err());
        let other = index_of(&objects);
        other.write_all_at(b"PACK", 0).unwrap();
        assert!(offset(&other, objects[0].0).is_err());
        let wild = index_of(&objects);
        wild.write_all_at(&[0xff; 4], FAN_OUT + 4).unwrap();
        assert!(offset(&wild, objects[0].0).is_err());
    }
}
