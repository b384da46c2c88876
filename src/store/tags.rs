//! The remote's tags, for git commands in published trees such as `git describe`.

use std::collections::HashSet;
use std::io;

use git2::{Oid, Reference, Repository};

use super::{PACKED_REFS, Store, replace};
use crate::base::commit::Commit;
use crate::base::error::{Stage, SyncError};
use crate::base::transfer::Advertised;
use crate::pack::peel;

/// The most tags that one request fetches.
const MAX_TAGS: usize = 1000;

impl Store {
    /// The annotated tags whose commits the store has and whose own objects it does not have; at
    /// most 1000 of them.
    pub fn missing_tags<'t>(&self, tags: &'t [Advertised]) -> Vec<&'t Advertised> {
        let Ok(repository) = self.repository() else {
            return Vec::new();
        };
        let Ok(odb) = repository.odb() else {
            return Vec::new();
        };
        tags.iter()
            .filter(|tag| tag.object != tag.commit)
            .filter(|tag| odb.exists(tag.commit.oid()) && !odb.exists(tag.object.oid()))
            .take(MAX_TAGS)
            .collect()
    }

    /// Replaces the recorded tags by those tags of the remote whose commits the store has. A tag
    /// whose own object the store does not have is recorded as a lightweight tag.
    ///
    /// # Errors
    /// Stage `fetch`: the tags cannot be written.
    pub fn set_tags(&self, tags: &[Advertised]) -> Result<(), SyncError> {
        let disk =
            |cause: io::Error| SyncError::disk(Stage::Fetch, "write into", &self.path, cause);
        let Ok(repository) = self.repository() else {
            return Ok(());
        };
        let Ok(odb) = repository.odb() else {
            return Ok(());
        };
        let exists = |id: Commit| odb.exists(id.oid());
        let mut tags: Vec<_> = tags
            .iter()
            .filter(|tag| Reference::is_valid_name(&tag.name) && exists(tag.commit))
            .collect();
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for tag in tags {
            if tag.object != tag.commit && exists(tag.object) {
                text.push_str(&format!("{} {}\n^{}\n", tag.object, tag.name, tag.commit));
            } else {
                text.push_str(&format!("{} {}\n", tag.commit, tag.name));
            }
        }
        replace(&self.path.join(PACKED_REFS), text.as_bytes()).map_err(disk)
    }

    /// Adds to `needed` the tag objects that lead to commits of the history.
    pub(super) fn add_tags(
        &self,
        repository: &Repository,
        history: &HashSet<Commit>,
        needed: &mut HashSet<Oid>,
    ) -> Result<(), SyncError> {
        let read = |cause| self.unreadable(cause);
        let odb = repository.odb().map_err(read)?;
        for reference in repository.references_glob("refs/tags/*").map_err(read)? {
            let target = reference.map_err(read)?.target();
            if let Some(peeled) = target.and_then(|id| peel(&odb, id).ok())
                && history.contains(&peeled.id.into())
            {
                needed.extend(peeled.tags);
            }
        }
        Ok(())
    }
}
