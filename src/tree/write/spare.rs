//! Links to a revision's files, made while nothing happens, for the revision after it.
//!
//! Most of what an update costs is one link for each file that did not change, and nobody has to
//! wait for the update to know where those will be needed. The next build moves whole directories
//! that did not change out of the spare, and looks at each file in them again: a spare that is old,
//! half full or altered costs time, and nothing else.
//!
//! This module decides neither when to link nor for how long, and removes nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rustix::fs::CWD;
use rustix::io::Errno;

use super::directory::{Directory, Roots};
use super::path_bytes;
use super::worker::join;
use crate::manifest::{Kind, Manifest};
use crate::tree::{Base, TreeOptions, files};

/// A spare that is being filled.
pub struct Spare {
    manifest: Manifest,
    roots: Arc<Roots>,
    /// Blocks of the manifest that are left, with the paths of their directories.
    waiting: Vec<(u32, Vec<u8>)>,
    /// Whether there is any link yet.
    linked: bool,
}

impl Spare {
    /// Prepares to fill an empty directory on the file system of the base, for builds with these
    /// options.
    ///
    /// # Errors
    /// When the base's manifest or one of the directories cannot be opened, or the options give
    /// files other permissions than the base has.
    pub fn begin(base: &Base<'_>, directory: &Path, options: &TreeOptions) -> io::Result<Self> {
        let manifest = Manifest::open(base.manifest)?;
        if manifest.header.modes != options.modes() {
            return Err(io::Error::other("its files have other permissions"));
        }
        Ok(Self {
            manifest,
            roots: Arc::new(Roots {
                destination: files::open_directory(CWD, path_bytes(directory))?,
                base: Some(files::open_directory(CWD, path_bytes(base.tree))?),
                spare: None,
                group_write: options.group_write,
                open: AtomicUsize::new(0),
            }),
            waiting: vec![(0, Vec::new())],
            linked: false,
        })
    }

    /// Links on, for as long as `go_on` says so; whether the spare is full. It is asked once for
    /// every directory, or every few hundred files of a large one.
    ///
    /// # Errors
    /// When the disk is full or fails, or not even the first file can be linked.
    pub fn fill(&mut self, go_on: &dyn Fn() -> bool) -> io::Result<bool> {
        while go_on() {
            let Some((number, path)) = self.waiting.pop() else {
                return Ok(true);
            };
            self.link(number, path)?;
        }
        Ok(self.waiting.is_empty())
    }

    fn link(&mut self, number: u32, path: Vec<u8>) -> io::Result<()> {
        let block = self.manifest.block(number)?;
        let directory = Directory::new(&self.roots, None, path, true)?;
        if block.next != 0 {
            self.waiting.push((block.next, directory.path.clone()));
        }
        // What readers took away or replaced is written anew by the next build.
        let Some(base) = directory.base() else {
            return Ok(());
        };
        for entry in block.entries() {
            let entry = entry?;
            match entry.kind {
                Kind::File | Kind::Executable | Kind::Symlink => {
                    match files::link(base, directory.destination()?, entry.name) {
                        Ok(()) => self.linked = true,
                        // Readers took it away.
                        Err(Errno::NOENT) => {}
                        // This file may have too many links, or be a reader's; if it is the first,
                        // it is the same with all.
                        Err(Errno::PERM | Errno::ACCESS | Errno::MLINK) if self.linked => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Kind::Directory | Kind::Submodule => {
                    self.waiting
                        .push((entry.child, join(&directory.path, entry.name)));
                }
                // A directory with nothing in it is quickly made.
                Kind::Unpopulated => {}
            }
        }
        Ok(())
    }
}
