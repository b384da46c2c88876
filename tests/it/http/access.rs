//! Credentials, and redirects, which must not leak them.

use super::*;

#[test]
fn remembered_capabilities_are_learnt_anew_within_the_same_poll() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let moved = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    tip_of(&mut *remote, &main_branch());
    // The repository moved: a POST is redirected, and only a GET says where to.
    server.inject(Fault::Redirect(301, moved.base()));
    let commit = upstream.commit("main", "after the move");
    assert_eq!(tip_of(&mut *remote, &main_branch()).commit, commit);
    moved.clear_log();
    server.clear_log();
    tip_of(&mut *remote, &main_branch());
    assert_eq!((server.requests().len(), moved.requests().len()), (0, 1));
}

#[test]
fn credentials_are_sent_unasked_and_the_password_file_is_read_each_time() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    server.require_auth("user", "first");
    let mut settings = config(&server.url("repo.git"));
    settings.auth.username = Some("user".to_owned());
    settings.auth.password_file = Some(file.path().to_owned());
    let mut remote = remote::open(&settings).unwrap();
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.requests().len(), 2, "no request without credentials");

    server.require_auth("user", "second");
    let error = poll(&mut *remote, &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Auth);
    assert!(error.hint().unwrap().contains("--password-file"));
    assert!(!error.chain().contains("first"));
    std::fs::write(file.path(), "second").unwrap();
    tip_of(&mut *remote, &main_branch());

    for broken in ["empty", "missing"] {
        match broken {
            "empty" => std::fs::write(file.path(), "\n").unwrap(),
            _ => std::fs::remove_file(file.path()).unwrap(),
        }
        let error = poll(&mut *remote, &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Auth);
        assert!(
            error.to_string().contains(file.path().to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn credentials_come_from_the_url_or_the_environment_and_a_token_needs_no_name() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.require_auth("us er", "p@ss");
    let with_user = format!("http://us%20er:p%40ss@127.0.0.1:{}/repo.git", server.port());
    tip_of(&mut *open(&with_user), &main_branch());

    server.require_auth("git", "token");
    let mut settings = config(&server.url("repo.git"));
    settings.auth.password = Some(Secret::new("token"));
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());

    // What is configured wins over what is in the URL.
    let mut both = config(&with_user);
    both.auth.username = Some("git".to_owned());
    both.auth.password = Some(Secret::new("token"));
    tip_of(&mut *remote::open(&both).unwrap(), &main_branch());

    let missing = poll_error(&server.url("repo.git"));
    assert_eq!(missing.reason, Reason::Auth);
    assert!(missing.hint().unwrap().contains("give credentials"));
}

#[test]
fn a_redirect_is_followed_and_remembered_and_credentials_stay_behind() {
    let upstream = Upstream::new();
    let (from, to) = (upstream.serve(), upstream.serve());
    from.inject(Fault::Redirect(301, to.base()));
    let mut settings = config(&from.url("repo.git"));
    settings.auth.password = Some(Secret::new("token"));
    let mut remote = remote::open(&settings).unwrap();
    tip_of(&mut *remote, &main_branch());
    let want = tip_of(&mut *remote, &main_branch()).commit;
    Store::new().fetch(&mut *remote, want, &[], 1).unwrap();
    assert_eq!(from.requests().len(), 1, "one GET, and nothing after it");
    assert!(from.requests()[0].headers.contains_key("authorization"));
    assert!(
        to.requests()
            .iter()
            .all(|r| !r.headers.contains_key("authorization"))
    );
}

#[test]
fn a_refusal_after_a_redirect_says_that_credentials_stayed_behind() {
    let upstream = Upstream::new();
    let (from, to) = (upstream.serve(), upstream.serve());
    from.inject(Fault::Redirect(301, to.base()));
    to.require_auth("git", "token");
    let mut settings = config(&from.url("repo.git"));
    settings.auth.password = Some(Secret::new("token"));
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Auth);
    assert!(error.to_string().contains(&to.base()), "{error}");
    assert!(
        error.hint().unwrap().contains("new address"),
        "{:?}",
        error.hint()
    );
}

#[test]
fn a_redirect_on_the_same_host_keeps_the_credentials() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.require_auth("git", "token");
    let location = "/repo.git/info/refs?service=git-upload-pack";
    server.inject_on(
        Scope::Under("/old.git"),
        Fault::RedirectTo(location.to_owned()),
    );
    let mut settings = config(&server.url("old.git"));
    settings.auth.password = Some(Secret::new("token"));
    let mut remote = remote::open(&settings).unwrap();
    for _ in 0..2 {
        tip_of(&mut *remote, &main_branch());
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 4, "two GETs, then POSTs to the new place");
    assert!(requests.iter().all(|request| request.connection == 1));
}

#[test]
fn a_redirect_in_circles_ends() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let location = "/repo.git/info/refs?service=git-upload-pack";
    server.inject(Fault::RedirectTo(location.to_owned()));
    let error = poll_error(&server.url("repo.git"));
    assert_eq!(error.reason, Reason::Protocol, "{}", error.chain());
    assert!(error.to_string().contains("for ever"), "{error}");
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn a_post_that_is_always_redirected_is_refused() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject_on(Scope::Post, Fault::Redirect(307, server.base()));
    let error = poll_error(&server.url("repo.git"));
    assert_eq!(error.reason, Reason::Protocol);
    assert!(error.to_string().contains("redirected a POST"), "{error}");
}

#[test]
fn a_token_in_the_address_is_in_no_error() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    for fault in [
        Fault::Html,
        Fault::Garbage,
        Fault::Status(404, vec![]),
        Fault::Status(500, vec![]),
        Fault::TruncateAfter(3),
        Fault::RedirectTo("/login".to_owned()),
    ] {
        server.inject(fault.clone());
        let url = format!(
            "http://tok3n:tok3n@127.0.0.1:{}/repo.git?access_token=tok3n",
            server.port()
        );
        let error = poll_error(&url);
        let all = format!("{error:?} {} {:?}", error.chain(), error.hint());
        assert!(!all.contains("tok3n"), "{fault:?}: {all}");
        server.clear();
    }
}
