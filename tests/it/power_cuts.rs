//! Power cuts: a sidecar works on a disk that remembers every write; then the disk is taken as a cut
//! at some moment leaves it, and a sidecar is started on it that cannot reach the remote.
//!
//! Readers must then have a whole tree that they had seen before, or the newest one. When the
//! remote is back, the newest commit must come out whole as well.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::environment::{command, report, soak};
use crate::support::power_cut::{FileSystem, RecordedDisk, Recording, Unflushed};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::tree_compare::differences;
use crate::support::upstream::{Change, Upstream};

/// What happened on a disk, and when.
struct History {
    upstream: Upstream,
    recording: Recording,
    /// Each commit, with the position of the disk before anybody could see it.
    commits: Vec<(usize, String)>,
    /// The position at which the first tree was published and synced.
    synced: usize,
    /// The position right after each flip.
    flips: Vec<usize>,
    oracles: BTreeMap<String, TempDir>,
}

/// Sets a flag at the end of a scope, also when a test fails there.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How the starts after the cuts went.
#[derive(Debug, Default)]
struct Tally {
    newest: usize,
    earlier: usize,
    nothing: usize,
    /// Cuts after which something was wrong.
    violated: usize,
    /// What was wrong, with the logs.
    violations: Vec<String>,
}

#[test]
fn after_any_cut_on_ext4_readers_have_a_whole_tree() {
    cut_everywhere(FileSystem::Ext4, "symlink");
}

#[test]
fn after_any_cut_on_xfs_readers_have_a_whole_tree() {
    cut_everywhere(FileSystem::Xfs, "symlink");
}

#[test]
fn after_any_cut_on_btrfs_readers_have_a_whole_tree() {
    cut_everywhere(FileSystem::Btrfs, "symlink");
}

#[test]
fn after_any_cut_on_ext4_readers_of_an_exchanged_directory_have_a_whole_tree() {
    cut_everywhere(FileSystem::Ext4, "exchange");
}

fn cut_everywhere(file_system: FileSystem, publish: &str) {
    let (commits, points) = if soak() { (30, 120) } else { (5, 4) };
    let Some(mut history) = History::record(file_system, publish, commits) else {
        return;
    };
    let mut tally = Tally::default();
    for (i, cut) in history.points(points).into_iter().enumerate() {
        let unflushed = match i % 3 {
            0 => Unflushed::Some(i as u64),
            1 => Unflushed::Lost,
            _ => Unflushed::Kept,
        };
        history.start_after(cut, unflushed, publish, &mut tally);
    }
    report(&format!(
        "{file_system:?}, {publish}: {} writes and flushes, {points} cuts: the newest tree after \
         {}, an earlier one after {}, none was there yet after {}, a violation after {}",
        history.recording.len(),
        tally.newest,
        tally.earlier,
        tally.nothing,
        tally.violated,
    ));
    assert!(
        tally.violations.is_empty(),
        "{file_system:?}:\n{}",
        tally.violations.join("\n")
    );
}

