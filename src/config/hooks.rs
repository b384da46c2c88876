//! The hooks that tell other programs about a publish.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::environment;
use super::error::{ConfigError, bad};
use super::paths::WorkingDirectory;
use crate::child::Command;
use crate::cli::HookFlags;
use crate::notify::process_signal::NotASignal;
use crate::target::{ExecConfig, HooksConfig};
use crate::tree::Sparse;

/// The hooks of a target.
pub(super) fn hooks(
    flags: &HookFlags,
    from: &WorkingDirectory,
) -> Result<HooksConfig, ConfigError> {
    let exec = flags
        .exechook_command
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| ExecConfig {
            command: command(path, &flags.exechook_arg, flags.exechook_timeout, from),
            backoff: flags.exechook_backoff,
            watched: (!flags.exechook_on_path.is_empty())
                .then(|| Sparse::parse(flags.exechook_on_path.join("\n").as_bytes())),
        });
    let signal = flags
        .notify_signal
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .transpose()
        .map_err(|error: NotASignal| bad("--notify-signal", &error.to_string()))?;
    Ok(HooksConfig { exec, signal })
}

/// A program with the environment that it inherits. A name without a slash is looked up in PATH.
pub(super) fn command(
    path: &Path,
    arguments: &[OsString],
    timeout: Duration,
    from: &WorkingDirectory,
) -> Command {
    let is_name = path.components().count() == 1 && !path.has_root();
    Command {
        path: if is_name {
            path.to_owned()
        } else {
            from.absolute(path)
        },
        arguments: arguments.to_vec(),
        timeout,
        environment: inherited(),
    }
}

/// The environment without the variables that configure this process, because they may hold secrets.
fn inherited() -> Vec<(OsString, OsString)> {
    environment::all()
        .filter(|(name, _)| !is_private(&name.to_string_lossy()))
        .collect()
}

/// Whether a variable is ours, or one of git-sync's that holds a secret.
fn is_private(name: &str) -> bool {
    let git_sync = ["GITSYNC_", "GIT_SYNC_"];
    let secret = ["PASSWORD", "CREDENTIAL", "PRIVATE_KEY", "TOKEN"];
    name.starts_with("GVR_")
        || (git_sync.iter().any(|prefix| name.starts_with(prefix))
            && secret.iter().any(|word| name.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_secrets_of_this_process_are_not_inherited() {
        for name in [
            "GVR_PASSWORD",
            "GVR_REPO",
            "GITSYNC_PASSWORD",
            "GIT_SYNC_CREDENTIAL",
        ] {
            assert!(is_private(name), "{name}");
        }
        for name in ["PATH", "HOME", "GITSYNC_REPO", "PASSWORD"] {
            assert!(!is_private(name), "{name}");
        }
    }
}
