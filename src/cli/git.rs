//! What to follow: the repository, the ref, how much of them.

use clap::{Args, ValueEnum};

/// Which submodules are checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Submodules {
    /// All submodules, and their submodules.
    Recursive,
    /// The submodules of the repository itself.
    Shallow,
    /// None: each is an empty directory.
    Off,
}

/// The flags that say what to follow.
#[derive(Args, Debug)]
#[command(next_help_heading = "Repository")]
pub struct GitFlags {
    /// The repository to follow
    ///
    /// Required. One of https://host/path, http://host/path, ssh://user@host/path, user@host:path,
    /// file:///path or a path. Credentials in the URL work and are never printed, but other
    /// processes can read the arguments of this one: prefer --password-file.
    #[arg(long, env = "GVR_REPO", value_name = "URL", hide_env_values = true)]
    pub repo: Option<String>,

    /// The branch, tag, full ref or full commit id to follow
    ///
    /// HEAD is the default branch of the remote. A short name is looked up among the branches
    /// first, then among the tags.
    #[arg(
        long = "ref",
        env = "GVR_REF",
        default_value = "HEAD",
        value_name = "REF"
    )]
    pub reference: String,

    /// How many commits of history to fetch; 0 for all
    ///
    /// Readers can see the history with --git-dir only. With --git-dir, a restart with another
    /// depth publishes a new revision of the same commit.
    #[arg(long, env = "GVR_DEPTH", default_value_t = 1, value_name = "COMMITS")]
    pub depth: u32,

    /// Which submodules to check out
    #[arg(long, env = "GVR_SUBMODULES", value_enum, default_value_t = Submodules::Recursive, value_name = "WHICH")]
    pub submodules: Submodules,
}