impl History {
    /// A sidecar publishes, prunes, links ahead and rewrites its store, while a neighbour syncs a
    /// file of its own again and again.
    fn record(file_system: FileSystem, publish: &str, commits: usize) -> Option<Self> {
        let delay = if soak() { 1 } else { 0 };
        let disk = RecordedDisk::new(file_system, Duration::from_millis(delay))?;
        let root = Root::at(&disk.path().join("root"));
        let upstream = Upstream::empty();
        let mut flips = Vec::new();
        let push = |n| {
            let before = disk.position();
            (before, upstream.commit_changes("main", &generation(n)))
        };
        let mut history = vec![push(0)];
        let mut sidecar = launch(&upstream, &root, publish).spawn();
        wait_for(&mut sidecar, &root, &history);
        flips.push(disk.position());
        rustix::fs::syncfs(File::open(disk.path()).unwrap()).unwrap();
        let synced = disk.position();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| disturb(disk.path(), &over));
            let _over = SetOnDrop(&over);
            for n in 1..commits {
                history.push(push(n));
                wait_for(&mut sidecar, &root, &history);
                flips.push(disk.position());
                match n % 3 {
                    // At once, so that the next tree grows out of one that nobody synced.
                    0 => {}
                    // Once the older trees are gone and the next tree is linked ahead.
                    1 => sidecar.wait_while_alive("a tidy root", |_| is_tidy(&root)),
                    // At a moment left to chance.
                    _ => std::thread::sleep(Duration::from_millis(fastrand::u64(..200))),
                }
            }
        });
        sidecar.wait_while_alive("a tidy root", |_| is_tidy(&root));
        sidecar.stop();
        let oracles = history
            .iter()
            .map(|(_, commit)| (commit.clone(), upstream.checkout(commit)))
            .collect();
        Some(Self {
            recording: disk.finish(file_system),
            commits: history,
            synced,
            flips,
            oracles,
            upstream,
        })
    }

    /// Where to cut, ascending: half of the points right after a flip, the others anywhere.
    fn points(&self, n: usize) -> Vec<usize> {
        let all = self.recording.len();
        let mut random = fastrand::Rng::with_seed(7);
        let mut points: Vec<_> = (0..n)
            .map(|i| match i % 2 {
                0 => {
                    let flip = self.flips[random.usize(..self.flips.len())];
                    (flip + random.usize(..40)).min(all)
                }
                _ => random.usize(..=all),
            })
            .collect();
        points.sort_unstable();
        points
    }

    fn start_after(&mut self, cut: usize, unflushed: Unflushed, publish: &str, tally: &mut Tally) {
        let case = format!(
            "a cut after {cut} of {}, {unflushed:?}",
            self.recording.len()
        );
        let disk = self.recording.cut(cut, unflushed);
        let root = Root::at(&disk.path().join("root"));
        let boot = tempfile::NamedTempFile::new().unwrap();
        let id = format!("{:032x}", fastrand::u128(..));
        fs::write(boot.path(), format!("{id}\n")).unwrap();
        self.upstream.remove();
        let mut sidecar = launch(&self.upstream, &root, publish)
            .under(&another_boot(boot.path()).each_ref().map(String::as_str))
            .spawn();
        // The first thing that it cannot do: everything before it is done.
        sidecar.wait_for_log("the sync failed");
        let whole = self.judge(&root, cut);
        let ready = sidecar.get("/readyz").code;
        let known = tally.violations.len();
        match &whole {
            Ok(Some(commit)) if *commit == self.newest(cut) => tally.newest += 1,
            Ok(Some(_)) => tally.earlier += 1,
            Ok(None) => tally.nothing += 1,
            Err(what) => tally.violations.push(format!("{case}: {what}")),
        }
        if matches!(whole, Ok(Some(_))) && ready != 200 {
            tally
                .violations
                .push(format!("{case}: /readyz says {ready}"));
        }
        self.upstream.restore();
        wait_for(&mut sidecar, &root, &self.commits);
        if let Err(what) = self.judge(&root, self.recording.len()) {
            tally
                .violations
                .push(format!("{case}, with the remote back: {what}"));
        }
        if tally.violations.len() > known {
            tally.violated += 1;
            let log = sidecar.log().join("\n");
            tally.violations.push(log);
        }
        sidecar.stop();
    }

    /// The commit that readers see, whose tree is whole and who may have seen it by then; None
    /// before the first one was synced.
    fn judge(&self, root: &Root, cut: usize) -> Result<Option<String>, String> {
        let Some(commit) = published(root, &self.commits) else {
            return match cut <= self.synced {
                true => Ok(None),
                false => Err("there is no tree".to_owned()),
            };
        };
        let pushed = self.commits.iter().find(|(_, pushed)| *pushed == commit);
        match pushed {
            Some((at, _)) if *at <= cut => {}
            _ => return Err(format!("{commit} was not published by then")),
        }
        let found = differences(root.link(), self.oracles[&commit].path());
        match found.as_slice() {
            [] => Ok(Some(commit)),
            [first, ..] => Err(format!("{commit}: {} paths differ: {first}", found.len())),
        }
    }

    /// The newest commit that may have been seen by then.
    fn newest(&self, cut: usize) -> String {
        let mut pushed = self.commits.iter().rev();
        let found = pushed.find(|(at, _)| *at <= cut);
        found.map(|(_, commit)| commit.clone()).unwrap_or_default()
    }
}

