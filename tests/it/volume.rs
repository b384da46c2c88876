//! The volume on real file systems: what readers see, and what every kind of debris comes to.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, Stage, SyncError};
use git_volume_reloader::volume::{
    Layout, Moment, Prune, PublishMode, Revision, Staged, Verdict, Volume,
};
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

#[test]
fn a_published_revision_is_what_readers_see() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        assert_eq!(volume.observe().unwrap(), Default::default());
        for digit in 1..=5 {
            publish(&volume, digit);
            assert_eq!(place.read(), commit(digit).to_string());
            assert_eq!(live(&volume), Some(commit(digit)));
            let seen = volume.observe().unwrap().live.unwrap();
            assert_eq!(
                fs::read_to_string(seen.path.join("file")).unwrap(),
                commit(digit).to_string()
            );
            assert!(seen.manifest.is_file());
        }
        let revisions = volume.revisions().unwrap();
        let numbers: Vec<_> = revisions.iter().map(|r| r.n).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        for revision in revisions {
            let text = fs::read_to_string(revision.path.join("file")).unwrap();
            assert_eq!(text, revision.commit.to_string());
        }
        place.assert_no_debris();
    });
}

#[test]
fn the_link_is_relative_and_ends_in_the_commit() {
    let place = Place::new(PublishMode::Symlink);
    publish(&place.open().unwrap(), 7);
    let target = fs::read_link(&place.layout.link).unwrap();
    assert_eq!(
        target,
        Path::new(&format!(".gvr/revisions/000001/{}", commit(7)))
    );
}

#[test]
fn a_link_outside_the_root_is_relative_too() {
    let mut place = Place::new(PublishMode::Symlink);
    place.layout.link = place.dir.path().join("a/b/docs");
    publish(&place.open().unwrap(), 3);
    assert_eq!(place.read(), commit(3).to_string());
    let target = fs::read_link(&place.layout.link).unwrap();
    assert!(
        target.starts_with("../../root/.gvr/revisions"),
        "{target:?}"
    );
    assert_eq!(live(&place.open().unwrap()), Some(commit(3)));
}

#[test]
fn a_root_reached_through_a_symbolic_link_gets_a_link_that_resolves() {
    let mut place = Place::new(PublishMode::Symlink);
    fs::create_dir_all(place.dir.path().join("real/deep/root")).unwrap();
    symlink("real/deep/root", place.dir.path().join("root")).unwrap();
    place.layout.link = place.layout.root.join("links/current");
    publish(&place.open().unwrap(), 3);
    assert_eq!(place.read(), commit(3).to_string());
}

#[test]
fn a_restart_finds_what_was_published() {
    both_modes(|place| {
        publish(&place.open().unwrap(), 1);
        publish(&place.open().unwrap(), 2);
        let volume = place.open().unwrap();
        assert_eq!(live(&volume), Some(commit(2)));
        assert_eq!(volume.revisions().unwrap().len(), 2);
    });
}

#[test]
fn publishing_an_older_revision_again_works() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        let first = publish(&volume, 1);
        publish(&volume, 2);
        let first = volume
            .revisions()
            .unwrap()
            .into_iter()
            .find(|r| r.n == first.n)
            .unwrap();
        flip(&volume, &first).unwrap();
        assert_eq!(place.read(), commit(1).to_string());
        assert_eq!(prune_now(&volume, 0), [2]);
        assert_eq!(publish(&volume, 3).n, 3);
    });
}

#[test]
fn a_dropped_stage_leaves_nothing() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let staged = volume.stage(commit(1)).unwrap();
    fs::create_dir(staged.tree().join("dir")).unwrap();
    fs::write(staged.tree().join("dir/file"), "x").unwrap();
    drop(staged);
    place.assert_no_debris();
}

