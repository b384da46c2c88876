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

    /// The same, with the content and the name on the disk when this returns.
    pub(super) fn write_small_synced(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = format!("{STAGING}/{}.new", name.replace('/', "-"));
        files::replace_synced_by(
            &self.gvr_fd,
            Path::new(&temporary),
            &self.gvr_fd,
            Path::new(name),
            text.as_bytes(),
        )?;
        let path = self.gvr.join(name);
        sync_directory(path.parent().unwrap_or(&self.gvr))
    }
}

/// Syncs the names in a directory to the disk.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(sync(&rustix::fs::open(path, flags, Mode::empty())?)?)
}

/// fsync(2); does nothing if the file system does not support it.
pub(super) fn sync(fd: impl AsFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(fd) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}