/// The commit that readers see; a link that leads nowhere shows none.
fn published(root: &Root, commits: &[(usize, String)]) -> Option<String> {
    if fs::read_link(root.link()).is_ok() {
        return root.commit().filter(|_| root.link().is_dir());
    }
    // The name of an exchanged directory does not tell; a file in it does.
    let mut since = fs::read_dir(root.link().join("since")).ok()?;
    let name = since.next()?.ok()?.file_name();
    let n: usize = name.to_str()?.parse().ok()?;
    commits.get(n).map(|(_, commit)| commit.clone())
}

/// Whether housekeeping has removed what it can; one older tree may stay.
fn is_tidy(root: &Root) -> bool {
    let names = |room: &str| fs::read_dir(root.state(room)).map_or(0, Iterator::count);
    names("trash") == 0 && names("staging") == 0 && names("revisions") <= 2
}

/// Waits until readers see the last of these commits.
#[track_caller]
fn wait_for(sidecar: &mut Sidecar, root: &Root, commits: &[(usize, String)]) {
    let newest = commits.last().map(|(_, commit)| commit.clone());
    sidecar.wait_while_alive("the newest commit to be published", |_| {
        published(root, commits) == newest
    });
}

fn launch(upstream: &Upstream, root: &Root, publish: &str) -> Launch {
    Launch::new(&upstream.url(), root)
        .http()
        .flag("publish", publish)
        .flag("keep", "0")
        .flag("stale-timeout", "0s")
        .flag("period", "20ms")
}

/// The changes of one commit: some thirty files of all sizes, some of which git converts.
fn generation(n: usize) -> Vec<Change> {
    let mut random = fastrand::Rng::with_seed(n as u64);
    let mut changes = Vec::new();
    if n == 0 {
        changes.push(Change::file(
            ".gitattributes",
            "*.dos text eol=crlf\n*.id ident\n",
        ));
        changes.push(Change::file(
            "never-changed/file",
            "the same\n".repeat(1000),
        ));
        changes.push(Change::Symlink("link".into(), "never-changed/file".into()));
    }
    for i in 0..40 {
        if n > 0 && random.u8(..3) == 0 {
            continue;
        }
        let name = format!(
            "{}/file-{i:02}.{}",
            i % 5,
            ["txt", "dos", "id", "bin"][i % 4]
        );
        let line = format!("$Id$ {n} {i} {}\n", random.u64(..));
        changes.push(Change::file(name, line.repeat(1 + random.usize(..800))));
    }
    if n > 0 {
        changes.push(Change::Delete(format!("since/{}", n - 1)));
    }
    changes.push(Change::file(format!("since/{n}"), format!("{n}\n")));
    changes
}

/// The start of a command that runs the rest with this file as the id of its boot.
fn another_boot(id: &Path) -> [String; 6] {
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let id = id.to_str().unwrap();
    ["unshare", "--mount", "sh", "-c", script, id].map(str::to_owned)
}

/// Syncs a small file every now and then, as a neighbour on the node's disk does: that makes the
/// file system write its own records, and not the contents of others' files.
fn disturb(disk: &Path, over: &AtomicBool) {
    let path = disk.join("neighbour");
    while !over.load(Ordering::SeqCst) {
        fs::write(&path, "x").unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_process_after_a_cut_sees_the_id_of_another_boot() {
    let boot = tempfile::NamedTempFile::new().unwrap();
    fs::write(boot.path(), "another\n").unwrap();
    let words = another_boot(boot.path());
    let output = command(&words[0])
        .args(&words[1..])
        .args(["cat", "/proc/sys/kernel/random/boot_id"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "another\n");
}
