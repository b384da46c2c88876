//! Which packs a rewrite replaces: because they are too many, or because of the garbage in them.
//!
//! Garbage is every object that no retained commit needs, and every further copy of a needed one.
//! Pure arithmetic: nothing here touches the disk.

use std::collections::HashSet;

use git2::Oid;

use super::packs::{Pack, total};
use crate::pack::Index;

/// Rolling up leaves at most this many packs.
const FEW_PACKS: usize = 8;
/// Garbage up to this size, in bytes, does not justify a rewrite.
pub(super) const SLACK: u64 = 1 << 20;
/// Bytes of an object's entry in an index: id, checksum, offset.
const INDEX_ENTRY: u64 = 28;

/// How many packs to replace, counted from the smallest; and the bytes that needed objects take in
/// each pack.
pub(super) struct Selection {
    pub(super) count: usize,
    pub(super) needed_bytes: Vec<u64>,
}

/// Selects among the first `open` packs those whose garbage justifies a rewrite. Without a set of
/// needed objects every object counts as needed.
pub(super) fn by_garbage(
    packs: &[Pack],
    indexes: &[Index],
    open: usize,
    needed: Option<&HashSet<Oid>>,
) -> Selection {
    let bytes = total(packs);
    let Some(needed) = needed else {
        return Selection {
            count: 0,
            needed_bytes: packs.iter().map(|pack| pack.bytes).collect(),
        };
    };
    // Of several copies of an object the one in the largest pack counts as needed, because small
    // packs are replaced first.
    let mut counted = HashSet::new();
    let mut needed_bytes = vec![0; packs.len()];
    for (i, index) in indexes.iter().enumerate().rev() {
        for (id, size) in index.ids().zip(index.sizes()) {
            if needed.contains(&id) && counted.insert(id) {
                needed_bytes[i] += size + INDEX_ENTRY;
            }
        }
    }
    let all_needed: u64 = needed_bytes.iter().sum();
    let count = if bytes <= 2 * all_needed + SLACK {
        0
    } else {
        // The fewest packs that remove enough: often all the small ones and not the large one.
        let mut left = bytes;
        let enough = packs[..open]
            .iter()
            .zip(&needed_bytes)
            .position(|(pack, own)| {
                left -= pack.bytes.saturating_sub(*own);
                4 * left <= 5 * all_needed + 2 * SLACK
            });
        enough.map_or(open, |last| last + 1)
    };
    Selection {
        count,
        needed_bytes,
    }
}

/// How many of the smallest packs to roll into one: enough to leave [`FEW_PACKS`], and then each
/// pack that is not larger than all before it together, so that no object is copied often.
pub(super) fn by_number(packs: &[Pack]) -> usize {
    let mut count = packs.len() - FEW_PACKS + 1;
    let mut sum = total(&packs[..count]);
    while let Some(next) = packs.get(count).filter(|next| next.bytes <= sum) {
        sum += next.bytes;
        count += 1;
    }
    count
}
