//! Who is told about publishes and failures.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, bad};
use super::paths::normalized;
use crate::cli::NotifyFlags;
use crate::notify::files::FileSettings;
use crate::volume::Layout;

/// The files that tell other programs what happened; relative paths start from the root.
///
/// # Errors
/// One of them is in a published tree or in the `.gvr` directory, where it would count as damage; or
/// it exists and is not a regular file.
pub(super) fn files(flags: &NotifyFlags, layout: &Layout) -> Result<FileSettings, ConfigError> {
    let checked = |flag: &'static str| move |path: &PathBuf| checked(flag, path, layout);
    Ok(FileSettings {
        touch_files: flags
            .touch_file
            .iter()
            .map(checked("--touch-file"))
            .collect::<Result<_, _>>()?,
        error_file: flags
            .error_file
            .as_ref()
            .map(checked("--error-file"))
            .transpose()?,
    })
}

/// Why a file cannot be written at a path; `None` if nothing is known against it.
fn refused(path: &Path, layout: &Layout) -> Option<&'static str> {
    let state = layout.root.join(".gvr");
    // Other links may lead into the same directories.
    let real = path
        .parent()
        .zip(path.file_name())
        .and_then(|(directory, name)| Some(fs::canonicalize(directory).ok()?.join(name)));
    let is_inside = |directory: &Path| {
        let real_directory = fs::canonicalize(directory);
        path.starts_with(directory)
            || real.as_ref().is_some_and(|real| {
                real_directory.is_ok_and(|directory| real.starts_with(directory))
            })
    };
    if is_inside(&layout.link) {
        return Some("it must not be in the published tree, which is never modified");
    }
    if is_inside(&state) {
        return Some("it must not be in the .gvr directory of --root");
    }
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    if kind.is_symlink() {
        Some("it is a symbolic link, which is not followed; name the file that it leads to")
    } else if kind.is_dir() {
        Some("it is a directory; name a file")
    } else if !kind.is_file() {
        Some("it is not a regular file")
    } else {
        None
    }
}

/// Where to keep the JSON of `/status`; a relative path starts from the root.
///
/// # Errors
/// As those of [`files`].
pub(super) fn status_file(
    flags: &NotifyFlags,
    layout: &Layout,
) -> Result<Option<PathBuf>, ConfigError> {
    let typed = flags.status_file.as_ref();
    typed
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| checked("--status-file", path, layout))
        .transpose()
}

/// The absolute path of a file, if it can be written there.
fn checked(flag: &str, path: &Path, layout: &Layout) -> Result<PathBuf, ConfigError> {
    let path = normalized(&layout.root.join(path));
    match refused(&path, layout) {
        Some(why) => Err(bad(flag, &format!("{}: {why}", path.display()))),
        None => Ok(path),
    }
}