#[test]
fn a_tree_without_a_manifest_cannot_be_sealed() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let error = volume.stage(commit(1)).unwrap().seal().unwrap_err();
    assert_eq!(error.stage, Stage::Publish);
    assert_eq!(volume.revisions().unwrap(), []);
    place.assert_no_debris();
}

#[test]
fn numbers_only_grow_across_restarts_and_pruning() {
    let place = Place::new(PublishMode::Symlink);
    let first = build(&place.open().unwrap(), commit(1));
    let volume = place.open().unwrap();
    let second = publish(&volume, 2);
    flip(&volume, &first).unwrap();
    prune_now(&volume, 0);
    drop(volume);
    let third = build(&place.open().unwrap(), commit(3));
    assert_eq!((first.n, second.n, third.n), (1, 2, 3));
}

#[test]
fn debris_of_every_kind_is_swept_and_foreign_files_are_kept() {
    let place = Place::new(PublishMode::Symlink);
    {
        let volume = place.open().unwrap();
        publish(&volume, 1);
        build(&volume, commit(2));
    }
    let root = &place.layout.root;
    fs::create_dir_all(place.gvr("staging/000009/tree/deep")).unwrap();
    fs::write(place.gvr("staging/000009/tree/deep/f"), "x").unwrap();
    fs::create_dir_all(place.gvr("trash/000008.1.0/x")).unwrap();
    fs::create_dir_all(place.gvr(&format!("revisions/000004/{}", commit(4)))).unwrap();
    fs::create_dir_all(place.gvr("revisions/000005")).unwrap();
    fs::write(place.gvr("revisions/000005/manifest"), "half").unwrap();
    fs::write(place.gvr("revisions/note"), "foreign").unwrap();
    fs::create_dir(place.gvr("revisions/lost+found")).unwrap();
    symlink(".gvr/revisions/000004/x", root.join(".current.gvr-1.00")).unwrap();
    symlink("/etc", root.join(".current.gvr-mine")).unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    fs::write(root.join("foreign"), "x").unwrap();

    let volume = place.open().unwrap();
    assert_eq!(live(&volume), Some(commit(1)));
    let numbers: Vec<_> = volume.revisions().unwrap().iter().map(|r| r.n).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        names(root),
        [
            ".current.gvr-mine",
            ".gvr",
            "current",
            "foreign",
            "lost+found"
        ]
    );
    assert_eq!(
        names(&place.gvr("revisions")),
        ["000001", "000002", "lost+found", "note"]
    );
    assert_eq!(names(&place.gvr("staging")), Vec::<String>::new());
    assert_eq!(names(&place.gvr("trash")), Vec::<String>::new());
    assert!(build(&volume, commit(6)).n > 5);
}

#[test]
fn the_tree_that_the_link_shows_survives_the_loss_of_its_manifest() {
    let place = Place::new(PublishMode::Symlink);
    let revision = publish(&place.open().unwrap(), 1);
    fs::remove_file(&revision.manifest).unwrap();
    let volume = place.open().unwrap();
    assert_eq!(place.read(), commit(1).to_string());
    assert_eq!(volume.observe().unwrap(), Default::default());
    assert_eq!(prune_now(&volume, 0), Vec::<u64>::new());
    publish(&volume, 1);
    assert_eq!(prune_now(&volume, 0), [1]);
    assert_eq!(live(&volume), Some(commit(1)));
}

#[test]
fn damage_to_link_and_tree_is_noticed_and_mended_by_publishing() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        let link = &place.layout.link;
        let remove = || {
            if fs::symlink_metadata(link).unwrap().is_dir() {
                fs::remove_dir_all(link).unwrap();
            } else {
                fs::remove_file(link).unwrap();
            }
        };
        let hurts: [(&str, &dyn Fn()); 3] = [
            ("gone", &remove),
            ("elsewhere", &|| {
                remove();
                symlink("/etc", link).unwrap();
            }),
            ("file", &|| {
                remove();
                fs::write(link, "x").unwrap();
            }),
        ];
        for (what, hurt) in hurts {
            publish(&volume, 1);
            // One that stays, as the memory of having published.
            build(&volume, commit(2));
            hurt();
            assert!(
                damage(&volume).contains(what),
                "{what}: {}",
                damage(&volume)
            );
            publish(&volume, 3);
            assert_eq!(live(&volume), Some(commit(3)), "{what}");
            assert_eq!(place.read(), commit(3).to_string());
        }
    });
}

