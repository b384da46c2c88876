//! A volume of its own whose files can share extents: btrfs or XFS in a file, on a loop device.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::environment;

/// A file system that has reflinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Btrfs,
    Xfs,
}

/// A mounted file system; unmounted on drop.
pub struct CowDisk {
    _dir: TempDir,
    path: PathBuf,
}

impl CowDisk {
    /// An empty file system of 512 MiB. None, and a word about that on standard error that no test
    /// runner hides, where the kernel lacks the file system or has no loop device to spare.
    ///
    /// # Panics
    /// When the tools are missing: `scripts/setup test` installs them.
    pub fn new(kind: Kind) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let (mkfs, words): (_, &[&str]) = match kind {
            Kind::Btrfs => ("mkfs.btrfs", &["-q"]),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-m", "reflink=1"]),
        };
        let made = environment::command(mkfs).args(words).arg(&image).output();
        let made = made.unwrap_or_else(|error| panic!("{mkfs}: {error}; run scripts/setup test"));
        assert!(made.status.success(), "{mkfs}: {made:?}");
        let path = dir.path().join("mnt");
        fs::create_dir(&path).unwrap();
        let mounted = environment::command("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&path)
            .output()
            .unwrap();
        if mounted.status.success() {
            return Some(Self { _dir: dir, path });
        }
        let why = String::from_utf8_lossy(&mounted.stderr);
        let why = why.lines().next().unwrap_or_default();
        // Not by eprintln!: the runner captures that.
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "\nNOT TESTED HERE: {kind:?} cannot be mounted, and reflinks need it: {why}"
        )
        .unwrap();
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in use, once everything is on disk.
    pub fn used(&self) -> u64 {
        rustix::fs::syncfs(File::open(&self.path).unwrap()).unwrap();
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for CowDisk {
    fn drop(&mut self) {
        // Lazily: what a failed test left open must not keep the mount alive.
        let _ = environment::command("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
    }
}
