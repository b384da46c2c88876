//! The one place of the tests that reads the environment.

use std::process::Command;

/// A command that inherits nothing but the search path.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(path) = variable("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Whether the long forms of the tests were asked for: `GVR_TEST_SOAK=1`, as `make soak` sets it.
pub fn soak() -> bool {
    variable("GVR_TEST_SOAK").is_some_and(|value| value == "1")
}

/// Tells a figure of `make soak`.
#[allow(
    clippy::print_stderr,
    reason = "the figures are what a soak is run for"
)]
pub fn report(figures: &str) {
    if soak() {
        eprintln!("soak: {figures}");
    }
}

/// Whether documents are to be written anew instead of compared: `GVR_TEST_UPDATE_DOCS=1`.
pub fn update_docs() -> bool {
    variable("GVR_TEST_UPDATE_DOCS").is_some_and(|value| value == "1")
}

#[allow(
    clippy::disallowed_methods,
    reason = "the search path and the length of the run are the environment's to say"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