#[test]
fn a_tree_with_the_inode_number_of_a_deleted_one_is_not_taken_for_it() {
    let place = Place::new(PublishMode::Exchange);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    fs::remove_dir_all(&place.layout.link).unwrap();
    let revision = build(&volume, commit(2));
    // As when the file system gives the number away at once.
    let reused = fs::metadata(&revision.path).unwrap().ino();
    let record = format!("{} {reused}\n", commit(1));
    fs::write(place.gvr("revisions/000001/swap"), record).unwrap();
    flip(&volume, &revision).unwrap();
    assert_eq!(live(&volume), Some(commit(2)));
    assert_eq!(place.read(), commit(2).to_string());
}

#[test]
fn a_tree_that_was_deleted_or_replaced_is_damage() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let revision = publish(&volume, 1);
    assert_eq!(live(&volume), Some(commit(1)));
    // Kept elsewhere, so that its inode number is not used again.
    fs::rename(&revision.path, place.dir.path().join("elsewhere")).unwrap();
    assert!(damage(&volume).contains("gone"));
    fs::create_dir(&revision.path).unwrap();
    assert!(damage(&volume).contains("replaced"));
    publish(&volume, 1);
    assert_eq!(live(&volume), Some(commit(1)));
}

#[test]
fn a_directory_that_appears_at_the_link_is_an_error_and_stays() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        publish(&volume, 1);
        let next = build(&volume, commit(2));
        let link = &place.layout.link;
        fs::rename(link, place.dir.path().join("away")).unwrap();
        fs::create_dir(link).unwrap();
        fs::write(link.join("precious"), "x").unwrap();
        for error in [
            volume.observe().unwrap_err(),
            flip(&volume, &next).unwrap_err(),
        ] {
            assert!(error.to_string().contains("left alone"), "{error}");
            assert!(error.hint().is_some());
        }
        drop(volume);
        let error = place.open().unwrap_err();
        assert_eq!((error.stage, error.reason), (Stage::Start, Reason::Disk));
        assert_eq!(names(link), ["precious"]);
    });
}

#[test]
fn a_file_at_the_link_of_a_new_root_is_refused() {
    both_modes(|place| {
        fs::create_dir(&place.layout.root).unwrap();
        fs::write(&place.layout.link, "precious").unwrap();
        let error = place.open().unwrap_err();
        assert!(error.to_string().contains("is a file"), "{error}");
        assert_eq!(fs::read_to_string(&place.layout.link).unwrap(), "precious");
    });
}

#[test]
fn a_root_that_is_a_file_is_refused() {
    let place = Place::new(PublishMode::Symlink);
    fs::write(&place.layout.root, "x").unwrap();
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("is not a directory"), "{error}");
}

#[test]
fn a_link_above_the_root_or_inside_our_directory_is_refused() {
    let mut place = Place::new(PublishMode::Symlink);
    for link in [place.dir.path().to_owned(), place.gvr("current")] {
        place.layout.link = link;
        let error = place.open().unwrap_err();
        assert!(error.to_string().contains("in the way"), "{error}");
    }
}

#[test]
fn a_planted_symbolic_link_instead_of_our_directory_is_refused() {
    let place = Place::new(PublishMode::Symlink);
    fs::create_dir(&place.layout.root).unwrap();
    let elsewhere = place.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, place.gvr("")).unwrap_or_else(|_| {
        symlink(&elsewhere, place.layout.root.join(".gvr")).unwrap();
    });
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("is a link or a file"), "{error}");
    assert_eq!(names(&elsewhere), Vec::<String>::new());
}

