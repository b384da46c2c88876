//! The help and the version, as users see them.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_git-volume-reloader"))
        .args(arguments)
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .expect("the binary runs")
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("the help is UTF-8")
}

#[test]
fn the_long_help_is_as_reviewed() {
    insta::assert_snapshot!(stdout(&["--help"]));
}

#[test]
fn the_short_help_is_as_reviewed() {
    insta::assert_snapshot!(stdout(&["-h"]));
}

#[test]
fn the_healthcheck_help_is_as_reviewed() {
    insta::assert_snapshot!(stdout(&["healthcheck", "--help"]));
}

#[test]
fn the_version_names_the_commit_it_was_built_from() {
    let version = stdout(&["--version"]);
    let expected = format!("git-volume-reloader {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&expected), "{version}");
    let commit = version
        .trim_end()
        .trim_end_matches(')')
        .rsplit('(')
        .next()
        .unwrap_or_default();
    assert!(
        commit == "unknown" || (commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit())),
        "{version}"
    );
}
