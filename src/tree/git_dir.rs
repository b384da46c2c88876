//! The `.git` directory inside a tree, with which `git log`, `git describe` and `git status` work.
//!
//! It holds no objects: it uses the store's through a relative path in `objects/info/alternates`
//! (gitrepository-layout(5)), so objects that the store drops later are missing here too. It is not
//! in the manifest, because git writes into it (it refreshes the index). Building the index takes
//! memory in proportion to the number of files. Submodules get no `.git`.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{Index, IndexTime, Oid};
use rustix::fs::{AtFlags, CWD};

use super::BuildRequest;
use super::files;
use super::objects::{self, Objects};
use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files::relative;
use crate::pack::peel;

/// `GIT_INDEX_ENTRY_SKIP_WORKTREE`: the path is not in the work tree on purpose.
const SKIP_WORKTREE: u16 = 1 << 14;

/// Hard links made later and moving the volume change a file's ctime, and git must not take that for a
/// modification: `trustctime = false`, `checkStat = minimal`.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
    \tlogallrefupdates = false\n\ttrustctime = false\n\tcheckStat = minimal\n\
    [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";

/// Writes the `.git` directory of a complete tree.
pub(super) fn write(request: &BuildRequest<'_>, budget: &Budget) -> Result<(), SyncError> {
    let git = request.destination.join(".git");
    let disk = |error: io::Error| SyncError::disk(Stage::Build, "write", &git, error);
    let objects = Objects::open(request.store)?;
    files::make_directory(CWD, git.as_os_str().as_bytes(), request.options.group_write)
        .map_err(|error| disk(error.into()))?;
    for directory in [
        "objects",
        "objects/info",
        "objects/pack",
        "refs",
        "refs/heads",
    ] {
        let path = git.join(directory);
        files::make_directory(
            CWD,
            path.as_os_str().as_bytes(),
            request.options.group_write,
        )
        .map_err(|error| disk(error.into()))?;
    }
    let alternates = relative(
        &fs::canonicalize(git.join("objects")).map_err(disk)?,
        &fs::canonicalize(request.store.join("objects")).map_err(disk)?,
    );
    let mut line = alternates.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    fs::write(git.join("objects/info/alternates"), line).map_err(disk)?;
    fs::write(git.join("HEAD"), format!("{}\n", request.commit)).map_err(disk)?;
    fs::write(git.join("config"), CONFIG).map_err(disk)?;
    fs::write(git.join("packed-refs"), tags(&objects)?).map_err(disk)?;
    match fs::read(request.store.join("shallow")) {
        Ok(shallow) => fs::write(git.join("shallow"), shallow).map_err(disk)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(disk(error)),
    }
    write_index(request, &objects, &git.join("index"), budget)
}

/// The tags of the store whose objects it has, as a `packed-refs` file.
fn tags(objects: &Objects) -> Result<String, SyncError> {
    let failed = |error| store_error("cannot read the tags of the store", error);
    let odb = objects.odb()?;
    let mut lines = Vec::new();
    for tag in objects
        .repository()
        .references_glob("refs/tags/*")
        .map_err(failed)?
    {
        let Ok(tag) = tag else { continue };
        let (Ok(name), Some(id)) = (tag.name(), tag.target()) else {
            continue;
        };
        // Peeling fails if an object of the chain is not in the store.
        if let Ok(peeled) = peel(&odb, id).map(|peeled| peeled.id) {
            let peeled = match peeled == id {
                true => String::new(),
                false => format!("^{peeled}\n"),
            };
            lines.push((name.to_owned(), format!("{id} {name}\n{peeled}")));
        }
    }
    lines.sort();
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    text.extend(lines.into_iter().map(|(_, line)| line));
    Ok(text)
}

/// Writes an index with the `stat` of each file, so that `git status` does not read the files.
fn write_index(
    request: &BuildRequest<'_>,
    objects: &Objects,
    path: &Path,
    budget: &Budget,
) -> Result<(), SyncError> {
    let failed = |error| store_error("cannot make the index of the tree", error);
    let root: Oid = objects::tree_of_commit(&objects.odb()?, request.commit.oid())?;
    let tree = objects.repository().find_tree(root).map_err(failed)?;
    let mut index = Index::open(path).map_err(failed)?;
    index.read_tree(&tree).map_err(failed)?;
    let destination = files::open_directory(CWD, request.destination.as_os_str().as_bytes())
        .map_err(|error| {
            SyncError::disk(Stage::Build, "open", request.destination, error.into())
        })?;
    for position in 0..index.len() {
        budget.check().map_err(|cause| {
            SyncError::interrupted(Stage::Build, "writing the index of the tree", cause)
        })?;
        let Some(mut entry) = index.get(position) else {
            break;
        };
        let found = rustix::fs::statat(
            destination.as_fd(),
            entry.path.as_slice(),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        match found {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "the index holds the low 32 bits of each (gitformat-index(5))"
            )]
            Ok(stat) => {
                entry.ctime = IndexTime::new(stat.st_ctime as i32, stat.st_ctime_nsec as u32);
                entry.mtime = IndexTime::new(stat.st_mtime as i32, stat.st_mtime_nsec as u32);
                entry.dev = stat.st_dev as u32;
                entry.ino = stat.st_ino as u32;
                entry.uid = stat.st_uid;
                entry.gid = stat.st_gid;
                entry.file_size = stat.st_size as u32;
            }
            Err(_) => entry.flags_extended |= SKIP_WORKTREE,
        }
        index.add(&entry).map_err(failed)?;
    }
    index.write().map_err(failed)
}

fn store_error(what: &str, error: git2::Error) -> SyncError {
    SyncError::new(Stage::Build, Reason::Store, what).with_source(error)
}
