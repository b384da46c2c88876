//! The object store and the local remote, against repositories that git made and git checks.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, SyncError};
use git_volume_reloader::remote::local::LocalRemote;
use git_volume_reloader::remote::{
    Advertised, FetchRequest, Fetched, PackSink, RefName, Remote, Tip,
};
use git_volume_reloader::store::Store;
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);
const NO_LIMIT: u64 = u64::MAX;

fn budget() -> Budget {
    Budget::new(MINUTE, MINUTE, Arc::default())
}

/// Runs git without the user's configuration; returns what it prints.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = git_command(dir, args).output().unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn git_command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn id(text: &str) -> Commit {
    text.parse().unwrap()
}

/// An upstream repository with a work tree, and a store that follows it.
struct World {
    dir: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("upstream")).unwrap();
        git(&dir.path().join("upstream"), &["init", "-q", "-b", "main"]);
        let store = Store::open(&dir.path().join("store.git")).unwrap();
        Self { dir, store }
    }

    fn upstream(&self) -> PathBuf {
        self.dir.path().join("upstream")
    }

    fn remote(&self) -> LocalRemote {
        LocalRemote::new(self.upstream())
    }

    fn commit(&self, file: &str, content: &str) -> Commit {
        let path = self.upstream().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        git(&self.upstream(), &["add", "-A"]);
        git(&self.upstream(), &["commit", "-q", "-m", file]);
        id(&git(&self.upstream(), &["rev-parse", "HEAD"]))
    }

    fn fetch(&self, want: Commit, depth: u32) -> Fetched {
        self.fetch_from(&mut self.remote(), want, depth).unwrap()
    }

    fn fetch_from(
        &self,
        remote: &mut LocalRemote,
        want: Commit,
        depth: u32,
    ) -> Result<Fetched, SyncError> {
        let (haves, shallow) = (self.store.haves(), self.store.shallow());
        let request = FetchRequest {
            want,
            also: &[],
            name: None,
            haves: &haves,
            shallow: &shallow,
            depth,
            thin: true,
        };
        let mut receiving = self.store.receive(&budget(), NO_LIMIT)?;
        let fetched = remote.fetch(&request, &mut receiving, &budget())?;
        receiving.finish(&fetched, &[want])?;
        Ok(fetched)
    }

    /// git's opinion of the store, and the tree of a commit as git lists it.
    fn assert_same(&self, commit: Commit) {
        git(self.store.path(), &["fsck", "--strict"]);
        let list = ["ls-tree", "-r", "-l", "--full-tree", &commit.to_string()];
        assert_eq!(
            git(self.store.path(), &list),
            git(&self.upstream(), &list),
            "{commit}"
        );
    }

    fn log(&self, commit: Commit) -> Vec<String> {
        git(self.store.path(), &["rev-list", &commit.to_string()])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// A pack as git makes it.
    fn pack(&self, options: &[&str], revisions: &str) -> Vec<u8> {
        let mut args = vec!["pack-objects", "-q", "--revs", "--stdout"];
        args.extend(options);
        let mut child = git_command(&self.upstream(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(revisions.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn take(&self, bytes: &[u8], want: Commit) -> Result<(), SyncError> {
        let mut receiving = self.store.receive(&budget(), NO_LIMIT)?;
        for chunk in bytes.chunks(1000) {
            receiving.write(chunk)?;
        }
        receiving.finish(&Fetched::default(), &[want])
    }

    fn files(&self) -> Vec<String> {
        files(&self.store.path().join("objects"))
    }
}

fn files(dir: &Path) -> Vec<String> {
    let listed = Command::new("find")
        .arg(dir)
        .args(["-type", "f"])
        .output()
        .unwrap();
    let mut files: Vec<_> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    files.sort();
    files
}

fn at(tip: Tip) -> Advertised {
    match tip {
        Tip::At(advertised) => advertised,
        Tip::Missing { .. } => panic!("the ref is missing"),
    }
}

fn tip(world: &World, name: RefName) -> Tip {
    world.remote().tip(&name, &budget()).unwrap()
}

#[test]
fn a_fetch_of_depth_one_brings_one_commit_whole() {
    let world = World::new();
    world.commit("a/b/file", "1");
    let second = world.commit("other", "2");
    let fetched = world.fetch(second, 1);
    assert_eq!(fetched.shallow, [second]);
    assert!(world.store.contains(second));
    assert_eq!(world.store.haves(), [second]);
    assert_eq!(world.store.shallow(), [second]);
    assert_eq!(world.log(second), [second.to_string()]);
    world.assert_same(second);
}

#[test]
fn an_update_brings_the_change_alone() {
    let world = World::new();
    for n in 0..50 {
        fs::create_dir_all(world.upstream().join(format!("d{n}"))).unwrap();
        let noise: Vec<u8> = (0..2000).map(|_| fastrand::u8(..)).collect();
        fs::write(world.upstream().join(format!("d{n}/file")), noise).unwrap();
    }
    let first = world.commit("x", "1");
    let whole = world.fetch(first, 1).bytes;
    let second = world.commit("d7/file", "changed");
    let change = world.fetch(second, 1).bytes;
    assert!(whole > 100_000 && change < 5_000, "{whole} {change}");
    world.assert_same(second);
    assert!(world.store.contains(first) && world.store.contains(second));
}

#[test]
fn objects_of_every_size_arrive() {
    let world = World::new();
    for size in [0, 1, 15, 16, 2047, 2048, 262_143, 262_144, 5_000_000] {
        let noise: String = (0..size).map(|_| fastrand::alphanumeric()).collect();
        fs::write(world.upstream().join(format!("f{size}")), noise).unwrap();
    }
    let commit = world.commit("last", "x");
    world.fetch(commit, 1);
    world.assert_same(commit);
}

#[test]
fn moves_force_pushes_and_unknown_haves_are_fetched_whole() {
    let world = World::new();
    let first = world.commit("a/file", "1");
    world.fetch(first, 1);
    git(&world.upstream(), &["checkout", "-q", "--orphan", "new"]);
    git(&world.upstream(), &["mv", "a", "b"]);
    let second = world.commit("more", "2");
    world.fetch(second, 1);
    world.assert_same(second);
    // The source forgets what we have.
    git(&world.upstream(), &["branch", "-D", "main"]);
    git(
        &world.upstream(),
        &["reflog", "expire", "--expire=now", "--all"],
    );
    git(&world.upstream(), &["gc", "-q", "--prune=now"]);
    let third = world.commit("b/file", "3");
    world.fetch(third, 1);
    world.assert_same(third);
}

#[test]
fn depth_is_honoured_lowered_raised_and_lifted() {
    let world = World::new();
    let commits: Vec<_> = (0..6)
        .map(|n| world.commit("file", &n.to_string()))
        .collect();
    world.fetch(commits[3], 2);
    assert_eq!(world.log(commits[3]).len(), 2);
    world.fetch(commits[4], 1);
    assert_eq!(world.log(commits[4]).len(), 1);
    let fetched = world.fetch(commits[5], 4);
    assert_eq!(fetched.shallow, [commits[2]]);
    assert!(fetched.unshallow.contains(&commits[4]));
    assert_eq!(world.log(commits[5]).len(), 4);
    world.fetch(commits[5], 0);
    assert_eq!(world.log(commits[5]).len(), 6);
    assert_eq!(world.store.shallow(), []);
    world.assert_same(commits[5]);
    for commit in commits {
        world.assert_same(commit);
    }
}

#[test]
fn full_history_is_updated_by_what_is_new() {
    let world = World::new();
    world.commit("file", "0");
    let second = world.commit("file", "1");
    assert_eq!(world.fetch(second, 0).shallow, []);
    git(
        &world.upstream(),
        &["checkout", "-q", "-b", "side", "HEAD~1"],
    );
    world.commit("side", "2");
    git(&world.upstream(), &["merge", "-q", "-m", "merge", "main"]);
    let merge = id(&git(&world.upstream(), &["rev-parse", "HEAD"]));
    world.fetch(merge, 0);
    assert_eq!(world.log(merge).len(), 4);
    world.assert_same(merge);
}

#[test]
fn a_shallow_source_hands_its_boundary_on() {
    let world = World::new();
    for n in 0..4 {
        world.commit("file", &n.to_string());
    }
    let url = format!("file://{}", world.upstream().display());
    git(
        world.dir.path(),
        &["clone", "-q", "--depth", "2", &url, "cut"],
    );
    let mut remote = LocalRemote::new(world.dir.path().join("cut"));
    let head = at(remote.tip(&RefName::Head, &budget()).unwrap());
    for depth in [1, 0, 50] {
        world.store.wipe().unwrap();
        world.fetch_from(&mut remote, head.commit, depth).unwrap();
        let expected = if depth == 1 { 1 } else { 2 };
        assert_eq!(world.log(head.commit).len(), expected, "depth {depth}");
        assert_eq!(world.store.shallow().len(), 1);
        world.assert_same(head.commit);
    }
}

#[test]
fn refs_are_found_as_git_clone_finds_them() {
    let world = World::new();
    assert_eq!(tip(&world, RefName::Head), Tip::Missing { empty: true });
    let first = world.commit("file", "1");
    let upstream = world.upstream();
    git(&upstream, &["tag", "-a", "-m", "t", "v1"]);
    git(&upstream, &["tag", "light"]);
    git(&upstream, &["tag", "-a", "-m", "t", "nested", "v1"]);
    git(&upstream, &["tag", "both"]);
    let second = world.commit("file", "2");
    git(&upstream, &["branch", "both"]);
    git(&upstream, &["update-ref", "refs/notes/x", "HEAD"]);
    let packed = || git(&upstream, &["pack-refs", "--all"]);
    for pack in [false, true] {
        if pack {
            packed();
        }
        let short = |name: &str| at(tip(&world, RefName::Short(name.to_owned())));
        let head = at(tip(&world, RefName::Head));
        assert_eq!(
            (head.name.as_str(), head.commit),
            ("refs/heads/main", second)
        );
        assert_eq!(head.object, second);
        assert_eq!(short("both").name, "refs/heads/both");
        assert_eq!(short("light").commit, first);
        assert_eq!(short("notes/x").name, "refs/notes/x");
        for tag in ["v1", "nested"] {
            let tag = short(tag);
            assert_eq!(tag.commit, first);
            assert_eq!(
                tag.object,
                id(&git(&upstream, &["rev-parse", &tag.name])),
                "{}",
                tag.name
            );
        }
        let full = RefName::Full("refs/tags/both".to_owned());
        assert_eq!(at(tip(&world, full)).commit, first);
        for missing in ["absent", "bad..name", ""] {
            assert_eq!(
                tip(&world, RefName::Short(missing.to_owned())),
                Tip::Missing { empty: false }
            );
        }
    }
    git(&upstream, &["checkout", "-q", "--detach", "light"]);
    let head = at(tip(&world, RefName::Head));
    assert_eq!((head.name.as_str(), head.commit), ("HEAD", first));
}

#[test]
fn a_tag_object_is_fetched_with_its_commit() {
    let world = World::new();
    let commit = world.commit("file", "1");
    git(&world.upstream(), &["tag", "-a", "-m", "t", "v1"]);
    let tag = at(tip(&world, RefName::Short("v1".to_owned())));
    let mut receiving = world.store.receive(&budget(), NO_LIMIT).unwrap();
    let request = FetchRequest {
        want: tag.object,
        also: &[],
        name: None,
        haves: &[],
        shallow: &[],
        depth: 1,
        thin: true,
    };
    let fetched = world
        .remote()
        .fetch(&request, &mut receiving, &budget())
        .unwrap();
    receiving.finish(&fetched, &[commit]).unwrap();
    let kind = git(
        world.store.path(),
        &["cat-file", "-t", &tag.object.to_string()],
    );
    assert_eq!(kind, "tag");
    world.assert_same(commit);
}

#[test]
fn bare_repositories_and_linked_work_trees_are_remotes_too() {
    let world = World::new();
    let commit = world.commit("file", "1");
    git(
        &world.upstream(),
        &["worktree", "add", "-q", "-b", "wt", "../linked"],
    );
    git(
        world.dir.path(),
        &["clone", "-q", "--bare", "upstream", "bare.git"],
    );
    for (path, name) in [("linked", "wt"), ("bare.git", "main"), ("bare", "main")] {
        world.store.wipe().unwrap();
        let mut remote = LocalRemote::new(world.dir.path().join(path));
        let head = at(remote.tip(&RefName::Head, &budget()).unwrap());
        assert_eq!(head.name, format!("refs/heads/{name}"), "{path}");
        world.fetch_from(&mut remote, head.commit, 1).unwrap();
        assert!(world.store.contains(commit), "{path}");
    }
}

#[test]
fn what_is_no_repository_and_what_is_absent_are_told_apart() {
    let world = World::new();
    fs::create_dir(world.dir.path().join("plain")).unwrap();
    for (path, words) in [
        ("absent", "does not exist"),
        ("plain", "is not a git repository"),
    ] {
        let error = LocalRemote::new(world.dir.path().join(path))
            .tip(&RefName::Head, &budget())
            .unwrap_err();
        assert_eq!(error.reason, Reason::NotFound, "{path}");
        assert!(error.to_string().contains(words), "{error}");
    }
    // Inside a repository, and not itself one.
    fs::create_dir(world.upstream().join("inner")).unwrap();
    let error = LocalRemote::new(world.upstream().join("inner"))
        .tip(&RefName::Head, &budget())
        .unwrap_err();
    assert!(
        error.to_string().contains("is not a git repository"),
        "{error}"
    );
}

#[test]
fn a_commit_that_the_source_lacks_is_a_missing_ref() {
    let world = World::new();
    world.commit("file", "1");
    let absent = id("0123456789012345678901234567890123456789");
    let known = at(tip(&world, RefName::Commit(absent)));
    assert_eq!(known.commit, absent);
    let error = world
        .fetch_from(&mut world.remote(), absent, 1)
        .unwrap_err();
    assert_eq!(error.reason, Reason::RefMissing);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_thin_pack_is_completed() {
    let world = World::new();
    let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    let first = world.commit("file", &text);
    world.fetch(first, 1);
    let second = world.commit("file", &text.replace("line 77\n", "changed\n"));
    let range = format!("{second}\n^{first}\n");
    let thin = world.pack(&["--thin"], &range);
    let fat = world.pack(&[], &range);
    assert!(thin.len() < fat.len(), "{} {}", thin.len(), fat.len());
    world.take(&thin, second).unwrap();
    world.assert_same(second);
}

#[test]
fn a_thin_pack_whose_base_is_not_here_blames_the_store() {
    let world = World::new();
    let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    let first = world.commit("file", &text);
    let second = world.commit("file", &text.replace("line 77\n", "changed\n"));
    let thin = world.pack(&["--thin"], &format!("{second}\n^{first}\n"));
    let error = world.take(&thin, second).unwrap_err();
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_truncated_pack_is_a_network_failure_and_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", "some text");
    let pack = world.pack(&[], &format!("{commit}\n"));
    for length in [
        0,
        4,
        12,
        40,
        pack.len() - 21,
        pack.len() - 20,
        pack.len() - 1,
    ] {
        let error = world.take(&pack[..length], commit).unwrap_err();
        assert_eq!(error.reason, Reason::Network, "{length}: {}", error.chain());
        assert_eq!(world.files(), Vec::<String>::new(), "{length}");
    }
    assert!(!world.store.contains(commit));
    world.take(&pack, commit).unwrap();
    world.assert_same(commit);
}

#[test]
fn a_damaged_pack_is_refused_and_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", "some text");
    let pack = world.pack(&[], &format!("{commit}\n"));
    let mut flipped = pack.clone();
    flipped[30] ^= 0x55;
    let mut longer = pack.clone();
    longer.extend(b"more");
    let mut sum = pack.clone();
    *sum.last_mut().unwrap() ^= 1;
    for (what, bytes) in [
        ("flipped", flipped),
        ("longer", longer),
        ("sum", sum),
        ("html", b"<!doctype html><html>not a pack</html>".to_vec()),
    ] {
        let error = world.take(&bytes, commit).unwrap_err();
        assert_eq!(error.reason, Reason::Protocol, "{what}: {}", error.chain());
        assert_eq!(world.files(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn a_pack_without_the_commit_is_refused() {
    let world = World::new();
    let first = world.commit("file", "1");
    let second = world.commit("file", "2");
    let pack = world.pack(&[], &format!("{first}\n"));
    let error = world.take(&pack, second).unwrap_err();
    assert_eq!(error.reason, Reason::Protocol);
    assert!(!world.store.contains(second));
}

#[test]
fn a_pack_beyond_the_limit_is_refused_and_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", &"x".repeat(10_000));
    let pack = world.pack(&[], &format!("{commit}\n"));
    let mut receiving = world.store.receive(&budget(), 100).unwrap();
    let error = receiving.write(&pack).unwrap_err();
    assert_eq!(error.reason, Reason::Limit);
    assert!(receiving.write(&pack).is_err());
    drop(receiving);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_cancelled_fetch_leaves_nothing() {
    let world = World::new();
    let commit = world.commit("file", "1");
    let pack = world.pack(&[], &format!("{commit}\n"));
    let budget = budget();
    let mut receiving = world.store.receive(&budget, NO_LIMIT).unwrap();
    receiving.write(&pack[..20]).unwrap();
    budget.cancelled().store(true, Ordering::Relaxed);
    assert!(receiving.write(&pack[20..]).unwrap_err().is_cancelled());
    drop(receiving);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_a_disk_failure_and_leaves_nothing() {
    let world = World::new();
    let noise: String = (0..4_000_000).map(|_| fastrand::alphanumeric()).collect();
    let commit = world.commit("file", &noise);
    let pack = world.pack(&[], &format!("{commit}\n"));
    let disk = world.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(done.success(), "this test needs the right to mount a tmpfs");
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&disk.join("store.git")).unwrap();
        let mut receiving = store.receive(&budget(), NO_LIMIT).unwrap();
        let error = pack
            .chunks(8192)
            .find_map(|chunk| receiving.write(chunk).err())
            .expect("four megabytes do not fit into one");
        assert_eq!(error.reason, Reason::Disk, "{}", error.chain());
        assert!(error.hint().is_some_and(|hint| hint.contains("larger")));
        drop(receiving);
        assert_eq!(files(&store.path().join("objects")), Vec::<String>::new());
    });
    Command::new("umount")
        .arg("-l")
        .arg(&disk)
        .status()
        .unwrap();
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
}

#[test]
fn leftovers_of_interrupted_fetches_are_removed_at_open() {
    let world = World::new();
    let commit = world.commit("file", "1");
    world.fetch(commit, 1);
    let store = world.store.path();
    let sum = "0123456789012345678901234567890123456789";
    let mut before = files(store);
    for name in [
        "objects/pack/pack_git2_a1B2c3",
        "objects/pack/pack_git2_a1idx.lock",
        "objects/pack/tmp_pack_XYZ",
        &format!("objects/pack/pack-{sum}.pack"),
        "objects/pack/pack-1123456789012345678901234567890123456789.idx",
        "shallow.lock",
        "config.lock",
        "HEAD.lock",
        &format!("refs/gvr/{sum}.lock"),
    ] {
        fs::write(store.join(name), "left over").unwrap();
    }
    for extension in ["pack", "idx"] {
        let name = format!("objects/pack/pack-2{}.{extension}", &sum[1..]);
        fs::write(store.join(name), "").unwrap();
    }
    fs::write(store.join("refs/gvr").join(sum), "").unwrap();
    let reopened = Store::open(store).unwrap();
    let mut after = files(store);
    before.sort();
    after.sort();
    assert_eq!(before, after);
    assert!(reopened.contains(commit));
    assert_eq!(reopened.haves(), [commit]);
}

#[test]
fn an_unusable_store_is_started_afresh() {
    let world = World::new();
    let commit = world.commit("file", "1");
    let store = world.store.path();
    let hurts: [(&str, &dyn Fn()); 7] = [
        ("empty shallow", &|| {
            fs::write(store.join("shallow"), "").unwrap();
        }),
        ("no HEAD", &|| fs::remove_file(store.join("HEAD")).unwrap()),
        ("no objects", &|| {
            fs::remove_dir_all(store.join("objects")).unwrap();
        }),
        ("no refs", &|| {
            fs::remove_dir_all(store.join("refs")).unwrap()
        }),
        ("bad config", &|| {
            fs::write(store.join("config"), "[core\n\0").unwrap();
        }),
        ("empty", &|| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("a file", &|| {
            fs::remove_dir_all(store).unwrap();
            fs::write(store, "x").unwrap();
        }),
    ];
    for (what, hurt) in hurts {
        world.fetch(commit, 1);
        hurt();
        let reopened = Store::open(store).unwrap();
        assert!(!reopened.contains(commit), "{what}");
        world.fetch(commit, 1);
        world.assert_same(commit);
    }
}

#[test]
fn a_summary_is_printable() {
    let world = World::new();
    world.commit("file", "1");
    let message = "  first \u{1b}[31mline\n\nbody";
    let date = "1700000000 +0000";
    let done = git_command(
        &world.upstream(),
        &["commit", "-q", "--amend", "-m", message],
    )
    .env("GIT_COMMITTER_DATE", date)
    .status()
    .unwrap();
    assert!(done.success());
    let commit = id(&git(&world.upstream(), &["rev-parse", "HEAD"]));
    world.fetch(commit, 1);
    let info = world.store.summary(commit).unwrap();
    assert_eq!(info.subject, "first \\u{1b}[31mline");
    assert_eq!(info.author, "T");
    assert_eq!(info.time.seconds(), 1_700_000_000);
    let absent = id("0123456789012345678901234567890123456789");
    assert_eq!(
        world.store.summary(absent).unwrap_err().reason,
        Reason::Store
    );
}

#[test]
fn a_summary_is_no_longer_than_a_line_of_a_log() {
    let world = World::new();
    world.commit("file", "1");
    let message = "é".repeat(50_000);
    let done = git_command(
        &world.upstream(),
        &["commit", "-q", "--amend", "-m", &message],
    )
    .status()
    .unwrap();
    assert!(done.success());
    let commit = id(&git(&world.upstream(), &["rev-parse", "HEAD"]));
    world.fetch(commit, 1);
    let subject = world.store.summary(commit).unwrap().subject;
    assert!(subject.starts_with("éé") && subject.chars().count() < 300);
}

/// Gives a stream to `git fast-import` upstream.
fn import(world: &World, stream: &str) {
    let mut child = git_command(&world.upstream(), &["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(stream.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// A history of many small commits on a larger tree, made in one go: oldest first.
fn long_history(world: &World, updates: usize) -> Vec<Commit> {
    let mut stream = String::new();
    for update in 0..=updates {
        let data = |text: &str| format!("data {}\n{text}\n", text.len());
        stream.push_str("commit refs/heads/main\n");
        stream.push_str(&format!(
            "committer T <t@example.org> {} +0000\n",
            1_700_000_000 + update
        ));
        stream.push_str(&data(&format!("update {update}")));
        if update == 0 {
            for n in 0..2000 {
                let noise: String = (0..1500).map(|_| fastrand::alphanumeric()).collect();
                stream.push_str(&format!("M 100644 inline d{}/f{n}\n", n % 40));
                stream.push_str(&data(&noise));
            }
        } else {
            let n = update * 7 % 2000;
            stream.push_str(&format!("M 100644 inline d{}/f{n}\n", n % 40));
            stream.push_str(&data(&format!("changed by {update}\n")));
        }
    }
    import(world, &stream);
    git(&world.upstream(), &["rev-list", "--reverse", "main"])
        .lines()
        .map(id)
        .collect()
}

fn disk_usage(dir: &Path) -> u64 {
    files(dir)
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum()
}

#[test]
fn hundreds_of_updates_leave_few_packs_and_little_garbage() {
    let world = World::new();
    let commits = long_history(&world, 200);
    let mut rewrites = 0;
    for pair in commits.windows(2) {
        world.fetch(pair[1], 1);
        let maintained = world.store.maintain(pair, &budget()).unwrap();
        rewrites += usize::from(maintained.rewritten);
        assert!(maintained.packs <= 20, "{maintained:?}");
        assert!(world.store.shallow().len() <= 40);
        assert!(world.store.contains(pair[1]));
    }
    assert!((10..50).contains(&rewrites), "{rewrites}");
    let last = commits.last().unwrap();
    world.assert_same(*last);
    world.assert_same(commits[commits.len() - 2]);
    let url = format!("file://{}", world.upstream().display());
    let clone = world.dir.path().join("clone.git");
    let clone = clone.to_str().unwrap();
    git(
        world.dir.path(),
        &["clone", "-q", "--bare", "--depth", "1", &url, clone],
    );
    let fresh = disk_usage(&Path::new(clone).join("objects"));
    let ours = disk_usage(&world.store.path().join("objects"));
    assert!(ours <= 2 * fresh, "{ours} {fresh}");
}

#[test]
fn replacing_everything_again_and_again_is_cleaned_up() {
    let world = World::new();
    let mut previous = None;
    let mut sizes = Vec::new();
    for round in 0..8 {
        for n in 0..8 {
            let noise: String = (0..100_000).map(|_| fastrand::alphanumeric()).collect();
            fs::write(world.upstream().join(format!("f{n}")), noise).unwrap();
        }
        let commit = world.commit("round", &round.to_string());
        world.fetch(commit, 1);
        let retained: Vec<_> = previous.into_iter().chain([commit]).collect();
        let maintained = world.store.maintain(&retained, &budget()).unwrap();
        sizes.push(maintained.bytes);
        world.assert_same(commit);
        previous = Some(commit);
    }
    // Two retained commits of 600 kB each, twice that, and the slack of a megabyte.
    assert!(sizes.iter().all(|bytes| *bytes < 3_700_000), "{sizes:?}");
}

#[test]
fn a_commit_that_pruning_took_apart_is_not_claimed_and_can_be_fetched_again() {
    let world = World::new();
    let commits = long_history(&world, 60);
    for commit in &commits {
        world.fetch(*commit, 1);
        world.store.maintain(&[*commit], &budget()).unwrap();
    }
    let last = *commits.last().unwrap();
    assert_eq!(world.store.haves(), [last]);
    let mut fetched = 0;
    for commit in commits.iter().step_by(9) {
        if !world.store.contains(*commit) {
            world.fetch(*commit, 1);
            fetched += 1;
        }
        world.assert_same(*commit);
    }
    assert!(fetched > 0, "pruning took nothing apart");
}

#[test]
fn a_retained_commit_that_was_never_fetched_by_name_is_kept() {
    let world = World::new();
    let first = world.commit("file", "1");
    let second = world.commit("file", "2");
    world.fetch(second, 0);
    assert!(world.store.contains(first));
    world.store.maintain(&[first], &budget()).unwrap();
    assert_eq!(world.store.haves(), [first]);
}

#[test]
fn interrupted_maintenance_changes_nothing_for_readers() {
    let world = World::new();
    let commits = long_history(&world, 30);
    for commit in &commits {
        world.fetch(*commit, 1);
    }
    let last = *commits.last().unwrap();
    let spent = Budget::new(Duration::ZERO, Duration::ZERO, Arc::default());
    let error = world.store.maintain(&[last], &spent).unwrap_err();
    assert_eq!(error.reason, Reason::Timeout);
    let packs = world.files();
    world.assert_same(last);
    assert!(packs.len() > 40);
    let maintained = world.store.maintain(&[last], &budget()).unwrap();
    assert!(
        maintained.rewritten && maintained.packs <= 9,
        "{maintained:?}"
    );
    world.assert_same(last);
}

#[test]
fn hundreds_of_packs_that_nobody_rolled_up_become_few_again() {
    let world = World::new();
    let commits = long_history(&world, 130);
    for commit in &commits {
        world.fetch(*commit, 1);
    }
    let last = *commits.last().unwrap();
    let packs: Vec<_> = (0..3)
        .map(|_| world.store.maintain(&[last], &budget()).unwrap().packs)
        .collect();
    assert!(packs[0] > 17 && packs[2] <= 17, "{packs:?}");
    world.assert_same(last);
}

/// Revisions of one text, each of which differs from the next by a line, and as many kilobytes of
/// noise beside it as are asked for: oldest first.
fn revisions(world: &World, count: usize, noise: usize) -> Vec<Commit> {
    let mut lines: Vec<String> = (0..3000)
        .map(|_| (0..40).map(|_| fastrand::alphanumeric()).collect())
        .collect();
    (0..count)
        .map(|n| {
            // Longer than before: git makes the smaller text a delta of the larger.
            lines[n * 7] = format!("{:50}", format!("revision {n}"));
            if n > 0 && noise > 0 {
                let noise: Vec<u8> = (0..noise << 10).map(|_| fastrand::u8(..)).collect();
                fs::write(world.upstream().join("noise"), noise).unwrap();
            }
            world.commit("text", &lines.join("\n"))
        })
        .collect()
}

/// Id, offset and depth of the objects in the packs of the store, as git reads them.
fn packed(world: &World) -> Vec<(PathBuf, String, u64, u32)> {
    let indexes: Vec<_> = world
        .files()
        .into_iter()
        .filter(|file| file.ends_with(".idx"))
        .collect();
    let mut found = Vec::new();
    for index in indexes {
        let listed = git(world.store.path(), &["verify-pack", "-v", &index]);
        for line in listed.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if words.len() < 5 || words[0].len() != 40 {
                continue;
            }
            let depth = words.get(5).map_or(0, |depth| depth.parse().unwrap());
            let pack = PathBuf::from(&index).with_extension("pack");
            found.push((pack, words[0].to_owned(), words[4].parse().unwrap(), depth));
        }
    }
    found
}

fn blob(world: &World, commit: Commit, path: &str) -> String {
    git(
        &world.upstream(),
        &["rev-parse", &format!("{commit}:{path}")],
    )
}

/// A store with two packs, most of which the first commit does not need: its text is the last of a
/// chain of deltas whose bases are garbage.
fn store_with_a_chain(world: &World, options: &[&str]) -> Vec<Commit> {
    let commits = revisions(world, 12, 200);
    let (first, last) = (commits[0], commits[11]);
    let mut options = options.to_vec();
    options.extend(["--window=10", "--threads=1"]);
    let pack = world.pack(&options, &format!("{last}\n"));
    world.take(&pack, last).unwrap();
    let pack = world.pack(&options, &format!("{first}\n"));
    world.take(&pack, first).unwrap();
    let text = blob(world, first, "text");
    let depth = packed(world)
        .into_iter()
        .filter(|object| object.1 == text)
        .map(|object| object.3);
    assert!(depth.max() > Some(2), "git did not make a chain");
    commits
}

#[test]
fn a_rewrite_copies_deltas_with_the_bases_that_they_need() {
    for options in [&["--delta-base-offset"][..], &[]] {
        let world = World::new();
        let commits = store_with_a_chain(&world, options);
        let (first, last) = (commits[0], commits[11]);
        // The short pack goes, so that the chain is all there is.
        let text = blob(&world, first, "text");
        let whole = packed(&world)
            .into_iter()
            .find(|object| object.1 == text && object.3 == 0)
            .unwrap();
        fs::remove_file(whole.0.with_extension("idx")).unwrap();
        fs::remove_file(whole.0).unwrap();
        let extra = world.commit("extra", "x");
        let pack = world.pack(&[], &format!("{extra}\n^{last}\n"));
        world.take(&pack, extra).unwrap();
        world.assert_same(first);

        let maintained = world.store.maintain(&[first], &budget()).unwrap();
        assert!(maintained.rewritten, "{options:?} {maintained:?}");
        assert_eq!(maintained.packs, 1);
        assert!(maintained.bytes < 500_000, "{options:?} {maintained:?}");
        git(world.store.path(), &["fsck", "--full", "--strict"]);
        world.assert_same(first);
        let objects = packed(&world);
        let depth = objects.iter().find(|o| o.1 == text).map(|o| o.3);
        assert!(depth > Some(2), "{options:?}: the delta was not copied");
        let newest = blob(&world, last, "text");
        assert!(objects.iter().any(|o| o.1 == newest), "no base");
        let noise = blob(&world, last, "noise");
        assert!(!objects.iter().any(|o| o.1 == noise), "garbage was kept");
        let show = ["cat-file", "blob", &text];
        assert_eq!(
            git(world.store.path(), &show),
            git(&world.upstream(), &show)
        );
    }
}

#[test]
fn a_rewrite_prefers_the_whole_copy_of_an_object() {
    let world = World::new();
    let commits = store_with_a_chain(&world, &["--delta-base-offset"]);
    let maintained = world.store.maintain(&[commits[0]], &budget()).unwrap();
    assert!(maintained.rewritten);
    let objects = packed(&world);
    // A commit, a tree, and the text.
    assert_eq!(objects.len(), 3, "{objects:?}");
    world.assert_same(commits[0]);
}

#[test]
fn completed_thin_packs_are_rolled_up_without_longer_and_longer_chains() {
    let world = World::new();
    let commits = revisions(&world, 70, 0);
    let pack = world.pack(&[], &format!("{}\n", commits[0]));
    world.take(&pack, commits[0]).unwrap();
    let mut rewrites = 0;
    for pair in commits.windows(2) {
        let thin = world.pack(&["--thin"], &format!("{}\n^{}\n", pair[1], pair[0]));
        assert!(thin.len() < 2000, "git did not make a thin pack");
        world.take(&thin, pair[1]).unwrap();
        fs::write(
            world.store.path().join("shallow"),
            format!("{}\n{}\n", pair[0], pair[1]),
        )
        .unwrap();
        let maintained = world.store.maintain(pair, &budget()).unwrap();
        rewrites += usize::from(maintained.rewritten);
        assert!(maintained.packs <= 17, "{maintained:?}");
        assert!(maintained.bytes < 4_000_000, "{maintained:?}");
        world.assert_same(pair[1]);
    }
    assert!(rewrites >= 4, "{rewrites}");
    let deepest = packed(&world).iter().map(|object| object.3).max();
    assert!(deepest <= Some(2), "{deepest:?}");
}

#[test]
fn a_damaged_pack_is_left_alone_and_the_store_stays_small_beside_it() {
    for hurt in ["type", "data", "end"] {
        let world = World::new();
        let commits = store_with_a_chain(&world, &["--delta-base-offset"]);
        let text = blob(&world, commits[0], "text");
        for (pack, _, offset, _) in packed(&world).iter().filter(|object| object.1 == text) {
            let mut bytes = fs::read(pack).unwrap();
            let at = *offset as usize;
            match hurt {
                "type" => bytes[at] ^= 0x10,
                "data" => bytes[at + 40] ^= 0x10,
                _ => bytes.truncate(at + 1),
            }
            fs::remove_file(pack).unwrap();
            fs::write(pack, bytes).unwrap();
        }
        let before = world.files();
        let error = world.store.maintain(&commits[..1], &budget()).unwrap_err();
        assert_eq!(error.reason, Reason::Store, "{hurt}: {}", error.chain());
        assert_eq!(world.files(), before, "{hurt}");
        if hurt == "end" {
            // Its index tells that to whoever opens it.
            continue;
        }
        let mut previous = commits[0];
        let bytes = disk_usage(&world.store.path().join("objects"));
        for n in 0..40 {
            let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
            fs::write(world.upstream().join("noise"), noise).unwrap();
            let commit = world.commit("n", &n.to_string());
            world.fetch(commit, 1);
            let retained = [previous, commit];
            let maintained = world.store.maintain(&retained, &budget()).unwrap();
            assert!(maintained.packs <= 20, "{hurt}: {maintained:?}");
            assert!(
                maintained.bytes < 2 * bytes + 3_000_000,
                "{hurt}: {maintained:?}"
            );
            previous = commit;
        }
        for file in &before {
            assert!(
                fs::exists(file).unwrap() || !file.contains("/pack/"),
                "{hurt}: {file}"
            );
        }
    }
}

/// Two commits of 3,100 files, each of which the second changes by a line.
fn two_large_commits(world: &World) -> (Commit, Commit) {
    let mut stream = String::new();
    let data = |text: &str| format!("data {}\n{text}\n", text.len());
    let noise: Vec<String> = (0..3100)
        .map(|_| (0..300).map(|_| fastrand::alphanumeric()).collect())
        .collect();
    for line in ["first", "second"] {
        stream.push_str("commit refs/heads/main\ncommitter T <t@example.org> 1700000000 +0000\n");
        stream.push_str(&data(line));
        for (n, noise) in noise.iter().enumerate() {
            stream.push_str(&format!("M 100644 inline d{}/f{n}\n", n % 40));
            stream.push_str(&data(&format!("{noise}\n{line}\n")));
        }
    }
    import(world, &stream);
    let commit = |name| id(&git(&world.upstream(), &["rev-parse", name]));
    (commit("main~1"), commit("main"))
}

fn take_thin(world: &World, bytes: &[u8], want: Commit) -> Result<(), SyncError> {
    let mut receiving = world.store.receive(&budget(), NO_LIMIT)?;
    receiving.expect_thin();
    // The header arrives in pieces, too.
    receiving.write(&bytes[..5.min(bytes.len())])?;
    for chunk in bytes[5.min(bytes.len())..].chunks(7000) {
        receiving.write(chunk)?;
    }
    receiving.finish(&Fetched::default(), &[want])
}

#[test]
fn a_thin_pack_of_thousands_of_deltas_is_completed() {
    for (options, self_contained) in [(&["--thin"][..], false), (&[], true)] {
        let world = World::new();
        let (first, second) = two_large_commits(&world);
        let whole = world.pack(&[], &format!("{first}\n"));
        world.take(&whole, first).unwrap();
        let range = format!("{second}\n^{first}\n");
        let pack = world.pack(options, &range);
        assert_eq!(pack.len() > 600_000, self_contained, "{}", pack.len());
        take_thin(&world, &pack, second).unwrap();
        git(world.store.path(), &["fsck", "--full", "--strict"]);
        world.assert_same(first);
        world.assert_same(second);
        let leftovers: Vec<_> = world
            .files()
            .into_iter()
            .filter(|file| !file.ends_with(".pack") && !file.ends_with(".idx"))
            .collect();
        assert_eq!(leftovers, Vec::<String>::new());
    }
}

#[test]
fn a_base_that_a_thin_pack_holds_as_well_is_taken_from_there() {
    let world = World::new();
    let (first, second) = two_large_commits(&world);
    let whole = world.pack(&[], &format!("{first}\n"));
    world.take(&whole, first).unwrap();
    // Bases by id, all of which the pack and the store hold.
    let both = world.pack(&["--window=10"], &format!("{second}\n{first}\n"));
    take_thin(&world, &both, second).unwrap();
    git(world.store.path(), &["fsck", "--full", "--strict"]);
    world.assert_same(second);
}

#[test]
fn a_large_thin_pack_that_is_cut_damaged_or_lacks_a_base_is_refused_and_leaves_nothing() {
    let world = World::new();
    let (first, second) = two_large_commits(&world);
    let range = format!("{second}\n^{first}\n");
    let thin = world.pack(&["--thin"], &range);
    let error = take_thin(&world, &thin, second).unwrap_err();
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
    assert_eq!(world.files(), Vec::<String>::new());

    let whole = world.pack(&[], &format!("{first}\n"));
    world.take(&whole, first).unwrap();
    let before = world.files();
    for length in [11, 12, 40, thin.len() / 2, thin.len() - 20, thin.len() - 1] {
        let error = take_thin(&world, &thin[..length], second).unwrap_err();
        assert_eq!(error.reason, Reason::Network, "{length}: {}", error.chain());
        assert_eq!(world.files(), before, "{length}");
    }
    for at in [12, 40, thin.len() / 2, thin.len() - 1] {
        let mut hurt = thin.clone();
        hurt[at] ^= 0x55;
        let error = take_thin(&world, &hurt, second).unwrap_err();
        assert_ne!(error.reason, Reason::Other, "{at}: {}", error.chain());
        assert_eq!(world.files(), before, "{at}");
    }
    let mut longer = thin.clone();
    longer.extend(b"more");
    take_thin(&world, &longer, second).unwrap_err();
    assert_eq!(world.files(), before);
}
