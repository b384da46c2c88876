//! Several targets in one process: each follows its own repository into its own root.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use git_volume_reloader::app::Running;
use git_volume_reloader::cli::Cli;
use git_volume_reloader::config::Config;

use crate::serve::{ask, get};
use crate::support::root::Root;
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

const TOKEN: &str = "let-me-in";

/// The configuration of one target, as the flags give it.
fn config(upstream: &Upstream, root: &Root, name: &str, more: &[&str]) -> Config {
    let (url, root) = (upstream.url(), root.path().to_str().unwrap().to_owned());
    let mut args = vec!["gvr", "--repo", &url, "--root", &root, "--name", name];
    args.extend(["--period", "1h"]);
    args.extend(more);
    let cli = Cli::try_parse_from(args).unwrap();
    Config::resolve(&cli.flags).unwrap()
}

/// The names of the targets with their commits.
fn shown_by_status(address: SocketAddr) -> Vec<(String, String)> {
    let status: serde_json::Value = serde_json::from_str(&get(address, "/status").body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let targets = status["targets"].as_array().unwrap();
    targets
        .iter()
        .map(|target| (text(&target["target"]), text(&target["commit"]["id"])))
        .collect()
}

#[test]
fn two_targets_follow_their_repositories_in_one_process_behind_one_port() {
    let (docs, dags) = (Upstream::new(), Upstream::new());
    let (docs_root, dags_root) = (Root::new(), Root::new());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), TOKEN).unwrap();
    let token = token.path().to_str().unwrap();
    let serve = ["--http-bind", "127.0.0.1:0", "--nudge-token-file", token];
    let mut both = config(&docs, &docs_root, "docs", &serve);
    both.targets
        .extend(config(&dags, &dags_root, "dags", &[]).targets);

    let running = Running::start_without_signals(both).unwrap();
    let address = running.local_addr().unwrap();
    let ready = || get(address, "/readyz").status == 200;
    wait_until(PATIENCE, "both targets to be ready", ready);
    docs_root.assert_published(&docs, &docs.tip("main"));
    dags_root.assert_published(&dags, &dags.tip("main"));

    // A nudge names one target, and the other one goes on waiting for its period.
    let in_docs = docs.commit(&[("README.md", "docs\n")]);
    let in_dags = dags.commit(&[("README.md", "dags\n")]);
    let nudge = |query: &str| {
        let head = format!(
            "POST /nudge{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        ask(address, head.as_bytes()).status
    };
    assert_eq!(nudge("?target=nobody"), 404);
    assert_eq!(nudge("?target=dags"), 202);
    let shows = |root: &Root, commit: &str| root.commit().as_deref() == Some(commit);
    wait_until(PATIENCE, "the nudged target to follow", || {
        shows(&dags_root, &in_dags)
    });
    assert!(!shows(&docs_root, &in_docs));
    assert_eq!(nudge(""), 202);
    wait_until(PATIENCE, "the other target to follow", || {
        shows(&docs_root, &in_docs)
    });

    // The status follows the flip of the link.
    let expected = [("docs".to_owned(), in_docs), ("dags".to_owned(), in_dags)];
    wait_until(PATIENCE, "/status to show both targets in order", || {
        shown_by_status(address) == expected
    });
    let page = get(address, "/metrics").body;
    for name in ["docs", "dags"] {
        assert!(page.contains(&format!("gvr_ready{{target=\"{name}\"}} 1\n")));
        assert!(page.contains(&format!(
            "gvr_syncs_total{{target=\"{name}\",outcome=\"changed\"}} 2\n"
        )));
    }

    let began = Instant::now();
    running.shut_down();
    assert_eq!(running.watch(), ExitCode::SUCCESS);
    let took = began.elapsed();
    assert!(took.as_secs() < 2, "the shutdown took {took:?}");
}
