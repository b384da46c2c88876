//! The only reader of environment variables that are not a flag's.

use std::ffi::OsString;

/// The value of a variable; `None` if it is not set, empty or not UTF-8.
#[allow(clippy::disallowed_methods)] // The one place that reads the environment.
pub(super) fn variable(name: &str) -> Option<String> {
    non_empty(std::env::var(name).ok())
}

/// Every variable, for programs that inherit them.
#[allow(clippy::disallowed_methods)] // The one place that reads the environment.
pub(super) fn all() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// The value, unless it is empty: in a manifest an empty value means "not set".
pub(super) fn non_empty(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}
