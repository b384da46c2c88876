//! Trees against the oracle: what real git checks out of the same commit.

mod large;
mod spare;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, SyncError};
use git_volume_reloader::base::repo_url::RepoUrl;
use git_volume_reloader::manifest::{self, Header};
use git_volume_reloader::tree::{
    Base, BuildRequest, Built, Share, Spare, Sparse, SubmoduleMode, TreeOptions, build,
    changed_under, submodules,
};
use tempfile::TempDir;

use crate::support::git_oracle::{Origin, Snapshot, assert_same, inode, run, snapshot};

fn budget() -> Budget {
    Budget::new(
        Duration::from_secs(60),
        Duration::from_secs(60),
        Arc::default(),
    )
}

/// An origin, and the revisions built from it.
struct Bench {
    temp: TempDir,
    origin: Origin,
    count: usize,
    last: Option<PathBuf>,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let origin = Origin::new(temp.path().join("origin"));
        Self {
            temp,
            origin,
            count: 0,
            last: None,
        }
    }

    /// Builds into a new directory, sharing from the last revision; and before that with links to
    /// its files that were made ahead, which must come to the same.
    fn try_build(
        &mut self,
        commit: Commit,
        options: &TreeOptions,
    ) -> Result<(PathBuf, Built), SyncError> {
        let dir = self.temp.path().join(format!("revision-{}", self.count));
        self.count += 1;
        let mut ahead = Vec::new();
        if self.last.is_some() {
            for directories in [2, usize::MAX] {
                let dir = dir.with_extension("ahead");
                let spare = dir.with_extension("spare");
                self.link_ahead(&spare, directories, options);
                let built = self.build_into(&dir, Some(&spare), commit, options);
                ahead.push(built.map(|(tree, built)| (snapshot(&tree), built)));
                fs::remove_dir_all(dir).unwrap();
                fs::remove_dir_all(spare).unwrap();
            }
        }
        let result = self.build_into(&dir, None, commit, options);
        for ahead in ahead {
            match (ahead, &result) {
                (Ok((ahead, built)), Ok((tree, expected))) => {
                    assert_same(&ahead, &snapshot(tree));
                    // Which paths are named depends on which worker comes first.
                    let unnamed = |built: &Built| Built {
                        unfiltered: Vec::new(),
                        unpopulated: Vec::new(),
                        shared_fallback: None,
                        ..built.clone()
                    };
                    assert_eq!(unnamed(&built), unnamed(expected));
                }
                (Err(ahead), Err(error)) => assert_eq!(ahead.reason, error.reason),
                (ahead, _) => panic!("{ahead:?} ahead, and {result:?} without"),
            }
        }
        if result.is_ok() {
            self.last = Some(dir);
        }
        result
    }

    /// Links so many directories of the last revision.
    fn link_ahead(&self, spare: &Path, directories: usize, options: &TreeOptions) {
        fs::create_dir(spare).unwrap();
        let last = self.last.as_ref().unwrap();
        let base = Base {
            tree: &last.join("tree"),
            manifest: &last.join("manifest"),
        };
        // A revision that is damaged, or elsewhere, is not linked.
        if let Ok(mut filling) = Spare::begin(&base, spare, options) {
            let left = Cell::new(directories);
            let go_on = || left.replace(left.get().saturating_sub(1)) > 0;
            let _ = filling.fill(&go_on);
        }
    }

    fn build_into(
        &self,
        dir: &Path,
        spare: Option<&Path>,
        commit: Commit,
        options: &TreeOptions,
    ) -> Result<(PathBuf, Built), SyncError> {
        let tree = dir.join("tree");
        fs::create_dir_all(&tree).unwrap();
        let base = self
            .last
            .as_ref()
            .map(|dir| (dir.join("tree"), dir.join("manifest")));
        let built = build(
            &BuildRequest {
                store: &self.origin.store(),
                commit,
                destination: &tree,
                manifest: &dir.join("manifest"),
                base: base
                    .as_ref()
                    .map(|(tree, manifest)| Base { tree, manifest }),
                spare,
                options,
            },
            &budget(),
        )?;
        assert_eq!(verify(&tree), None);
        Ok((tree, built))
    }

    fn build(&mut self, commit: Commit, options: &TreeOptions) -> (PathBuf, Built) {
        self.try_build(commit, options)
            .unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    fn refused(&mut self, commit: Commit, options: &TreeOptions) -> SyncError {
        match self.try_build(commit, options) {
            Err(error) => error,
            Ok((tree, _)) => panic!("it was built: {:?}", snapshot(&tree).keys()),
        }
    }

    fn gits(&self, commit: Commit) -> Snapshot {
        let dir = self.temp.path().join(format!("git-{commit}"));
        if !dir.exists() {
            self.origin.checkout(commit, &dir);
        }
        snapshot(&dir)
    }

    /// Builds afresh and from the last revision, and compares both with what git checks out.
    fn same_as_git(&mut self, commit: Commit) -> (PathBuf, Built) {
        let gits = self.gits(commit);
        let last = self.last.take();
        let (tree, _) = self.build(commit, &TreeOptions::default());
        assert_same(&snapshot(&tree), &gits);
        self.last = last;
        let built = self.build(commit, &TreeOptions::default());
        assert_same(&snapshot(&built.0), &gits);
        built
    }
}

fn verify(tree: &Path) -> Option<String> {
    manifest::verify(tree, &tree.parent().unwrap().join("manifest"), &budget()).unwrap()
}

