//! The one error of a wrong configuration.

use std::fmt;

/// A flag, variable or file whose value cannot be used: exit code 2.
#[derive(Debug)]
pub struct ConfigError {
    message: String,
}

/// "what: why".
pub(super) fn bad(what: &str, why: &str) -> ConfigError {
    ConfigError {
        message: format!("{what}: {why}"),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}
