//! A disk whose power can be cut at any moment, after the fact: a file served by FUSE under a loop
//! device. It keeps each write and each flush in order, and gives the disk as it was at any point,
//! with all or some of the writes that no flush had made durable.
//!
//! The kernel's dm-log-writes does the same, where the kernel has it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use tempfile::TempDir;

use super::environment;
use super::wait::{PATIENCE, holds_within};

/// The name of the one file.
const NAME: &str = "disk";

/// The smallest part of a write that a disk writes whole, in bytes.
const SECTOR: usize = 4096;

/// A file system to cut the power of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

/// What a cut leaves of the writes since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// All: the disk has no volatile cache.
    Kept,
    /// None: the cache is lost.
    Lost,
    /// A part, chosen by this seed: the disk writes its cache in an order of its own, and a write
    /// that is interrupted may be there in part.
    Some(u64),
}

/// A mounted disk that remembers. Unmounted on drop.
pub struct RecordedDisk {
    mounted: Option<Mounted>,
    session: Option<BackgroundSession>,
    log: Arc<Mutex<Vec<Operation>>>,
    dir: TempDir,
}

/// A recording, to be replayed.
pub struct Recording {
    file_system: FileSystem,
    base: PathBuf,
    operations: Vec<Operation>,
    /// The image after the first operations, of which `at` were replayed.
    rolling: PathBuf,
    at: usize,
    dir: TempDir,
}

/// A disk after a cut, mounted: the file system has replayed its journal.
pub struct CutDisk {
    mounted: Mounted,
}

enum Operation {
    Write { at: u64, bytes: Vec<u8> },
    Flush,
}

/// A mount of a loop device; both are let go of on drop.
struct Mounted {
    path: PathBuf,
    device: String,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The size of a disk in bytes: close to the smallest that the file system takes.
    fn size(self) -> u64 {
        match self {
            Self::Ext4 => 128 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 256 << 20,
        }
    }

    fn make(self, image: &Path) {
        File::create(image).unwrap().set_len(self.size()).unwrap();
        let (mkfs, words): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0,nodiscard"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-K"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-K", "-m", "single"]),
        };
        run(environment::command(mkfs).args(words).arg(image));
    }
}

