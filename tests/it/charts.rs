//! The Helm chart names only what the program has, and its settings work. That its objects are valid is
//! checked by `scripts/check-manifests`, which `make k8s-check` runs.

use std::collections::BTreeSet;
use std::process::Command;

use crate::docs::{flags, read};
use crate::support::root::Root;
use crate::support::sidecar::BINARY;
use crate::support::tools::script;
use crate::support::upstream::Upstream;

const VALUES: [&str; 4] = ["full", "minimal", "one-time", "ssh"];

#[test]
fn every_set_of_values_gives_settings_that_the_program_accepts() {
    let known = flags()
        .into_keys()
        .map(|flag| format!("GVR_{}", flag[2..].replace('-', "_").to_uppercase()))
        .collect::<BTreeSet<_>>();
    let upstream = Upstream::new();
    for values in VALUES {
        let rendered = script(
            "render-chart",
            &[
                "charts/git-volume-reloader",
                &format!("tests/charts/values/{values}.yaml"),
            ],
        );
        let settings = settings(&rendered);
        assert!(settings.len() >= 3, "{values}: {settings:?}");
        for (name, _) in &settings {
            assert!(known.contains(name), "{values}: {name}");
        }
        let root = Root::new();
        let output = Command::new(BINARY)
            .env_clear()
            .envs(settings.into_iter().filter(|(name, _)| {
                // These files and branches exist only in a pod.
                !name.ends_with("_FILE") && name != "GVR_REF" && name != "GVR_HTTP_BIND"
            }))
            .args(["--repo", &upstream.url(), "--root"])
            .arg(root.path())
            .args(["--one-time", "--log-level", "warn"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{values}: {output:?}");
        root.assert_published(&upstream, &upstream.tip("refs/heads/main"));
    }
}

#[test]
fn every_place_that_states_the_version_states_the_same() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("charts/git-volume-reloader/Chart.yaml", "version: {}"),
        (
            "charts/git-volume-reloader/Chart.yaml",
            "appVersion: \"{}\"",
        ),
        (
            "charts/git-volume-reloader/templates/_sidecar.tpl",
            "default \"{}\"",
        ),
        ("Dockerfile", "ARG VERSION={}"),
        ("Makefile", "IMAGE ?= git-volume-reloader:{}"),
        ("README.md", "/git-volume-reloader:{}"),
        (
            "examples/compose/compose.yaml",
            "image: git-volume-reloader:{}",
        ),
        ("examples/podman/pod.yaml", "/git-volume-reloader:{}"),
        (
            "k8s/base/kustomization.yaml",
            "app.kubernetes.io/version: {}",
        ),
        ("k8s/base/kustomization.yaml", "newTag: {}"),
        ("k8s/overlays/one-time/kustomization.yaml", "newTag: {}"),
        ("k8s/overlays/sidecar/kustomization.yaml", "newTag: {}"),
        ("k8s/examples/airflow/kustomization.yaml", "newTag: {}"),
        ("k8s/examples/grafana/kustomization.yaml", "newTag: {}"),
        ("k8s/examples/mkdocs/kustomization.yaml", "newTag: {}"),
        ("k8s/examples/prometheus/kustomization.yaml", "newTag: {}"),
    ] {
        let line = line.replace("{}", version);
        assert!(read(file).contains(&line), "{file}: no {line}");
    }
}

/// The variables that the rendered container sets.
fn settings(rendered: &str) -> Vec<(String, String)> {
    let lines = rendered.lines().map(str::trim).collect::<Vec<_>>();
    lines
        .windows(2)
        .filter_map(|pair| {
            let name = pair[0].strip_prefix("- name: GVR_")?;
            let value = pair[1].strip_prefix("value: ")?;
            Some((format!("GVR_{name}"), value.trim_matches('"').to_owned()))
        })
        .collect()
}
