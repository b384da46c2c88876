//! The spare tree: links to the files of the newest tree, made while nothing happens, which the next
//! build moves into place.
//!
//! It only saves time: without a spare tree, or with half of one, the next tree is built all the
//! same.

use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::tree::{self, Base, TreeOptions};
use crate::volume::Volume;

/// The spare tree of one revision.
pub(super) struct SpareTree {
    /// The revision whose files are linked.
    of: u64,
    links: Links,
}

enum Links {
    Begun(PathBuf, tree::Spare),
    Made(PathBuf),
    /// They cannot be made for this revision.
    Impossible,
}

impl SpareTree {
    /// An empty spare tree for the files of revision `of`, whose tree is `base`.
    pub fn begin(
        volume: &Volume,
        of: u64,
        base: &Base<'_>,
        options: &TreeOptions,
    ) -> io::Result<Self> {
        let path = volume.make_spare(of)?;
        let spare = tree::Spare::begin(base, &path, options)?;
        let links = Links::Begun(path, spare);
        Ok(Self { of, links })
    }

    /// The note that revision `of` can have no spare tree.
    pub fn impossible(of: u64) -> Self {
        let links = Links::Impossible;
        Self { of, links }
    }

    /// Links files for as long as `go_on` says so.
    pub fn fill(self, go_on: &dyn Fn() -> bool) -> io::Result<Self> {
        let links = match self.links {
            Links::Begun(path, mut spare) => {
                if spare.fill(go_on)? {
                    debug!(path = %path.display(), "linked ahead");
                    Links::Made(path)
                } else {
                    Links::Begun(path, spare)
                }
            }
            ended => ended,
        };
        Ok(Self { links, ..self })
    }

    /// Whether links are still to be made.
    pub fn is_begun(&self) -> bool {
        matches!(self.links, Links::Begun(..))
    }

    /// The revision whose files are linked.
    pub fn of(&self) -> u64 {
        self.of
    }

    /// Where the links are, if they lead to the files of revision `of`.
    pub fn path_for(&self, of: u64) -> Option<&Path> {
        match &self.links {
            Links::Begun(path, _) | Links::Made(path) if self.of == of => Some(path),
            _ => None,
        }
    }
}
