//! Which published files differ between two commits, for hooks: read from the object store, on the
//! hook's thread.
//!
//! Not handled: files within submodules; a submodule at another commit is one path.

use std::path::PathBuf;

use crate::base::commit::Commit;
use crate::base::error::SyncError;
use crate::notify::exec::{Difference, Differences};
use crate::tree::{self, Sparse};

/// Compares commits of an object store.
#[derive(Clone, Debug)]
pub struct StoreDifferences {
    /// The object store.
    pub store: PathBuf,
    /// Which paths are published; `None` for all.
    pub selection: Option<Sparse>,
    /// Which of them the hook watches; `None` for all.
    pub watched: Option<Sparse>,
}

impl Differences for StoreDifferences {
    fn between(&mut self, old: Commit, new: Commit) -> Result<Difference, SyncError> {
        let changes = tree::changes(&self.store, old, new, self.selection.as_ref())?;
        let mut list = Vec::new();
        for change in &changes {
            list.extend_from_slice(&[change.status, 0]);
            list.extend_from_slice(&change.path);
            list.push(0);
        }
        let is_watched = match &self.watched {
            None => true,
            Some(watched) => changes.iter().any(|change| is_below(watched, &change.path)),
        };
        Ok(Difference { list, is_watched })
    }
}

/// Whether the patterns include a file; a directory that they include takes its files in.
fn is_below(watched: &Sparse, path: &[u8]) -> bool {
    let mut included = false;
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        included = watched.includes(&path[..at], true, included);
    }
    watched.includes(path, false, included)
}