#[test]
fn modes_links_and_plain_files_are_as_git_writes_them() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("a/b/c.txt", "text\n")
        .put("empty", "")
        .put_mode("100755", "bin/run", "#!/bin/sh\n")
        .put_mode("120000", "to-file", "a/b/c.txt")
        .put_mode("120000", "a/dangling", "../nowhere")
        .put_mode("120000", "absolute", "/etc/passwd");
    let commit = bench.origin.commit();
    let (tree, built) = bench.same_as_git(commit);
    assert_eq!(built.files_written, 6);
    assert_eq!(built.entries, 9);
    let header = Header::read(&tree.parent().unwrap().join("manifest")).unwrap();
    assert_eq!(header.commit, commit);
    assert_eq!(header.fingerprint, TreeOptions::default().fingerprint());
}

#[test]
fn any_name_that_git_can_hold_is_written() {
    let mut bench = Bench::new();
    let long = [b'n'; 250];
    bench
        .origin
        .put(b"latin-\xe9\xff", "not UTF-8")
        .put("line\nbreak/tab\t", "x")
        .put("Case", "upper")
        .put("case", "lower")
        .put(long, "long")
        .put("back\\slash", "x")
        .put(" leading and trailing ", "x")
        .put("-dash", "x")
        .put("...", "x")
        .put(".gitignore", "*\n");
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
}

#[test]
fn paths_of_four_thousand_bytes_are_written_and_longer_ones_refused() {
    let mut bench = Bench::new();
    let mut tree = bench
        .origin
        .raw_tree(&[("100644", b"leaf", &bench.origin.blob(b"deep"))]);
    for _ in 0..1995 {
        tree = bench.origin.raw_tree(&[("40000", b"d", &tree)]);
    }
    let commit = bench.origin.commit_tree(&tree);
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!((built.files_written, built.entries), (1, 1996));
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!((built.files_shared, built.entries), (1, 1996));
    for _ in 0..60 {
        tree = bench.origin.raw_tree(&[("40000", b"d", &tree)]);
    }
    let commit = bench.origin.commit_tree(&tree);
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Limit, "{error}");
}

#[test]
fn a_deep_tree_with_work_at_every_level_does_not_run_out_of_descriptors() {
    let mut bench = Bench::new();
    let leaf = bench.origin.blob(b"x");
    let other = bench.origin.raw_tree(&[("100644", b"f", &leaf)]);
    let mut tree = other.clone();
    for _ in 0..800 {
        tree = bench
            .origin
            .raw_tree(&[("40000", b"a", &tree), ("40000", b"z", &other)]);
    }
    let commit = bench.origin.commit_tree(&tree);
    for _ in 0..2 {
        let (tree, _) = bench.build(commit, &TreeOptions::default());
        assert!(tree.join("a/a/a/z/f").exists());
    }
}

#[test]
fn a_wide_directory_is_cut_into_parts_and_shared_in_parts() {
    let mut bench = Bench::new();
    let blob = bench.origin.blob(b"x");
    let names: Vec<String> = (0..1500).map(|n| format!("f{n:05}")).collect();
    let mut entries: Vec<(&str, &[u8], &str)> = names
        .iter()
        .map(|name| ("100644", name.as_bytes(), blob.as_str()))
        .collect();
    let wide = bench.origin.raw_tree(&entries);
    let root = bench.origin.raw_tree(&[("40000", b"wide", &wide)]);
    let first = bench.origin.commit_tree(&root);
    bench.same_as_git(first);
    let (_, again) = bench.build(first, &TreeOptions::default());
    assert_eq!((again.files_shared, again.files_written), (1500, 0));
    let changed = bench.origin.blob(b"y");
    entries[1033].2 = &changed;
    let wide = bench.origin.raw_tree(&entries);
    let root = bench.origin.raw_tree(&[("40000", b"wide", &wide)]);
    let second = bench.origin.commit_tree(&root);
    let gits = bench.gits(second);
    let (tree, built) = bench.build(second, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (1499, 1));
    assert_same(&snapshot(&tree), &gits);
}

#[test]
fn files_directories_and_links_may_take_each_others_place() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("swap/inner", "file in a directory")
        .put("other", "a file")
        .put_mode("120000", "link", "other")
        .put("stay", "same");
    let first = bench.origin.commit();
    bench.same_as_git(first);
    for path in ["swap", "other", "link"] {
        bench.origin.remove(path);
    }
    bench
        .origin
        .put_mode("120000", "swap", "stay")
        .put("other/inner", "a directory now")
        .put("link", "a file now");
    let second = bench.origin.commit();
    let (_, built) = bench.same_as_git(second);
    assert_eq!(built.files_shared, 1);
    bench.same_as_git(first);
}

#[test]
fn an_empty_tree_leaves_nothing() {
    let mut bench = Bench::new();
    let empty = bench.origin.raw_tree(&[]);
    let commit = bench.origin.commit_tree(&empty);
    bench.same_as_git(commit);
    let nested = bench.origin.raw_tree(&[("40000", b"empty", &empty)]);
    let root = bench.origin.raw_tree(&[
        ("100644", b"file", &bench.origin.blob(b"")),
        ("40000", b"nested", &nested),
    ]);
    let commit = bench.origin.commit_tree(&root);
    bench.same_as_git(commit);
}

#[test]
fn a_changed_file_is_written_and_the_rest_is_linked() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("a/same", "same")
        .put("b/same", "same too")
        .put("b/changed", "one")
        .put_mode("120000", "b/link", "same");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put("b/changed", "two");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (3, 1));
    assert_eq!(built.shared_fallback, None);
    for path in ["a/same", "b/same", "b/link"] {
        assert_eq!(inode(before.join(path)), inode(after.join(path)), "{path}");
    }
    assert_ne!(
        inode(before.join("b/changed")),
        inode(after.join("b/changed"))
    );
    assert_same(&snapshot(&after), &bench.gits(second));
    assert_same(&snapshot(&before), &bench.gits(first));
}

