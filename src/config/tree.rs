//! What a tree holds and which commits are published.

use std::path::{Component, Path};

use super::error::{ConfigError, bad};
use super::git;
use super::paths::WorkingDirectory;
use crate::base::files;
use crate::cli::{self, Flags, TreeFlags};
use crate::target::PublishOn;
use crate::tree::{Share, Sparse, TreeOptions};

/// The largest file of sparse-checkout patterns that is read, in bytes.
const MAX_PATTERNS: u64 = 1 << 20;

/// What to write, and how.
pub(super) fn options(flags: &Flags, from: &WorkingDirectory) -> Result<TreeOptions, ConfigError> {
    let tree = &flags.tree;
    if tree.git_dir && flags.volume.publish == cli::Publish::Exchange {
        return Err(bad(
            "--git-dir",
            "it cannot be combined with --publish exchange: the .git directory finds its objects by \
             a relative path, and the exchange moves the tree to another directory",
        ));
    }
    Ok(TreeOptions {
        jobs: tree.jobs.into(),
        share: match tree.share {
            cli::Share::Hardlink => Share::Hardlink,
            cli::Share::Reflink => Share::Reflink,
            cli::Share::None => Share::None,
        },
        group_write: tree.group_write,
        submodules: git::submodules(&flags.git),
        sparse: sparse(tree, from)?,
        git_dir: tree.git_dir,
        depth: flags.git.depth,
        max_bytes: tree.max_tree_bytes,
        max_files: tree.max_files,
    })
}

/// Which new commits are published, given which paths a tree holds.
pub(super) fn publish_on(
    flags: &TreeFlags,
    sparse: Option<&Sparse>,
) -> Result<PublishOn, ConfigError> {
    match (flags.publish_on, sparse) {
        (cli::PublishOn::Commit, _) => Ok(PublishOn::Commit),
        (cli::PublishOn::Paths, Some(sparse)) => Ok(PublishOn::Paths(sparse.clone())),
        (cli::PublishOn::Paths, None) => Err(bad(
            "--publish-on",
            "\"paths\" needs --path or --sparse-checkout-file to name the paths",
        )),
    }
}

fn sparse(flags: &TreeFlags, from: &WorkingDirectory) -> Result<Option<Sparse>, ConfigError> {
    if let Some(file) = &flags.sparse_checkout_file {
        let file = from.absolute(file);
        let patterns = files::read(&file, MAX_PATTERNS).map_err(|error| {
            bad(
                "--sparse-checkout-file",
                &format!("cannot read {}: {error}", file.display()),
            )
        })?;
        return Ok(Some(Sparse::parse(&patterns)));
    }
    if flags.path.is_empty() {
        return Ok(None);
    }
    for path in &flags.path {
        let inside = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.is_empty() || !inside {
            return Err(bad(
                "--path",
                "it must be a path inside the repository, without a leading slash or ..",
            ));
        }
    }
    Ok(Some(Sparse::from_paths(&flags.path)))
}
