//! The system calls that create files, links and directories: relative to a directory descriptor,
//! exclusively, and without following symbolic links.

use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::manifest::{Kind, Stat};

/// Bytes written between two checks of the budget.
const SLICE: usize = 8 << 20;

/// Bytes in memory while a file is streamed.
const PIECE: usize = 256 << 10;

/// The process's umask: the permission bits that the kernel removes from every new file.
pub(super) fn umask() -> u32 {
    // umask(2) can only read it by changing it, which would affect other threads.
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(value.trim(), 8).ok()
        })
        .unwrap_or(0o022)
}

/// Opens an existing directory, for system calls relative to it.
pub(super) fn open_directory(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Creates a directory if it does not exist, and opens it.
pub(super) fn make_directory(
    at: impl AsFd,
    name: &[u8],
    group_write: bool,
) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o777)) {
        Ok(()) if group_write => {
            let stat = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o020);
            rustix::fs::chmodat(&at, name, mode, AtFlags::empty())?;
        }
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    open_directory(at, name)
}

/// Creates a regular file, for writing.
pub(super) fn create(at: impl AsFd, name: &[u8], executable: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = if executable { 0o777 } else { 0o666 };
    rustix::fs::openat(at, name, flags, Mode::from_raw_mode(mode))
}

/// Writes the content of a file. Calls `proceed` after every 8 MiB of a larger file, and stops if it
/// fails.
pub(super) fn fill<E: From<io::Error>>(
    file: OwnedFd,
    content: &[u8],
    mut proceed: impl FnMut() -> Result<(), E>,
) -> Result<OwnedFd, E> {
    let mut file = std::fs::File::from(file);
    for slice in content.chunks(SLICE) {
        file.write_all(slice)?;
        if content.len() > SLICE {
            proceed()?;
        }
    }
    Ok(file.into())
}

/// Copies a reader into a file, piece by piece. Calls `proceed` before each piece of 256 KiB, and
/// stops if it fails. `unreadable` converts an error of the reader.
pub(super) fn fill_from<E: From<io::Error>>(
    file: OwnedFd,
    mut content: impl Read,
    unreadable: impl Fn(io::Error) -> E,
    mut proceed: impl FnMut() -> Result<(), E>,
) -> Result<OwnedFd, E> {
    let mut file = std::fs::File::from(file);
    let mut piece = vec![0; PIECE];
    loop {
        proceed()?;
        match content.read(&mut piece).map_err(&unreadable)? {
            0 => return Ok(file.into()),
            length => file.write_all(&piece[..length])?,
        }
    }
}

/// Sets the final permission bits of a complete file, and returns its `stat`.
pub(super) fn finish(file: OwnedFd, group_write: bool) -> Result<Stat, Errno> {
    let mut stat = rustix::fs::fstat(&file)?;
    if group_write && stat.st_mode & 0o020 == 0 {
        let mode = (stat.st_mode & 0o7777) | 0o020;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        stat.st_mode |= 0o020;
    }
    Ok(Stat::from(&stat))
}

/// Creates a symbolic link, and returns its `stat`.
pub(super) fn symlink(at: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::symlinkat(target, at, name)?;
    rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Stat::from(&stat))
}

/// Whether a file of the base is still as its manifest recorded it.
pub(super) fn is_unaltered(at: BorrowedFd<'_>, name: &[u8], kind: Kind, recorded: &Stat) -> bool {
    let Ok(stat) = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    let expected = match kind {
        Kind::Symlink => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    FileType::from_raw_mode(stat.st_mode) == expected && Stat::from(&stat) == *recorded
}

/// Hard-links a file of the base into a directory.
pub(super) fn link(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::linkat(from, name, to, name, AtFlags::empty())
}

/// Removes a file or link.
pub(super) fn remove(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::unlinkat(at, name, AtFlags::empty())
}

/// Copies a regular file of the base by sharing its extents (FICLONE).
///
/// # Errors
/// The file system cannot share them, or fails. No file is left at `name` then.
pub(super) fn reflink(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &[u8],
    executable: bool,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let copy = create(to, name, executable)?;
    if let Err(error) = rustix::fs::ioctl_ficlone(&copy, &source) {
        remove(to, name)?;
        return Err(error);
    }
    Ok(copy)
}
