//! The directory that a task works in, and its twin in the base revision.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use super::lock;
use crate::tree::files;

/// Descriptors in use from which on a waiting task no longer keeps its parent open.
const DESCRIPTORS: usize = 256;

/// The top directories of a build.
pub(super) struct Roots {
    pub destination: OwnedFd,
    pub base: Option<OwnedFd>,
    /// Links to the base's files that were made ahead, in directories like the base's.
    pub spare: Option<OwnedFd>,
    pub group_write: bool,
    /// Descriptors held by directories.
    pub open: AtomicUsize,
}

/// A directory of the tree. Its descriptors close when the last task below it has begun.
pub(super) struct Directory {
    roots: Arc<Roots>,
    parent: Option<Arc<Directory>>,
    /// From the top, without a slash at either end.
    pub path: Vec<u8>,
    destination: OnceLock<OwnedFd>,
    creating: Mutex<()>,
    base: Option<OwnedFd>,
    prelinked: bool,
}

impl Roots {
    /// Opens a directory of the destination, and makes it and those above it if need be.
    fn make(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = files::open_directory(&self.destination, b".")?;
        for name in components(path) {
            at = files::make_directory(&at, name, self.group_write)?;
        }
        Ok(at)
    }
}

impl Directory {
    /// The directory `path`. `parent` spares the way from the top; `with_base` says whether the
    /// base has a directory there.
    pub fn new(
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

    /// Moves the directory here from the spare, with all that is below it, if the spare has it.
    ///
    /// What stands in the way of that is no error: the files can still be taken over one by one.
    pub fn take_from_spare(&mut self) -> Result<(), Errno> {
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
                let above = roots.make(&self.path[..above])?;
                rustix::fs::renameat(spare, &self.path, above, name)
            }
        };
        if moved.is_ok() {
            self.prelinked = true;
            self.keep(found);
        }
        Ok(())
    }

    /// Finds the directory inside one that was taken from the spare.
    pub fn find_prelinked(&mut self) -> Result<(), Errno> {
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

    /// Whether it comes from the spare, and so may hold files of the base already.
    pub fn is_prelinked(&self) -> bool {
        self.prelinked
    }

    /// The parent that a task below this one keeps: none, once descriptors run short.
    pub fn as_parent(self: &Arc<Self>) -> Option<Arc<Self>> {
        (self.roots.open.load(Ordering::Relaxed) < DESCRIPTORS).then(|| self.clone())
    }

    /// The twin in the base revision, if it is there.
    pub fn base(&self) -> Option<BorrowedFd<'_>> {
        self.base.as_ref().map(OwnedFd::as_fd)
    }

    /// The directory itself, which comes into being now if it did not exist.
    pub fn destination(&self) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(open) = self.destination.get() {
            return Ok(open.as_fd());
        }
        // From the highest ancestor that is not there yet downwards: no recursion.
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
            None => self.roots.make(&self.path)?,
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

/// Opens the directory `path` of a tree, if it is there; `above` is the one around it, if that is
/// known.
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
        // It was never there, or somebody took it away or put something else there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error),
    }
}

fn leaf(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => &path[slash + 1..],
        None if path.is_empty() => b".",
        None => path,
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
}
