//! What a build could not do and reports without failing.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::text::printable;

/// The most remarks of one kind that are kept.
const MAX_REMARKS: usize = 20;

#[derive(Default)]
pub(super) struct Remarks {
    /// Why unchanged files could not be shared.
    pub(super) sharing_fallback: Option<String>,
    /// By attribute: the first path, and how many paths there are.
    unapplied: BTreeMap<String, (String, u64)>,
    unpopulated: BTreeSet<String>,
}

impl Remarks {
    /// Notes an attribute that was not applied to a file.
    pub(super) fn note_unapplied(&mut self, attribute: &str, path: String) {
        let attribute = printable(attribute);
        if self.unapplied.len() < MAX_REMARKS || self.unapplied.contains_key(&attribute) {
            self.unapplied.entry(attribute).or_insert((path, 0)).1 += 1;
        }
    }

    /// Notes a submodule that has no entry in `.gitmodules`.
    pub(super) fn note_unpopulated(&mut self, path: String) {
        if self.unpopulated.len() < MAX_REMARKS {
            self.unpopulated.insert(path);
        }
    }

    /// One line per attribute that was not applied.
    pub(super) fn unapplied(&self) -> Vec<String> {
        self.unapplied
            .iter()
            .map(|(attribute, (path, count))| match count {
                1 => format!("{attribute}: {path}"),
                _ => format!("{attribute}: {path} and {} more", count - 1),
            })
            .collect()
    }

    /// The submodules that were not populated.
    pub(super) fn into_unpopulated(self) -> Vec<String> {
        self.unpopulated.into_iter().collect()
    }
}