#[test]
fn a_root_in_a_work_tree_is_refused_unless_it_is_ignored() {
    let place = Place::new(PublishMode::Symlink);
    let git = Command::new("git")
        .args(["init", "-q"])
        .arg(place.dir.path())
        .status()
        .unwrap();
    assert!(git.success());
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("work tree"), "{error}");
    fs::write(place.dir.path().join(".gitignore"), "/root/\n").unwrap();
    publish(&place.open().unwrap(), 1);
}

#[test]
fn a_root_that_is_itself_a_repository_is_refused() {
    let place = Place::new(PublishMode::Symlink);
    let git = Command::new("git")
        .args(["init", "-q"])
        .arg(&place.layout.root)
        .status()
        .unwrap();
    assert!(git.success());
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("work tree"), "{error}");
}

#[test]
fn a_second_handle_waits_in_vain_and_says_for_whom() {
    let place = Place::new(PublishMode::Symlink);
    let first = place.open().unwrap();
    let wait = Duration::from_millis(120);
    let error = Volume::open(place.layout.clone(), "second", wait, &budget()).unwrap_err();
    let pid = std::process::id();
    assert_eq!(error.stage, Stage::Start);
    assert!(
        error.to_string().contains(&format!("pid {pid} on")),
        "{error}"
    );
    drop(first);
    place.open().unwrap();
}

#[test]
fn a_second_handle_gets_the_root_as_soon_as_it_is_free() {
    let place = Place::new(PublishMode::Symlink);
    let first = place.open().unwrap();
    let layout = place.layout.clone();
    let second = std::thread::spawn(move || Volume::open(layout, "second", MINUTE, &budget()));
    publish(&first, 1);
    drop(first);
    assert_eq!(live(&second.join().unwrap().unwrap()), Some(commit(1)));
}

#[test]
fn another_process_that_holds_the_lock_is_waited_for_and_its_death_frees_it() {
    let place = Place::new(PublishMode::Symlink);
    drop(place.open().unwrap());
    let mut holder = Command::new("flock")
        .arg(place.gvr("lock"))
        .args(["sh", "-c", "echo held; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = holder.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "held\n");
    assert!(place.open().is_err());
    // util-linux' flock execs nothing itself: the child of the shell holds the descriptor too.
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id())).unwrap();
    for pid in child.split_ascii_whitespace() {
        Command::new("kill").args(["-9", pid]).status().unwrap();
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    Volume::open(place.layout.clone(), "next", MINUTE, &budget()).unwrap();
}

#[test]
fn waiting_for_the_lock_can_be_cancelled() {
    let place = Place::new(PublishMode::Symlink);
    let _first = place.open().unwrap();
    let budget = budget();
    let flag = budget.cancelled().clone();
    let layout = place.layout.clone();
    let second = std::thread::spawn(move || Volume::open(layout, "second", MINUTE, &budget));
    flag.store(true, Ordering::Relaxed);
    assert!(second.join().unwrap().unwrap_err().is_cancelled());
}

#[test]
fn a_removed_root_is_noticed_and_can_be_opened_again() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    fs::remove_dir_all(&place.layout.root).unwrap();
    assert!(!volume.is_current());
    assert_eq!(volume.observe().unwrap_err().reason, Reason::Disk);
    drop(volume);
    publish(&place.open().unwrap(), 2);
    assert_eq!(place.read(), commit(2).to_string());
}

#[test]
fn rooms_that_were_removed_are_made_again() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    for room in ["staging", "revisions", "trash"] {
        fs::remove_dir_all(place.gvr(room)).unwrap();
    }
    assert!(damage(&volume).contains("gone"));
    publish(&volume, 2);
    assert_eq!(live(&volume), Some(commit(2)));
    prune_now(&volume, 0);
}

