//! Submodules: which, from where, with whose credentials, and what is refused.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::{Site, error_file, git_in, stage_and_reason};
use crate::support::http_server::HttpServer;
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::tree_compare::assert_same;
use crate::support::upstream::{Change, Upstream};

/// `.gitmodules` for submodules: path, url.
fn gitmodules(modules: &[(&str, &str)]) -> Change {
    let text: String = modules
        .iter()
        .map(|(path, url)| format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"))
        .collect();
    Change::file(".gitmodules", text)
}

fn submodule(path: &str, commit: &str) -> Change {
    Change::Submodule(path.into(), commit.into())
}

/// A superproject with `libs/sub`, which has `inner`, and with `other`, all by relative urls.
struct Nest {
    site: Site,
    superproject: Upstream,
    sub: Upstream,
    other: Upstream,
    _inner: Upstream,
}

impl Nest {
    fn new() -> Self {
        let (inner, sub, other, superproject) = (
            Upstream::new(),
            Upstream::new(),
            Upstream::new(),
            Upstream::new(),
        );
        let inner_commit = inner.commit(&[("deep/file", "inner\n")]);
        sub.commit_changes(
            "main",
            &[
                gitmodules(&[("inner", "../inner.git")]),
                submodule("inner", &inner_commit),
                Change::Executable("run".into(), b"#!/bin/sh\n".to_vec()),
            ],
        );
        other.commit(&[("other", "other\n")]);
        let nest = Self {
            site: Site::new(&[
                ("super.git", &superproject),
                ("sub.git", &sub),
                ("inner.git", &inner),
                ("other.git", &other),
            ]),
            superproject,
            sub,
            other,
            _inner: inner,
        };
        nest.superproject.commit_changes(
            "main",
            &[gitmodules(&[
                ("libs/sub", "../sub.git"),
                ("other", "../other.git"),
            ])],
        );
        nest.bump();
        nest
    }

    /// A commit of the superproject that takes the submodules' newest commits.
    fn bump(&self) -> String {
        self.superproject.commit_changes(
            "main",
            &[
                submodule("libs/sub", &self.sub.tip("main")),
                submodule("other", &self.other.tip("main")),
            ],
        )
    }

    fn tip(&self) -> String {
        self.superproject.tip("main")
    }
}

/// What git makes of a clone with its submodules, without what is git's own.
fn clone(url: &str, commit: &str, update: Option<&[&str]>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    git_in(dir.path(), &["clone", "-q", "--no-checkout", url, "clone"]);
    let tree = dir.path().join("clone");
    git_in(&tree, &["checkout", "-q", commit]);
    if let Some(words) = update {
        git_in(
            &tree,
            &[&["submodule", "--quiet", "update", "--init"], words].concat(),
        );
    }
    remove_git(&tree);
    dir
}

fn remove_git(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if entry.file_name() == ".git" {
            if kind.is_dir() {
                fs::remove_dir_all(entry.path()).unwrap();
            } else {
                fs::remove_file(entry.path()).unwrap();
            }
        } else if kind.is_dir() {
            remove_git(&entry.path());
        }
    }
}

#[test]
fn recursive_shallow_and_off_are_as_git_has_them() {
    let nest = Nest::new();
    let server = HttpServer::start(nest.site.path());
    for repo in [nest.site.url("super.git"), server.url("super.git")] {
        let root = Root::new();
        let modes: [(&str, Option<&[&str]>); 3] = [
            ("recursive", Some(&["--recursive"])),
            ("shallow", Some(&[])),
            ("off", None),
        ];
        for (mode, update) in modes {
            Launch::one_time(&repo, &root)
                .flag("submodules", mode)
                .succeed();
            let oracle = clone(&nest.site.url("super.git"), &nest.tip(), update);
            assert_same(&root.tree(), &oracle.path().join("clone"));
        }
        let revisions = root.revision();
        assert_eq!(revisions, 3, "each setting is a revision of its own");
    }
}

