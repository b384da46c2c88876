//! The head of one object in a pack (gitformat-pack, "pack entry").
//!
//! Reads and writes what stands before the compressed data. It does not decompress, and does not
//! know what the objects are.

use git2::Oid;

/// What stands before the compressed data of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of type and size.
    pub(crate) start: usize,
    /// Bytes of everything before the compressed data.
    pub(crate) length: usize,
    /// Bytes of the object, or of the delta, once decompressed.
    pub(crate) size: u64,
    /// What a delta builds on.
    pub(crate) base: Base,
}

/// What an object is a delta of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// It is whole.
    None,
    /// The object that begins so many bytes before this one.
    Before(u64),
    /// The object of that id, anywhere in the pack or, in a thin one, at the receiver.
    Id(Oid),
}

/// No well-formed head is longer: ten bytes of type and size, and an id.
pub(crate) const LONGEST: usize = 30;

const ID: usize = 20;
const OFFSET_DELTA: u8 = 6;
const ID_DELTA: u8 = 7;

/// Reads the head that `bytes` begin with; none when they are malformed or too few.
pub(crate) fn parse(bytes: &[u8]) -> Option<Head> {
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
        1..=4 => (Base::None, 0),
        OFFSET_DELTA => {
            let (distance, more) = distance(bytes.get(start..)?)?;
            (Base::Before(distance), more)
        }
        ID_DELTA => {
            let id = Oid::from_bytes(bytes.get(start..start + ID)?).ok()?;
            (Base::Id(id), ID)
        }
        _ => return None,
    };
    Some(Head {
        start,
        length: start + more,
        size,
        base,
    })
}

/// The head of a delta whose base begins `distance` bytes earlier. `old` are type and size of the
/// same delta, as [`Head::start`] delimits them.
pub(crate) fn rebased(old: &[u8], distance: u64) -> Vec<u8> {
    let mut head = old.to_vec();
    if let Some(first) = head.first_mut() {
        *first = *first & 0x8f | OFFSET_DELTA << 4;
    }
    let mut digits = vec![(distance & 0x7f) as u8];
    let mut rest = distance >> 7;
    while rest > 0 {
        rest -= 1;
        digits.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    head.extend(digits.iter().rev());
    head
}

/// The head of a whole object: its type and its size.
pub(crate) fn whole(kind: git2::ObjectType, size: u64) -> Vec<u8> {
    let kind: u8 = match kind {
        git2::ObjectType::Commit => 1,
        git2::ObjectType::Tree => 2,
        git2::ObjectType::Tag => 4,
        _ => 3,
    };
    let mut head = vec![kind << 4 | (size & 0xf) as u8];
    let mut rest = size >> 4;
    while rest > 0 {
        if let Some(last) = head.last_mut() {
            *last |= 0x80;
        }
        head.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    head
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
    fn a_rebased_head_reads_back() {
        for size in [0, 15, 16, 2047, 2048, u64::MAX] {
            let old = whole(git2::ObjectType::Blob, size);
            assert!(old.len() <= LONGEST - ID);
            assert_eq!(parse(&old).map(|head| head.size), Some(size));
            for distance in [1, 127, 128, 16_511, 16_512, 1 << 40, u64::MAX >> 1] {
                let head = rebased(&old, distance);
                let expected = Head {
                    start: old.len(),
                    length: head.len(),
                    size,
                    base: Base::Before(distance),
                };
                assert_eq!(parse(&head), Some(expected));
                assert_eq!(parse(&head[..head.len() - 1]), None);
            }
        }
    }

    #[test]
    fn malformed_heads_are_refused() {
        let endless = [0xff; LONGEST];
        let reserved = [0x00];
        let unknown = [0x50];
        let cut_id = [0x70; ID];
        for bytes in [&endless[..], &reserved, &unknown, &cut_id, &[]] {
            assert_eq!(parse(bytes), None, "{bytes:x?}");
        }
    }
}
