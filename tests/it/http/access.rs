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
    let username = Some("user".to_owned());
    sign_in(
        &mut settings,
        PasswordFile::new(username, file.path().to_owned()),
    );
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

/// A client that signs in as `git` with the password in a file, and that file.
fn with_password_file(server: &HttpServer, password: &str) -> (Box<dyn Remote>, TempDir) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, password).unwrap();
    let mut settings = config(&server.url("repo.git"));
    sign_in(&mut settings, PasswordFile::new(None, file));
    (remote::open(&settings).unwrap(), dir)
}

#[test]
fn a_password_that_is_rotated_while_it_is_refused_costs_one_more_request_and_no_failure() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.require_auth("git", "first");
    let (mut remote, dir) = with_password_file(&server, "first");
    tip_of(&mut *remote, &main_branch());
    let rotate = |to: &'static str| {
        let file = dir.path().join("password");
        server.require_auth("git", to);
        server.before_refusal(move || std::fs::write(file, to).unwrap());
        server.clear_log();
    };

    rotate("second");
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.requests().len(), 2, "one refused, one accepted");

    rotate("third");
    let want = upstream.tip("main");
    Store::new().fetch(&mut *remote, want, &[], 1).unwrap();
    assert_eq!(server.requests().len(), 2, "one refused, one accepted");
    assert_eq!(server.connections(), 1);

    rotate("fourth");
    server.require_auth("git", "fifth");
    let error = poll(&mut *remote, &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Auth);
    assert_eq!(server.requests().len(), 2, "there is no third attempt");
}

#[test]
fn a_wrong_password_that_does_not_change_costs_one_request() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.require_auth("git", "right");
    let (mut remote, _dir) = with_password_file(&server, "wrong");
    let in_url = format!("http://git:wrong@127.0.0.1:{}/repo.git", server.port());
    let mut fixed = config(&server.url("repo.git"));
    sign_in(&mut fixed, token("wrong"));
    for (what, remote) in [
        ("a file", &mut remote),
        ("the URL", &mut open(&in_url)),
        ("a value", &mut remote::open(&fixed).unwrap()),
    ] {
        server.clear_log();
        let error = poll(&mut **remote, &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Auth, "{what}");
        assert_eq!(server.requests().len(), 1, "{what}");
    }
    assert!(
        poll_error(&server.url("repo.git"))
            .hint()
            .unwrap()
            .contains("give credentials")
    );
}

#[test]
fn a_password_file_that_is_no_small_regular_file_is_told_and_nothing_is_sent() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let (mut remote, dir) = with_password_file(&server, "token");
    let file = dir.path().join("password");
    for (kind, why) in [
        ("fifo", "not a regular file"),
        ("directory", "not a regular file"),
        ("large", "larger than"),
    ] {
        std::fs::remove_file(&file)
            .or_else(|_| std::fs::remove_dir(&file))
            .unwrap();
        match kind {
            "fifo" => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &file, kind, mode, 0).unwrap();
            }
            "directory" => std::fs::create_dir(&file).unwrap(),
            _ => std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap(),
        }
        let error = poll(&mut *remote, &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Auth, "{kind}");
        let told = error.chain();
        assert!(told.contains(why), "{kind}: {told}");
        assert!(told.contains(file.to_str().unwrap()), "{kind}: {told}");
        assert!(error.hint().unwrap().contains("--password-file"), "{kind}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_redirect_to_a_host_with_credentials_of_its_own_is_followed_without_any() {
    let upstream = Upstream::new();
    let (from, to) = (upstream.serve(), upstream.serve());
    from.inject(Fault::Redirect(302, to.base()));
    let mut settings = config(&from.url("repo.git"));
    sign_in(&mut settings, token("from"));
    let scope = credentials::Scope::Below(RepoUrl::parse(&to.base()).unwrap());
    settings.credentials.add(scope, token("to"));
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());
    assert!(!to.requests().is_empty());
    assert!(
        to.requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
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
    sign_in(&mut settings, token("token"));
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());

    // What is configured wins over what is in the URL.
    let mut both = config(&with_user);
    sign_in(
        &mut both,
        Password::new(Some("git".to_owned()), Some(Secret::new("token"))),
    );
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
    sign_in(&mut settings, token("token"));
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
    sign_in(&mut settings, token("token"));
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
    sign_in(&mut settings, token("token"));
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
    assert!(error.to_string().contains("more than 5 times"), "{error}");
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
