//! A root or a link path that is not ours is refused or left alone.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::support::environment;
use crate::support::foreign::Volume;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Upstream, git};

#[test]
fn a_root_that_is_a_file_is_refused_and_left_alone() {
    let upstream = Upstream::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("root");
    fs::write(&file, "mine").unwrap();
    let root = Root::at(&file);
    let finished = Launch::one_time(&upstream.url(), &root).run();
    finished.assert_failed(&[1, 2], &[file.to_str().unwrap(), "not a directory"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_root_that_belongs_to_somebody_else_and_is_not_writable_is_refused() {
    let upstream = Upstream::new();
    let volume = Volume::new(0o755);
    volume.give(upstream.path());
    let root = Root::at(&volume.path().join("root"));
    fs::create_dir(root.path()).unwrap();
    volume.share(root.path());
    let launch = volume.launch(Launch::one_time(&upstream.url(), &root));
    let finished = launch.run();
    finished.assert_failed(&[1, 2], &[root.path().to_str().unwrap(), "permission"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_root_that_cannot_be_made_is_refused() {
    let upstream = Upstream::new();
    let root = Root::at("/proc/nowhere/root".as_ref());
    let finished = Launch::one_time(&upstream.url(), &root).run();
    finished.assert_failed(&[1, 2], &["/proc/nowhere"]);
}

/// The link path, relative to the root, exists and is no link: a publish is refused.
#[track_caller]
fn assert_link_path_refused(root: &Root, name: &str) {
    let upstream = Upstream::new();
    let finished = Launch::one_time(&upstream.url(), root)
        .flag("link", name)
        .run();
    finished.assert_failed(&[1, 2], &[root.path().join(name).to_str().unwrap()]);
}

#[test]
fn a_link_path_that_is_a_directory_is_refused_and_left_alone() {
    let root = Root::new();
    fs::create_dir_all(root.path().join("directory/inside")).unwrap();
    assert_link_path_refused(&root, "directory");
    assert!(root.path().join("directory/inside").is_dir());
}

#[test]
fn a_link_path_that_is_an_empty_directory_is_refused_and_left_alone() {
    let root = Root::new();
    fs::create_dir_all(root.path().join("empty")).unwrap();
    assert_link_path_refused(&root, "empty");
    assert!(root.path().join("empty").is_dir());
}

#[test]
fn a_link_path_that_is_a_file_is_refused_and_left_alone() {
    let root = Root::new();
    fs::create_dir_all(root.path()).unwrap();
    let file = root.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert_link_path_refused(&root, "file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_root_inside_another_repository_leaves_that_repository_alone() {
    let upstream = Upstream::new();
    let outer = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let out = git(outer.path()).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    git(&["init", "-q"]);
    fs::write(outer.path().join("tracked"), "outer\n").unwrap();
    fs::write(outer.path().join(".gitignore"), "/root\n").unwrap();
    fs::write(outer.path().join(".gitattributes"), "* text eol=crlf\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "outer"]);
    let before = git(&["rev-parse", "HEAD"]);
    let root = Root::at(&outer.path().join("root"));
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
    assert_eq!(git(&["rev-parse", "HEAD"]), before);
    assert_eq!(git(&["status", "--porcelain"]), "");
}

#[test]
fn foreign_files_in_the_root_are_never_deleted() {
    let upstream = Upstream::new();
    let root = Root::new();
    fs::create_dir_all(root.path().join("lost+found")).unwrap();
    fs::set_permissions(
        root.path().join("lost+found"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fs::write(root.path().join(".nfs000000000012"), "busy").unwrap();
    fs::write(root.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(root.path().join("tmp-link")).unwrap();
    symlink("notes.txt", root.path().join("other-link")).unwrap();
    let foreign = [
        "lost+found",
        ".nfs000000000012",
        "notes.txt",
        "tmp-link",
        "other-link",
    ];
    for _ in 0..2 {
        let commit = upstream.commit_changes("main", &[]);
        Launch::one_time(&upstream.url(), &root)
            .flag("keep", "0")
            .flag("stale-timeout", "0s")
            .succeed();
        root.assert_published(&upstream, &commit);
        root.assert_tidy(&foreign);
        for name in foreign {
            let kept = fs::symlink_metadata(root.path().join(name)).is_ok();
            assert!(kept, "{name} is gone");
        }
    }
    assert_eq!(
        fs::read_to_string(root.path().join("notes.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn a_link_of_somebody_elses_is_refused_or_replaced_but_never_followed() {
    let upstream = Upstream::new();
    let root = Root::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("precious"), "mine").unwrap();
    fs::create_dir_all(root.path()).unwrap();
    symlink(elsewhere.path(), root.link()).unwrap();
    Launch::one_time(&upstream.url(), &root).run();
    let kept = fs::read_to_string(elsewhere.path().join("precious")).unwrap();
    assert_eq!(kept, "mine");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

/// An ext4 in a file, mounted with its top directory case-insensitive; unmounted on drop.
struct Casefold(tempfile::TempDir);

impl Casefold {
    /// `None`, and a word about that on standard error, where the kernel or the tools lack it.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        let (image, mount) = (image.to_str().unwrap(), mount.to_str().unwrap());
        let mut why = None;
        for words in [
            &[
                "mkfs.ext4",
                "-q",
                "-O",
                "casefold",
                "-E",
                "encoding=utf8",
                image,
            ][..],
            &["mount", "-o", "loop", image, mount],
            &["mkdir", &format!("{mount}/root")],
            &["chattr", "+F", &format!("{mount}/root")],
        ] {
            match environment::command(words[0]).args(&words[1..]).output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => why = Some(String::from_utf8_lossy(&output.stderr).into_owned()),
                Err(error) => why = Some(error.to_string()),
            }
            if why.is_some() {
                break;
            }
        }
        let this = Self(dir);
        if let Some(why) = why {
            // Not by eprintln!: the runner captures that.
            let line = why.lines().next().unwrap_or_default();
            let mut stderr = std::io::stderr();
            writeln!(
                stderr,
                "\nNOT TESTED HERE: a case-insensitive ext4 cannot be made: {line}"
            )
            .unwrap();
            return None;
        }
        Some(this)
    }

    fn root(&self) -> Root {
        Root::at(&self.0.path().join("mnt/root"))
    }
}

impl Drop for Casefold {
    fn drop(&mut self) {
        // Not mounted if mkfs or mount failed.
        let _ = environment::command("umount")
            .arg("-l")
            .arg(self.0.path().join("mnt"))
            .output();
    }
}

#[test]
fn a_case_insensitive_root_works_until_two_names_differ_only_in_case() {
    let Some(volume) = Casefold::mount() else {
        return;
    };
    let root = volume.root();
    let upstream = Upstream::new();
    let good = upstream.commit(&[("Docs/Page.md", "one\n"), ("docs2/page.md", "two\n")]);
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &good);
    upstream.commit(&[("Docs/page.md", "another\n")]);
    let finished = Launch::one_time(&upstream.url(), &root).run();
    finished.assert_failed(&[1], &["Docs/", "case-insensitive"]);
    root.assert_published(&upstream, &good);
}
