//! What is logged, and how.

use super::error::{ConfigError, bad};
use crate::cli::{LogFlags, LogFormat};

/// How log lines are written. Resolved first, so that everything after it can log.
#[derive(Debug)]
pub struct LogConfig {
    /// Lines for people, or JSON.
    pub format: LogFormat,
    /// Which lines are written.
    pub filter: tracing_subscriber::EnvFilter,
}

impl LogConfig {
    /// Takes `--log-format` and `--log-level`.
    ///
    /// # Errors
    /// When `--log-level` is neither a level nor a filter.
    pub fn resolve(flags: &LogFlags) -> Result<Self, ConfigError> {
        let filter = tracing_subscriber::EnvFilter::builder()
            .parse(&flags.log_level)
            .map_err(|_| {
                bad(
                    "--log-level",
                    "it must be error, warn, info, debug, trace or a tracing filter",
                )
            })?;
        Ok(Self {
            format: flags.log_format,
            filter,
        })
    }
}
