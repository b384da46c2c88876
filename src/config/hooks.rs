//! The hooks that tell other programs about a publish.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::error::{ConfigError, bad};
use super::paths::WorkingDirectory;
use super::{environment, network};
use crate::child::Command;
use crate::cli::HookFlags;
use crate::net::http::Method;
use crate::notify::hook::Occasion;
use crate::notify::process_signal::NotASignal;
use crate::notify::webhook::{WebhookBody, WebhookSettings};
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
    Ok(HooksConfig {
        exec,
        webhook: webhook(flags, from)?,
        signal,
    })
}

fn webhook(
    flags: &HookFlags,
    from: &WorkingDirectory,
) -> Result<Option<WebhookSettings>, ConfigError> {
    let Some(typed) = environment::non_empty(flags.webhook_url.clone()) else {
        return Ok(None);
    };
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_deref().filter(|path| !path.as_os_str().is_empty());
        path.map(|path| from.absolute(path))
    };
    let method = Method::from_bytes(flags.webhook_method.as_bytes())
        .map_err(|_| bad("--webhook-method", "it is not an HTTP method"))?;
    let success = match flags.webhook_success_status {
        0 | -1 => None,
        status => Some(
            u16::try_from(status)
                .ok()
                .filter(|status| (100..=599).contains(status))
                .ok_or_else(|| bad("--webhook-success-status", "it is not 0, -1 or 100 to 599"))?,
        ),
    };
    let on = flags
        .webhook_on
        .iter()
        .map(|word| {
            let known = Occasion::ALL
                .into_iter()
                .find(|known| known.as_str() == word);
            known.ok_or_else(|| {
                let known = Occasion::ALL.map(Occasion::as_str).join(", ");
                bad("--webhook-on", &format!("{word:?} is none of {known}"))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(WebhookSettings {
        url: http_url("--webhook-url", &typed)?,
        method,
        success,
        timeout: flags.webhook_timeout,
        backoff: flags.webhook_backoff,
        header_file: absolute(&flags.webhook_header_file),
        hmac_file: absolute(&flags.webhook_hmac_file),
        body: match flags.webhook_body.as_str() {
            "none" | "" => WebhookBody::None,
            "json" => WebhookBody::Json,
            "slack" => WebhookBody::Slack,
            file => WebhookBody::Template(from.absolute(Path::new(file))),
        },
        on,
        net: network::from_environment(from),
    }))
}

/// An http or https URL. The value is not quoted in the error, because it may be secret.
pub(super) fn http_url(flag: &str, typed: &str) -> Result<Url, ConfigError> {
    Url::parse(typed)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| bad(flag, "it is not an http:// or https:// URL"))
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
