//! The volume on real file systems: what readers see, and what every kind of debris comes to.

mod damage;
mod debris;
mod durable;
mod exchange;
mod links;
mod lock;
mod overlay;
mod prune;
mod publish;
mod root;
mod staged;
mod trash;
mod verdict;

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, Stage, SyncError};
use git_volume_reloader::volume::{
    Layout, Moment, Prune, PublishMode, Revision, Staged, Verdict, Volume,
};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);

struct Place {
    dir: TempDir,
    layout: Layout,
}

impl Place {
    fn new(mode: PublishMode) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), mode)
    }

    fn in_dir(dir: TempDir, mode: PublishMode) -> Self {
        let root = dir.path().join("root");
        let layout = Layout {
            link: root.join("current"),
            root,
            mode,
            forgotten: Vec::new(),
        };
        Self { dir, layout }
    }

    fn open(&self) -> Result<Volume, SyncError> {
        // A child that another test is just starting holds our descriptors until it executes.
        let wait = Duration::from_secs(5);
        Volume::open(self.layout.clone(), "test", wait, &budget())
    }

    fn gvr(&self, path: &str) -> PathBuf {
        self.layout.root.join(".gvr").join(path)
    }

    /// What a reader of the link finds.
    fn read(&self) -> String {
        fs::read_to_string(self.layout.link.join("file")).unwrap()
    }

    fn assert_no_debris(&self) {
        for room in ["staging", "trash"] {
            assert_eq!(names(&self.gvr(room)), Vec::<String>::new(), "{room}");
        }
        let beside: Vec<_> = names(self.layout.link.parent().unwrap())
            .into_iter()
            .filter(|name| name.contains("gvr-"))
            .collect();
        assert_eq!(beside, Vec::<String>::new());
    }
}

fn budget() -> Budget {
    Budget::new(MINUTE, MINUTE, Arc::default())
}

fn commit(digit: u8) -> Commit {
    format!("{digit:x}").repeat(40)[..40].parse().unwrap()
}

fn build(volume: &Volume, commit: Commit) -> Revision {
    let staged = volume.stage(commit).unwrap();
    fs::write(staged.tree().join("file"), commit.to_string()).unwrap();
    fs::write(staged.manifest(), "manifest\n").unwrap();
    accept(staged)
}

fn accept(staged: Staged<'_>) -> Revision {
    let accepted = staged.seal().unwrap().accept("").unwrap();
    accepted.revision().clone()
}

/// Publishes a tree that was accepted before.
fn flip(volume: &Volume, revision: &Revision) -> Result<(), SyncError> {
    volume.publish(&volume.accepted(revision).expect("it was accepted"))
}

fn publish(volume: &Volume, digit: u8) -> Revision {
    let revision = build(volume, commit(digit));
    flip(volume, &revision).unwrap();
    revision
}

fn live(volume: &Volume) -> Option<Commit> {
    let observed = volume.observe().unwrap();
    assert_eq!(observed.damage, None);
    observed.live.map(|live| live.commit)
}

fn damage(volume: &Volume) -> String {
    let observed = volume.observe().unwrap();
    observed.damage.expect("something is damaged")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn prune_now(volume: &Volume, keep: usize) -> Vec<u64> {
    let policy = Prune {
        keep,
        stale_timeout: Duration::ZERO,
    };
    let mut removed = volume.prune(policy, &Moment::now(), &budget()).unwrap();
    assert!(!removed.pending);
    removed.removed.sort_unstable();
    removed.removed
}

fn both_modes(fact: impl Fn(&Place)) {
    for mode in [PublishMode::Symlink, PublishMode::Exchange] {
        fact(&Place::new(mode));
    }
}

/// A small file system of its own; unmounted on drop. Needs the right to mount.
struct Tmpfs {
    path: PathBuf,
    _dir: Option<TempDir>,
}

impl Tmpfs {
    fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        mount(&path, size);
        Self {
            path,
            _dir: Some(dir),
        }
    }

    fn mount_at(path: PathBuf) -> Self {
        mount(&path, "1m");
        Self { path, _dir: None }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

fn mount(path: &Path, size: &str) {
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
        .arg(path)
        .status()
        .unwrap();
    assert!(done.success(), "this test needs the right to mount a tmpfs");
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.path).status();
        assert!(
            std::thread::panicking() || done.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.path.display()
        );
    }
}
