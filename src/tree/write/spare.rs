//! The spare tree: links to a revision's files, made between updates for the next revision.
//!
//! Most of the cost of an update is one link for each unchanged file, and these links can be made
//! before the update arrives. The next build moves whole unchanged directories out of the spare tree
//! and checks each file in them, so a spare tree that is outdated, incomplete or altered costs time
//! and does not affect the result.
//!
//! The caller decides when to link and for how long. Nothing is removed here.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rustix::fs::CWD;
use rustix::io::Errno;

use super::directory::{Directory, Roots};
use super::paths::{as_bytes, join};
use crate::manifest::{Kind, Manifest};
use crate::tree::{Base, TreeOptions, files};

/// A spare tree that is being filled.
pub struct Spare {
    manifest: Manifest,
    roots: Arc<Roots>,
    /// The remaining blocks of the manifest, with the paths of their directories.
    waiting: Vec<(u32, Vec<u8>)>,
    /// Whether any link was made.
    linked: bool,
}

impl Spare {
    /// Prepares to fill an empty directory on the file system of the base, for builds with these
    /// options.
    ///
    /// # Errors
    /// The base's manifest or one of the directories cannot be opened, or the options give files
    /// other permissions than those of the base.
    pub fn begin(base: &Base<'_>, directory: &Path, options: &TreeOptions) -> io::Result<Self> {
        let manifest = Manifest::open(base.manifest)?;
        if manifest.header.modes != options.modes() {
            return Err(io::Error::other("its files have other permissions"));
        }
        Ok(Self {
            manifest,
            roots: Arc::new(Roots {
                destination: files::open_directory(CWD, as_bytes(directory))?,
                base: Some(files::open_directory(CWD, as_bytes(base.tree))?),
                spare: None,
                group_write: options.group_write,
                open: AtomicUsize::new(0),
            }),
            waiting: vec![(0, Vec::new())],
            linked: false,
        })
    }

    /// Makes links until all are made or `go_on` returns false; returns whether all are made. Calls
    /// `go_on` once per directory, and once per 512 files of a large one.
    ///
    /// # Errors
    /// The disk is full or fails, or the first file cannot be linked.
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
        // A reader removed or replaced the directory; the next build writes it from the store.
        let Some(base) = directory.base() else {
            return Ok(());
        };
        for record in block.records() {
            let record = record?;
            match record.kind {
                Kind::File | Kind::Executable | Kind::Symlink => {
                    match files::link(base, directory.destination()?, record.name) {
                        Ok(()) => self.linked = true,
                        // A reader removed it.
                        Err(Errno::NOENT) => {}
                        // This file may have too many links or another owner. If it is the first
                        // file, no file can be linked.
                        Err(Errno::PERM | Errno::ACCESS | Errno::MLINK) if self.linked => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Kind::Directory | Kind::Submodule => {
                    self.waiting
                        .push((record.child, join(&directory.path, record.name)));
                }
                // The build creates an empty directory as fast as it would move one.
                Kind::Unpopulated => {}
            }
        }
        Ok(())
    }
}
