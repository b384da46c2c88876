//! Getting hold of the root: what may be one, and what may be its link.

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
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) root_fd: OwnedFd,
    pub(super) gvr: PathBuf,
    pub(super) gvr_fd: OwnedFd,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

pub(super) fn open(root: &Path) -> Result<Opened, SyncError> {
    if let Ok(metadata) = std::fs::metadata(root)
        && !metadata.is_dir()
    {
        return Err(refused(format!("{} is not a directory", root.display()))
            .with_hint("--root must be a directory; it is created when missing"));
    }
    make_directories(root).map_err(|cause| SyncError::disk(Stage::Start, "create", root, cause))?;
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
                "{} is a link or a file, where a directory of ours belongs",
                gvr.display()
            ))
            .with_hint("remove it, or choose another --root"));
        }
        Err(cause) => return Err(unwritable(&path, cause)),
    };
    // Only an attempt tells: modes do not know of read-only mounts, ACLs and squashed roots.
    let probe = format!("probe.{:016x}", fastrand::u64(..));
    rustix::fs::mkdirat(&gvr_fd, &probe, Mode::from_raw_mode(0o700))
        .and_then(|()| rustix::fs::unlinkat(&gvr_fd, &probe, rustix::fs::AtFlags::REMOVEDIR))
        .or_else(|cause| match cause {
            // A full disk is for the cycle to report: pruning may mend it.
            Errno::NOSPC | Errno::DQUOT => Ok(()),
            _ => Err(unwritable(&gvr, cause)),
        })?;
    Ok(Opened {
        path,
        root_fd,
        gvr,
        gvr_fd,
    })
}

/// The directory of the link, created when missing and free of symbolic links, and its last name.
pub(super) fn link_place(layout: &Layout, root: &Path) -> Result<(PathBuf, OsString), SyncError> {
    let link = &layout.link;
    let (Some(parent), Some(Component::Normal(leaf))) =
        (link.parent(), link.components().next_back())
    else {
        return Err(refused(format!("{} cannot be a link", link.display()))
            .with_hint("--link needs a name as its last component"));
    };
    make_directories(parent)
        .map_err(|cause| SyncError::disk(Stage::Start, "create", parent, cause))?;
    let parent = parent
        .canonicalize()
        .map_err(|cause| SyncError::disk(Stage::Start, "resolve", parent, cause))?;
    let place = parent.join(leaf);
    if place.starts_with(root.join(".gvr")) || root.starts_with(&place) {
        return Err(refused(format!(
            "the link {} would be in the way of what it points to",
            place.display()
        ))
        .with_hint("choose a --link outside .gvr that is not the root or above it"));
    }
    Ok((parent, leaf.to_owned()))
}

/// The way from one directory to another path; both absolute and free of symbolic links.
pub(super) fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

fn make_directories(path: &Path) -> io::Result<()> {
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

/// A root in somebody's checkout would show up in their `git status` and fall to their
/// `git clean`: refused unless their repository ignores it.
fn refuse_a_work_tree(root: &Path) -> Result<(), SyncError> {
    let device = std::fs::metadata(root).map(|m| m.dev()).ok();
    for dir in root.ancestors() {
        // Like git, not beyond the file system.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_way_goes_up_only_as_far_as_it_must() {
        let to = Path::new("/v/.gvr/revisions");
        let way = |from: &str| relative(Path::new(from), to).display().to_string();
        assert_eq!(way("/v"), ".gvr/revisions");
        assert_eq!(way("/v/links"), "../.gvr/revisions");
        assert_eq!(way("/srv/www"), "../../v/.gvr/revisions");
        assert_eq!(way("/"), "v/.gvr/revisions");
    }
}