#[test]
fn pruning_keeps_the_live_one_the_newest_and_the_freshly_retired() {
    both_modes(|place| {
        let volume = place.open().unwrap();
        for digit in 1..=5 {
            publish(&volume, digit);
        }
        let policy = Prune {
            keep: 1,
            stale_timeout: MINUTE,
        };
        let now = Moment::now();
        let pruned = volume.prune(policy, &now, &budget()).unwrap();
        assert_eq!((pruned.removed.len(), pruned.left), (0, 5));
        assert!(pruned.next.unwrap() <= MINUTE);
        drop(volume);

        // The times survive a restart.
        let volume = place.open().unwrap();
        let pruned = volume
            .prune(policy, &now.later(2 * MINUTE), &budget())
            .unwrap();
        assert_eq!(pruned.removed, [3, 2, 1]);
        assert_eq!((pruned.left, pruned.next, pruned.pending), (2, None, false));
        assert_eq!(live(&volume), Some(commit(5)));
        assert_eq!(place.read(), commit(5).to_string());
        let left: Vec<_> = volume.revisions().unwrap().iter().map(|r| r.n).collect();
        assert_eq!(left, [4, 5]);
        place.assert_no_debris();
    });
}

#[test]
fn a_retirement_nobody_wrote_down_starts_when_it_is_found() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    publish(&volume, 2);
    fs::remove_file(place.gvr("revisions/000001/retired")).unwrap();
    let policy = Prune {
        keep: 0,
        stale_timeout: MINUTE,
    };
    let later = Moment::now().later(10 * MINUTE);
    let pruned = volume.prune(policy, &later, &budget()).unwrap();
    assert_eq!((pruned.removed.len(), pruned.next), (0, Some(MINUTE)));
    let pruned = volume
        .prune(policy, &later.later(MINUTE), &budget())
        .unwrap();
    assert_eq!(pruned.removed, [1]);
}

#[test]
fn opening_does_not_wait_until_the_links_of_an_earlier_life_are_gone() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let revision = publish(&volume, 1);
    let spare = volume.make_spare(revision.n).unwrap();
    fs::hard_link(revision.path.join("file"), spare.join("file")).unwrap();
    drop(volume);
    let volume = place.open().unwrap();
    assert!(spare.join("file").exists());
    assert!(volume.drop_spares().unwrap());
    assert!(!volume.drop_spares().unwrap());
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    volume.prune(policy, &Moment::now(), &budget()).unwrap();
    place.assert_no_debris();
}

#[test]
fn pruning_without_a_link_spares_one_more() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    for digit in 1..=3 {
        publish(&volume, digit);
    }
    fs::remove_file(&place.layout.link).unwrap();
    assert_eq!(prune_now(&volume, 1), [1]);
    assert_eq!(volume.revisions().unwrap().len(), 2);
}

#[test]
fn what_readers_saw_last_is_known_without_a_link_and_is_not_pruned() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    for digit in 1..=4 {
        publish(&volume, digit);
    }
    let revisions = volume.revisions().unwrap();
    flip(&volume, &revisions[1]).unwrap();
    fs::remove_file(&place.layout.link).unwrap();
    assert_eq!(volume.last_live(1..=4), Some(2));
    drop(volume);

    let volume = place.open().unwrap();
    assert_eq!(prune_now(&volume, 1), [1, 3]);
    assert_eq!(volume.last_live([2, 4]), Some(2));
    // Of those that retired, the last one; a time that nobody can read is no recent one.
    flip(&volume, &revisions[3]).unwrap();
    flip(&volume, &revisions[1]).unwrap();
    assert_eq!(volume.last_live([4]), Some(4));
    publish(&volume, 5);
    fs::write(place.gvr("revisions/000004/retired"), "- 0 1000\n").unwrap();
    assert_eq!(volume.last_live([2, 4]), Some(2));
    fs::write(place.gvr("revisions/000002/retired"), "").unwrap();
    assert_eq!(volume.last_live([2, 4]), Some(4));
}

