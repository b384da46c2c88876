//! Files directly under the store's directory: replaced, removed, swept.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::CWD;

use crate::base::files;

/// Replaces a file by renaming a new one to it. Neither is synced: after a power cut the file may
/// be empty, which `Store::heal` detects.
///
/// The temporary name ends in `.lock`, as git's own does, so that opening the store sweeps it.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    files::replace_by(CWD, &path.with_extension("lock"), CWD, path, content)
}

/// Removes a file, if it exists.
pub(super) fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Removes the regular files of a directory that `is_leftover` selects. A missing directory has
/// none.
pub(super) fn remove_files(
    directory: &Path,
    is_leftover: impl Fn(&Path, &fs::Metadata) -> bool,
) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause),
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && is_leftover(&entry.path(), &metadata) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
