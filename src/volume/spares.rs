//! The directories for spare trees: links to a revision's files, made for the next revision.
//!
//! This module does not make the links; `tree::Spare` does.

use std::io;
use std::path::PathBuf;

use rustix::fs::Mode;

use super::{SPARE, Volume, dir_name};
use crate::base::budget::Budget;

impl Volume {
    /// Creates an empty directory for links to the files of revision `n`, on their file system.
    ///
    /// # Errors
    /// It exists already, or the disk fails.
    pub fn make_spare(&self, n: u64) -> io::Result<PathBuf> {
        self.create_directories().map_err(io::Error::other)?;
        let name = format!("{SPARE}/{}", dir_name(n));
        rustix::fs::mkdirat(&self.gvr_fd, &name, Mode::from_raw_mode(0o755))?;
        Ok(self.gvr.join(name))
    }

    /// Moves all spare trees to the trash; returns whether there was one.
    ///
    /// # Errors
    /// The directory of spare trees cannot be read.
    pub fn drop_spares(&self) -> io::Result<bool> {
        let mut moved = false;
        for name in self.names(SPARE)? {
            moved |= self.discard(SPARE, &name);
        }
        Ok(moved)
    }

    /// Deletes all spare trees to free disk space; returns whether there was one.
    ///
    /// # Errors
    /// The directory of spare trees or the trash cannot be read.
    pub fn delete_spares(&self, budget: &Budget) -> io::Result<bool> {
        let moved = self.drop_spares()?;
        if moved {
            self.delete_trash(budget)?;
        }
        Ok(moved)
    }
}
