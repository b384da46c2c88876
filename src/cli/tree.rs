//! What a published tree holds, and how it is written.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum, value_parser};

/// Which new commits are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PublishOn {
    /// Every new commit.
    Commit,
    /// A commit that changes something under --path or the sparse patterns.
    Paths,
}

/// How an unchanged file gets into the next tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Share {
    /// As a hard link to the file of the previous tree.
    Hardlink,
    /// As a copy-on-write clone, where the file system supports it.
    Reflink,
    /// Written again.
    None,
}

/// The flags about the tree.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tree")]
pub struct TreeFlags {
    /// A file or directory of the repository to check out, and nothing else; may be repeated
    ///
    /// Default: everything. The objects of the whole commit are fetched all the same.
    #[arg(
        long,
        env = "GVR_PATH",
        value_delimiter = ',',
        value_name = "PATH",
        conflicts_with = "sparse_checkout_file"
    )]
    pub path: Vec<String>,

    /// A file of sparse-checkout patterns, in cone mode or not
    ///
    /// The file is read once, at the start.
    #[arg(long, env = "GVR_SPARSE_CHECKOUT_FILE", value_name = "FILE")]
    pub sparse_checkout_file: Option<PathBuf>,

    /// Which new commits to publish
    ///
    /// With "paths", a commit that changes nothing under --path or the sparse patterns is not
    /// published.
    #[arg(long, env = "GVR_PUBLISH_ON", value_enum, default_value_t = PublishOn::Commit, value_name = "WHAT")]
    pub publish_on: PublishOn,

    /// Write a .git directory into the tree, so that git log and git describe work in it
    ///
    /// --depth decides how much history it shows. It cannot be combined with --publish exchange.
    #[arg(long, env = "GVR_GIT_DIR", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub git_dir: bool,

    /// Make files and directories writable by their group
    #[arg(long, env = "GVR_GROUP_WRITE", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL",
          action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub group_write: bool,

    /// How an unchanged file gets into the next tree
    ///
    /// If linking or cloning fails, the file is written again.
    #[arg(long, env = "GVR_SHARE", value_enum, default_value_t = Share::Hardlink, value_name = "HOW")]
    pub share: Share,

    /// How many threads write a tree, at most 256; 0 for one per CPU
    #[arg(long, env = "GVR_JOBS", default_value_t = 0, value_name = "COUNT",
          value_parser = value_parser!(u16).range(0..=256))]
    pub jobs: u16,

    /// The largest tree to write, in bytes; larger trees are refused
    ///
    /// Also the largest pack to receive. Default: no limit other than --sync-timeout and the disk.
    #[arg(long, env = "GVR_MAX_TREE_BYTES", value_name = "BYTES")]
    pub max_tree_bytes: Option<u64>,

    /// The largest number of files to write; larger trees are refused
    ///
    /// Links and directories count as files. Default: no limit.
    #[arg(long, env = "GVR_MAX_FILES", value_name = "COUNT")]
    pub max_files: Option<u64>,
}
