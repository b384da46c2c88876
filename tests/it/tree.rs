//! Trees against the oracle: what real git checks out of the same commit.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use git_volume_reloader::budget::Budget;
use git_volume_reloader::commit::Commit;
use git_volume_reloader::error::{Reason, SyncError};
use git_volume_reloader::manifest::{self, Header};
use git_volume_reloader::repo_url::RepoUrl;
use git_volume_reloader::tree::{
    Base, BuildRequest, Built, Share, Sparse, SubmoduleMode, TreeOptions, build, changed_under,
    submodules,
};
use tempfile::TempDir;

use crate::support::git_oracle::{Origin, Snapshot, assert_same, git, inode, path, run, snapshot};

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

    /// Builds into a new directory, sharing from the last revision.
    fn try_build(
        &mut self,
        commit: Commit,
        options: &TreeOptions,
    ) -> Result<(PathBuf, Built), SyncError> {
        let dir = self.temp.path().join(format!("revision-{}", self.count));
        self.count += 1;
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
                options,
            },
            &budget(),
        )?;
        assert_eq!(verify(&tree), None);
        self.last = Some(dir);
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
