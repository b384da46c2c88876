//! The header of a manifest: a few lines of text, readable without the rest.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use git2::Oid;

use super::damaged;
use crate::base::commit::Commit;

/// The first line of every manifest, with the version of its format.
const MAGIC: &str = "git-volume-reloader manifest 2";

/// The longest header that is read, in bytes.
pub(super) const HEADER_LIMIT: u64 = 1024;

/// The commit and the settings that a revision was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The commit that the tree shows.
    pub commit: Commit,
    /// Its root tree.
    pub tree: Oid,
    /// A hash of the settings that affect what readers see: `TreeOptions::fingerprint`.
    pub fingerprint: String,
    /// The settings that decide which paths exist (sparse patterns, submodules).
    pub selection: String,
    /// The settings that decide the permission bits (umask, group write).
    pub modes: String,
}

impl Header {
    /// Reads the header of the manifest at `path` and nothing else of it.
    ///
    /// # Errors
    /// The file cannot be read; `InvalidData` if it is not a manifest of this version.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        File::open(path)?
            .take(HEADER_LIMIT)
            .read_to_end(&mut text)?;
        Self::parse(&text).map(|(header, _)| header)
    }

    /// The header at the start of `bytes`, and its length.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<(Self, usize)> {
        let end = bytes
            .windows(2)
            .position(|pair| pair == b"\n\n")
            .ok_or_else(|| damaged("it has no header"))?;
        let text =
            std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("its header is not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(damaged("it is not a manifest of this version"));
        }
        let mut field = |name: &str| {
            lines
                .next()
                .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .map(str::to_owned)
                .ok_or_else(|| damaged("its header lacks a field"))
        };
        let header = Self {
            commit: field("commit")?
                .parse()
                .map_err(|_| damaged("its commit is not an object id"))?,
            tree: Oid::from_str(&field("tree")?)
                .map_err(|_| damaged("its tree is not an object id"))?,
            fingerprint: field("fingerprint")?,
            selection: field("selection")?,
            modes: field("modes")?,
        };
        Ok((header, end + 2))
    }

    pub(super) fn to_text(&self) -> String {
        format!(
            "{MAGIC}\ncommit {}\ntree {}\nfingerprint {}\nselection {}\nmodes {}\n\n",
            self.commit, self.tree, self.fingerprint, self.selection, self.modes
        )
    }
}