/// The directory and everything in it.
fn count(directory: &Path) -> usize {
    let below = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => count(&entry.path()),
            false => 1,
        }
    });
    1 + below.sum::<usize>()
}

#[test]
fn a_spent_budget_stops_deleting_and_the_next_call_goes_on() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let staged = volume.stage(commit(1)).unwrap();
    for n in 0..500 {
        fs::write(staged.tree().join(n.to_string()), "").unwrap();
    }
    fs::write(staged.manifest(), "m").unwrap();
    flip(&volume, &accept(staged)).unwrap();
    publish(&volume, 2);
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    let spent = Budget::new(Duration::ZERO, Duration::ZERO, Arc::default());
    let pruned = volume.prune(policy, &Moment::now(), &spent).unwrap();
    assert_eq!(
        (pruned.removed.as_slice(), pruned.pending),
        (&[1][..], true)
    );
    // What gives way to something else gets on all the same.
    let left = || match names(&place.gvr("trash")).first() {
        Some(tree) => count(&place.gvr("trash").join(tree)),
        None => 0,
    };
    loop {
        let before = left();
        let hurried = budget().giving_way(Instant::now(), Arc::default());
        let pruned = volume.prune(policy, &Moment::now(), &hurried).unwrap();
        assert!(left() < before && before - left() <= 100, "{before}");
        if !pruned.pending {
            break;
        }
    }
    place.assert_no_debris();
}

#[test]
fn a_tree_five_thousand_deep_is_deleted() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let staged = volume.stage(commit(1)).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = openat(CWD, staged.tree(), flags, Mode::empty()).unwrap();
    for _ in 0..5000 {
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
    drop(staged);
    prune_now(&volume, 0);
    place.assert_no_debris();
}

#[test]
fn a_kill_between_the_two_renames_of_an_exchange_is_put_right() {
    let place = Place::new(PublishMode::Exchange);
    let (first, second) = {
        let volume = place.open().unwrap();
        (publish(&volume, 1), publish(&volume, 2))
    };
    // After the exchange and before the old tree goes home, as a kill leaves it.
    fs::rename(&first.path, &second.path).unwrap();
    let volume = place.open().unwrap();
    assert_eq!(live(&volume), Some(commit(2)));
    let revisions = volume.revisions().unwrap();
    assert_eq!(revisions.len(), 2);
    assert_eq!(
        fs::read_to_string(revisions[0].path.join("file")).unwrap(),
        commit(1).to_string()
    );
    // Before the exchange: recorded, and not swapped.
    let third = build(&volume, commit(3));
    let inode = fs::metadata(&third.path).unwrap().ino();
    fs::write(
        place.gvr("revisions/000003/swap"),
        format!("{} {inode}\n", commit(3)),
    )
    .unwrap();
    drop(volume);
    let volume = place.open().unwrap();
    assert_eq!(live(&volume), Some(commit(2)));
    flip(&volume, &third).unwrap();
    assert_eq!(live(&volume), Some(commit(3)));
    assert_eq!(volume.revisions().unwrap().len(), 3);
}

#[test]
fn exchange_takes_over_an_empty_directory() {
    let place = Place::new(PublishMode::Exchange);
    fs::create_dir_all(&place.layout.link).unwrap();
    let volume = place.open().unwrap();
    assert_eq!(volume.observe().unwrap(), Default::default());
    publish(&volume, 1);
    assert_eq!(place.read(), commit(1).to_string());
}

