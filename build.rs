//! Names the commit that the binary is built from, for `--version` and `gvr_build_info`.
//!
//! `GVR_COMMIT` takes precedence, because an image build has no `.git`; then `git rev-parse`; if both
//! are missing, the commit is "unknown".
#![allow(clippy::disallowed_methods)] // Cargo passes settings to a build script by the environment.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=GVR_COMMIT");
    for changes_with_head in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", changes_with_head]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = std::env::var("GVR_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=GVR_BUILD_COMMIT={commit}");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim().to_owned())
}
