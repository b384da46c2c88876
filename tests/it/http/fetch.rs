//! What a fetch brings, and that it brings no more.

use super::*;

#[test]
fn a_shallow_fetch_brings_one_commit_and_the_next_only_the_change() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        upstream.commit("main", "second");
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        let mut store = Store::new();
        let first = tip_of(&mut *remote, &main_branch()).commit;
        let fetched = store.fetch(&mut *remote, first, &[], 1).unwrap();
        assert_eq!(fetched.shallow, [first]);
        assert_eq!(store.history(first), 1);
        assert!(fetched.bytes > 100_000);

        let second = upstream.commit("main", "third");
        let fetched = store.fetch(&mut *remote, second, &[first], 1).unwrap();
        assert!(fetched.bytes < 2_000, "{} bytes", fetched.bytes);
        assert_eq!(
            server.connections(),
            1,
            "the connection is kept across fetches"
        );
    }
}

#[test]
fn full_history_is_fetched_at_once_or_after_a_shallow_start() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        upstream.commit("main", "second");
        let tip = upstream.commit("main", "third");
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));

        let mut whole = Store::new();
        let fetched = whole.fetch(&mut *remote, tip, &[], 0).unwrap();
        assert_eq!((whole.history(tip), fetched.shallow.len()), (3, 0));

        let mut deepened = Store::new();
        deepened.fetch(&mut *remote, tip, &[], 1).unwrap();
        let fetched = deepened.fetch(&mut *remote, tip, &[tip], 0).unwrap();
        assert_eq!(fetched.unshallow, [tip]);
        assert_eq!(deepened.history(tip), 3);
    }
}

#[test]
fn a_tag_brings_the_commit_it_stands_for() {
    let upstream = Upstream::new();
    upstream.git(&["tag", "-a", "-m", "t", "v1", "main"]);
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    let tip = tip_of(&mut *remote, &RefName::Short("v1".to_owned()));
    let mut store = Store::new();
    store.fetch(&mut *remote, tip.object, &[], 1).unwrap();
    assert_eq!(store.history(tip.commit), 1);
}

#[test]
fn haves_that_the_server_lost_do_no_harm() {
    for version_0 in [false, true] {
        let upstream = Upstream::new();
        let server = upstream.serve();
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        let mut store = Store::new();
        let tip = upstream.tip("main");
        let lost: Commit = "1".repeat(40).parse().unwrap();
        store.shallow = vec![lost];
        store.fetch(&mut *remote, tip, &[lost], 1).unwrap();
    }
}

#[test]
fn a_commit_that_no_ref_points_to_can_be_wanted() {
    let upstream = Upstream::new();
    let old = upstream.tip("main");
    upstream.commit("main", "second");
    let server = upstream.serve();
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        Store::new().fetch(&mut *remote, old, &[], 1).unwrap();
    }
}

#[test]
fn a_commit_that_no_ref_reaches_is_served_in_version_2_and_where_version_0_allows_it() {
    let upstream = Upstream::new();
    let orphan = upstream.commit("side", "orphan");
    upstream.git(&["update-ref", "-d", "refs/heads/side"]);
    let server = upstream.serve();
    let fetch = || Store::new().fetch(&mut *open(&server.url("repo.git")), orphan, &[], 1);
    fetch().unwrap();
    server.only_version_0(true);
    let error = fetch().unwrap_err();
    assert_eq!(
        (error.stage, error.reason),
        (Stage::Fetch, Reason::RefMissing)
    );
    assert!(
        error.hint().unwrap().contains("branch"),
        "{:?}",
        error.hint()
    );
    server.git_config("uploadpack.allowAnySHA1InWant", "true");
    fetch().unwrap();
}

#[test]
fn a_commit_that_the_server_does_not_have_is_a_missing_ref() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let gone: Commit = "1".repeat(40).parse().unwrap();
    for version_0 in [false, true] {
        server.only_version_0(version_0);
        let mut remote = open(&server.url("repo.git"));
        let error = Store::new().fetch(&mut *remote, gone, &[], 1).unwrap_err();
        assert_eq!(error.reason, Reason::RefMissing, "{}", error.chain());
        // The remote can be used again at once.
        let tip = tip_of(&mut *remote, &main_branch()).commit;
        Store::new().fetch(&mut *remote, tip, &[], 1).unwrap();
    }
}
