//! Alerts and dashboard: promtool's unit tests of the alerts, and a real Prometheus that scrapes a
//! real sidecar and answers every query of the dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::docs::{anchors, read};
use crate::support::daemon::Daemon;
use crate::support::environment;
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::tools::{script, tools};
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, holds_within};

const DASHBOARD: &str = "k8s/components/monitoring/dashboard.json";

#[test]
fn every_alert_fires_resolves_and_keeps_quiet_as_its_unit_tests_say() {
    let said = script("check-alerts", &[]);
    assert!(said.contains("alerts pass"), "{said}");
}

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let runbook = anchors(&read("docs/how-to/alerts.md"));
    let site = read("mkdocs.yml")
        .lines()
        .find_map(|line| line.strip_prefix("site_url: ").map(str::to_owned))
        .expect("mkdocs.yml has a site_url");
    let mut checked = 0;
    for file in crate::docs::files("k8s", "yaml") {
        let text = read(&file);
        for url in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        {
            let page = url.strip_prefix(&site).unwrap_or_else(|| panic!("{url}"));
            let anchor = page
                .strip_prefix("how-to/alerts/#")
                .unwrap_or_else(|| panic!("{url}"));
            assert!(runbook.contains(anchor), "{}: {url}", file.display());
            checked += 1;
        }
    }
    assert!(checked >= 9, "only {checked} alerts name a runbook");
}

#[test]
fn every_panel_of_the_dashboard_returns_data() {
    let upstream = Upstream::new();
    let root = Root::new();
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "nudge\n").unwrap();
    let mut sidecar = Launch::new(&upstream.url(), &root)
        .flag("nudge-token-file", token.path().to_str().unwrap())
        .flag("period", "1s")
        .http()
        .spawn();
    let address = sidecar.address();
    let prometheus = Daemon::start(|dir, port| prometheus(dir, port, &address));

    // A first scrape before the events, because rates compare two samples.
    wait_for_data(&prometheus, "gvr_ready");
    let commit = upstream.commit(&[("more.md", "more\n"), ("README.md", "second\n")]);
    nudge(&address);
    sidecar.wait_for(&root, &commit);
    upstream.remove();
    wait_for_failure(&mut sidecar);
    upstream.restore();

    let queries = queries();
    assert!(queries.len() > 20, "only {} queries", queries.len());
    let mut without_data = Vec::new();
    for (panel, query) in queries {
        if !holds_within(PATIENCE, || has_data(&prometheus, &query)) {
            without_data.push(format!("{panel}: {query}"));
        }
    }
    assert!(
        without_data.is_empty(),
        "no data:\n{}",
        without_data.join("\n")
    );
    sidecar.stop();
}

#[test]
fn the_dashboard_shows_every_series_of_ours_that_people_ask_for() {
    let text = read(DASHBOARD);
    for name in [
        "gvr_revision_info",
        "gvr_last_success_timestamp_seconds",
        "gvr_commit_timestamp_seconds",
        "gvr_nudge_to_publish_seconds",
        "gvr_sync_failures_total",
        "gvr_fetched_bytes_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(name), "{name}");
    }
}

/// Prometheus on this port, scraping the sidecar once a second with the labels of a PodMonitor.
fn prometheus(dir: &Path, port: u16, sidecar: &str) -> Command {
    let config = dir.join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: docs/git-volume-reloader\n  scrape_interval: 1s\n  \
         scrape_timeout: 1s\n  static_configs:\n  - targets: ['{sidecar}']\n    \
         labels: {{namespace: docs, pod: site-0}}\n"
    );
    fs::write(&config, text).unwrap();
    let binary = tools().join("bin/prometheus");
    let mut command = environment::command(binary.to_str().unwrap());
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command
}

/// Every query of the dashboard with the title of its panel, and with values for the variables that
/// Grafana fills in.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut titles = BTreeSet::new();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(titles.insert(title), "two panels are called {title}");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{title}");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$__range", "5m")
                .replace("$namespace", ".*")
                .replace("$target", ".*");
            assert!(!query.contains('$'), "{title}: {query}");
            queries.push((title.to_owned(), query));
        }
    }
    queries
}

#[track_caller]
fn wait_for_data(prometheus: &Daemon, query: &str) {
    assert!(
        holds_within(PATIENCE, || has_data(prometheus, query)),
        "no data for {query}:\n{}",
        prometheus.log()
    );
}

/// Whether Prometheus answers with at least one value that is a number.
fn has_data(prometheus: &Daemon, query: &str) -> bool {
    let mut url = url::Url::parse(&format!(
        "http://127.0.0.1:{}/api/v1/query",
        prometheus.port()
    ))
    .unwrap();
    url.query_pairs_mut().append_pair("query", query);
    let Ok(mut answer) = agent().get(url.as_str()).call() else {
        // It is not ready yet.
        return false;
    };
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"]
        .as_array()
        .unwrap()
        .iter()
        .any(|sample| {
            sample["value"][1]
                .as_str()
                .is_some_and(|value| value != "NaN")
        })
}

fn nudge(address: &str) {
    let answer = agent()
        .post(format!("http://{address}/nudge"))
        .header("Authorization", "Bearer nudge")
        .send_empty()
        .unwrap();
    assert_eq!(answer.status().as_u16() / 100, 2);
}

fn wait_for_failure(sidecar: &mut Sidecar) {
    sidecar.wait_for_metric("gvr_sync_failures_total", &[], 1.0);
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}
