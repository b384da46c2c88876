//! The HTTP port.

use super::error::{ConfigError, bad};
use super::paths::WorkingDirectory;
use crate::cli::ServeFlags;
use crate::serve::bind::Bind;
use crate::serve::nudge::NudgeConfig;

/// What is served over HTTP.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub bind: Bind,
    /// Who may nudge; `None` hides the route.
    pub nudge: Option<NudgeConfig>,
}

/// What is served, if anything.
pub(super) fn serve(
    flags: &ServeFlags,
    from: &WorkingDirectory,
) -> Result<Option<ServeConfig>, ConfigError> {
    let nudge = flags.nudge_token_file.as_deref().map(|file| NudgeConfig {
        token_file: from.absolute(file),
    });
    match flags.http_bind {
        Some(bind) => Ok(Some(ServeConfig { bind, nudge })),
        None if nudge.is_some() => Err(bad("--nudge-token-file", "it needs --http-bind")),
        None => Ok(None),
    }
}
