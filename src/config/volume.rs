//! The root, the link, and how trees are published there.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, bad};
use super::paths::{WorkingDirectory, normalized};
use crate::cli::{self, VolumeFlags};
use crate::target::SyncWhen;
use crate::volume::{Layout, PublishMode};

/// Where trees go.
pub(super) fn layout(flags: &VolumeFlags, from: &WorkingDirectory) -> Result<Layout, ConfigError> {
    let root = root(flags, from)?;
    let link = place(&flags.link, "--link", &root, from)?;
    let forgotten = flags
        .forget_link
        .iter()
        .map(|typed| place(typed, "--forget-link", &root, from))
        .collect::<Result<Vec<_>, _>>()?;
    if forgotten.contains(&link) {
        return Err(bad("--forget-link", "it names the --link that is in use"));
    }
    Ok(Layout {
        root,
        link,
        forgotten,
        mode: match flags.publish {
            cli::Publish::Symlink => PublishMode::Symlink,
            cli::Publish::Exchange => PublishMode::Exchange,
        },
    })
}

/// When a tree is synced to the disk.
pub(super) fn sync_when(flags: &VolumeFlags) -> SyncWhen {
    match flags.durability {
        cli::DurabilityChoice::Background => SyncWhen::Background,
        cli::DurabilityChoice::Flip => SyncWhen::Flip,
    }
}

/// How often the contents of the live tree are verified.
pub(super) fn scrub_period(flags: &VolumeFlags) -> Result<Option<Duration>, ConfigError> {
    match flags.scrub_period {
        Some(Duration::ZERO) => Err(bad("--scrub-period", "it must be longer than 0s")),
        other => Ok(other),
    }
}

/// The value of the target label: `--name`, or else the last component of the link.
pub(super) fn target_name(flags: &VolumeFlags, link: &Path) -> Result<String, ConfigError> {
    let leaf = link.file_name().map(|leaf| leaf.to_string_lossy());
    let name = match flags.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => leaf.unwrap_or_default().into_owned(),
    };
    if name.chars().any(char::is_control) {
        return Err(bad("--name", "it contains a control character"));
    }
    Ok(name)
}

fn root(flags: &VolumeFlags, from: &WorkingDirectory) -> Result<PathBuf, ConfigError> {
    let root = flags
        .root
        .as_deref()
        .filter(|root| !root.as_os_str().is_empty())
        .map(|root| from.absolute(root))
        .ok_or_else(|| {
            bad(
                "--root",
                "it is required: a directory that this process may own",
            )
        })?;
    if root.parent().is_none() {
        return Err(bad("--root", "it cannot be the root of the file system"));
    }
    Ok(root)
}

/// The absolute path of a link, typed as the value of `flag`.
fn place(
    typed: &Path,
    flag: &str,
    root: &Path,
    from: &WorkingDirectory,
) -> Result<PathBuf, ConfigError> {
    let ends_in_a_name = matches!(typed.components().next_back(), Some(Component::Normal(_)));
    if !ends_in_a_name {
        return Err(bad(flag, "it must end in a name"));
    }
    let link = if typed.is_absolute() {
        from.absolute(typed)
    } else {
        normalized(&root.join(typed))
    };
    if link == root || root.starts_with(&link) {
        return Err(bad(flag, "it must not contain --root"));
    }
    if link.starts_with(root.join(".gvr")) {
        return Err(bad(flag, "it must not be in the .gvr directory of --root"));
    }
    Ok(link)
}
