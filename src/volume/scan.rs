//! Reading the directory of revisions: which are complete, and which tree is where.

use std::io;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{MANIFEST, REVISIONS, Revision, SWAP, Volume, number};
use crate::base::commit::Commit;

/// One directory of `revisions`, as found.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) n: u64,
    /// Its name: the number, padded.
    pub(super) name: String,
    pub(super) manifest: bool,
    /// The tree that lies in it, with its inode.
    pub(super) tree: Option<(Commit, u64)>,
    /// What is no directory and in the tree's place: an exchange put it there.
    pub(super) stray: Option<Commit>,
    /// What was recorded before the tree was swapped with the link path.
    pub(super) swap: Option<Swap>,
}

/// The identity of a tree that publishing by exchange moves about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) commit: Commit,
    pub(super) inode: u64,
}

impl Swap {
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
    /// Every directory of `revisions` that we named, ascending.
    pub(super) fn scan(&self) -> io::Result<Vec<Slot>> {
        let mut slots = Vec::new();
        for name in self.names(REVISIONS)? {
            let Some(n) = number(&name).filter(|n| super::dir_name(*n) == name) else {
                continue;
            };
            match self.slot(n, name) {
                Ok(slot) => slots.push(slot),
                Err(cause) if is_gone(&cause) => {}
                Err(cause) => return Err(cause),
            }
        }
        slots.sort_by_key(|slot| slot.n);
        Ok(slots)
    }

    /// The complete revisions, ascending.
    pub(super) fn complete(&self) -> io::Result<Vec<Revision>> {
        let at_link = self.inode_at_link();
        Ok(self
            .scan()?
            .into_iter()
            .filter_map(|slot| self.complete_slot(&slot, at_link))
            .collect())
    }

    pub(super) fn complete_slot(&self, slot: &Slot, at_link: Option<u64>) -> Option<Revision> {
        if !slot.manifest {
            return None;
        }
        match (slot.swap, slot.tree) {
            (Some(swap), _) if Some(swap.inode) == at_link => {
                let mut revision = self.revision(slot.n, &slot.name, swap.commit);
                revision.path.clone_from(&self.link);
                Some(revision)
            }
            (_, Some((commit, _))) => Some(self.revision(slot.n, &slot.name, commit)),
            (_, None) => None,
        }
    }

    /// The inode at the link path, when that is a real directory.
    pub(super) fn inode_at_link(&self) -> Option<u64> {
        rustix::fs::lstat(&self.link)
            .ok()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
            .map(|stat| stat.st_ino)
    }

    /// The names in a directory under `.gvr`; those that are not UTF-8 are not ours.
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

    fn slot(&self, n: u64, name: String) -> io::Result<Slot> {
        let mut slot = Slot {
            n,
            manifest: false,
            tree: None,
            stray: None,
            swap: None,
            name,
        };
        let dir = format!("{REVISIONS}/{}", slot.name);
        for entry in self.names(&dir)? {
            let path = format!("{dir}/{entry}");
            let stat = match rustix::fs::statat(&self.gvr_fd, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(cause) => return Err(cause.into()),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if entry == MANIFEST {
                slot.manifest = kind.is_file();
            } else if entry == SWAP {
                slot.swap = std::fs::read_to_string(self.gvr.join(&path))
                    .ok()
                    .and_then(|text| Swap::parse(&text));
            } else if let Ok(commit) = entry.parse::<Commit>() {
                match kind {
                    FileType::Directory => slot.tree = Some((commit, stat.st_ino)),
                    _ => slot.stray = Some(commit),
                }
            }
        }
        Ok(slot)
    }
}

/// Whether something vanished while it was looked at, or never was a directory.
fn is_gone(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