#[test]
fn a_sub_tree_that_did_not_change_is_shared_without_reading_objects() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("quiet/deep/file", "unread")
        .put("top", "1");
    let first = bench.origin.commit();
    bench.build(first, &TreeOptions::default());
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    // Without its objects, the sub-tree can only come from the previous revision.
    let ids = ["quiet", "quiet/deep", "quiet/deep/file"]
        .map(|object| run(&bench.origin.dir, &["rev-parse", &format!("HEAD:{object}")]));
    for id in ids {
        let (start, rest) = id.split_at(2);
        fs::remove_file(bench.origin.store().join("objects").join(start).join(rest)).unwrap();
    }
    let (tree, _) = bench.build(second, &TreeOptions::default());
    assert_eq!(fs::read(tree.join("quiet/deep/file")).unwrap(), b"unread");
    bench.last = None;
    let error = bench.refused(second, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store, "{error}");
}

#[test]
fn a_file_that_a_consumer_altered_is_not_shared_onward() {
    let mut bench = Bench::new();
    for name in ["grown", "touched", "opened", "replaced", "gone", "kept"] {
        bench.origin.put(format!("d/{name}"), "content");
    }
    bench.origin.put_mode("120000", "d/relinked", "kept");
    bench.origin.put("top", "1");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    fs::write(before.join("d/grown"), "content, and more").unwrap();
    fs::write(before.join("d/touched"), "CONTENT").unwrap();
    fs::set_permissions(before.join("d/opened"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(before.join("d/replaced")).unwrap();
    symlink("kept", before.join("d/replaced")).unwrap();
    fs::remove_file(before.join("d/gone")).unwrap();
    bench.origin.put("top", "2");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_same(&snapshot(&after), &bench.gits(second));
    assert_eq!((built.files_shared, built.files_written), (2, 6));
}

#[test]
fn a_revision_that_is_gone_or_damaged_is_not_shared_from() {
    let mut bench = Bench::new();
    bench.origin.put("file", "content");
    let commit = bench.origin.commit();
    let (tree, _) = bench.build(commit, &TreeOptions::default());
    let manifest = tree.parent().unwrap().join("manifest");
    let whole = fs::read(&manifest).unwrap();
    for length in [0, 10, whole.len() - 1] {
        fs::write(&manifest, &whole[..length]).unwrap();
        let dir = bench.last.clone();
        let (_, built) = bench.build(commit, &TreeOptions::default());
        assert_eq!((built.files_shared, built.files_written), (0, 1));
        assert!(built.shared_fallback.is_some());
        bench.last = dir;
    }
    fs::write(&manifest, vec![0; whole.len()]).unwrap();
    assert!(verify(&tree).is_some());
    fs::write(&manifest, whole).unwrap();
    fs::remove_dir_all(&tree).unwrap();
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (0, 1));
}

/// Mounts what the test needs over a directory; undone on drop.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&at)
            .status()
            .expect("mount starts");
        assert!(status.success(), "cannot mount a tmpfs: root is needed");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_base_on_another_file_system_is_copied_from_the_store() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1").put("d/b", "2");
    let commit = bench.origin.commit();
    let _mount = Mount::tmpfs(bench.temp.path().join("revision-0"));
    bench.build(commit, &TreeOptions::default());
    let (tree, built) = bench.build(commit, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(commit));
    assert_eq!((built.files_shared, built.files_written), (0, 2));
    let why = built.shared_fallback.unwrap();
    assert!(why.contains("hard-linked"), "{why}");
}

#[test]
fn a_file_with_as_many_links_as_its_file_system_allows_is_written_anew() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1").put("d/b", "2");
    let commit = bench.origin.commit();
    let (tree, _) = bench.build(commit, &TreeOptions::default());
    let links = bench.temp.path().join("links");
    fs::create_dir(&links).unwrap();
    let mut made = 0_u32;
    // ext4 stops at 65,000; a file system without a limit has nothing to show here.
    while made < 66_000 && fs::hard_link(tree.join("a"), links.join(made.to_string())).is_ok() {
        made += 1;
    }
    let (after, built) = bench.build(commit, &TreeOptions::default());
    assert_same(&snapshot(&after), &bench.gits(commit));
    assert_eq!(inode(tree.join("d/b")), inode(after.join("d/b")));
    assert_eq!(built.shared_fallback.is_some(), made < 66_000);
    assert_eq!(built.files_written, u64::from(made < 66_000));
}

#[test]
fn sharing_by_clones_falls_back_where_the_file_system_has_none() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1").put_mode("120000", "l", "a");
    let commit = bench.origin.commit();
    let options = TreeOptions {
        share: Share::Reflink,
        ..TreeOptions::default()
    };
    let (before, _) = bench.build(commit, &options);
    let (after, built) = bench.build(commit, &options);
    assert_same(&snapshot(&after), &bench.gits(commit));
    assert_ne!(inode(before.join("a")), inode(after.join("a")));
    // Either the clone worked, or it is said why not.
    assert_eq!(
        built.files_shared,
        u64::from(built.shared_fallback.is_none())
    );
}

#[test]
fn nothing_is_shared_if_sharing_is_off() {
    let mut bench = Bench::new();
    bench.origin.put("a", "1");
    let commit = bench.origin.commit();
    let options = TreeOptions {
        share: Share::None,
        ..TreeOptions::default()
    };
    let (before, _) = bench.build(commit, &options);
    let (after, _) = bench.build(commit, &options);
    assert_ne!(inode(before.join("a")), inode(after.join("a")));
}