impl RecordedDisk {
    /// An empty, mounted file system. None, and a word about that on standard error that no test
    /// runner hides, where the kernel lacks it, or FUSE, or a loop device to spare.
    ///
    /// Each write takes `delay` longer than it would.
    pub fn new(file_system: FileSystem, delay: Duration) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        file_system.make(&image);
        copy(&image, &dir.path().join("base"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (fuse, path) = (dir.path().join("fuse"), dir.path().join("mnt"));
        fs::create_dir(&fuse).unwrap();
        let server = Server {
            image: File::options().read(true).write(true).open(&image).unwrap(),
            size: file_system.size(),
            delay,
            log: Arc::clone(&log),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power-cut".to_owned())];
        let session = match fuser::spawn_mount(server, &fuse, &config) {
            Ok(session) => session,
            Err(error) => {
                not_tested(file_system, &error.to_string());
                return None;
            }
        };
        match Mounted::new(file_system, &fuse.join(NAME), &path) {
            Ok(mounted) => Some(Self {
                mounted: Some(mounted),
                session: Some(session),
                log,
                dir,
            }),
            Err(why) => {
                session.umount_and_join().unwrap();
                not_tested(file_system, &why);
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted.as_ref().unwrap().path
    }

    /// How many operations there were so far.
    pub fn position(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Ends the recording.
    pub fn finish(mut self, file_system: FileSystem) -> Recording {
        // The file system may stay alive for a while: another test's process may have been started in
        // a mount namespace of its own, with a copy of this mount.
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
        drop(self.mounted.take());
        self.unserve();
        let operations = std::mem::take(&mut *self.log.lock().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let (base, rolling) = (dir.path().join("base"), dir.path().join("rolling"));
        copy(&self.dir.path().join("base"), &base);
        copy(&base, &rolling);
        Recording {
            file_system,
            base,
            operations,
            rolling,
            at: 0,
            dir,
        }
    }
}

impl RecordedDisk {
    /// Unmounts the file of the disk, as soon as nobody uses it any more.
    fn unserve(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let fuse = self.dir.path().join("fuse");
        let umount = || environment::command("umount").arg(&fuse).output();
        let gone = holds_within(PATIENCE, || umount().is_ok_and(|o| o.status.success()));
        if gone {
            session.join().unwrap();
        }
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        drop(self.mounted.take());
        self.unserve();
    }
}

impl Recording {
    /// How many operations it holds: a cut may be after any of them.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Mounts the disk as a cut after the first `cut` operations leaves it. Quickest when asked for
    /// ascending cuts.
    #[track_caller]
    pub fn cut(&mut self, cut: usize, unflushed: Unflushed) -> CutDisk {
        let durable = self.operations[..cut]
            .iter()
            .rposition(|operation| matches!(operation, Operation::Flush))
            .map_or(0, |flush| flush + 1);
        if durable < self.at {
            copy(&self.base, &self.rolling);
            self.at = 0;
        }
        let rolling = File::options().write(true).open(&self.rolling).unwrap();
        for operation in &self.operations[self.at..durable] {
            operation.apply(&rolling, 1.0, &mut fastrand::Rng::with_seed(0));
        }
        self.at = durable;
        let image = self.dir.path().join("image");
        copy(&self.rolling, &image);
        let (kept, seed) = match unflushed {
            Unflushed::Kept => (1.0, 0),
            Unflushed::Lost => (0.0, 0),
            Unflushed::Some(seed) => (0.5, seed),
        };
        let mut random = fastrand::Rng::with_seed(seed);
        let file = File::options().write(true).open(&image).unwrap();
        for operation in &self.operations[durable..cut] {
            operation.apply(&file, kept, &mut random);
        }
        let mounted = Mounted::new(self.file_system, &image, &self.dir.path().join("mnt"));
        let mounted = mounted
            .unwrap_or_else(|why| panic!("{:?} after a cut at {cut}: {why}", self.file_system));
        CutDisk { mounted }
    }
}

impl CutDisk {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted.path
    }
}

impl Operation {
    /// Writes it, or with the probability 1 - `kept` nothing or only a part of it.
    fn apply(&self, image: &File, kept: f64, random: &mut fastrand::Rng) {
        let Self::Write { at, bytes } = self else {
            return;
        };
        if random.f64() < kept {
            image.write_all_at(bytes, *at).unwrap();
        } else if kept > 0.0 && random.u8(..8) == 0 {
            let sectors = bytes.len() / SECTOR;
            let part = random.usize(..=sectors) * SECTOR;
            image.write_all_at(&bytes[..part], *at).unwrap();
        }
    }
}

impl Mounted {
    fn new(file_system: FileSystem, image: &Path, path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).unwrap();
        let output = environment::command("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(first_line(&output.stderr));
        }
        let mounted = Self {
            path: path.to_owned(),
            device: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        };
        let output = environment::command("mount")
            .args(["-t", file_system.name(), &mounted.device])
            .arg(path)
            .output()
            .unwrap();
        // On an error, dropping lets go of the device.
        output
            .status
            .success()
            .then_some(mounted)
            .ok_or_else(|| first_line(&output.stderr))
    }
}

impl Drop for Mounted {
    /// Waits until the kernel has let go of the image: a process that another test started in a mount
    /// namespace of its own may have a copy of the mount, and keeps the file system alive.
    fn drop(&mut self) {
        let umount = || environment::command("umount");
        let done = umount().arg(&self.path).output();
        if !done.is_ok_and(|output| output.status.success()) {
            // What a failed test left open must not keep the mount alive.
            let _ = umount().arg("--lazy").arg(&self.path).output();
        }
        let detach = || {
            let mut losetup = environment::command("losetup");
            let _ = losetup.args(["--detach", &self.device]).output();
        };
        detach();
        let backing = self.device.replace("/dev/", "/sys/block/") + "/loop/backing_file";
        let gone = holds_within(PATIENCE, || match fs::read_to_string(&backing) {
            Ok(backing) => !Path::new(backing.trim()).starts_with(self.path.parent().unwrap()),
            Err(_) => true,
        });
        assert!(
            gone || std::thread::panicking(),
            "{} stays in use",
            self.device
        );
    }
}

/// The one file, and the log.
struct Server {
    image: File,
    size: u64,
    delay: Duration,
    log: Arc<Mutex<Vec<Operation>>>,
}

const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

impl Server {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == FILE;
        let then = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: inode,
            size: if is_file { self.size } else { 0 },
            blocks: 0,
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without the kernel's cache, so that each write of the device comes here at once.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.image.read_at(&mut bytes, offset) {
            Ok(read) => reply.data(&bytes[..read]),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        if let Err(error) = self.image.write_all_at(data, offset) {
            reply.error(error.into());
            return;
        }
        self.log.lock().unwrap().push(Operation::Write {
            at: offset,
            bytes: data.to_vec(),
        });
        // The kernel never sends more than a few MiB at once.
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.lock().unwrap().push(Operation::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// Copies an image without its holes.
fn copy(from: &Path, to: &Path) {
    run(environment::command("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to]));
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup test"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().next().unwrap_or_default().to_owned()
}

fn not_tested(file_system: FileSystem, why: &str) {
    // Not by eprintln!: the runner captures that.
    let mut shown = std::io::stderr();
    writeln!(
        shown,
        "\nNOT TESTED HERE: {file_system:?} cannot be mounted on FUSE: {why}"
    )
    .expect("standard error is open");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file system keeps what was synced, whatever a cut does to the rest.
    #[test]
    fn a_synced_file_survives_a_cut_and_one_that_was_not_written_yet_is_not_there() {
        for file_system in FileSystem::ALL {
            let Some(disk) = RecordedDisk::new(file_system, Duration::ZERO) else {
                continue;
            };
            let before = disk.position();
            let path = disk.path().join("file");
            let content = vec![b'x'; 100_000];
            fs::write(&path, &content).unwrap();
            File::open(&path).unwrap().sync_all().unwrap();
            let synced = disk.position();
            assert!(synced > before, "{file_system:?}");
            let mut recording = disk.finish(file_system);
            assert!(recording.len() > synced);
            let absent = recording.cut(before, Unflushed::Kept);
            assert!(!absent.path().join("file").exists(), "{file_system:?}");
            drop(absent);
            for unflushed in [Unflushed::Kept, Unflushed::Lost, Unflushed::Some(1)] {
                let disk = recording.cut(synced, unflushed);
                let found = fs::read(disk.path().join("file")).unwrap();
                assert!(found == content, "{file_system:?} {unflushed:?}");
            }
        }
    }
}
