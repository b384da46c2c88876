//! The other contender: git, and `cp` and `du` of the same machine.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::{environment, upstream};

/// How long a command takes, in seconds.
///
/// # Panics
/// When it fails.
pub fn time(command: &mut Command) -> f64 {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    start.elapsed().as_secs_f64()
}

/// A command with an empty environment, under another one.
pub fn plain(wrapper: &[&str], program: &str) -> Command {
    match wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = environment::command(first);
            command.args(rest).arg(program);
            command
        }
        None => environment::command(program),
    }
}

/// A git command in a directory, under another one.
pub fn git(wrapper: &[&str], directory: &Path) -> Command {
    let bare = upstream::git(directory);
    let mut command = plain(wrapper, "git");
    command.args(bare.get_args()).current_dir(directory);
    for (name, value) in bare.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

/// `git clone --depth 1`, from start to end.
pub fn clone(wrapper: &[&str], url: &str, to: &Path) -> f64 {
    let mut command = git(wrapper, to.parent().unwrap());
    time(command.args(["clone", "--quiet", "--depth=1", url]).arg(to))
}

/// A bare clone of depth 1, for the other verbs.
pub fn clone_bare(url: &str, to: &Path) {
    let mut command = git(&[], to.parent().unwrap());
    time(
        command
            .args(["clone", "--quiet", "--bare", "--depth=1", url])
            .arg(to),
    );
}

/// `git fetch --depth 1` of the branch.
pub fn fetch(wrapper: &[&str], store: &Path) -> f64 {
    let refspec = "+refs/heads/main:refs/heads/main";
    time(git(wrapper, store).args(["fetch", "--quiet", "--depth=1", "origin", refspec]))
}

/// `git worktree add` of a commit.
pub fn worktree_add(wrapper: &[&str], store: &Path, to: &Path, commit: &str) -> f64 {
    let mut command = git(wrapper, store);
    command.args(["worktree", "add", "--quiet", "--detach"]);
    time(command.arg(to).arg(commit))
}

/// Takes a worktree away again; not timed.
pub fn worktree_remove(store: &Path, worktree: &Path) {
    fs::remove_dir_all(worktree).unwrap();
    time(git(&[], store).args(["worktree", "prune"]));
}

/// `cp -al`: a tree of hard links.
pub fn copy_links(wrapper: &[&str], from: &Path, to: &Path) -> f64 {
    time(plain(wrapper, "cp").arg("-al").arg(from).arg(to))
}

/// Bytes of disk that the files below a directory take, directories aside: all of them, and those
/// that no other name shares.
pub fn disk_usage(directory: &Path) -> (u64, u64) {
    let (mut all, mut own) = (0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        // What is being removed meanwhile takes nothing.
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            let (more, more_own) = disk_usage(&entry.path());
            all += more;
            own += more_own;
        } else {
            let bytes = metadata.blocks() * 512;
            all += bytes;
            if metadata.nlink() == 1 {
                own += bytes;
            }
        }
    }
    (all, own)
}