#[test]
fn switching_between_the_modes_keeps_readers_served() {
    let mut place = Place::new(PublishMode::Symlink);
    publish(&place.open().unwrap(), 1);
    for (digit, mode) in [
        (2, PublishMode::Exchange),
        (3, PublishMode::Symlink),
        (4, PublishMode::Exchange),
    ] {
        place.layout.mode = mode;
        let volume = place.open().unwrap();
        assert_eq!(place.read(), commit(digit - 1).to_string());
        let before = volume.observe().unwrap();
        assert_eq!(before.live.unwrap().commit, commit(digit - 1));
        assert!(before.damage.is_some(), "a reason to publish");
        publish(&volume, digit);
        assert_eq!(place.read(), commit(digit).to_string());
        assert_eq!(live(&volume), Some(commit(digit)));
        let revisions = volume.revisions().unwrap();
        assert_eq!(revisions.len(), usize::from(digit));
        for revision in revisions {
            let text = fs::read_to_string(revision.path.join("file")).unwrap();
            assert_eq!(text, revision.commit.to_string());
        }
        place.assert_no_debris();
    }
}

#[test]
fn exchange_across_file_systems_is_a_clear_error() {
    let mut place = Place::new(PublishMode::Exchange);
    let other = Tmpfs::mount("1m");
    place.layout.link = other.path().join("docs");
    let volume = place.open().unwrap();
    let revision = build(&volume, commit(1));
    let error = flip(&volume, &revision).unwrap_err();
    assert_eq!((error.stage, error.reason), (Stage::Publish, Reason::Disk));
    assert!(error.hint().unwrap().contains("file system"), "{error:?}");
}

#[test]
fn a_full_disk_fails_the_stage_keeps_the_tree_and_pruning_mends_it() {
    for mode in [PublishMode::Symlink, PublishMode::Exchange] {
        let disk = Tmpfs::mount("1m");
        let root = disk.path().join("root");
        let link = root.join("current");
        let place = Layout { root, link, mode };
        let open = || Volume::open(place.clone(), "test", Duration::ZERO, &budget()).unwrap();
        let volume = open();
        let fill = |volume: &Volume, digit: u8| -> std::io::Result<Revision> {
            let staged = volume.stage(commit(digit)).unwrap();
            fs::write(staged.tree().join("file"), vec![digit; 400 << 10])?;
            fs::write(staged.manifest(), "m")?;
            Ok(accept(staged))
        };
        flip(&volume, &fill(&volume, 1).unwrap()).unwrap();
        flip(&volume, &fill(&volume, 2).unwrap()).unwrap();
        let error = fill(&volume, 3).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        // Stuffed to the last byte: what is live stays, and start and pruning still work.
        let _ = fs::write(place.root.join("stuffing"), vec![0; 1 << 20]);
        drop(volume);
        let volume = open();
        assert_eq!(live(&volume), Some(commit(2)));
        assert_eq!(prune_now(&volume, 0), [1]);
        flip(&volume, &fill(&volume, 3).unwrap()).unwrap();
        assert_eq!(live(&volume), Some(commit(3)));
    }
}

#[test]
fn another_users_root_is_refused_with_both_users_named() {
    let place = Place::new(PublishMode::Symlink);
    fs::create_dir(&place.layout.root).unwrap();
    fs::set_permissions(&place.layout.root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = place.layout.root.clone();
    let layout = place.layout.clone();
    // Credentials belong to the thread, where the raw system call changes them.
    let error = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65533);
        rustix::thread::set_thread_uid(nobody).unwrap();
        Volume::open(layout, "test", Duration::ZERO, &budget()).unwrap_err()
    })
    .join()
    .unwrap();
    assert!(
        error.to_string().contains(root.to_str().unwrap()),
        "{error}"
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("user 0 ") && hint.contains("user 65533"),
        "{hint}"
    );
}

