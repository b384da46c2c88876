//! The examples outside Kubernetes, the workflows and the linters' verdict on them, and the script that
//! reloads Prometheus.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::docs::read;
use crate::support::daemon::Daemon;
use crate::support::environment;
use crate::support::nginx::ask;
use crate::support::root::Root;
use crate::support::sidecar::{BINARY, Launch};
use crate::support::tools::{in_checkout, succeed, tools};
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

#[test]
fn the_compose_file_fits_the_compose_schema() {
    let mut check = in_checkout(tools().join("venv/bin/check-jsonschema").to_str().unwrap());
    check.args(["--builtin-schema", "vendor.compose-spec"]);
    succeed(check.arg("examples/compose/compose.yaml"));
}

#[test]
fn systemd_accepts_the_unit_and_calls_its_sandbox_safe() {
    let unit = read("examples/systemd/git-volume-reloader.service");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("git-volume-reloader.service");
    // systemd wants a binary that exists.
    fs::write(
        &file,
        unit.replace("/usr/local/bin/git-volume-reloader", BINARY),
    )
    .unwrap();
    let mut verify = in_checkout("systemd-analyze");
    let complaints = succeed(verify.args(["verify", "--man=no"]).arg(&file));
    assert_eq!(complaints, "");
    // 2.0 of 10: systemd's own word for it is "OK".
    let mut security = in_checkout("systemd-analyze");
    succeed(
        security
            .args(["security", "--offline=true", "--threshold=20"])
            .arg(&file),
    );
}

#[test]
fn the_flags_of_the_examples_publish_a_tree() {
    for file in [
        "README.md",
        "examples/compose/compose.yaml",
        "examples/podman/pod.yaml",
        "examples/systemd/git-volume-reloader.service",
    ] {
        let flags = read(file)
            .split([' ', '[', ']', ',', '\n'])
            .filter(|word| {
                ["--ref=", "--link="]
                    .iter()
                    .any(|flag| word.starts_with(flag))
            })
            .map(str::to_owned)
            .collect::<Vec<_>>();
        assert!(
            flags.contains(&"--ref=gh-pages".to_owned()),
            "{file}: {flags:?}"
        );
        let upstream = Upstream::new();
        upstream.commit(&[("index.html", "a site\n")]);
        let tip = upstream.tip("refs/heads/main");
        upstream.update_ref("refs/heads/gh-pages", &tip);
        let root = tempfile::tempdir().unwrap();
        let mut publish = environment::command(BINARY);
        publish.args(["--repo", &upstream.url(), "--one-time", "--root"]);
        succeed(publish.arg(root.path()).args(&flags));
        let link = if flags.len() > 1 { "html" } else { "current" };
        let index = fs::read_to_string(root.path().join(link).join("index.html"));
        assert_eq!(index.unwrap(), "a site\n", "{file}");
    }
}

#[test]
fn prometheus_gets_new_rules_after_a_commit_and_keeps_the_old_ones_if_promtool_refuses_them() {
    let rules = |name: &str, expr: &str| {
        format!("groups:\n- name: a\n  rules:\n  - alert: {name}\n    expr: {expr}\n")
    };
    let upstream = Upstream::new();
    let first = upstream.commit(&[("rules/a.yaml", &rules("First", "up == 0"))]);
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &first);

    let scratch = tempfile::tempdir().unwrap();
    let configuration = scratch.path().join("prometheus.yml");
    let text = read("k8s/examples/prometheus/prometheus.yml");
    assert!(text.contains("/volume/current/rules"));
    let text = text.replace("/volume/current", root.link().to_str().unwrap());
    fs::write(&configuration, text).unwrap();
    let prometheus = Daemon::start(|dir, port| {
        let mut command = environment::command(tools().join("bin/prometheus").to_str().unwrap());
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg("--web.enable-lifecycle")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command
    });
    let url = format!("http://127.0.0.1:{}", prometheus.port());
    let mut reload = in_checkout("sh");
    reload
        .arg("k8s/examples/prometheus/reload.sh")
        .arg(root.link())
        .arg(&url)
        .arg(&configuration)
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", tools().join("bin").display()),
        );
    let reloader = Daemon::run(reload);
    wait_for_rule(&prometheus, "First");

    let second = upstream.commit(&[("rules/a.yaml", &rules("Second", "up == 1"))]);
    sidecar.wait_for(&root, &second);
    wait_for_rule(&prometheus, "Second");

    let broken = upstream.commit(&[("rules/a.yaml", &rules("Broken", "up =="))]);
    sidecar.wait_for(&root, &broken);
    let refused = format!("the rules of {broken} are refused");
    wait_until(PATIENCE, &refused, || reloader.log().contains(&refused));
    assert_eq!(rule_names(&prometheus), ["Second"]);
    sidecar.stop();
}

#[test]
fn the_linters_accept_workflows_dockerfile_and_scripts() {
    succeed(&mut in_checkout("scripts/lint-files"));
}

#[test]
fn every_action_of_the_workflows_is_pinned_by_a_full_commit_with_its_version() {
    let mut pinned = 0;
    for file in crate::docs::files(".github/workflows", "yml") {
        for line in read(&file).lines().filter(|line| line.contains("uses: ")) {
            let (action, version) = line.split_once(" # v").unwrap_or_else(|| panic!("{line}"));
            let (_, commit) = action.split_once('@').unwrap_or_else(|| panic!("{line}"));
            let hex = commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(commit.len() == 40 && hex, "{}: {line}", file.display());
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{line}");
            pinned += 1;
        }
    }
    assert!(pinned > 10, "only {pinned} actions");
}

fn rule_names(prometheus: &Daemon) -> Vec<String> {
    let (head, body) = ask(prometheus.port(), "localhost", "/api/v1/rules");
    if !head.starts_with("HTTP/1.1 200") {
        return Vec::new();
    }
    // Prometheus sends a short body in one piece, and a chunked one with sizes around it.
    let start = body.find('{').unwrap_or_default();
    let end = body.rfind('}').map_or(body.len(), |end| end + 1);
    let answer: Value = serde_json::from_str(&body[start..end]).unwrap();
    answer["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| rule["name"].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn wait_for_rule(prometheus: &Daemon, name: &str) {
    wait_until(PATIENCE, &format!("the rule {name}"), || {
        rule_names(prometheus) == [name]
    });
}

#[test]
fn the_bill_of_materials_lists_every_crate_of_the_binary_and_is_valid() {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut sbom = in_checkout("python3");
    let first = succeed(sbom.args(["scripts/sbom", &target, "abc"]));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &first).unwrap();
    validate_bom(file.path());
    let bom: Value = serde_json::from_str(&first).unwrap();
    let names = bom["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["name"].as_str().unwrap())
        .collect::<Vec<_>>();
    assert!(
        names.contains(&"git2") && names.contains(&"libgit2-sys"),
        "{names:?}"
    );
    // Only tests use it.
    assert!(!names.contains(&"insta"), "{names:?}");
}

fn validate_bom(file: &Path) {
    let python = tools().join("venv/bin/python");
    let mut check = in_checkout(python.to_str().unwrap());
    let program = "import sys\nfrom cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
        sys.exit(errors and str(errors))";
    succeed(check.args(["-c", program]).arg(file));
}
