//! The header of one object in a pack (gitformat-pack, "pack entry").
//!
//! Reads and writes the bytes before the compressed data. It does not decompress.

use git2::Oid;

/// The bytes before the compressed data of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    /// Bytes of type and size.
    pub(crate) start: usize,
    /// Bytes of the whole header: type, size and base.
    pub(crate) length: usize,
    /// Bytes of the object, or of the delta, once decompressed.
    pub(crate) size: u64,
    /// The object that a delta builds on.
    pub(crate) base: DeltaBase,
}

/// The object that a delta builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeltaBase {
    /// None: the entry is a whole object.
    None,
    /// The object that begins so many bytes before this one.
    Before(u64),
    /// The object with that id: anywhere in the pack or, for a thin pack, in the receiver's store.
    Id(Oid),
}

/// The longest well-formed header in bytes: ten of type and size, and an id.
pub(crate) const LONGEST: usize = 30;

const ID: usize = 20;
const OFFSET_DELTA: u8 = 6;
const ID_DELTA: u8 = 7;

/// Parses the header at the start of `bytes`; `None` if it is malformed or `bytes` are too few.
pub(crate) fn parse(bytes: &[u8]) -> Option<EntryHeader> {
    let first = *bytes.first()?;
    let kind = first >> 4 & 7;
    let mut size = u64::from(first & 0xf);
    let (mut start, mut shift, mut byte) = (1, 4, first);
    while byte & 0x80 != 0 {
        byte = *bytes.get(start)?;
        let bits = u64::from(byte & 0x7f);
        if shift > 57 && bits >> (64 - shift) != 0 {
            return None;
        }
        size |= bits << shift;
        start += 1;
        shift += 7;
        if shift > 67 {
            return None;
        }
    }
    let (base, more) = match kind {
        1..=4 => (DeltaBase::None, 0),
        OFFSET_DELTA => {
            let (distance, more) = distance(bytes.get(start..)?)?;
            (DeltaBase::Before(distance), more)
        }
        ID_DELTA => {
            let id = Oid::from_bytes(bytes.get(start..start + ID)?).ok()?;
            (DeltaBase::Id(id), ID)
        }
        _ => return None,
    };
    Some(EntryHeader {
        start,
        length: start + more,
        size,
        base,
    })
}

/// The header of a delta whose base begins `distance` bytes earlier. `old` holds the type and size
/// of the same delta: the first [`EntryHeader::start`] bytes of its old header.
pub(crate) fn rebased(old: &[u8], distance: u64) -> Vec<u8> {
    let mut header = old.to_vec();
    if let Some(first) = header.first_mut() {
        *first = *first & 0x8f | OFFSET_DELTA << 4;
    }
    let mut digits = vec![(distance & 0x7f) as u8];
    let mut rest = distance >> 7;
    while rest > 0 {
        rest -= 1;
        digits.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    header.extend(digits.iter().rev());
    header
}

/// The header of a whole object: its type and its size.
pub(crate) fn whole(kind: git2::ObjectType, size: u64) -> Vec<u8> {
    let kind: u8 = match kind {
        git2::ObjectType::Commit => 1,
        git2::ObjectType::Tree => 2,
        git2::ObjectType::Tag => 4,
        _ => 3,
    };
    let mut header = vec![kind << 4 | (size & 0xf) as u8];
    let mut rest = size >> 4;
    while rest > 0 {
        if let Some(last) = header.last_mut() {
            *last |= 0x80;
        }
        header.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    header
}

fn distance(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut byte = *bytes.first()?;
    let mut distance = u64::from(byte & 0x7f);
    let mut length = 1;
    while byte & 0x80 != 0 {
        byte = *bytes.get(length)?;
        distance = distance.checked_add(1)?.checked_mul(0x80)? | u64::from(byte & 0x7f);
        length += 1;
    }
    Some((distance, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebased_header_reads_back() {
        for size in [0, 15, 16, 2047, 2048, u64::MAX] {
            let old = whole(git2::ObjectType::Blob, size);
            assert!(old.len() <= LONGEST - ID);
            assert_eq!(parse(&old).map(|header| header.size), Some(size));
            for distance in [1, 127, 128, 16_511, 16_512, 1 << 40, u64::MAX >> 1] {
                let header = rebased(&old, distance);
                let expected = EntryHeader {
                    start: old.len(),
                    length: header.len(),
                    size,
                    base: DeltaBase::Before(distance),
                };
                assert_eq!(parse(&header), Some(expected));
                assert_eq!(parse(&header[..header.len() - 1]), None);
            }
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let endless = [0xff; LONGEST];
        let reserved = [0x00];
        let unknown = [0x50];
        let cut_id = [0x70; ID];
        for bytes in [&endless[..], &reserved, &unknown, &cut_id, &[]] {
            assert_eq!(parse(bytes), None, "{bytes:x?}");
        }
    }
}
