//! What readers see now: a few system calls, cheap enough for every poll.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::durable::Durability;
use super::{PublishMode, REVISIONS, Revision, Volume, dir_name, number};
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};

/// What the link shows to readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The revision that readers see. `None` before the first publish, when the link is damaged, or
    /// when the revision's manifest is missing.
    pub live: Option<Revision>,
    /// A change that somebody else made to the link or to the tree: a reason to publish again.
    pub damage: Option<String>,
    /// Whether the live tree is a directory at the link path although the link should be symbolic.
    misplaced: bool,
}

impl Observed {
    /// Whether the live tree is a directory at the link path although a symbolic link is wanted.
    ///
    /// Such a tree cannot be moved into `revisions` without a time in which readers have no tree, so
    /// another one has to be built.
    pub fn live_takes_the_links_place(&self) -> bool {
        self.misplaced
    }

    fn damaged(what: &str) -> Self {
        Self {
            damage: Some(what.to_owned()),
            ..Self::default()
        }
    }
}

impl Volume {
    /// What readers see now.
    ///
    /// # Errors
    /// Stage `poll`: the root was removed or replaced, a foreign directory is at the link path, or
    /// the disk fails.
    pub fn observe(&self) -> Result<Observed, SyncError> {
        if !self.is_current() {
            return Err(SyncError::new(
                Stage::Poll,
                Reason::Disk,
                format!(
                    "{} is no longer the directory that was locked",
                    self.root.display()
                ),
            )
            .with_hint("no action is needed: the next attempt opens the new directory"));
        }
        let stat = match rustix::fs::lstat(&self.link) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return self.observe_nothing(),
            Err(cause) => return Err(self.cannot_look(cause.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => self.observe_link(),
            FileType::Directory => self.observe_directory(&stat),
            _ => Ok(Observed::damaged("a file has replaced the link")),
        }
    }

    /// No link: damage if anything was published before.
    fn observe_nothing(&self) -> Result<Observed, SyncError> {
        let published_before = self.revisions()?;
        Ok(Observed {
            damage: (!published_before.is_empty()).then(|| "the link is gone".to_owned()),
            ..Observed::default()
        })
    }

    /// A symbolic link, which should lead to a revision.
    fn observe_link(&self) -> Result<Observed, SyncError> {
        let target = rustix::fs::readlink(&self.link, Vec::new())
            .map_err(|cause| SyncError::disk(Stage::Poll, "read", &self.link, cause.into()))?;
        let Some((n, name, commit)) = self.parse_target(target.as_bytes()) else {
            return Ok(Observed::damaged("the link points elsewhere"));
        };
        let tree = format!("{REVISIONS}/{name}/{commit}");
        let stat = match rustix::fs::statat(&self.gvr_fd, &tree, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => stat,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {
                return Ok(Observed::damaged("the published tree is gone"));
            }
            Err(cause) => {
                let tree = self.gvr.join(&tree);
                return Err(SyncError::disk(Stage::Poll, "look at", &tree, cause.into()));
            }
        };
        let inode = (stat.st_dev, stat.st_ino);
        if *self.cache().inodes.entry(n).or_insert(inode) != inode {
            return Ok(Observed::damaged("the published tree was replaced"));
        }
        // Readers still have their tree. It is not reported as damage, because then an older tree
        // would be published until this commit is built again.
        if !self.has_manifest(n) {
            return Ok(match self.durability(n) {
                Durability::Unproven => Observed::damaged("the published tree may be incomplete"),
                _ => Observed::default(),
            });
        }
        Ok(Observed {
            live: Some(self.revision(n, &name, commit)),
            damage: (self.mode == PublishMode::Exchange)
                .then(|| "the link is symbolic, and a directory is wanted".to_owned()),
            misplaced: false,
        })
    }

    /// A directory at the link path, which should be a tree that was published by exchange.
    fn observe_directory(&self, stat: &Stat) -> Result<Observed, SyncError> {
        let live = self
            .exchanged_revision(stat)
            .map_err(|cause| self.cannot_look(cause))?;
        match live {
            Some(revision) if !self.has_manifest(revision.n) => Ok(Observed::default()),
            Some(live) => {
                let misplaced = self.mode == PublishMode::Symlink;
                Ok(Observed {
                    damage: misplaced
                        .then(|| "the link is a directory from publishing by exchange".to_owned()),
                    live: Some(live),
                    misplaced,
                })
            }
            None if self.mode == PublishMode::Exchange && self.link_is_empty() => {
                self.observe_nothing()
            }
            None => Err(SyncError::new(
                Stage::Poll,
                Reason::Disk,
                format!(
                    "{} is a directory that this program did not publish: it is left alone",
                    self.link.display()
                ),
            )
            .with_hint("remove it, or choose another --link")),
        }
    }

    /// The revision whose tree is the directory at the link path, by inode number.
    fn exchanged_revision(&self, stat: &Stat) -> io::Result<Option<Revision>> {
        let known = self.cache().exchanged.clone();
        if let Some((inode, revision)) = known
            && inode == stat.st_ino
        {
            return Ok(Some(revision));
        }
        let found = self
            .complete()?
            .into_iter()
            .find(|revision| revision.path == self.link);
        if let Some(revision) = &found {
            self.cache().exchanged = Some((stat.st_ino, revision.clone()));
        }
        Ok(found)
    }

    pub(super) fn has_manifest(&self, n: u64) -> bool {
        let path = format!("{REVISIONS}/{}/{}", dir_name(n), super::MANIFEST);
        rustix::fs::statat(&self.gvr_fd, path, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    }

    pub(super) fn link_is_empty(&self) -> bool {
        std::fs::read_dir(&self.link).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Number, directory name and commit in the target of a link that this program made.
    pub(super) fn parse_target(&self, target: &[u8]) -> Option<(u64, String, Commit)> {
        let target = Path::new(OsStr::from_bytes(target));
        let mut rest = target.strip_prefix(&self.link_target).ok()?.components();
        let name = rest.next()?.as_os_str().to_str()?.to_owned();
        let commit = rest.next()?.as_os_str().to_str()?.parse().ok()?;
        let n = number(&name)?;
        (rest.next().is_none() && name == dir_name(n)).then_some((n, name, commit))
    }

    fn cannot_look(&self, cause: io::Error) -> SyncError {
        SyncError::disk(Stage::Poll, "look at", &self.link, cause)
    }
}