#[test]
fn a_submodule_that_alone_changed_is_followed_and_the_others_are_shared() {
    let nest = Nest::new();
    let root = Root::new();
    let mut sidecar = Launch::new(&nest.site.url("super.git"), &root).spawn();
    sidecar.wait_for(&root, &nest.tip());
    let before = root.tree();
    nest.sub.commit(&[("news", "news\n")]);
    let commit = nest.bump();
    sidecar.wait_for(&root, &commit);
    let oracle = clone(&nest.site.url("super.git"), &commit, Some(&["--recursive"]));
    assert_same(&root.tree(), &oracle.path().join("clone"));
    for unchanged in ["other/other", "libs/sub/run", "libs/sub/inner/deep/file"] {
        let inode = |tree: &Path| fs::metadata(tree.join(unchanged)).unwrap().ino();
        assert_eq!(inode(&before), inode(&root.tree()), "{unchanged}");
    }
}

#[test]
fn an_unchanged_submodule_is_not_asked_for_again() {
    let nest = Nest::new();
    let server = HttpServer::start(nest.site.path());
    let root = Root::new();
    let repo = server.url("super.git");
    Launch::one_time(&repo, &root).succeed();
    server.clear_log();
    let commit = nest.superproject.commit(&[("own", "")]);
    Launch::one_time(&repo, &root).succeed();
    assert_eq!(root.commit(), Some(commit));
    let targets: Vec<_> = server.requests().into_iter().map(|r| r.target).collect();
    assert!(
        targets.iter().all(|t| t.starts_with("/super.git/")),
        "{targets:?}"
    );
}

/// A superproject on one server, its submodule on another; each wants its own password.
struct Hosts {
    main: HttpServer,
    other: HttpServer,
    superproject: Upstream,
    _sites: [Site; 2],
    _sub: Upstream,
}

impl Hosts {
    fn new() -> Self {
        let (superproject, sub) = (Upstream::new(), Upstream::new());
        let sites = [
            Site::new(&[("super.git", &superproject)]),
            Site::new(&[("sub.git", &sub)]),
        ];
        let main = HttpServer::start(sites[0].path());
        let other = HttpServer::start(sites[1].path());
        main.require_auth("main", "tok3n-main");
        other.require_auth("other", "tok3n-other");
        superproject.commit_changes(
            "main",
            &[
                gitmodules(&[("sub", &other.url("sub.git"))]),
                submodule("sub", &sub.tip("main")),
            ],
        );
        Self {
            main,
            other,
            superproject,
            _sites: sites,
            _sub: sub,
        }
    }

    fn launch(&self, root: &Root) -> Launch {
        let password = root.path().with_file_name("password");
        fs::write(&password, "tok3n-main\n").unwrap();
        Launch::one_time(&self.main.url("super.git"), root)
            .flag("username", "main")
            .flag("password-file", password.to_str().unwrap())
            .flag("error-file", error_file(root).to_str().unwrap())
    }

    /// Everything that the other server was told about who is asking.
    fn heard(&self) -> Vec<String> {
        let requests = self.other.requests();
        assert!(!requests.is_empty());
        let mut heard: Vec<_> = requests
            .into_iter()
            .filter_map(|mut request| request.headers.remove("authorization"))
            .collect();
        heard.dedup();
        heard
    }
}

#[test]
fn another_host_gets_its_own_credentials_and_never_those_of_the_superproject() {
    use base64::Engine as _;
    let hosts = Hosts::new();
    let root = Root::new();
    let credential = serde_json::json!({
        "url": hosts.other.base(), "username": "other", "password": "tok3n-other",
    });
    let finished = hosts
        .launch(&root)
        .flag("credential", &credential.to_string())
        .succeed();
    assert_eq!(root.commit(), Some(hosts.superproject.tip("main")));
    assert!(root.tree().join("sub/README.md").exists());
    let expected = base64::prelude::BASE64_STANDARD.encode("other:tok3n-other");
    assert_eq!(hosts.heard(), [format!("Basic {expected}")]);
    assert!(!finished.stderr.contains("tok3n"), "{}", finished.stderr);
}

#[test]
fn without_credentials_for_another_host_it_is_asked_without_any() {
    let hosts = Hosts::new();
    let root = Root::new();
    let finished = hosts.launch(&root).run();
    finished.assert_failed(&[1], &["submodule sub", &hosts.other.url("sub.git")]);
    let (_, reason) = stage_and_reason(&error_file(&root)).unwrap();
    assert_eq!(reason, "auth");
    assert_eq!(hosts.heard(), [""; 0]);
    assert!(!finished.stderr.contains("tok3n"), "{}", finished.stderr);
}

