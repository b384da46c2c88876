//! Small files under `.gvr`, and syncing directories to the disk.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{STAGING, Volume};
use crate::base::files;

impl Volume {
    /// Replaces a small file under `.gvr`. The temporary file is in `staging`, which opening sweeps.
    pub(super) fn write_small(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = format!("{STAGING}/{}.new", name.replace('/', "-"));
        files::replace_by(
            &self.gvr_fd,
            Path::new(&temporary),
            &self.gvr_fd,
            Path::new(name),
            text.as_bytes(),
        )
    }

    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let fd = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(sync(&fd)?)
    }
}

/// fsync(2); does nothing if the file system does not support it.
pub(super) fn sync(fd: impl AsFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(fd) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}
