//! What a published tree can be made to look like, through the program: submodules, sparse paths,
//! a `.git` directory, publishing by exchange, sharing, limits; each against what git itself does.

mod bombs;
mod clones;
mod exactness;
mod exchange;
mod git_dir;
mod large;
mod limits;
mod paths;
mod sharing;
mod submodules;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::root::Root;
use crate::support::sidecar::field;
use crate::support::upstream::{Upstream, git};

/// A directory in which repositories stand side by side under names of their own, so that one may
/// refer to another as `../<name>`.
struct Site(TempDir);

impl Site {
    fn new(repositories: &[(&str, &Upstream)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, upstream) in repositories {
            std::os::unix::fs::symlink(upstream.path(), dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn url(&self, name: &str) -> String {
        format!("file://{}", self.path().join(name).display())
    }
}

/// Runs git in a directory; returns what it printed, trimmed.
#[track_caller]
fn git_in(directory: &Path, args: &[&str]) -> String {
    let out = git(directory).args(args).output().unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

/// The stage and reason in an error file.
fn stage_and_reason(error_file: &Path) -> Option<(String, String)> {
    let text = fs::read_to_string(error_file).ok()?;
    Some((field(&text, "stage")?, field(&text, "reason")?))
}

/// Where tests have the error file put.
fn error_file(root: &Root) -> PathBuf {
    root.path().with_file_name("error")
}
