//! Temporary names in the directory of the link: what a kill in the middle of a publish leaves there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::{REVISIONS, Volume};

impl Volume {
    /// Removes symbolic links to revisions that were never renamed to the link.
    pub(super) fn sweep_beside_link(&self) -> io::Result<()> {
        for (path, stat) in self.temporaries_beside_link()? {
            if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
                continue;
            }
            let target = rustix::fs::readlink(&path, Vec::new())?;
            let target = PathBuf::from(OsString::from(OsStr::from_bytes(target.as_bytes())));
            let needle = Path::new(".gvr").join(REVISIONS);
            if contains(&target, &needle) {
                rustix::fs::unlink(&path)?;
            }
        }
        Ok(())
    }

    /// The directories with temporary names, with their inode numbers.
    pub(super) fn directories_beside_link(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        Ok(self
            .temporaries_beside_link()?
            .into_iter()
            .filter(|(_, stat)| FileType::from_raw_mode(stat.st_mode).is_dir())
            .map(|(path, stat)| (path, stat.st_ino))
            .collect())
    }

    fn temporaries_beside_link(&self) -> io::Result<Vec<(PathBuf, Stat)>> {
        let prefix = self.temporary_prefix();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.link_parent)? {
            let path = entry?.path();
            let is_temporary = path
                .file_name()
                .is_some_and(|name| name.as_bytes().starts_with(prefix.as_bytes()));
            if is_temporary && let Ok(stat) = rustix::fs::lstat(&path) {
                found.push((path, stat));
            }
        }
        Ok(found)
    }

    /// A name that no other process uses.
    pub(super) fn temporary_name(&self) -> OsString {
        let mut name = self.temporary_prefix();
        name.push(format!("{}.{:016x}", std::process::id(), fastrand::u64(..)));
        name
    }

    fn temporary_prefix(&self) -> OsString {
        let mut prefix = OsString::from(".");
        // Linux limits a name to 255 bytes.
        let leaf = self.link_leaf.as_bytes();
        prefix.push(OsStr::from_bytes(&leaf[..leaf.len().min(200)]));
        prefix.push(".gvr-");
        prefix
    }
}

fn contains(path: &Path, needle: &Path) -> bool {
    let parts: Vec<_> = path.components().collect();
    let needle: Vec<_> = needle.components().collect();
    parts.windows(needle.len()).any(|window| window == needle)
}