#[test]
fn group_write_gives_the_group_what_the_owner_has() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("d/file", "1")
        .put_mode("100755", "d/run", "2");
    let commit = bench.origin.commit();
    bench.build(commit, &TreeOptions::default());
    let options = TreeOptions {
        group_write: true,
        ..TreeOptions::default()
    };
    assert_ne!(options.fingerprint(), TreeOptions::default().fingerprint());
    let (tree, built) = bench.build(commit, &options);
    assert_eq!(built.files_shared, 0);
    for path in ["d", "d/file", "d/run"] {
        let mode = fs::metadata(tree.join(path)).unwrap().mode();
        assert_eq!(mode & 0o060, 0o060, "{path}: {mode:o}");
        assert_eq!(mode & 0o002, 0, "{path}: {mode:o}");
    }
    let (_, built) = bench.build(commit, &options);
    assert_eq!(built.files_shared, 2);
}

#[test]
fn what_happens_to_a_published_file_is_damage() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("d/file", "content")
        .put_mode("120000", "d/link", "file")
        .put("e/only", "x");
    let commit = bench.origin.commit();
    let (tree, _) = bench.build(commit, &TreeOptions::default());
    fs::write(tree.join("d/extra"), "a consumer's own").unwrap();
    assert_eq!(verify(&tree), None);
    type Harm = fn(&Path);
    let damage: [(&str, Harm); 7] = [
        ("d/file has another size", |tree| {
            fs::write(tree.join("d/file"), "").unwrap();
        }),
        ("d/file was modified", |tree| {
            fs::write(tree.join("d/file"), "CONTENT").unwrap();
        }),
        ("d/file has other permissions", |tree| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(tree.join("d/file"), mode).unwrap();
        }),
        ("d/link points elsewhere", |tree| {
            fs::remove_file(tree.join("d/link")).unwrap();
            symlink("fill", tree.join("d/link")).unwrap();
        }),
        ("d/file is of another type", |tree| {
            fs::remove_file(tree.join("d/file")).unwrap();
            fs::create_dir(tree.join("d/file")).unwrap();
        }),
        ("e is of another type", |tree| {
            fs::rename(tree.join("e"), tree.join("elsewhere")).unwrap();
            symlink("elsewhere", tree.join("e")).unwrap();
        }),
        ("e/only is gone, with its directory", |tree| {
            fs::remove_dir_all(tree.join("e")).unwrap();
        }),
    ];
    for (found, harm) in damage {
        bench.last = None;
        let (tree, _) = bench.build(commit, &TreeOptions::default());
        harm(&tree);
        assert_eq!(verify(&tree).as_deref(), Some(found));
    }
}

/// A matrix of contents, for every kind of line end and keyword.
fn put_contents(origin: &Origin, directory: &str) {
    let long_binary = [b"\x01\x02\x03".repeat(40), b"text\n".to_vec()].concat();
    let contents: [(&str, &[u8]); 16] = [
        ("lf", b"a\nb\n"),
        ("crlf", b"a\r\nb\r\n"),
        ("mixed", b"a\r\nb\n"),
        ("cr", b"a\rb\n"),
        ("nul", b"a\0b\n"),
        ("binary", &long_binary),
        ("dos", b"a\nb\n\x1a"),
        ("empty", b""),
        ("no-end", b"a"),
        ("utf8", "d\u{e9}j\u{e0} \u{20ac} \u{3042}\n".as_bytes()),
        ("latin", b"d\xe9j\xe0\n"),
        ("bom", b"\xef\xbb\xbfx\n"),
        ("ident", b"$Id$ $Id: x $\n$Id: a b c $ $Id:$ $Id: open\n"),
        ("ident-crlf", b"$Id: x\ny$\n$Id$"),
        ("latin1-text", "caf\u{e9}\n".as_bytes()),
        ("kana", "\u{30ab}\u{30ca} \u{6f22}\n".as_bytes()),
    ];
    for (name, content) in contents {
        origin.put(format!("{directory}/{name}"), content);
    }
}

#[test]
fn every_attribute_that_changes_a_file_does_as_in_git() {
    let mut bench = Bench::new();
    let attributes = [
        "eol=crlf",
        "eol=lf",
        "text",
        "-text",
        "text eol=crlf",
        "text=auto",
        "text=auto eol=crlf",
        "text=auto eol=lf",
        "text=input eol=crlf",
        "text=weird eol=crlf",
        "-text eol=crlf",
        "!text eol=crlf",
        "crlf eol=crlf",
        "-crlf eol=crlf",
        "binary eol=crlf",
        "-binary eol=crlf",
        "eol=other",
        "eol",
        "ident",
        "-ident",
        "ident=yes",
        "ident eol=crlf",
        "filter=nothing",
        "filter=lfs diff=lfs merge=lfs -text",
        "working-tree-encoding=UTF-16",
        "working-tree-encoding=UTF-16LE",
        "working-tree-encoding=UTF-16BE",
        "working-tree-encoding=UTF-16LE-BOM",
        "working-tree-encoding=utf-16be-bom",
        "working-tree-encoding=utf16",
        "working-tree-encoding=UTF-32",
        "working-tree-encoding=UTF-32LE",
        "working-tree-encoding=UTF-32BE",
        "working-tree-encoding=UTF-8",
        "working-tree-encoding=utf8",
        "working-tree-encoding=ISO-8859-1",
        "working-tree-encoding=latin1",
        "working-tree-encoding=ISO-8859-15",
        "working-tree-encoding=ISO-8859-9",
        "working-tree-encoding=windows-1252",
        "working-tree-encoding=SHIFT-JIS",
        "working-tree-encoding=GB18030",
        "working-tree-encoding=KOI8-R",
        "working-tree-encoding=ASCII",
        "working-tree-encoding=no-such-thing",
        "working-tree-encoding=",
        "-working-tree-encoding",
        "text ident eol=crlf working-tree-encoding=UTF-16LE-BOM",
    ];
    let mut text = String::new();
    for (number, attribute) in attributes.iter().enumerate() {
        let directory = format!("d{number:02}");
        put_contents(&bench.origin, &directory);
        text += &format!("{directory}/** {attribute}\n");
    }
    // EUC-JP without JIS X 0212, which our tables lack.
    bench.origin.put("euc/kana", "\u{30ab}\u{30ca} \u{6f22}\n");
    text += "euc/** working-tree-encoding=EUC-JP\n";
    bench.origin.put(".gitattributes", text);
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
}

