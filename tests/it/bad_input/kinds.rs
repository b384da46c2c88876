//! Repositories and refs that exist and cannot be published: the message says what to do.

use tempfile::TempDir;

use crate::support::http_server::HttpServer;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Upstream, git};

/// A directory with the bare repository `repo.git` in SHA-256 format.
fn sha256_repository() -> TempDir {
    let site = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let done = git(site.path()).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    run(&["init", "-q", "--object-format=sha256", "work"]);
    run(&["-C", "work", "commit", "-q", "--allow-empty", "-m", "x"]);
    run(&["clone", "-q", "--bare", "work", "repo.git"]);
    site
}

#[track_caller]
fn assert_sha256_refused(repo: &str) {
    let root = Root::new();
    Launch::one_time(repo, &root).run().assert_failed(
        &[1],
        &["object format sha256", "only sha1", "--object-format=sha1"],
    );
    assert_eq!(root.commit(), None);
}

#[test]
fn a_local_repository_in_sha256_format_is_refused() {
    let site = sha256_repository();
    let repository = site.path().join("repo.git");
    assert_sha256_refused(&format!("file://{}", repository.display()));
}

#[test]
fn a_repository_in_sha256_format_is_refused_over_protocol_version_2() {
    let site = sha256_repository();
    let server = HttpServer::start(site.path());
    assert_sha256_refused(&server.url("repo.git"));
}

#[test]
fn a_repository_in_sha256_format_is_refused_over_protocol_version_0() {
    let site = sha256_repository();
    let server = HttpServer::start(site.path());
    server.only_version_0(true);
    assert_sha256_refused(&server.url("repo.git"));
}

/// A repository with tags of other things than commits, and the remotes that reach it.
struct Tagged {
    upstream: Upstream,
    version_2: HttpServer,
    version_0: HttpServer,
}

impl Tagged {
    fn new() -> Self {
        let upstream = Upstream::new();
        upstream.commit(&[("file", "text")]);
        upstream.git(&["tag", "tree", "main^{tree}"]);
        upstream.git(&["tag", "blob", "main:file"]);
        upstream.git(&["tag", "-a", "-m", "x", "annotated", "main^{tree}"]);
        let site = upstream.path().parent().unwrap();
        let (version_2, version_0) = (HttpServer::start(site), HttpServer::start(site));
        version_0.only_version_0(true);
        Self {
            upstream,
            version_2,
            version_0,
        }
    }

    /// Each remote refuses the ref, before and after it has fetched what the ref leads to.
    #[track_caller]
    fn assert_refused(&self, reference: &str, kind: &str) {
        for repo in [
            self.upstream.url(),
            self.version_2.url("upstream.git"),
            self.version_0.url("upstream.git"),
        ] {
            let root = Root::new();
            Launch::one_time(&repo, &root).succeed();
            for _ in 0..2 {
                let failed = Launch::one_time(&repo, &root).flag("ref", reference).run();
                let says = format!("leads to a {kind}, not to a commit");
                failed.assert_failed(&[1], &[reference, &says, "let --ref name a branch"]);
            }
            root.assert_published(&self.upstream, &self.upstream.tip("main"));
            root.assert_tidy(&[]);
        }
    }
}

#[test]
fn a_tag_of_a_tree_is_refused() {
    Tagged::new().assert_refused("tree", "tree");
}

#[test]
fn an_annotated_tag_of_a_tree_is_refused() {
    Tagged::new().assert_refused("annotated", "tree");
}

#[test]
fn a_tag_of_a_file_is_refused() {
    Tagged::new().assert_refused("blob", "blob");
}

#[test]
fn the_id_of_a_tree_is_refused() {
    let tagged = Tagged::new();
    let tree = tagged.upstream.git(&["rev-parse", "main^{tree}"]);
    tagged.assert_refused(&tree, "tree");
}
