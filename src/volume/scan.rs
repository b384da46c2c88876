//! Reads the directory of revisions: which are complete, and where their trees are.

use std::io;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{MANIFEST, REVISIONS, Revision, SWAP, Volume, number};
use crate::base::commit::Commit;

/// One directory of `revisions`, as found on disk.
#[derive(Debug)]
pub(super) struct RevisionDir {
    pub(super) n: u64,
    /// Its name: the number with leading zeros.
    pub(super) name: String,
    /// Whether it has a manifest.
    pub(super) manifest: bool,
    /// The tree in it, with its inode number.
    pub(super) tree: Option<(Commit, u64)>,
    /// The tree's name, if it belongs to a file or link that an exchange moved there.
    pub(super) stray: Option<Commit>,
    /// The record written before the tree was exchanged with the link path.
    pub(super) exchange: Option<ExchangeRecord>,
}

/// The identity of a tree that is published by exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExchangeRecord {
    pub(super) commit: Commit,
    pub(super) inode: u64,
}

impl ExchangeRecord {
    pub(super) fn text(&self) -> String {
        format!("{} {}\n", self.commit, self.inode)
    }

    fn parse(text: &str) -> Option<Self> {
        let (commit, inode) = text.trim_end().split_once(' ')?;
        Some(Self {
            commit: commit.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

impl Volume {
    /// The directories in `revisions` whose names this program makes, ascending.
    pub(super) fn scan(&self) -> io::Result<Vec<RevisionDir>> {
        let mut found = Vec::new();
        for name in self.names(REVISIONS)? {
            let Some(n) = number(&name).filter(|n| super::dir_name(*n) == name) else {
                continue;
            };
            match self.scan_one(n, name) {
                Ok(dir) => found.push(dir),
                Err(cause) if is_gone(&cause) => {}
                Err(cause) => return Err(cause),
            }
        }
        found.sort_by_key(|dir| dir.n);
        Ok(found)
    }

    /// The complete revisions, ascending.
    pub(super) fn complete(&self) -> io::Result<Vec<Revision>> {
        let at_link = self.inode_at_link();
        Ok(self
            .scan()?
            .into_iter()
            .filter_map(|dir| self.complete_revision(&dir, at_link))
            .collect())
    }

    /// The revision in a directory, if it is complete. `at_link` is [`Volume::inode_at_link`].
    pub(super) fn complete_revision(
        &self,
        dir: &RevisionDir,
        at_link: Option<u64>,
    ) -> Option<Revision> {
        if !dir.manifest {
            return None;
        }
        match (dir.exchange, dir.tree) {
            (Some(record), _) if Some(record.inode) == at_link => {
                let mut revision = self.revision(dir.n, &dir.name, record.commit);
                revision.path.clone_from(&self.link);
                Some(revision)
            }
            (_, Some((commit, _))) => Some(self.revision(dir.n, &dir.name, commit)),
            (_, None) => None,
        }
    }

    /// The inode number at the link path, if a directory is there.
    pub(super) fn inode_at_link(&self) -> Option<u64> {
        rustix::fs::lstat(&self.link)
            .ok()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
            .map(|stat| stat.st_ino)
    }

    /// The names in a directory under `.gvr`, without names that are not UTF-8: this program makes none.
    pub(super) fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.gvr_fd, dir, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(cause) => return Err(cause.into()),
        };
        let mut names = Vec::new();
        for entry in Dir::new(fd)? {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn scan_one(&self, n: u64, name: String) -> io::Result<RevisionDir> {
        let mut found = RevisionDir {
            n,
            manifest: false,
            tree: None,
            stray: None,
            exchange: None,
            name,
        };
        let dir = format!("{REVISIONS}/{}", found.name);
        for entry in self.names(&dir)? {
            let path = format!("{dir}/{entry}");
            let stat = match rustix::fs::statat(&self.gvr_fd, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(cause) => return Err(cause.into()),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if entry == MANIFEST {
                found.manifest = kind.is_file();
            } else if entry == SWAP {
                found.exchange = std::fs::read_to_string(self.gvr.join(&path))
                    .ok()
                    .and_then(|text| ExchangeRecord::parse(&text));
            } else if let Ok(commit) = entry.parse::<Commit>() {
                match kind {
                    FileType::Directory => found.tree = Some((commit, stat.st_ino)),
                    _ => found.stray = Some(commit),
                }
            }
        }
        Ok(found)
    }
}

/// Whether a directory was removed during the scan, or is not a directory.
fn is_gone(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