#[test]
fn files_that_a_filter_is_missing_for_are_counted() {
    let mut bench = Bench::new();
    put_contents(&bench.origin, "d");
    bench.origin.put(".gitattributes", "d/** filter=lfs\n");
    let commit = bench.origin.commit();
    let (_, built) = bench.build(commit, &TreeOptions::default());
    let [said] = built.unfiltered.as_slice() else {
        panic!("{:?}", built.unfiltered);
    };
    assert!(said.starts_with("filter=lfs: d/"), "{said}");
    assert!(said.ends_with(" and 15 more"), "{said}");
}

#[test]
fn attribute_files_nest_override_and_define_macros_as_in_git() {
    let mut bench = Bench::new();
    for directory in ["", "sub/", "sub/deep/", "other/", "quo ted/"] {
        for name in [
            "a.txt",
            "b.TXT",
            "c.bat",
            "d.bin",
            "dollar.id",
            "[x].y",
            "e.txt.bak",
        ] {
            bench
                .origin
                .put(format!("{directory}{name}"), "line\n$Id$\n");
        }
    }
    bench
        .origin
        .put(
            ".gitattributes",
            "\u{feff}# comment\n\
             [attr]dos text eol=crlf\n[attr]both dos ident\n[attr]none !eol -ident\n\
             *.txt dos\n*.id both\n\"quo ted/c.bat\" ident\n/other/*.bat eol=crlf\n\
             sub/**/d.bin eol=crlf\n!negative eol=crlf\n*.bak bad=attr=ibute eol=crlf -\n\
             sub/ eol=crlf\n[[]x].y ident\r\n  *.bin   text  \n",
        )
        .put(
            "sub/.gitattributes",
            "*.txt !eol\nc.bat eol=crlf\n[attr]ignored eol=crlf\n*.bin ignored\n/a.txt ident\n",
        )
        .put(
            "sub/deep/.gitattributes",
            "* none\n*.bat dos\n*.txt binary eol=crlf\n",
        )
        .put(
            "other/.gitattributes",
            format!("a.txt {} eol=lf\n", "x".repeat(3000)),
        )
        .put_mode("120000", "quo ted/.gitattributes", "* ident");
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
}

#[test]
fn a_change_of_attributes_alone_rewrites_what_it_touches() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("sub/a.txt", "1\n")
        .put("sub/b.md", "2\n")
        .put("c.txt", "3\n");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put(".gitattributes", "*.txt eol=crlf\n");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_same(&snapshot(&after), &bench.gits(second));
    assert_eq!((built.files_shared, built.files_written), (1, 3));
    assert_eq!(
        inode(before.join("sub/b.md")),
        inode(after.join("sub/b.md"))
    );
    // Converted files are shared as well, and back again they are not.
    let (_, built) = bench.build(second, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (4, 0));
    let (tree, built) = bench.build(first, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(first));
    assert_eq!((built.files_shared, built.files_written), (1, 2));
}

#[test]
fn hostile_names_are_refused_before_anything_outside_is_touched() {
    let mut bench = Bench::new();
    let outside = bench.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let origin = &bench.origin;
    let blob = origin.blob(b"evil");
    let target = origin.blob(outside.to_str().unwrap().as_bytes());
    let inner = origin.raw_tree(&[("100644", b"evil", &blob)]);
    let trees = [
        origin.raw_tree(&[("100644", b"../outside/evil", &blob)]),
        origin.raw_tree(&[("40000", b"..", &inner)]),
        origin.raw_tree(&[("40000", b".", &inner)]),
        origin.raw_tree(&[("100644", b"", &blob)]),
        origin.raw_tree(&[("40000", b".git", &inner)]),
        origin.raw_tree(&[("40000", b".GIT", &inner)]),
        origin.raw_tree(&[("100644", b"git~1", &blob)]),
        origin.raw_tree(&[("40000", b".git ", &inner)]),
        origin.raw_tree(&[("120000", b".gitmodules", &blob)]),
        // Through a link of the same tree, in either order.
        origin.raw_tree(&[("120000", b"a", &target), ("40000", b"a", &inner)]),
        origin.raw_tree(&[("40000", b"a", &inner), ("120000", b"a", &target)]),
        // The same name twice.
        origin.raw_tree(&[("100644", b"a", &blob), ("100644", b"a", &blob)]),
        // Objects of another type than the tree says.
        origin.raw_tree(&[("100644", b"a", &inner)]),
        origin.raw_tree(&[("40000", b"a", &blob)]),
        // Links without a target, or with one that no link can have.
        origin.raw_tree(&[("120000", b"a", &origin.blob(b""))]),
        origin.raw_tree(&[("120000", b"a", &origin.blob(b"x\0y"))]),
        origin.raw_tree(&[("120000", b"a", &origin.blob(&[b'x'; 5000]))]),
        // An entry of no known type.
        origin.raw_tree(&[("10644", b"a", &blob)]),
    ];
    for tree in trees {
        let commit = bench.origin.commit_tree(&tree);
        let error = bench.refused(commit, &TreeOptions::default());
        assert_eq!(error.reason, Reason::Hostile, "{}", error.chain());
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert!(!bench.temp.path().join("evil").exists());
    }
}