#[test]
fn a_submodule_that_cannot_be_had_names_itself_and_leaves_the_old_tree() {
    let nest = Nest::new();
    let root = Root::new();
    let error_file = error_file(&root);
    let mut sidecar = Launch::new(&nest.site.url("super.git"), &root)
        .flag("error-file", error_file.to_str().unwrap())
        .spawn();
    let good = nest.tip();
    sidecar.wait_for(&root, &good);

    let missing = "1234567890123456789012345678901234567890";
    nest.superproject
        .commit_changes("main", &[submodule("other", missing)]);
    let url = nest.site.url("other.git");
    let path = url.trim_start_matches("file://");
    fails(
        &mut sidecar,
        &error_file,
        "ref_missing",
        &["submodule other", path, missing],
    );
    assert_eq!(root.commit().as_deref(), Some(&*good));

    nest.superproject.commit_changes(
        "main",
        &[
            gitmodules(&[("libs/sub", "../sub.git"), ("other", "../nobody.git")]),
            submodule("other", missing),
        ],
    );
    fails(
        &mut sidecar,
        &error_file,
        "not_found",
        &["submodule other", "nobody.git", missing],
    );
    assert_eq!(root.commit().as_deref(), Some(&*good));

    nest.superproject.commit_changes(
        "main",
        &[gitmodules(&[
            ("libs/sub", "../sub.git"),
            ("other", "../other.git"),
        ])],
    );
    let mended = nest.bump();
    sidecar.wait_for(&root, &mended);
    sidecar.stop();
    root.assert_tidy(&[]);
}

/// Waits for an error file that holds all this, with that reason.
#[track_caller]
fn fails(sidecar: &mut Sidecar, error_file: &Path, expected: &str, texts: &[&str]) {
    sidecar.wait_while_alive(&format!("an error with {texts:?}"), |_| {
        let text = fs::read_to_string(error_file).unwrap_or_default();
        texts.iter().all(|part| text.contains(part))
    });
    let (_, reason) = stage_and_reason(error_file).unwrap();
    assert_eq!(reason, expected);
}

#[test]
fn a_submodule_that_reaches_for_this_machine_is_refused_as_hostile() {
    let (superproject, sub) = (Upstream::new(), Upstream::new());
    let site = Site::new(&[("super.git", &superproject)]);
    let server = HttpServer::start(site.path());
    let marker = site.path().join("run");
    let urls = [
        format!("--upload-pack=touch {}", marker.display()),
        format!("ext::sh -c touch% {}", marker.display()),
        sub.url(),
        sub.path().to_str().unwrap().to_owned(),
        "../../../../etc".to_owned(),
    ];
    for url in urls {
        superproject.rewrite_from_nothing(
            "main",
            &[
                gitmodules(&[("sub", &format!("\"{url}\""))]),
                submodule("sub", &sub.tip("main")),
            ],
        );
        let root = Root::new();
        let error_file = error_file(&root);
        Launch::one_time(&server.url("super.git"), &root)
            .flag("error-file", error_file.to_str().unwrap())
            .run()
            .assert_failed(&[1], &["submodule \"sub\"", "--submodules off"]);
        let (_, reason) = stage_and_reason(&error_file).unwrap();
        assert_eq!(reason, "hostile", "{url}");
        assert_eq!(root.commit(), None, "{url}");
        assert!(!marker.exists(), "{url}");
    }
}

#[test]
fn a_submodule_at_no_tip_is_had_where_the_server_allows_it() {
    let nest = Nest::new();
    // A later commit takes the tip away from the one that the superproject names.
    let commit = nest.tip();
    nest.sub.commit(&[("later", "")]);
    nest.other.commit(&[("later", "")]);
    let server = HttpServer::start(nest.site.path());
    let root = Root::new();
    Launch::one_time(&server.url("super.git"), &root).succeed();
    assert_eq!(root.commit().as_deref(), Some(&*commit));
    assert!(!root.tree().join("other/later").exists());

    // Version 0 serves what refs lead to, unless the server is told otherwise.
    nest.other
        .rewrite_from_nothing("main", &[Change::file("rewritten", "")]);
    server.only_version_0(true);
    let root = Root::new();
    Launch::one_time(&server.url("super.git"), &root)
        .run()
        .assert_failed(&[1], &["submodule other", "other.git"]);
    server.git_config("uploadpack.allowAnySHA1InWant", "true");
    Launch::one_time(&server.url("super.git"), &root).succeed();
    assert_eq!(root.commit(), Some(commit));
}
