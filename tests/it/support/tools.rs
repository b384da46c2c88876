//! The programs that `scripts/k8s-tools` prepares: promtool, Prometheus, nginx, mkdocs, Helm.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::environment;

/// The checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory with the tools, which this call installs if they are missing.
///
/// # Panics
/// If they cannot be installed.
#[track_caller]
pub fn tools() -> PathBuf {
    static PREPARED: OnceLock<()> = OnceLock::new();
    PREPARED.get_or_init(|| {
        succeed(&mut in_checkout("scripts/k8s-tools"));
    });
    checkout().join("target/k8s-tools")
}

/// Runs one of the checkout's Python scripts in the environment of the tools; it must succeed.
#[track_caller]
pub fn script(name: &str, arguments: &[&str]) -> String {
    let python = tools().join("venv/bin/python");
    let mut command = in_checkout(python.to_str().unwrap());
    command.arg(format!("scripts/{name}")).args(arguments);
    succeed(&mut command)
}

/// A command that runs in the checkout.
pub fn in_checkout(program: &str) -> Command {
    let mut command = environment::command(program);
    command.current_dir(checkout());
    command
}

/// Runs a command, which must succeed, and returns what it printed.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    );
    assert!(
        status.success(),
        "{command:?}: {status}\n{stdout}\n{stderr}"
    );
    stdout
}
