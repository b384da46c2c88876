//! What a commit must pass before readers see it.

use std::path::Component;

use super::error::{ConfigError, bad};
use super::hooks::{command, http_url};
use super::paths::WorkingDirectory;
use super::{environment, network};
use crate::cli::GateFlags;
use crate::target::{CheckUrlConfig, GateConfig};

/// The checks before a publish.
pub(super) fn gate(flags: &GateFlags, from: &WorkingDirectory) -> Result<GateConfig, ConfigError> {
    for path in &flags.require_path {
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.as_os_str().is_empty() || !inside {
            return Err(bad(
                "--require-path",
                "it must be a path inside the tree, without a leading slash or ..",
            ));
        }
    }
    let url = environment::non_empty(flags.check_url.clone())
        .map(|typed| {
            Ok(CheckUrlConfig {
                url: http_url("--check-url", &typed)?,
                timeout: flags.check_timeout,
                net: network::from_environment(from),
            })
        })
        .transpose()?;
    Ok(GateConfig {
        url,
        command: flags
            .check_command
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| command(path, &flags.check_arg, flags.check_timeout, from)),
        directory: flags.check_dir.as_deref().map(|path| from.absolute(path)),
        recheck_after: flags.recheck_after,
        require_paths: flags.require_path.clone(),
        allow_empty: flags.allow_empty,
    })
}
