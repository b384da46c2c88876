//! The manifests name only what the program has, and their settings work.
//!
//! That the manifests are valid for Kubernetes is not checked here: `make k8s-check` does, as it
//! needs kubectl and the schemas.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use git_volume_reloader::base::error::Reason;
use git_volume_reloader::observe::metrics;
use git_volume_reloader::serve::routes::ROUTES;

use crate::docs::{files, flags, in_a_flag, read, words};

/// Every manifest, and the one in the README, by name.
fn manifests() -> Vec<(String, String)> {
    let mut manifests = files("k8s", "yaml")
        .into_iter()
        // Without the lines that separate documents, which look like flags.
        .map(|path| {
            (
                path.display().to_string(),
                read(&path).replace("\n---\n", "\n"),
            )
        })
        .collect::<Vec<_>>();
    let readme = read("README.md");
    let quick_start = readme
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the README shows a manifest");
    manifests.push(("README.md".to_owned(), quick_start.to_owned()));
    manifests
}

#[test]
fn every_flag_in_a_manifest_exists() {
    let flags = flags();
    let mut checked = BTreeSet::new();
    for (name, text) in manifests() {
        for flag in words(&text, "--", in_a_flag) {
            // Prometheus's flags have a point, as in --config.file.
            if text.contains(&format!("{flag}.")) {
                continue;
            }
            assert!(flags.contains_key(&flag), "{name}: {flag}");
            checked.insert(flag);
        }
    }
    assert!(checked.contains("--one-time"), "{checked:?}");
}

#[test]
fn every_variable_in_a_manifest_is_a_flags() {
    let variables = flags()
        .into_keys()
        .map(|flag| format!("GVR_{}", flag[2..].replace('-', "_").to_uppercase()))
        .collect::<BTreeSet<_>>();
    let mut checked = BTreeSet::new();
    for (name, text) in manifests() {
        for variable in words(&text, "GVR_", |c| c.is_ascii_uppercase() || c == '_') {
            assert!(variables.contains(&variable), "{name}: {variable}");
            checked.insert(variable);
        }
    }
    assert!(checked.contains("GVR_HTTP_BIND"), "{checked:?}");
}

#[test]
fn every_metric_in_a_manifest_exists() {
    let mut checked = BTreeSet::new();
    let mut manifests = manifests();
    let dashboard = "k8s/components/monitoring/dashboard.json";
    manifests.push((dashboard.to_owned(), read(dashboard)));
    for (name, text) in manifests {
        for word in words(&text, "gvr_", |c| c.is_ascii_lowercase() || c == '_') {
            let series = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| word.strip_suffix(part))
                .unwrap_or(&word);
            let known = metrics::NAMES.contains(&series);
            assert!(known, "{name}: {word}");
            checked.insert(word);
        }
    }
    assert!(checked.contains("gvr_ready"), "{checked:?}");
}

#[test]
fn every_reason_in_an_alert_exists() {
    let rules = read("k8s/components/monitoring/prometheusrule.yaml");
    let reasons = Reason::FAILURES.map(Reason::as_str);
    let mut checked = 0;
    for matcher in rules.split("reason=~\"").skip(1) {
        for reason in matcher.split('"').next().unwrap_or_default().split('|') {
            assert!(reasons.contains(&reason), "{reason}");
            checked += 1;
        }
    }
    assert!(checked > 0, "no alert matches reasons");
}

#[test]
fn every_path_that_is_probed_or_scraped_is_served() {
    for manifest in [
        "k8s/components/sidecar/patch.yaml",
        "k8s/components/monitoring/podmonitor.yaml",
    ] {
        let text = read(manifest);
        let paths = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("path: "))
            .collect::<BTreeSet<_>>();
        assert!(!paths.is_empty(), "{manifest} names no path");
        for path in paths {
            assert!(
                ROUTES.iter().any(|(served, ..)| *served == path),
                "{manifest}: {path}"
            );
        }
    }
}

#[test]
fn the_settings_of_every_kustomization_publish_a_tree() {
    let upstream = tempfile::tempdir().expect("a temporary directory");
    commit_something(upstream.path());
    let mut tried = 0;
    for (name, text) in manifests() {
        let settings = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- GVR_"))
            .filter_map(|setting| setting.split_once('='))
            .map(|(key, value)| (format!("GVR_{key}"), value))
            .collect::<Vec<_>>();
        if settings.is_empty() {
            continue;
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        let output = Command::new(env!("CARGO_BIN_EXE_git-volume-reloader"))
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .arg("--repo")
            .arg(upstream.path())
            .arg("--root")
            .arg(root.path())
            .args(["--ref", "HEAD", "--one-time"])
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{name}: {output:?}");
        let published = settings
            .iter()
            .find_map(|(name, value)| (name == "GVR_PATH").then_some(*value))
            .unwrap_or_default();
        let published = root.path().join("current").join(published).join("index.md");
        assert_eq!(fs::read(published).expect("it is there"), b"hello\n");
        tried += 1;
    }
    assert!(tried >= 2, "only {tried} kustomizations have settings");
}

fn commit_something(directory: &Path) {
    fs::create_dir(directory.join("dags")).expect("it can be made");
    for file in ["index.md", "dags/index.md"] {
        fs::write(directory.join(file), "hello\n").expect("it can be written");
    }
    for arguments in [
        &["init", "-q", "-b", "main", "."][..],
        &["add", "."],
        &["commit", "-q", "-m", "Say hello"],
    ] {
        let output = git(directory, arguments);
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=k8s", "-c", "user.email=k8s@localhost"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .expect("git runs")
}
