//! The root, the link, and how trees are published there.

use std::path::{Component, Path, PathBuf};

use super::error::{ConfigError, bad};
use super::paths::{WorkingDirectory, normalized};
use crate::cli::{self, VolumeFlags};
use crate::volume::{Layout, PublishMode};

/// Where trees go.
pub(super) fn layout(flags: &VolumeFlags, from: &WorkingDirectory) -> Result<Layout, ConfigError> {
    let root = root(flags, from)?;
    let link = link(flags, &root, from)?;
    Ok(Layout {
        root,
        link,
        mode: match flags.publish {
            cli::Publish::Symlink => PublishMode::Symlink,
            cli::Publish::Exchange => PublishMode::Exchange,
        },
    })
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

fn link(flags: &VolumeFlags, root: &Path, from: &WorkingDirectory) -> Result<PathBuf, ConfigError> {
    let typed = flags.link.as_path();
    let ends_in_a_name = matches!(typed.components().next_back(), Some(Component::Normal(_)));
    if !ends_in_a_name {
        return Err(bad("--link", "it must end in a name"));
    }
    let link = if typed.is_absolute() {
        from.absolute(typed)
    } else {
        normalized(&root.join(typed))
    };
    if link == root || root.starts_with(&link) {
        return Err(bad("--link", "it must not contain --root"));
    }
    if link.starts_with(root.join(".gvr")) {
        return Err(bad(
            "--link",
            "it must not be in the .gvr directory of --root",
        ));
    }
    Ok(link)
}
