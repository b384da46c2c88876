//! Opening the root: checks which directories may be a root, and which paths may be its link.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Layout;
use crate::base::error::{Reason, Stage, SyncError};

/// A root that passed every check that needs no lock.
pub(super) struct OpenedRoot {
    pub(super) path: PathBuf,
    pub(super) root_fd: OwnedFd,
    pub(super) gvr: PathBuf,
    pub(super) gvr_fd: OwnedFd,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Creates the root and `.gvr` if they are missing, and opens both.
pub(super) fn open(root: &Path) -> Result<OpenedRoot, SyncError> {
    if let Ok(metadata) = std::fs::metadata(root)
        && !metadata.is_dir()
    {
        return Err(refused(format!("{} is not a directory", root.display()))
            .with_hint("--root must be a directory; it is created when missing"));
    }
    create_directory_all(root)
        .map_err(|cause| SyncError::disk(Stage::Start, "create", root, cause))?;
    let disk = |action: &str, path: &Path, cause: io::Error| {
        SyncError::disk(Stage::Start, action, path, cause)
    };
    let path = root
        .canonicalize()
        .map_err(|cause| disk("resolve", root, cause))?;
    let root_fd = rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty())
        .map_err(|cause| unwritable(&path, cause))?;
    refuse_a_work_tree(&path)?;
    let gvr = path.join(".gvr");
    match rustix::fs::mkdirat(&root_fd, ".gvr", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(cause) => return Err(unwritable(&path, cause)),
    }
    let gvr_fd = match rustix::fs::openat(
        &root_fd,
        ".gvr",
        DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        Ok(fd) => fd,
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(refused(format!(
                "{} is a link or a file, but this program needs a directory there",
                gvr.display()
            ))
            .with_hint("remove it, or choose another --root"));
        }
        Err(cause) => return Err(unwritable(&path, cause)),
    };
    // Only an attempt shows whether the directory is writable: permission bits do not show read-only
    // mounts, ACLs and squashed root users.
    let probe = format!("probe.{:016x}", fastrand::u64(..));
    rustix::fs::mkdirat(&gvr_fd, &probe, Mode::from_raw_mode(0o700))
        .and_then(|()| rustix::fs::unlinkat(&gvr_fd, &probe, rustix::fs::AtFlags::REMOVEDIR))
        .or_else(|cause| match cause {
            // The cycle reports a full disk; pruning may free space.
            Errno::NOSPC | Errno::DQUOT => Ok(()),
            _ => Err(unwritable(&gvr, cause)),
        })?;
    Ok(OpenedRoot {
        path,
        root_fd,
        gvr,
        gvr_fd,
    })
}

/// The directory of the link, without symbolic links, and the link's name in it. Creates the
/// directory if it is missing.
pub(super) fn link_place(layout: &Layout, root: &Path) -> Result<(PathBuf, OsString), SyncError> {
    let link = &layout.link;
    let (Some(parent), Some(Component::Normal(leaf))) =
        (link.parent(), link.components().next_back())
    else {
        return Err(refused(format!("{} cannot be a link", link.display()))
            .with_hint("--link needs a name as its last component"));
    };
    create_directory_all(parent)
        .map_err(|cause| SyncError::disk(Stage::Start, "create", parent, cause))?;
    let parent = parent
        .canonicalize()
        .map_err(|cause| SyncError::disk(Stage::Start, "resolve", parent, cause))?;
    let place = parent.join(leaf);
    if place.starts_with(root.join(".gvr")) || root.starts_with(&place) {
        return Err(refused(format!(
            "the link {} would be in the way of the directory it leads to",
            place.display()
        ))
        .with_hint("choose a --link outside .gvr that is not the root or above it"));
    }
    Ok((parent, leaf.to_owned()))
}

fn create_directory_all(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

fn unwritable(path: &Path, cause: Errno) -> SyncError {
    let error = SyncError::disk(Stage::Start, "write into", path, cause.into());
    match std::fs::metadata(path) {
        Ok(metadata) if matches!(cause, Errno::ACCESS | Errno::PERM) => error.with_hint(format!(
            "it belongs to user {} with mode {:o}, and this process runs as user {}: \
             change the owner, or set fsGroup or runAsUser",
            metadata.uid(),
            metadata.mode() & 0o7777,
            rustix::process::geteuid().as_raw(),
        )),
        _ => error,
    }
}

/// Refuses a root in the work tree of a git repository that does not ignore it: it would be shown by
/// `git status` and deleted by `git clean`.
fn refuse_a_work_tree(root: &Path) -> Result<(), SyncError> {
    let device = std::fs::metadata(root).map(|m| m.dev()).ok();
    for dir in root.ancestors() {
        // Like git, search only on the same file system.
        if std::fs::metadata(dir).map(|m| m.dev()).ok() != device {
            break;
        }
        if std::fs::symlink_metadata(dir.join(".git")).is_err() {
            continue;
        }
        let ignored = match git2::Repository::open(dir) {
            Ok(repository) => {
                dir != root
                    && repository
                        .is_path_ignored(root.strip_prefix(dir).unwrap_or(root).join(""))
                        .unwrap_or(false)
            }
            Err(error) => error.code() == git2::ErrorCode::NotFound,
        };
        if !ignored {
            return Err(refused(format!(
                "{} is in the work tree of the git repository {}",
                root.display(),
                dir.display()
            ))
            .with_hint("choose a --root outside of it, or one that its .gitignore covers"));
        }
    }
    Ok(())
}

fn refused(message: String) -> SyncError {
    SyncError::new(Stage::Start, Reason::Disk, message)
}
