//! A small volume of its own: a tmpfs that can be filled, enlarged and made read-only.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::environment;

/// A mounted tmpfs; unmounted on drop.
pub struct FullDisk {
    dir: TempDir,
}

impl FullDisk {
    /// A volume that holds this many KiB.
    ///
    /// # Panics
    /// When this process may not mount.
    pub fn new(kib: u64) -> Self {
        let disk = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        run(environment::command("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={kib}k,mode=755"),
                "tmpfs",
            ])
            .arg(disk.path()));
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives it another size.
    pub fn resize(&self, kib: u64) {
        self.remount(&format!("size={kib}k"));
    }

    /// Lets it hold this many more files, directories and links than it does.
    pub fn leave_inodes(&self, n: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        self.remount(&format!("nr_inodes={}", stat.f_files - stat.f_ffree + n));
    }

    /// Makes it read-only. Fails while a file on it is open for writing.
    pub fn make_read_only(&self) {
        self.remount("ro");
    }

    /// Tries to make it read-only; whether the kernel allowed it.
    pub fn may_become_read_only(&self) -> bool {
        environment::command("mount")
            .args(["-o", "remount,ro"])
            .arg(self.path())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// Makes it writable again.
    pub fn make_writable(&self) {
        self.remount("rw");
    }

    fn remount(&self, option: &str) {
        run(environment::command("mount")
            .args(["-o", &format!("remount,{option}")])
            .arg(self.path()));
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // Lazily: what a failed test left open must not keep the mount alive.
        let _ = environment::command("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?} failed; these tests mount a tmpfs and need CAP_SYS_ADMIN (run them as root, \
         or in a container with --privileged): {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn a_full_disk_is_full_until_it_is_enlarged() {
    let disk = FullDisk::new(64);
    let file = disk.path().join("file");
    let error = std::fs::write(&file, vec![1; 100 << 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.resize(1024);
    std::fs::write(&file, vec![1; 100 << 10]).unwrap();
    disk.make_read_only();
    let error = std::fs::write(&file, "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    disk.make_writable();
    std::fs::write(&file, "x").unwrap();
}
