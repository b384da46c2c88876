//! Bad input: a clear and distinct message, an exit code, a metric reason, and no harm to what
//! readers see.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::answers::{Answers, BadServer};
use crate::support::foreign::Volume;
use crate::support::http_server::HttpServer;
use crate::support::root::Root;
use crate::support::sidecar::{Launch, field};
use crate::support::upstream::{Upstream, git};

/// A password that must not be seen anywhere.
const SECRET: &str = "hunter2-s3cr3t";

#[test]
fn bad_usage_is_exit_code_2_and_names_the_flag() {
    let root = Root::new();
    let good = || Launch::one_time("file:///somewhere", &root);
    for (launch, flag) in [
        (good().without("repo"), "repo"),
        (good().flag("repo", ""), "repo"),
        (good().flag("repo", "ftp://host/x"), "repo"),
        (good().flag("repo", "git://host/x"), "repo"),
        (good().flag("repo", "ext::sh -c true"), "repo"),
        (good().flag("repo", "https:///no-host"), "repo"),
        (good().flag("repo", "--upload-pack=true"), "repo"),
        (good().without("root"), "root"),
        (good().flag("root", ""), "root"),
        (good().flag("ref", "bad..name"), "ref"),
        (good().flag("period", "soon"), "period"),
        (good().flag("period", "-1s"), "period"),
        (good().flag("sync-timeout", "0s"), "sync-timeout"),
        (good().flag("depth", "-1"), "depth"),
        (good().flag("keep", "many"), "keep"),
        (good().flag("http-bind", "nowhere"), "http-bind"),
        (good().flag("sync-on-signal", "SIGNONE"), "sync-on-signal"),
        (good().flag("sync-on-signal", "KILL"), "sync-on-signal"),
        (good().flag("log-format", "xml"), "log-format"),
        (good().flag("link", ""), "link"),
        (good().flag("link", ".gvr"), "link"),
        (good().flag("link", "../.."), "link"),
        (good().switch("no-such-flag"), "no-such-flag"),
    ] {
        let finished = launch.clone().run();
        assert_eq!(finished.code, Some(2), "{launch:?}: {finished:?}");
        finished.assert_failed(&[2], &[flag]);
        assert!(!root.path().exists(), "{launch:?} made the root");
    }
}

#[test]
fn a_bad_variable_is_named_as_such() {
    let root = Root::new();
    let launch = Launch::one_time("file:///somewhere", &root).without("period");
    let finished = launch.variable("GVR_PERIOD", "soon").run();
    finished.assert_failed(&[2], &["period", "soon"]);
}

