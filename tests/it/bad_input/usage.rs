//! A wrong command line or variable is exit code 2, names the flag, and touches nothing.

use crate::support::root::Root;
use crate::support::sidecar::Launch;

/// Runs a correct command line with one flag changed.
#[track_caller]
fn assert_refused(flag: &str, change: impl Fn(Launch) -> Launch) {
    let root = Root::new();
    let launch = change(Launch::one_time("file:///somewhere", &root));
    let finished = launch.clone().run();
    assert_eq!(finished.code, Some(2), "{launch:?}: {finished:?}");
    finished.assert_failed(&[2], &[flag]);
    assert!(!root.path().exists(), "{launch:?} made the root");
}

#[track_caller]
fn assert_value_refused(flag: &str, value: &str) {
    assert_refused(flag, |launch| launch.flag(flag, value));
}

#[test]
fn a_bare_command_names_the_first_flag_that_is_required() {
    Launch::bare().run().assert_failed(&[2], &["--repo"]);
}

#[test]
fn a_repository_is_required() {
    assert_refused("repo", |launch| launch.without("repo"));
    assert_value_refused("repo", "");
}

#[test]
fn a_scheme_that_is_not_supported_is_refused() {
    assert_value_refused("repo", "ftp://host/x");
}

#[test]
fn the_unauthenticated_git_protocol_is_refused() {
    assert_value_refused("repo", "git://host/x");
}

#[test]
fn a_remote_helper_is_refused() {
    assert_value_refused("repo", "ext::sh -c true");
}

#[test]
fn a_url_without_a_host_is_refused() {
    assert_value_refused("repo", "https:///no-host");
}

#[test]
fn a_repository_that_looks_like_an_option_of_git_is_refused() {
    assert_value_refused("repo", "--upload-pack=true");
}

#[test]
fn a_root_is_required() {
    assert_refused("root", |launch| launch.without("root"));
    assert_value_refused("root", "");
}

#[test]
fn a_malformed_ref_is_refused() {
    assert_value_refused("ref", "bad..name");
}

#[test]
fn a_period_that_is_no_duration_is_refused() {
    assert_value_refused("period", "soon");
    assert_value_refused("period", "-1s");
}

#[test]
fn a_duration_without_a_unit_is_refused() {
    assert_value_refused("period", "10");
}

#[test]
fn a_sync_timeout_of_zero_is_refused() {
    assert_value_refused("sync-timeout", "0s");
}

#[test]
fn a_negative_depth_is_refused() {
    assert_value_refused("depth", "-1");
}

#[test]
fn a_count_that_is_no_number_is_refused() {
    assert_value_refused("keep", "many");
}

#[test]
fn an_address_without_a_port_is_refused() {
    assert_value_refused("http-bind", "nowhere");
}

#[test]
fn a_signal_that_does_not_exist_is_refused() {
    assert_value_refused("sync-on-signal", "SIGNONE");
}

#[test]
fn a_signal_that_cannot_trigger_a_poll_is_refused() {
    assert_value_refused("sync-on-signal", "KILL");
}

#[test]
fn an_unknown_log_format_is_refused() {
    assert_value_refused("log-format", "xml");
}

#[test]
fn a_link_without_a_name_is_refused() {
    assert_value_refused("link", "");
}

#[test]
fn a_link_in_our_own_directory_is_refused() {
    assert_value_refused("link", ".gvr");
}

#[test]
fn a_link_that_contains_the_root_is_refused() {
    assert_value_refused("link", "../..");
}

#[test]
fn an_unknown_flag_is_refused() {
    assert_refused("no-such-flag", |launch| launch.switch("no-such-flag"));
}

#[test]
fn a_bad_variable_is_named_as_such() {
    let root = Root::new();
    let launch = Launch::one_time("file:///somewhere", &root).without("period");
    let finished = launch.variable("GVR_PERIOD", "soon").run();
    finished.assert_failed(&[2], &["period", "soon"]);
}
