//! The readers of the manifests: real nginx with the ConfigMap's configuration, and the example that
//! builds a site with real mkdocs.

use std::fs;
use std::path::Path;

use crate::support::daemon::Daemon;
use crate::support::nginx::{ask, nginx};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::tools::{in_checkout, tools};
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, wait_until};

const CONFIGURATIONS: [&str; 2] = ["k8s/base/nginx.conf", "k8s/examples/mkdocs/nginx.conf"];

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[test]
fn a_directory_without_a_slash_is_found_behind_a_service_on_another_port() {
    for configuration in CONFIGURATIONS {
        let upstream = Upstream::new();
        upstream.commit(&[("guide/index.html", "the guide\n")]);
        let root = Root::new();
        Launch::one_time(&upstream.url(), &root).succeed();
        let server = nginx(configuration, root.path());
        // A Service forwards its port 80 to the pod's port 8080; the client names only the Service.
        let service = TcpProxy::to(server.port());
        let (head, _) = ask(service.port(), "site.docs", "/guide");
        assert_eq!(status(&head), "301", "{configuration}: {head}");
        let location = head
            .lines()
            .find_map(|line| line.strip_prefix("Location: "));
        assert_eq!(location, Some("/guide/"), "{configuration}: {head}");
        let (head, body) = ask(service.port(), "site.docs", "/guide/");
        assert_eq!((status(&head), body.as_str()), ("200", "the guide\n"));
    }
}

#[test]
fn nginx_serves_the_new_tree_with_the_request_after_the_flip() {
    let upstream = Upstream::new();
    upstream.commit(&[("index.html", "old\n"), (".git-notes", "hidden\n")]);
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    let server = nginx(CONFIGURATIONS[0], root.path());
    assert_eq!(ask(server.port(), "site", "/").1, "old\n");
    assert_eq!(status(&ask(server.port(), "site", "/healthz").0), "204");
    assert_eq!(status(&ask(server.port(), "site", "/.git-notes").0), "404");
    upstream.commit(&[("index.html", "new\n")]);
    Launch::one_time(&upstream.url(), &root).succeed();
    assert_eq!(ask(server.port(), "site", "/").1, "new\n");
}

#[test]
fn a_build_that_fails_keeps_the_old_site_is_reported_and_is_tried_again() {
    let upstream = Upstream::new();
    let good = "site_name: Handbook\nplugins: []\n";
    upstream.commit(&[("mkdocs.yml", good), ("docs/index.md", "# Hello\n")]);
    let root = Root::new();
    let mut sidecar = Launch::new(&upstream.url(), &root).spawn();
    sidecar.wait_for(&root, &upstream.tip("refs/heads/main"));

    let site = tempfile::tempdir().unwrap();
    let mut build = in_checkout("sh");
    build
        .arg("k8s/examples/mkdocs/build.sh")
        .args([root.link(), site.path()])
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", tools().join("venv/bin").display()),
        );
    let builder = Daemon::run(build);
    let first = root.commit().unwrap();
    wait_for_metric(
        site.path(),
        &format!("site_build_info{{commit=\"{first}\"}} 1"),
    );
    let index = site.path().join("current/index.html");
    assert!(fs::read_to_string(&index).unwrap().contains("Hello"));

    let broken = upstream.commit(&[("mkdocs.yml", "site_name: [\n")]);
    sidecar.wait_for(&root, &broken);
    // The second attempt is two seconds after the first.
    wait_for_metric(site.path(), "site_build_failures 2");
    assert!(fs::read_to_string(&index).unwrap().contains("Hello"));
    wait_for_metric(
        site.path(),
        &format!("site_build_info{{commit=\"{first}\"}} 1"),
    );
    let log = builder.log();
    assert!(
        log.contains(&format!("building {broken} failed, 2 times in a row")),
        "{log}"
    );

    let mended = upstream.commit(&[("mkdocs.yml", good), ("docs/index.md", "# Again\n")]);
    wait_for_metric(
        site.path(),
        &format!("site_build_info{{commit=\"{mended}\"}} 1"),
    );
    wait_for_metric(site.path(), "site_build_failures 0");
    assert!(fs::read_to_string(&index).unwrap().contains("Again"));
    sidecar.stop();
}

/// Waits for a line in the metrics that the builder writes.
#[track_caller]
fn wait_for_metric(site: &Path, line: &str) {
    wait_until(PATIENCE, line, || {
        fs::read_to_string(site.join("metrics"))
            .is_ok_and(|text| text.lines().any(|found| found == line))
    });
}