#[test]
fn each_bad_repository_or_ref_has_its_own_message_and_reason() {
    let upstream = Upstream::new();
    let empty = Upstream::empty();
    let not_a_repository = tempfile::tempdir().unwrap();
    fs::write(not_a_repository.path().join("file"), "").unwrap();
    let directory = not_a_repository.path().to_str().unwrap();
    let absent = "0123456789abcdef0123456789abcdef01234567";
    let refused = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = refused.local_addr().unwrap().port();
    drop(refused);
    let html = BadServer::start(Answers::html("200 OK"));
    let not_found = BadServer::start(Answers::html("404 Not Found"));
    let denied = BadServer::start(Answers::html("401 Unauthorized"));
    let forbidden = BadServer::start(Answers::html("403 Forbidden"));
    let broken = BadServer::start(Answers::html("500 Internal Server Error"));
    let busy = BadServer::start(Answers::html("503 Service Unavailable"));
    let garbage = BadServer::start(Answers::Bytes(b"\x00\xff garbage\r\n\r\n".to_vec()));
    let nothing = BadServer::start(Answers::Bytes(Vec::new()));
    let silent = BadServer::start(Answers::Silence);

    let cases: Vec<(&str, String, &str, &[&str])> = vec![
        (
            "no such path",
            "file:///nowhere/x.git".into(),
            "HEAD",
            &["not_found"],
        ),
        (
            "no repository",
            format!("file://{directory}"),
            "HEAD",
            &["not_found"],
        ),
        ("empty", empty.url(), "HEAD", &["ref_missing"]),
        (
            "no such branch",
            upstream.url(),
            "no-such-branch",
            &["ref_missing"],
        ),
        ("no such commit", upstream.url(), absent, &["ref_missing"]),
        (
            "refused",
            format!("http://127.0.0.1:{port}/x.git"),
            "HEAD",
            &["network"],
        ),
        (
            "no such host",
            "http://no-such-host.invalid/x".into(),
            "HEAD",
            &["network", "timeout"],
        ),
        ("html", html.url(""), "HEAD", &["protocol"]),
        ("404", not_found.url(""), "HEAD", &["not_found"]),
        ("401", denied.url(""), "HEAD", &["auth"]),
        ("403", forbidden.url(""), "HEAD", &["auth"]),
        ("500", broken.url(""), "HEAD", &["server"]),
        ("503", busy.url(""), "HEAD", &["server"]),
        ("garbage", garbage.url(""), "HEAD", &["protocol", "network"]),
        ("nothing", nothing.url(""), "HEAD", &["network", "protocol"]),
        ("silence", silent.url(""), "HEAD", &["timeout"]),
    ];
    let published = upstream.tip("HEAD");
    let dir = tempfile::tempdir().unwrap();
    let error_file = dir.path().join("error");
    let mut messages: BTreeMap<String, &str> = BTreeMap::new();
    for (case, repo, name, reasons) in cases {
        let root = Root::new();
        Launch::one_time(&upstream.url(), &root).succeed();
        let finished = Launch::one_time(&repo, &root)
            .flag("ref", name)
            .flag("stall-timeout", "1s")
            .flag("sync-timeout", "2s")
            .flag("error-file", error_file.to_str().unwrap())
            .run();
        assert_eq!(finished.code, Some(1), "{case}: {finished:?}");
        let error = fs::read_to_string(&error_file).unwrap();
        let reason = field(&error, "reason").unwrap_or_default();
        assert!(reasons.contains(&&*reason), "{case}: {error} {finished:?}");
        root.assert_published(&upstream, &published);
        // The same failure in a place of its own must not pass for another one.
        let message = without_ports(finished.last_line())
            .replace(&*without_ports(&repo), "REPO")
            .replace(name, "REF");
        if let Some(other) = messages.insert(message.clone(), case) {
            panic!("{case} and {other} say the same: {message}");
        }
    }
}