#[test]
fn nothing_is_world_writable_and_the_umask_is_respected() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    publish(&volume, 2);
    let listed = Command::new("find")
        .arg(&place.layout.root)
        .args(["-perm", "-o+w", "!", "-type", "l"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
}

#[test]
fn hard_links_count_once() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let before = volume.bytes(&budget()).unwrap();
    fs::write(place.layout.root.join("a"), vec![1; 1 << 20]).unwrap();
    fs::hard_link(place.layout.root.join("a"), place.layout.root.join("b")).unwrap();
    let added = volume.bytes(&budget()).unwrap() - before;
    assert!((1 << 20..3 << 19).contains(&added), "{added}");
}

#[test]
fn a_deleted_directory_that_cannot_be_emptied_is_tried_again() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    let revision = publish(&volume, 1);
    publish(&volume, 2);
    // A mount point cannot be removed (EBUSY), like a file that NFS still holds.
    fs::DirBuilder::new()
        .mode(0o755)
        .create(revision.path.join("busy"))
        .unwrap();
    let mut mount = Tmpfs::mount_at(revision.path.join("busy"));
    fs::write(mount.path().join("foreign"), "x").unwrap();
    let policy = Prune {
        keep: 0,
        stale_timeout: Duration::ZERO,
    };
    let pruned = volume.prune(policy, &Moment::now(), &budget()).unwrap();
    assert_eq!(
        (pruned.removed.as_slice(), pruned.pending),
        (&[1][..], true)
    );
    let trash = place.gvr("trash");
    let moved = trash.join(&names(&trash)[0]);
    mount.path = moved.join(commit(1).to_string()).join("busy");
    assert_eq!(names(mount.path()), ["foreign"]);
    drop(mount);
    assert!(
        !volume
            .prune(policy, &Moment::now(), &budget())
            .unwrap()
            .pending
    );
    place.assert_no_debris();
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

#[test]
fn a_rejected_tree_cannot_be_published_in_this_life_or_the_next() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    let staged = volume.stage(commit(2)).unwrap();
    fs::write(staged.manifest(), "manifest\n").unwrap();
    let sealed = staged.seal().unwrap();
    let rejected = sealed.revision().clone();
    sealed.reject("no index.html", "").unwrap();
    let assert_rejected = |volume: &Volume| {
        let verdict = Verdict::Rejected("no index.html".to_owned());
        assert_eq!(volume.verdict(&rejected), verdict);
        assert!(volume.accepted(&rejected).is_none());
        assert!(volume.pending(&rejected).is_none());
        assert_eq!(live(volume), Some(commit(1)));
    };
    assert_rejected(&volume);
    drop(volume);
    assert_rejected(&place.open().unwrap());
}

#[test]
fn a_tree_that_was_sealed_before_a_kill_is_still_pending() {
    let place = Place::new(PublishMode::Symlink);
    let revision = {
        let volume = place.open().unwrap();
        let staged = volume.stage(commit(1)).unwrap();
        fs::write(staged.manifest(), "manifest\n").unwrap();
        staged.seal().unwrap().revision().clone()
    };
    let volume = place.open().unwrap();
    assert!(volume.accepted(&revision).is_none());
    let sealed = volume.pending(&revision).expect("nobody has decided yet");
    volume.publish(&sealed.accept("").unwrap()).unwrap();
    assert_eq!(live(&volume), Some(commit(1)));
}

#[test]
fn a_rejected_tree_is_kept_while_it_is_the_newest_and_takes_no_place_of_an_accepted_one() {
    let place = Place::new(PublishMode::Symlink);
    let volume = place.open().unwrap();
    publish(&volume, 1);
    publish(&volume, 2);
    for digit in [3, 4] {
        let staged = volume.stage(commit(digit)).unwrap();
        fs::write(staged.manifest(), "manifest\n").unwrap();
        staged.seal().unwrap().reject("no", "").unwrap();
    }
    assert_eq!(prune_now(&volume, 1), [3]);
    publish(&volume, 5);
    assert_eq!(prune_now(&volume, 1), [1, 4]);
    let left: Vec<u64> = volume.revisions().unwrap().iter().map(|r| r.n).collect();
    assert_eq!(left, [2, 5]);
}