#[test]
fn a_name_that_drives_terminals_is_escaped_in_the_error() {
    let mut bench = Bench::new();
    let blob = bench.origin.blob(b"x");
    let inner = bench.origin.raw_tree(&[("100644", b".git", &blob)]);
    let tree = bench.origin.raw_tree(&[("40000", b"\x1b[31m\n", &inner)]);
    let commit = bench.origin.commit_tree(&tree);
    let error = bench.refused(commit, &TreeOptions::default()).chain();
    assert!(!error.contains(['\u{1b}', '\n']), "{error:?}");
}

#[test]
fn limits_are_enforced_and_name_their_flags() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("a", vec![0; 1000])
        .put("d/b", vec![0; 1000]);
    let commit = bench.origin.commit();
    for (max_bytes, max_files, flag) in [
        (Some(1999), None, "--max-tree-bytes"),
        (None, Some(2), "--max-files"),
    ] {
        let options = TreeOptions {
            max_bytes,
            max_files,
            ..TreeOptions::default()
        };
        let error = bench.refused(commit, &options);
        assert_eq!(error.reason, Reason::Limit);
        assert!(error.hint().unwrap().contains(flag), "{:?}", error.hint());
    }
    let options = TreeOptions {
        max_bytes: Some(2000),
        max_files: Some(3),
        ..TreeOptions::default()
    };
    bench.build(commit, &options);
    // What is shared counts as well.
    let (_, built) = bench.build(commit, &options);
    assert_eq!((built.bytes, built.entries), (2000, 3));
    let less = TreeOptions {
        max_bytes: Some(1999),
        ..TreeOptions::default()
    };
    assert_eq!(bench.refused(commit, &less).reason, Reason::Limit);
}

#[test]
fn a_tree_that_multiplies_itself_stops_at_the_limit() {
    let mut bench = Bench::new();
    let blob = bench.origin.blob(b"x");
    let mut tree = bench.origin.raw_tree(&[("100644", b"f", &blob)]);
    for _ in 0..10 {
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let entries: Vec<(&str, &[u8], &str)> = names
            .iter()
            .map(|name| ("40000", name.as_bytes(), tree.as_str()))
            .collect();
        tree = bench.origin.raw_tree(&entries);
    }
    let commit = bench.origin.commit_tree(&tree);
    let options = TreeOptions {
        max_files: Some(500),
        ..TreeOptions::default()
    };
    assert_eq!(bench.refused(commit, &options).reason, Reason::Limit);
}

#[test]
fn a_missing_or_damaged_object_is_the_stores_fault() {
    let mut bench = Bench::new();
    bench.origin.put("a", "some content that is long enough");
    let commit = bench.origin.commit();
    let id = run(&bench.origin.dir, &["rev-parse", "HEAD:a"]);
    let (start, rest) = id.split_at(2);
    let object = bench.origin.store().join("objects").join(start).join(rest);
    let mut bytes = fs::read(&object).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    fs::remove_file(&object).unwrap();
    fs::write(&object, bytes).unwrap();
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
    fs::remove_file(&object).unwrap();
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
}

#[test]
fn a_cancelled_build_says_so() {
    let bench = Bench::new();
    bench.origin.put("a", "1");
    let commit = bench.origin.commit();
    let tree = bench.temp.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let budget = budget();
    budget
        .cancelled()
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let error = build(
        &BuildRequest {
            store: &bench.origin.store(),
            commit,
            destination: &tree,
            manifest: &bench.temp.path().join("manifest"),
            base: None,
            spare: None,
            options: &TreeOptions::default(),
        },
        &budget,
    )
    .unwrap_err();
    assert!(error.is_cancelled(), "{error}");
}

fn put_sparse_sample(origin: &Origin) {
    for path in [
        "README.md",
        "docs/index.md",
        "docs/guide/a.md",
        "docs/guide/img/x.png",
        "docs/api/b.md",
        "src/main.rs",
        "src/docs/inner.md",
        "src/deep/docs/x.md",
        "tools/run.sh",
        "tools/[x]/y",
        "space dir/file",
        "docs2/no.md",
    ] {
        origin.put(path, format!("{path}\n"));
    }
    origin.put(".gitattributes", "*.md eol=crlf\n");
}

