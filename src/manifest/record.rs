//! One record of a manifest: a name in a directory, with everything that is recorded about it.

use git2::Oid;

/// The type of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A regular file with the executable bits.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A directory, with a block of its own.
    Directory,
    /// The root of a submodule, with a block of its own; the id is a commit.
    Submodule,
    /// A submodule that is not populated: an empty directory, without a block.
    Unpopulated,
}

/// The result of `stat` for a file or link when it was complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Modification time, in nanoseconds since 1970.
    pub(crate) mtime: i64,
    /// Permission bits.
    pub(crate) mode: u16,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The name as in git: any bytes but NUL and slash.
    pub(crate) name: &'a [u8],
    /// Its type.
    pub(crate) kind: Kind,
    /// The id of its blob, tree or (for a submodule) commit.
    pub(crate) id: Oid,
    /// For files and links; all zero otherwise.
    pub(crate) stat: Stat,
    /// The conversion from the blob to the file; empty for none. The tree writer encodes it.
    pub(crate) conversion: &'a [u8],
    /// The id of the file's content as a blob, if it was converted.
    pub(crate) converted: Option<Oid>,
    /// The block of a directory or submodule; zero otherwise.
    pub(crate) child: u32,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::File,
            2 => Self::Executable,
            3 => Self::Symlink,
            4 => Self::Directory,
            5 => Self::Submodule,
            6 => Self::Unpopulated,
            _ => return None,
        })
    }

    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Executable => 2,
            Self::Symlink => 3,
            Self::Directory => 4,
            Self::Submodule => 5,
            Self::Unpopulated => 6,
        }
    }

    /// Whether it has a block of its own.
    pub(crate) fn has_block(self) -> bool {
        matches!(self, Self::Directory | Self::Submodule)
    }

    /// Whether it has a recorded size and time.
    pub(crate) fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable | Self::Symlink)
    }
}

impl From<&rustix::fs::Stat> for Stat {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields differ in width between architectures"
    )]
    fn from(stat: &rustix::fs::Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(stat.st_mtime_nsec as i64),
            mode: (stat.st_mode & 0o7777) as u16,
        }
    }
}