#[test]
fn a_repository_in_sha256_format_is_refused_with_what_to_do() {
    let site = tempfile::tempdir().unwrap();
    let repository = site.path().join("repo.git");
    let run = |args: &[&str]| {
        let done = git(site.path()).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    run(&["init", "--quiet", "--object-format=sha256", "work"]);
    run(&[
        "-C",
        "work",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "x",
    ]);
    run(&["clone", "--quiet", "--bare", "work", "repo.git"]);
    let server = HttpServer::start(site.path());
    let file = format!("file://{}", repository.display());
    for (repo, version_0) in [
        (file, false),
        (server.url("repo.git"), false),
        (server.url("repo.git"), true),
    ] {
        server.only_version_0(version_0);
        let root = Root::new();
        Launch::one_time(&repo, &root).run().assert_failed(
            &[1],
            &["object format sha256", "only sha1", "--object-format=sha1"],
        );
        assert_eq!(root.commit(), None);
    }
}

#[test]
fn a_tag_of_a_tree_or_a_file_is_refused_with_what_to_do() {
    let upstream = Upstream::new();
    let published = upstream.commit(&[("file", "text")]);
    upstream.git(&["tag", "tree", "main^{tree}"]);
    upstream.git(&["tag", "blob", "main:file"]);
    upstream.git(&["tag", "-a", "-m", "x", "annotated", "main^{tree}"]);
    let site = upstream.path().parent().unwrap();
    let server = HttpServer::start(site);
    let tree = upstream.git(&["rev-parse", "main^{tree}"]);
    for (repo, version_0) in [
        (upstream.url(), false),
        (server.url("upstream.git"), false),
        (server.url("upstream.git"), true),
    ] {
        server.only_version_0(version_0);
        let root = Root::new();
        Launch::one_time(&repo, &root).succeed();
        for (name, kind) in [
            ("tree", "tree"),
            ("blob", "blob"),
            ("annotated", "tree"),
            (&tree, "tree"),
        ] {
            // The second time, what was fetched is there.
            for _ in 0..2 {
                let failed = Launch::one_time(&repo, &root).flag("ref", name).run();
                let says = format!("leads to a {kind}, not to a commit");
                failed.assert_failed(&[1], &[name, &says, "let --ref name a branch"]);
            }
        }
        root.assert_published(&upstream, &published);
        root.assert_tidy(&[]);
    }
}

#[test]
fn a_failure_is_counted_under_its_stage_and_reason_and_told_by_status() {
    let upstream = Upstream::new();
    let root = Root::new();
    Launch::one_time(&upstream.url(), &root).succeed();
    let server = BadServer::start(Answers::html("404 Not Found"));
    let mut sidecar = Launch::new(&server.url(""), &root).http().spawn();
    let labels = [("stage", "poll"), ("reason", "not_found")];
    sidecar.wait_for_metric("gvr_sync_failures_total", &labels, 2.0);
    assert!(sidecar.metric("gvr_consecutive_failures", &[]) >= 2.0);
    let status = sidecar.status().to_string();
    for part in ["not_found", "poll", "404"] {
        assert!(status.contains(part), "no {part} in {status}");
    }
    root.assert_published(&upstream, &upstream.tip("HEAD"));
}

#[test]
fn a_root_that_is_a_file_is_refused_and_left_alone() {
    let upstream = Upstream::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("root");
    fs::write(&file, "mine").unwrap();
    let root = Root::at(&file);
    let finished = Launch::one_time(&upstream.url(), &root).run();
    finished.assert_failed(&[1, 2], &[file.to_str().unwrap(), "not a directory"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_root_that_belongs_to_somebody_else_and_is_not_writable_is_refused() {
    let upstream = Upstream::new();
    let volume = Volume::new(0o755);
    volume.give(upstream.path());
    let root = Root::at(&volume.path().join("root"));
    fs::create_dir(root.path()).unwrap();
    volume.share(root.path());
    let launch = volume.launch(Launch::one_time(&upstream.url(), &root));
    let finished = launch.run();
    finished.assert_failed(&[1, 2], &[root.path().to_str().unwrap(), "permission"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_root_that_cannot_be_made_is_refused() {
    let upstream = Upstream::new();
    let root = Root::at("/proc/nowhere/root".as_ref());
    let finished = Launch::one_time(&upstream.url(), &root).run();
    finished.assert_failed(&[1, 2], &["/proc/nowhere"]);
}

#[test]
fn a_link_path_that_is_a_directory_or_a_file_is_refused_and_left_alone() {
    let upstream = Upstream::new();
    let root = Root::new();
    fs::create_dir_all(root.path().join("directory/inside")).unwrap();
    fs::create_dir_all(root.path().join("empty")).unwrap();
    fs::write(root.path().join("file"), "mine").unwrap();
    for name in ["directory", "empty", "file"] {
        let finished = Launch::one_time(&upstream.url(), &root)
            .flag("link", name)
            .run();
        finished.assert_failed(&[1, 2], &[root.path().join(name).to_str().unwrap()]);
    }
    assert!(root.path().join("directory/inside").is_dir());
    assert!(root.path().join("empty").is_dir());
    assert_eq!(
        fs::read_to_string(root.path().join("file")).unwrap(),
        "mine"
    );
}

#[test]
fn a_root_inside_another_repository_leaves_that_repository_alone() {
    let upstream = Upstream::new();
    let outer = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let out = git(outer.path()).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    git(&["init", "-q"]);
    fs::write(outer.path().join("tracked"), "outer\n").unwrap();
    fs::write(outer.path().join(".gitignore"), "/root\n").unwrap();
    fs::write(outer.path().join(".gitattributes"), "* text eol=crlf\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "outer"]);
    let before = git(&["rev-parse", "HEAD"]);
    let root = Root::at(&outer.path().join("root"));
    Launch::one_time(&upstream.url(), &root).succeed();
    root.assert_published(&upstream, &upstream.tip("HEAD"));
    assert_eq!(git(&["rev-parse", "HEAD"]), before);
    assert_eq!(git(&["status", "--porcelain"]), "");
}

#[test]
fn foreign_files_in_the_root_are_never_deleted() {
    let upstream = Upstream::new();
    let root = Root::new();
    fs::create_dir_all(root.path().join("lost+found")).unwrap();
    fs::set_permissions(
        root.path().join("lost+found"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fs::write(root.path().join(".nfs000000000012"), "busy").unwrap();
    fs::write(root.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(root.path().join("tmp-link")).unwrap();
    std::os::unix::fs::symlink("notes.txt", root.path().join("other-link")).unwrap();
    let foreign = [
        "lost+found",
        ".nfs000000000012",
        "notes.txt",
        "tmp-link",
        "other-link",
    ];
    for _ in 0..2 {
        let commit = upstream.commit_changes("main", &[]);
        Launch::one_time(&upstream.url(), &root)
            .flag("keep", "0")
            .flag("stale-timeout", "0s")
            .succeed();
        root.assert_published(&upstream, &commit);
        root.assert_tidy(&foreign);
        for name in foreign {
            let kept = fs::symlink_metadata(root.path().join(name)).is_ok();
            assert!(kept, "{name} is gone");
        }
    }
    assert_eq!(
        fs::read_to_string(root.path().join("notes.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn a_link_of_somebody_elses_is_refused_or_replaced_but_never_followed() {
    let upstream = Upstream::new();
    let root = Root::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("precious"), "mine").unwrap();
    fs::create_dir_all(root.path()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.link()).unwrap();
    Launch::one_time(&upstream.url(), &root).run();
    let kept = fs::read_to_string(elsewhere.path().join("precious")).unwrap();
    assert_eq!(kept, "mine");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn credentials_in_a_url_that_cannot_be_used_are_not_printed() {
    let root = Root::new();
    for repo in [
        format!("ftp://user:{SECRET}@host/x"),
        format!("https://user:{SECRET}@/x"),
        format!("https://user:{SECRET}@ho st/x"),
        format!("htps://{SECRET}@host/x"),
        format!("https://user:{SECRET}@host:99999/x"),
        format!("ext::{SECRET}"),
        format!("user:{SECRET}@host/x"),
        format!("https:/user:{SECRET}@host/x"),
    ] {
        let finished = Launch::one_time(&repo, &root).run();
        finished.assert_failed(&[2], &["repo"]);
        for text in [&finished.stdout, &finished.stderr] {
            assert!(!text.contains(SECRET), "{repo}: {text}");
        }
    }
}

#[test]
fn a_url_without_its_flag_is_not_printed() {
    let finished = Launch::bare()
        .subcommand(&[&format!("https://user:{SECRET}@host/x")])
        .run();
    finished.assert_failed(&[2], &["--repo"]);
    assert!(!finished.stderr.contains(SECRET), "{}", finished.stderr);
}

#[test]
fn credentials_in_a_url_are_in_no_log_no_status_no_metric_and_no_error_file() {
    let dir = tempfile::tempdir().unwrap();
    let error_file = dir.path().join("error");
    for answers in [
        Answers::html("401 Unauthorized"),
        Answers::html("404 Not Found"),
        Answers::html("200 OK"),
        Answers::Bytes(Vec::new()),
    ] {
        let server = BadServer::start(answers);
        let repo = format!(
            "{}?private_token={SECRET}",
            server.url(&format!("user:{SECRET}@"))
        );
        let root = Root::new();
        let mut sidecar = Launch::new(&repo, &root)
            .flag("log-level", "trace")
            .flag("error-file", error_file.to_str().unwrap())
            .http()
            .spawn();
        sidecar.wait_for_metric("gvr_consecutive_failures", &[], 2.0);
        let told = [
            sidecar.get("/status").body,
            sidecar.get("/metrics").body,
            sidecar.get("/readyz").body,
            fs::read_to_string(&error_file).unwrap(),
        ];
        let finished = sidecar.stop();
        for text in told.iter().chain([&finished.stdout, &finished.stderr]) {
            assert!(!text.contains(SECRET), "{text}");
        }
        assert!(!finished.stderr.is_empty());
    }
}

#[test]
fn the_last_line_of_a_failing_run_says_what_to_do() {
    let upstream = Upstream::new();
    let root = Root::new();
    let finished = Launch::one_time(&upstream.url(), &root)
        .flag("ref", "no-such-branch")
        .flag("log-format", "text")
        .run();
    finished.assert_failed(&[1], &["no-such-branch"]);
    assert!(finished.last_line().contains("--ref"), "{finished:?}");
}

/// The text with the ports of the loopback address taken out.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str("127.0.0.1:");
        clean.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    clean
}
