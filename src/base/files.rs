//! Small files that belong to the operator: read with a bound, replaced atomically, touched.
//!
//! Every function works on regular files only and never blocks: a FIFO, a device or a directory at
//! the path is an error. The functions that write do not follow a symbolic link at the last
//! component, so that a link planted there cannot redirect them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};

/// How to open a file that may have been replaced by a FIFO or a device, which could block.
const CAREFUL: OFlags = OFlags::NONBLOCK
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

/// The mode of new files, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Reads a whole file of at most `limit` bytes. Symbolic links are followed, as Kubernetes mounts
/// secrets behind links.
///
/// # Errors
/// When it cannot be opened or read, is not a regular file, or is larger than `limit`.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_file(&open(path)?, limit)
}

/// Opens a regular file for reading, following symbolic links.
///
/// # Errors
/// When it cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    regular(rustix::fs::open(
        path,
        OFlags::RDONLY | CAREFUL,
        Mode::empty(),
    )?)
}

/// Reads the rest of an open file, of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, or is larger than `limit`.
pub fn read_file(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {limit} bytes"),
        ));
    }
    Ok(content)
}

/// Replaces a file in one step: readers see the old content or the new, never a part. The new
/// file has mode 0644, less the umask. Nothing is synced to the disk.
///
/// # Errors
/// When the directory does not take the file. The old content is then still there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not the path of a file",
        ));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".gvr-new");
    let temporary = directory.join(temporary);
    replace_by(CWD, &temporary, CWD, path, content)
}

/// Writes `content` to a new file `temporary` and renames it to `name`, each relative to its
/// directory; both directories must be on one file system. A leftover at `temporary` is removed
/// first, and `temporary` is removed when anything fails.
///
/// # Errors
/// When the file cannot be created, written or renamed.
pub fn replace_by(
    temporary_directory: impl AsFd,
    temporary: &Path,
    directory: impl AsFd,
    name: &Path,
    content: &[u8],
) -> io::Result<()> {
    let nothing = |_: &File| Ok(());
    replace_after(
        temporary_directory,
        temporary,
        directory,
        name,
        content,
        nothing,
    )
}

/// Like [`replace_by`], and the content is on the disk before the rename. The rename itself is not:
/// that takes a sync of the directory.
///
/// # Errors
/// When the file cannot be created, written, synced or renamed.
pub fn replace_synced_by(
    temporary_directory: impl AsFd,
    temporary: &Path,
    directory: impl AsFd,
    name: &Path,
    content: &[u8],
) -> io::Result<()> {
    replace_after(
        temporary_directory,
        temporary,
        directory,
        name,
        content,
        |file| match file.sync_data() {
            // Some file systems cannot sync, and then nothing is lost by not doing it.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        },
    )
}

fn replace_after(
    temporary_directory: impl AsFd,
    temporary: &Path,
    directory: impl AsFd,
    name: &Path,
    content: &[u8],
    before_rename: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary_directory = temporary_directory.as_fd();
    let remove = || rustix::fs::unlinkat(temporary_directory, temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | CAREFUL;
    let create = || rustix::fs::openat(temporary_directory, temporary, flags, MODE);
    let created = match create() {
        Err(rustix::io::Errno::EXIST) => {
            remove()?;
            create()?
        }
        other => other?,
    };
    let mut file = File::from(created);
    let written = file
        .write_all(content)
        .and_then(|()| before_rename(&file))
        .and_then(|()| {
            Ok(rustix::fs::renameat(
                temporary_directory,
                temporary,
                directory,
                name,
            )?)
        });
    if written.is_err() {
        // The error to report is the one that was found first.
        let _ = remove();
    }
    written
}

/// Creates an empty file, or sets the times of the one that is there to now.
///
/// # Errors
/// When it is a symbolic link or not a regular file, or cannot be created.
pub fn touch(path: &Path) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | CAREFUL;
    let file = regular(rustix::fs::open(path, flags, MODE)?)?;
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(rustix::fs::futimens(&file, &times)?)
}

/// The relative path from a directory to another path. Both must be absolute and without symbolic
/// links.
pub(crate) fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_relative_path_goes_up_only_to_the_last_common_directory() {
        let to = Path::new("/v/.gvr/revisions");
        let relative = |from: &str| relative(Path::new(from), to).display().to_string();
        assert_eq!(relative("/v"), ".gvr/revisions");
        assert_eq!(relative("/v/links"), "../.gvr/revisions");
        assert_eq!(relative("/srv/www"), "../../v/.gvr/revisions");
        assert_eq!(relative("/"), "v/.gvr/revisions");
    }

    #[test]
    fn only_a_regular_file_within_the_limit_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(read(&path, 9).is_err());
        assert!(read(dir.path(), 9).is_err());
        rustix::fs::mknodat(
            CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(read(&path, 9).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "ninebytes").unwrap();
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 9).unwrap(), b"ninebytes");
        assert!(read(&link, 8).is_err());
    }

    #[test]
    fn replacing_leaves_no_other_file_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, outside) = (dir.path().join("f"), dir.path().join("outside"));
        fs::write(&outside, "theirs").unwrap();
        symlink(&outside, dir.path().join(".f.gvr-new")).unwrap();
        symlink(&outside, &path).unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "theirs");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_an_error_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert!(touch(&path).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_touched_file_exists_and_an_existing_one_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        fs::write(&old, "kept").unwrap();
        let past = std::time::SystemTime::UNIX_EPOCH;
        let file = File::options().write(true).open(&old).unwrap();
        file.set_modified(past).unwrap();
        touch(&new).unwrap();
        touch(&old).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
        assert!(fs::metadata(&old).unwrap().modified().unwrap() > past);
        assert_eq!(fs::metadata(&new).unwrap().len(), 0);
    }

    #[test]
    fn neither_a_fifo_nor_a_link_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, link) = (dir.path().join("fifo"), dir.path().join("link"));
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, &fifo, kind, Mode::from_raw_mode(0o600), 0).unwrap();
        symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert!(touch(&fifo).is_err());
        assert!(touch(&link).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
