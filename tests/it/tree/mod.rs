//! Trees against the oracle: what real git checks out of the same commit.

mod attributes;
mod changes;
mod damage;
mod files;
mod git_dir;
mod hostile;
mod large;
mod sharing;
mod spare;
mod sparse;
mod submodules;

use crate::support::git_oracle::{Origin, Snapshot, assert_same, inode, run, snapshot};
use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::commit::Commit;
use git_volume_reloader::base::error::{Reason, SyncError};
use git_volume_reloader::base::repo_url::RepoUrl;
use git_volume_reloader::manifest::{self, Header};
use git_volume_reloader::tree::{
    Base, BuildRequest, Built, Share, Spare, Sparse, SubmoduleMode, TreeOptions, build,
    changed_under,
};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

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
