//! Paths within a tree: bytes, separated by slashes, without a slash at either end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::base::text::printable;

/// The path of a name in a directory; the empty path is the top directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

/// The last name of a path; `.` for the top directory.
pub(super) fn leaf(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => &path[slash + 1..],
        None if path.is_empty() => b".",
        None => path,
    }
}

/// The names of a path.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
}

pub(super) fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

pub(super) fn as_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The path for a message.
pub(super) fn printable_path(path: &[u8]) -> String {
    printable(&String::from_utf8_lossy(path))
}
