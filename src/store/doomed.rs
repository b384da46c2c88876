//! Which packs a rewrite replaces: because there are too many, or because of what nobody needs in
//! them.
//!
//! Pure arithmetic: nothing here touches the disk.

use std::collections::HashSet;

use git2::Oid;

use super::packs::{Pack, total};
use crate::pack::Index;

/// Rolling up leaves at most this many.
const FEW_PACKS: usize = 8;
/// Garbage up to this size is not worth any work.
pub(super) const SLACK: u64 = 1 << 20;

/// How many of the smallest packs to replace because of garbage, at most the first `open`; and how
/// many bytes the live objects take in each pack.
pub(super) fn because_of_garbage(
    packs: &[Pack],
    indexes: &[Index],
    open: usize,
    live: Option<&HashSet<Oid>>,
) -> (usize, Vec<u64>) {
    let bytes = total(packs);
    let Some(live) = live else {
        return (0, packs.iter().map(|pack| pack.bytes).collect());
    };
    // Of several copies of an object the one in the largest pack counts: the others go first.
    let mut counted = HashSet::new();
    let mut own = vec![0; packs.len()];
    for (i, index) in indexes.iter().enumerate().rev() {
        for (id, size) in index.ids().zip(index.sizes()) {
            if live.contains(&id) && counted.insert(id) {
                // What an entry in the index takes.
                own[i] += size + 28;
            }
        }
    }
    let needed: u64 = own.iter().sum();
    if bytes <= 2 * needed + SLACK {
        return (0, own);
    }
    // The fewest packs whose garbage is worth it; often all the small ones and not the large one.
    let mut left = bytes;
    for (i, pack) in packs[..open].iter().enumerate() {
        left -= pack.bytes.saturating_sub(own[i]);
        if 4 * left <= 5 * needed + 2 * SLACK {
            return (i + 1, own);
        }
    }
    (open, own)
}

/// How many of the smallest packs to roll into one: enough to leave few, and each that is not
/// larger than those before it together, so that no object is copied often.
pub(super) fn because_of_number(packs: &[Pack]) -> usize {
    let mut count = packs.len() - FEW_PACKS + 1;
    let mut sum = total(&packs[..count]);
    while let Some(next) = packs.get(count).filter(|next| next.bytes <= sum) {
        sum += next.bytes;
        count += 1;
    }
    count
}
