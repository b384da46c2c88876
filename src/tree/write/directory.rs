//! The directory that a task works in, and the same directory in the base revision.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use super::locking::lock;
use super::paths::{components, leaf};
use crate::tree::files;

/// With this many open descriptors, waiting tasks no longer keep their parent directories open.
const MAX_OPEN: usize = 256;

/// The top directories of a build.
pub(super) struct Roots {
    pub(super) destination: OwnedFd,
    pub(super) base: Option<OwnedFd>,
    /// The spare tree: links to the base's files, made before the build.
    pub(super) spare: Option<OwnedFd>,
    pub(super) group_write: bool,
    /// Descriptors that directories hold.
    pub(super) open: AtomicUsize,
}

/// A directory of the tree. Its descriptors are closed when the last task below it has started.
pub(super) struct Directory {
    roots: Arc<Roots>,
    parent: Option<Arc<Directory>>,
    /// The path from the top directory, without a slash at either end.
    pub(super) path: Vec<u8>,
    destination: OnceLock<OwnedFd>,
    creating: Mutex<()>,
    base: Option<OwnedFd>,
    prelinked: bool,
}

impl Roots {
    /// Opens a directory of the destination, after creating it and its parents if they are missing.
    fn create(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = files::open_directory(&self.destination, b".")?;
        for name in components(path) {
            at = files::make_directory(&at, name, self.group_write)?;
        }
        Ok(at)
    }
}

impl Directory {
    /// The directory `path`. With `parent`, it is opened relative to that directory and not from the
    /// top; `with_base` says whether the base has a directory there.
    pub(super) fn new(
        roots: &Arc<Roots>,
        parent: Option<Arc<Self>>,
        path: Vec<u8>,
        with_base: bool,
    ) -> Result<Self, Errno> {
        let base = match (&roots.base, with_base) {
            (Some(root), true) => open(root, parent.as_deref().map(Self::base), &path)?,
            _ => None,
        };
        roots
            .open
            .fetch_add(base.is_some().into(), Ordering::Relaxed);
        Ok(Self {
            roots: roots.clone(),
            parent,
            path,
            destination: OnceLock::new(),
            creating: Mutex::new(()),
            base,
            prelinked: false,
        })
    }

    /// Moves the directory with everything below it here from the spare tree, if the spare tree has
    /// it.
    ///
    /// A failed move is not an error, because the files can still be shared one by one.
    pub(super) fn take_from_spare(&mut self) -> Result<(), Errno> {
        let roots = self.roots.clone();
        let Some(spare) = &roots.spare else {
            return Ok(());
        };
        let Ok(Some(found)) = open(spare, None, &self.path) else {
            return Ok(());
        };
        let name = leaf(&self.path);
        let moved = match &self.parent {
            Some(parent) => rustix::fs::renameat(spare, &self.path, parent.destination()?, name),
            None => {
                let above = self.path.len().saturating_sub(name.len() + 1);
                let above = roots.create(&self.path[..above])?;
                rustix::fs::renameat(spare, &self.path, above, name)
            }
        };
        if moved.is_ok() {
            self.prelinked = true;
            self.keep(found);
        }
        Ok(())
    }

    /// Finds the directory inside one that was moved from the spare tree.
    pub(super) fn find_prelinked(&mut self) -> Result<(), Errno> {
        self.prelinked = true;
        let above = self
            .parent
            .as_ref()
            .map(|parent| parent.destination.get().map(OwnedFd::as_fd));
        if let Some(found) = open(&self.roots.destination, above, &self.path)? {
            self.keep(found);
        }
        Ok(())
    }

    /// Whether it comes from the spare tree, and so may already hold links to files of the base.
    pub(super) fn is_prelinked(&self) -> bool {
        self.prelinked
    }

    /// This directory as the parent of a task; `None` if too many descriptors are open.
    pub(super) fn as_parent(self: &Arc<Self>) -> Option<Arc<Self>> {
        (self.roots.open.load(Ordering::Relaxed) < MAX_OPEN).then(|| self.clone())
    }

    /// The same directory in the base revision, if it exists.
    pub(super) fn base(&self) -> Option<BorrowedFd<'_>> {
        self.base.as_ref().map(OwnedFd::as_fd)
    }

    /// The directory in the new tree, which is created if it does not exist.
    pub(super) fn destination(&self) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(open) = self.destination.get() {
            return Ok(open.as_fd());
        }
        // Creates missing ancestors from the top down, without recursion.
        let mut missing = vec![self];
        let mut last = self;
        while let Some(parent) = last.parent.as_deref() {
            if parent.destination.get().is_some() {
                break;
            }
            missing.push(parent);
            last = parent;
        }
        while let Some(directory) = missing.pop() {
            directory.create()?;
        }
        match self.destination.get() {
            Some(open) => Ok(open.as_fd()),
            // create() has just set it.
            None => Err(Errno::NOENT),
        }
    }

    fn create(&self) -> Result<(), Errno> {
        let _creating = lock(&self.creating);
        if self.destination.get().is_some() {
            return Ok(());
        }
        let above = self
            .parent
            .as_deref()
            .and_then(|parent| parent.destination.get());
        let open = match above {
            Some(above) => files::make_directory(above, leaf(&self.path), self.roots.group_write)?,
            None => self.roots.create(&self.path)?,
        };
        self.keep(open);
        Ok(())
    }

    fn keep(&self, destination: OwnedFd) {
        if self.destination.set(destination).is_ok() {
            self.roots.open.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let held = usize::from(self.base.is_some()) + usize::from(self.destination.get().is_some());
        self.roots.open.fetch_sub(held, Ordering::Relaxed);
    }
}

/// Opens the directory `path` of a tree, if it exists. `above` is the descriptor of its parent: the
/// outer option says whether the caller knows it, the inner one whether the parent exists.
fn open(
    root: &OwnedFd,
    above: Option<Option<BorrowedFd<'_>>>,
    path: &[u8],
) -> Result<Option<OwnedFd>, Errno> {
    let opened = match above {
        Some(Some(above)) => files::open_directory(above, leaf(path)),
        Some(None) => return Ok(None),
        None => (|| {
            let mut at = files::open_directory(root, b".")?;
            for name in components(path) {
                at = files::open_directory(&at, name)?;
            }
            Ok(at)
        })(),
    };
    match opened {
        Ok(open) => Ok(Some(open)),
        // It never existed, or a reader removed or replaced it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error),
    }
}