#[test]
fn sparse_patterns_select_what_git_selects() {
    let mut bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let commit = bench.origin.commit();
    let clone = bench.temp.path().join("clone");
    bench.origin.checkout(commit, &clone);
    let patterns = [
        "/*\n!/*/\n/docs/\n",
        "/*\n!/*/\n/docs/\n!/docs/*/\n/docs/guide/\n",
        "docs\n",
        "docs/\n",
        "/docs\n",
        "*.md\n",
        "!*.md\n/*\n",
        "/*\n!*.md\n",
        "/*\n!docs\n",
        "/*\n!docs/\n/docs/api/b.md\n",
        "docs/guide\n",
        "docs/*/a.md\n",
        "**/img/\n",
        "src/**\n!src/docs\n",
        "/src/*/docs\n",
        "# comment\n\n/tools/\\[x\\]/\n\\#x\n",
        "/tools/[[]x]/\n",
        "/space dir\n",
        "/space dir   \r\n",
        "/README.md/\n",
        "main.rs\n/d*2\n",
        "/*\n!/docs/guide/img\n!/src/\n/src/deep\n",
    ];
    for cone in ["false", "true"] {
        for text in patterns {
            // Without these two, cone mode takes in the files at the top of its own accord.
            if cone == "true" && !text.starts_with("/*\n!/*/\n") {
                continue;
            }
            run(&clone, &["config", "core.sparseCheckout", "true"]);
            run(&clone, &["config", "core.sparseCheckoutCone", cone]);
            fs::write(clone.join(".git/info/sparse-checkout"), text).unwrap();
            run(&clone, &["read-tree", "-mu", "HEAD"]);
            let options = TreeOptions {
                sparse: Some(Sparse::parse(text.as_bytes())),
                ..TreeOptions::default()
            };
            let (tree, _) = bench.build(commit, &options);
            let (ours, gits) = (snapshot(&tree), snapshot(&clone));
            assert!(
                ours == gits,
                "{cone} {text:?}: {:?} {:?}",
                ours.keys(),
                gits.keys()
            );
        }
    }
}

#[test]
fn paths_select_files_and_whole_directories() {
    let mut bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let commit = bench.origin.commit();
    let all = bench.gits(commit);
    let options = TreeOptions {
        sparse: Some(Sparse::from_paths([
            "docs/guide",
            "/tools/[x]/",
            "README.md",
        ])),
        ..TreeOptions::default()
    };
    bench.build(commit, &TreeOptions::default());
    let (tree, built) = bench.build(commit, &options);
    let files: Vec<_> = snapshot(&tree)
        .into_iter()
        .filter(|(_, (kind, _))| kind.starts_with("file"))
        .collect();
    let expected: Vec<_> = [
        "README.md",
        "docs/guide/a.md",
        "docs/guide/img/x.png",
        "tools/[x]/y",
    ]
    .map(|path| (path.as_bytes().to_vec(), all[path.as_bytes()].clone()))
    .to_vec();
    assert_eq!(files, expected);
    // Other patterns are another revision, which still shares what both have.
    assert_ne!(options.fingerprint(), TreeOptions::default().fingerprint());
    assert_eq!((built.files_shared, built.files_written), (4, 0));
    let (tree, built) = bench.build(commit, &TreeOptions::default());
    assert_same(&snapshot(&tree), &all);
    assert_eq!(built.files_shared, 4);
}

#[test]
fn only_changes_under_the_watched_paths_count() {
    let bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let first = bench.origin.commit();
    let changed = |to: Commit, paths: &[&str]| {
        let watched = Sparse::from_paths(paths);
        changed_under(&bench.origin.store(), first, to, &watched).unwrap()
    };
    assert!(!changed(first, &["docs"]));
    bench.origin.put("src/main.rs", "changed");
    let second = bench.origin.commit();
    assert!(!changed(second, &["docs", "src/docs", "README.md"]));
    assert!(changed(second, &["src"]));
    assert!(changed(second, &["src/main.rs"]));
    bench.origin.remove("docs/guide");
    let third = bench.origin.commit();
    assert!(changed(third, &["docs/guide/img"]));
    assert!(changed(third, &["docs"]));
    assert!(!changed(third, &["docs/api", "docs2"]));
    bench.origin.put(".gitattributes", "*.md eol=lf\n");
    let fourth = bench.origin.commit();
    assert!(changed(fourth, &["docs/api"]));
}

/// A superproject whose submodules' objects lie in its own store, as after a recursive fetch.
fn put_submodules(bench: &Bench) -> Commit {
    let origin = &bench.origin;
    origin.put("inner.txt", "inner\n");
    let inner = origin.commit();
    origin.remove("inner.txt");
    origin
        .put(
            ".gitmodules",
            "[submodule \"inner\"]\n\tpath = nested/inner\n\turl = ../inner\n",
        )
        .put("middle.txt", "middle\n")
        .put_id("160000", "nested/inner", &inner.to_string());
    let middle = origin.commit();
    for path in [".gitmodules", "middle.txt", "nested/inner"] {
        origin.remove(path);
    }
    origin
        .put(
            ".gitmodules",
            "[submodule \"middle\"]\n\tpath = libs/middle\n\turl = ../middle.git\n\
             [submodule \"off\"]\n\tpath = libs/off\n\turl = ../off\n\tupdate = none\n",
        )
        .put(".gitattributes", "*.txt eol=crlf\n")
        .put("top.txt", "top\n")
        .put_id("160000", "libs/middle", &middle.to_string())
        .put_id("160000", "libs/off", &middle.to_string())
        .put_id("160000", "stray", &inner.to_string());
    origin.commit()
}

