//! Where trees go, how readers find them, and how long they stay.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::duration;

/// How readers find the current tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Publish {
    /// A symbolic link, replaced by rename.
    Symlink,
    /// A real directory, swapped by renameat2(RENAME_EXCHANGE).
    Exchange,
}

/// When a tree is synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityChoice {
    /// Right after readers see it, by a thread of its own.
    Background,
    /// Before readers see it.
    Flip,
}

/// The flags about the volume.
#[derive(Args, Debug)]
#[command(next_help_heading = "Volume")]
pub struct VolumeFlags {
    /// The directory that this process owns
    ///
    /// Required. Trees and the object store are kept in its .gvr directory. It is created if it is
    /// missing, and files in it that this process did not create are left alone. Mount this
    /// directory, not the link, in the containers that read.
    #[arg(long, env = "GVR_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// The link that readers follow, relative to --root or absolute
    #[arg(long, env = "GVR_LINK", default_value = "current", value_name = "PATH")]
    pub link: PathBuf,

    /// How readers find the current tree
    ///
    /// "exchange" makes --link a real directory, for readers that do not work with symbolic links.
    #[arg(long, env = "GVR_PUBLISH", value_enum, default_value_t = Publish::Symlink, value_name = "HOW")]
    pub publish: Publish,

    /// The value of the target label in metrics, logs and /status
    ///
    /// Default: the last component of --link.
    #[arg(long, env = "GVR_NAME", value_name = "NAME")]
    pub name: Option<String>,

    /// How long the previous tree stays readable after another one is published
    #[arg(long, env = "GVR_STALE_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub stale_timeout: Duration,

    /// How many older trees stay, however old they are
    #[arg(long, env = "GVR_KEEP", default_value_t = 1, value_name = "COUNT")]
    pub keep: usize,

    /// When a tree is synced to the disk: after or before readers see it
    ///
    /// After a power cut, a tree that was not synced is verified by the hashes of its files before
    /// the first poll; if files were lost, the newest sound tree is published at once and the lost
    /// one is rebuilt from the object store. "flip" avoids that for the price of one syncfs(2) per
    /// publish, which also writes what others have cached for the same file system.
    #[arg(long, env = "GVR_DURABILITY", value_enum, default_value_t = DurabilityChoice::Background, value_name = "WHEN")]
    pub durability: DurabilityChoice,

    /// How often all files of the current tree are compared with their hashes
    ///
    /// Default: never. It finds bit rot and edits that restored a file's size and time, and
    /// publishes a repaired tree of the same commit. It reads at idle priority and uses at most a
    /// fifth of a CPU.
    #[arg(long, env = "GVR_SCRUB_PERIOD", value_parser = duration, value_name = "DURATION")]
    pub scrub_period: Option<Duration>,

    /// A link of an earlier --link that no longer keeps its tree; repeatable
    ///
    /// Each --link that was ever used with this --root is registered, and the tree that it leads to
    /// stays. Relative to --root or absolute, as --link was.
    #[arg(
        long,
        env = "GVR_FORGET_LINK",
        value_delimiter = ',',
        value_name = "PATH"
    )]
    pub forget_link: Vec<PathBuf>,
}
