//! What a poll finds, and what it costs.

use super::*;

#[test]
fn a_steady_poll_is_one_request_on_one_connection_whatever_the_number_of_refs() {
    let upstream = Upstream::new();
    upstream.many_refs(100_000);
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    tip_of(&mut *remote, &main_branch());
    server.clear_log();
    for _ in 0..10 {
        tip_of(&mut *remote, &main_branch());
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 10);
    assert_eq!(server.connections(), 1);
    let most = requests
        .iter()
        .map(|request| request.answered())
        .max()
        .unwrap();
    assert!(most < 1000, "{most} bytes");
    let agent = &requests[0].headers["user-agent"];
    assert!(agent.starts_with("git/"), "{agent}");
}

#[test]
fn a_poll_follows_the_ref_on_either_protocol_version() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        for text in ["a", "b"] {
            let commit = upstream.commit("main", text);
            assert_eq!(tip_of(&mut *remote, &main_branch()).commit, commit);
        }
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn every_way_to_name_a_ref_finds_it_on_either_protocol_version() {
    let upstream = Upstream::new();
    let first = upstream.tip("main");
    let second = upstream.commit("main", "second");
    upstream.git(&["tag", "-a", "-m", "t", "v1", &first.to_string()]);
    upstream.git(&["tag", "v1.1", &second.to_string()]);
    upstream.git(&["tag", "main", &first.to_string()]);
    upstream.git(&["update-ref", "refs/odd/x", &first.to_string()]);
    let tag = upstream.tip("refs/tags/v1");
    let server = upstream.serve();
    let short = |name: &str| RefName::Short(name.to_owned());
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        for (name, full, object, commit) in [
            (RefName::Head, "refs/heads/main", second, second),
            (short("main"), "refs/heads/main", second, second),
            (short("v1"), "refs/tags/v1", tag, first),
            (short("v1.1"), "refs/tags/v1.1", second, second),
            (short("odd/x"), "refs/odd/x", first, first),
            (
                RefName::Full("refs/tags/main".to_owned()),
                "refs/tags/main",
                first,
                first,
            ),
        ] {
            let expected = Advertised {
                name: full.to_owned(),
                object,
                commit,
            };
            assert_eq!(
                tip_of(&mut *remote, &name),
                expected,
                "version 0: {version_0}"
            );
        }
        for name in [
            short("gone"),
            short("v"),
            RefName::Full("refs/heads/v1".to_owned()),
        ] {
            let tip = poll(&mut *remote, &name).unwrap();
            assert_eq!(tip, Tip::Missing { empty: false }, "{name:?}");
        }
    }
}

#[test]
fn a_detached_head_is_followed_and_an_empty_repository_is_no_error() {
    for version_0 in [false, true] {
        let upstream = Upstream::empty();
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        for name in [RefName::Head, main_branch()] {
            assert_eq!(
                poll(&mut *remote, &name).unwrap(),
                Tip::Missing { empty: true }
            );
        }
        let commit = upstream.commit("main", "first");
        upstream.git(&["update-ref", "--no-deref", "HEAD", &commit.to_string()]);
        let tip = tip_of(&mut *remote, &RefName::Head);
        assert_eq!((tip.name.as_str(), tip.commit), ("HEAD", commit));
    }
}

#[test]
fn a_commit_id_needs_no_poll() {
    let upstream = Upstream::new();
    let commit = upstream.tip("main");
    let mut remote = open("http://127.0.0.1:1/unreachable");
    assert_eq!(
        tip_of(&mut *remote, &RefName::Commit(commit)).commit,
        commit
    );
}

#[test]
fn a_server_that_changes_its_version_is_learnt_anew() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    tip_of(&mut *remote, &main_branch());
    server.only_version_0(true);
    // One failure is allowed: nothing tells a server that was downgraded from one that broke.
    let _ = poll(&mut *remote, &main_branch());
    tip_of(&mut *remote, &main_branch());
    server.only_version_0(false);
    tip_of(&mut *remote, &main_branch());
    server.clear_log();
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.requests().len(), 1);
}