#[test]
fn submodules_are_listed_level_by_level() {
    let bench = Bench::new();
    let commit = put_submodules(&bench);
    let url = RepoUrl::parse("https://host/org/top.git").unwrap();
    let options = TreeOptions::default();
    let top = submodules::list(&bench.origin.store(), commit, &options, &url).unwrap();
    assert_eq!(top.len(), 1);
    assert_eq!(top[0].path, Path::new("libs/middle"));
    assert_eq!(top[0].url.to_string(), "https://host/org/middle.git");
    let next =
        submodules::list(&bench.origin.store(), top[0].commit, &options, &top[0].url).unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].path, Path::new("nested/inner"));
    assert_eq!(next[0].url.to_string(), "https://host/org/inner");
    let off = TreeOptions {
        submodules: SubmoduleMode::Off,
        ..TreeOptions::default()
    };
    assert!(
        submodules::list(&bench.origin.store(), commit, &off, &url)
            .unwrap()
            .is_empty()
    );
    let elsewhere = TreeOptions {
        sparse: Some(Sparse::from_paths(["top.txt"])),
        ..TreeOptions::default()
    };
    assert!(
        submodules::list(&bench.origin.store(), commit, &elsewhere, &url)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn submodules_are_written_where_they_belong() {
    let mut bench = Bench::new();
    let commit = put_submodules(&bench);
    let (tree, built) = bench.build(commit, &TreeOptions::default());
    let read = |path: &str| fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!(read("top.txt"), "top\r\n");
    // Attributes begin anew in a submodule.
    assert_eq!(read("libs/middle/middle.txt"), "middle\n");
    assert_eq!(read("libs/middle/nested/inner/inner.txt"), "inner\n");
    for empty in ["libs/off", "stray"] {
        assert!(
            fs::read_dir(tree.join(empty)).unwrap().next().is_none(),
            "{empty}"
        );
    }
    assert_eq!(built.unpopulated, ["stray"]);
    bench.origin.put("top.txt", "changed\n");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_eq!(built.files_written, 1);
    assert_eq!(
        inode(tree.join("libs/middle/middle.txt")),
        inode(after.join("libs/middle/middle.txt"))
    );
    let shallow = TreeOptions {
        submodules: SubmoduleMode::Shallow,
        ..TreeOptions::default()
    };
    let (tree, _) = bench.build(second, &shallow);
    assert!(tree.join("libs/middle/middle.txt").exists());
    let inner = tree.join("libs/middle/nested/inner");
    assert!(fs::read_dir(inner).unwrap().next().is_none());
    let off = TreeOptions {
        submodules: SubmoduleMode::Off,
        ..TreeOptions::default()
    };
    let gits = bench.gits(second);
    let (tree, _) = bench.build(second, &off);
    assert_same(&snapshot(&tree), &gits);
}

#[test]
fn a_submodule_that_is_entered_later_is_populated_then() {
    let mut bench = Bench::new();
    put_submodules(&bench);
    bench.origin.put(".gitmodules", "");
    let first = bench.origin.commit();
    let (tree, _) = bench.build(first, &TreeOptions::default());
    assert!(
        fs::read_dir(tree.join("libs/middle"))
            .unwrap()
            .next()
            .is_none()
    );
    let second = put_submodules(&bench);
    let (tree, _) = bench.build(second, &TreeOptions::default());
    assert!(tree.join("libs/middle/middle.txt").exists());
}

#[test]
fn a_submodule_without_its_commit_names_itself() {
    let mut bench = Bench::new();
    bench
        .origin
        .put(
            ".gitmodules",
            "[submodule \"x\"]\n\tpath = libs/x\n\turl = ../x\n",
        )
        .put_id(
            "160000",
            "libs/x",
            "0123456789012345678901234567890123456789",
        );
    let commit = bench.origin.commit();
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store);
    assert!(error.to_string().contains("libs/x"), "{error}");
}

#[test]
fn git_works_inside_a_tree_that_has_its_directory() {
    let mut bench = Bench::new();
    bench.origin.put("first.txt", "1\n");
    let first = bench.origin.commit();
    run(
        &bench.origin.dir,
        &["tag", "-a", "-m", "one", "v1.0", &first.to_string()],
    );
    run(&bench.origin.dir, &["tag", "light", &first.to_string()]);
    put_submodules(&bench);
    bench
        .origin
        .put("d/file", "content\n")
        .put_mode("100755", "d/run", "#!/bin/sh\n")
        .put_mode("120000", "d/link", "file");
    let tree = bench.origin.write_tree();
    let id = run(
        &bench.origin.dir,
        &[
            "commit-tree",
            &tree,
            "-p",
            &first.to_string(),
            "-m",
            "second",
        ],
    );
    let second: Commit = id.parse().unwrap();
    let options = TreeOptions {
        git_dir: true,
        ..TreeOptions::default()
    };
    bench.build(first, &options);
    let (tree, _) = bench.build(second, &options);
    // A store under the same relative path: the whole place may move.
    let moved = bench.temp.path().join("revision-moved");
    fs::rename(tree.parent().unwrap(), &moved).unwrap();
    let tree = moved.join("tree");
    assert_eq!(run(&tree, &["status", "--porcelain"]), "");
    assert_eq!(run(&tree, &["rev-parse", "HEAD"]), second.to_string());
    assert_eq!(run(&tree, &["log", "--format=%s"]), "second\na commit");
    let described = run(&tree, &["describe"]);
    assert!(described.starts_with("v1.0-1-g"), "{described}");
    assert_eq!(run(&tree, &["tag", "-l"]), "light\nv1.0");
    fs::write(tree.join("d/file"), "changed\n").unwrap();
    assert_eq!(run(&tree, &["status", "--porcelain"]), "M d/file");
    let sparse = TreeOptions {
        sparse: Some(Sparse::from_paths(["top.txt"])),
        ..options
    };
    let (tree, _) = bench.build(second, &sparse);
    assert_eq!(run(&tree, &["status", "--porcelain"]), "");
}

#[test]
fn one_worker_and_many_give_the_same_tree() {
    let mut bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let commit = bench.origin.commit();
    let gits = bench.gits(commit);
    for jobs in [1, 2, 8] {
        bench.last = None;
        let options = TreeOptions {
            jobs,
            ..TreeOptions::default()
        };
        let (tree, _) = bench.build(commit, &options);
        assert_same(&snapshot(&tree), &gits);
    }
}
