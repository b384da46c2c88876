//! Servers that misbehave, and how soon and how clearly that is noticed.

use super::*;

#[test]
fn each_fault_of_a_poll_has_its_reason_and_the_next_poll_works() {
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4).into_bytes();
    let long_ref = line(&format!(
        "{} refs/heads/{}\n",
        "a".repeat(40),
        "x".repeat(60_000)
    ));
    let faults = [
        (Fault::NeverAnswer, Reason::Timeout),
        (Fault::StallInHead, Reason::Timeout),
        (Fault::StallAfter(30), Reason::Timeout),
        (Fault::ResetAfter(30), Reason::Network),
        (Fault::TruncateAfter(30), Reason::Network),
        (Fault::TruncateAfter(0), Reason::Network),
        (Fault::Garbage, Reason::Protocol),
        (Fault::Html, Reason::Protocol),
        (Fault::Body(b"zzzz not packets".to_vec()), Reason::Protocol),
        (Fault::Body(b"0003".to_vec()), Reason::Protocol),
        (Fault::Body(b"fffe".to_vec()), Reason::Protocol),
        (Fault::Body(b"00".to_vec()), Reason::Network),
        (Fault::Body(b"0010ERR go away\n".to_vec()), Reason::Server),
        (Fault::Endless(long_ref), Reason::Limit),
        (Fault::Status(401, vec![]), Reason::Auth),
        (Fault::Status(403, vec![]), Reason::Auth),
        (Fault::Status(404, vec![]), Reason::NotFound),
        (Fault::Status(418, vec![]), Reason::Protocol),
        (Fault::Status(204, vec![]), Reason::Protocol),
        (
            Fault::Status(200, header("Content-Type", "text/plain")),
            Reason::Protocol,
        ),
        (
            Fault::Status(429, header("Retry-After", "7")),
            Reason::Server,
        ),
        (Fault::Status(500, vec![]), Reason::Server),
        (Fault::Status(503, vec![]), Reason::Server),
        (
            Fault::Status(200, header("X-Long", &"x".repeat(40_000))),
            Reason::Limit,
        ),
        (
            Fault::RedirectTo("ftp://example.com/r".to_owned()),
            Reason::Protocol,
        ),
        (Fault::RedirectTo("/login".to_owned()), Reason::Protocol),
    ];
    let upstream = Upstream::new();
    let server = upstream.serve();
    for steady in [false, true] {
        for (fault, reason) in &faults {
            let mut remote = open(&server.url("repo.git"));
            if steady {
                tip_of(&mut *remote, &main_branch());
            }
            server.inject(fault.clone());
            let started = Instant::now();
            let short = Budget::new(AMPLE, Duration::from_millis(300), Arc::default());
            let error = remote.tip(&main_branch(), &short).unwrap_err();
            assert!(started.elapsed() < Duration::from_secs(10), "{fault:?}");
            assert_eq!(error.reason, *reason, "{fault:?}: {}", error.chain());
            assert_eq!(error.stage, Stage::Poll);
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
            server.clear();
            tip_of(&mut *remote, &main_branch());
        }
    }
}

#[test]
fn each_fault_of_a_fetch_has_its_reason_and_the_next_fetch_works() {
    let line = |text: &[u8]| [format!("{:04x}", text.len() + 4).as_bytes(), text].concat();
    let endless_progress = line(&[&b"\x02"[..], &[b'.'; 60_000]].concat());
    let packfile = line(b"packfile\n");
    let faults = [
        (Fault::NeverAnswer, Reason::Timeout),
        (Fault::StallAfter(20_000), Reason::Timeout),
        (Fault::ResetAfter(20_000), Reason::Network),
        (Fault::TruncateAfter(20_000), Reason::Network),
        (Fault::RefuseObjects, Reason::RefMissing),
        (
            Fault::Body([&packfile[..], b"fffftoo long"].concat()),
            Reason::Protocol,
        ),
        (
            Fault::Body([&packfile[..], &line(b"\x03out of memory\n")].concat()),
            Reason::Server,
        ),
        (
            Fault::Body([&packfile[..], &line(b"\x09what\n")].concat()),
            Reason::Protocol,
        ),
        (
            Fault::Body([&packfile[..], b"0000"].concat()),
            Reason::Protocol,
        ),
        (
            Fault::Body([packfile.clone(), endless_progress.repeat(20)].concat()),
            Reason::Limit,
        ),
        (Fault::Status(503, vec![]), Reason::Server),
    ];
    let upstream = Upstream::new();
    let want = upstream.tip("main");
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    for (fault, reason) in faults {
        server.inject_on(Scope::Fetch, fault.clone());
        let short = Budget::new(AMPLE, Duration::from_millis(300), Arc::default());
        let error = Store::new()
            .fetch_within(&mut *remote, want, &[], 1, &short)
            .unwrap_err();
        assert_eq!(error.reason, reason, "{fault:?}: {}", error.chain());
        assert_eq!(error.stage, Stage::Fetch);
        server.clear();
        Store::new().fetch(&mut *remote, want, &[], 1).unwrap();
    }
}

#[test]
fn a_drip_ends_at_the_total_deadline() {
    let upstream = Upstream::new();
    let want = upstream.tip("main");
    let server = upstream.serve();
    server.inject(Fault::Drip(Duration::from_millis(100)));
    let total = Duration::from_secs(1);
    let mut remote = open(&server.url("repo.git"));
    let started = Instant::now();
    let error = remote.tip(&main_branch(), &budget(total)).unwrap_err();
    assert_eq!(error.reason, Reason::Timeout, "{}", error.chain());
    server.clear();
    server.inject_on(Scope::Fetch, Fault::Drip(Duration::from_millis(100)));
    let error = Store::new()
        .fetch_within(&mut *remote, want, &[], 1, &budget(total))
        .unwrap_err();
    assert_eq!(error.reason, Reason::Timeout, "{}", error.chain());
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_cancellation_ends_a_read_and_a_handshake_at_once() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject(Fault::NeverAnswer);
    let stalled = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let handshake = format!(
        "https://127.0.0.1:{}/r",
        stalled.local_addr().unwrap().port()
    );
    for url in [server.url("repo.git"), handshake] {
        let encrypted = url.starts_with("https");
        let cancelled = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(AMPLE, AMPLE, cancelled.clone());
        let polling = thread::spawn(move || {
            let result = open(&url).tip(&main_branch(), &budget);
            (result, Instant::now())
        });
        // The client has connected and waits for an answer.
        let peer = match encrypted {
            true => Some(stalled.accept().unwrap()),
            false => None,
        };
        let deadline = Instant::now() + AMPLE;
        while peer.is_none() && server.requests().is_empty() {
            assert!(Instant::now() < deadline, "no request came");
            thread::yield_now();
        }
        cancelled.store(true, Ordering::Relaxed);
        let at = Instant::now();
        let (result, ended) = polling.join().unwrap();
        assert!(result.unwrap_err().is_cancelled());
        assert!(ended.duration_since(at) < Duration::from_millis(1500));
    }
}

#[test]
fn a_connection_that_the_server_closed_costs_no_failure() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    for _ in 0..3 {
        tip_of(&mut *remote, &main_branch());
        server.close_connections();
    }
    server.close_each(true);
    for _ in 0..3 {
        tip_of(&mut *remote, &main_branch());
    }
}

#[test]
fn a_delay_within_the_deadline_is_waited_for_and_a_stale_answer_is_believed() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    let old = tip_of(&mut *remote, &main_branch()).commit;
    server.inject_on(Scope::Refs, Fault::Stale(Duration::from_secs(60)));
    let new = upstream.commit("main", "new");
    assert_eq!(tip_of(&mut *remote, &main_branch()).commit, old);
    server.clear();
    server.inject(Fault::Delay(Duration::from_millis(300)));
    assert_eq!(tip_of(&mut *remote, &main_branch()).commit, new);
}

#[test]
fn a_refusal_for_now_says_how_long_to_wait() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let at = std::time::SystemTime::now() + Duration::from_secs(100);
    for (status, value, seconds) in [
        (429, "17".to_owned(), 17..=17),
        (503, httpdate::fmt_http_date(at), 90..=101),
    ] {
        server.inject(Fault::Status(
            status,
            vec![("Retry-After".to_owned(), value)],
        ));
        let error = poll_error(&server.url("repo.git"));
        assert_eq!(error.reason, Reason::Server);
        assert!(
            seconds.contains(&error.retry_after.unwrap().as_secs()),
            "{error:?}"
        );
        server.clear();
    }
}

#[test]
fn a_connect_that_hangs_ends_at_the_deadline_and_when_cancelled() {
    // A listener whose queue is full drops what knocks.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let url = format!("http://{address}/r");
    let error = open(&url)
        .tip(&main_branch(), &budget(Duration::from_millis(500)))
        .unwrap_err();
    assert_eq!(error.reason, Reason::Timeout, "{}", error.chain());

    let cancelled = Arc::new(AtomicBool::new(false));
    let endless = Budget::new(AMPLE, AMPLE, cancelled.clone());
    let polling = thread::spawn(move || open(&url).tip(&main_branch(), &endless));
    cancelled.store(true, Ordering::Relaxed);
    let started = Instant::now();
    assert!(polling.join().unwrap().unwrap_err().is_cancelled());
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[test]
fn an_answer_whose_end_never_comes_is_used_all_the_same() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let mut remote = open(&server.url("repo.git"));
    let length = {
        tip_of(&mut *remote, &main_branch());
        server.clear_log();
        tip_of(&mut *remote, &main_branch());
        // One line for the branch, one for HEAD, and the flush.
        let line = |name: &str| 4 + 40 + 1 + name.len() + 1;
        line("refs/heads/main") + line("HEAD symref-target:refs/heads/main") + 4
    };
    server.inject(Fault::StallAfter(length));
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.connections(), 1);
    server.clear();
    tip_of(&mut *remote, &main_branch());
    assert_eq!(server.connections(), 2, "only the connection was lost");
}

#[test]
fn a_host_that_cannot_be_reached_is_named() {
    let error = poll_error("http://no-such-host.invalid/r");
    assert_eq!(error.reason, Reason::Network);
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );

    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let error = poll_error(&format!("http://127.0.0.1:{port}/r"));
    assert_eq!(error.reason, Reason::Network);
    assert!(
        error.chain().contains(&port.to_string()),
        "{}",
        error.chain()
    );
    assert!(error.chain().contains("refused"), "{}", error.chain());
}

#[test]
fn what_is_no_git_server_is_told_apart() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let typed = |kind: &str| Fault::Status(200, vec![("Content-Type".to_owned(), kind.to_owned())]);
    for (fault, words) in [
        (Fault::Html, "web page"),
        (typed("text/plain"), "\"dumb\" HTTP"),
        (typed("application/json"), "application/json"),
        (Fault::Status(200, vec![]), "without a content type"),
        (
            Fault::RedirectTo("/login".to_owned()),
            "redirects more than 5 times",
        ),
        (Fault::Status(302, vec![]), "without saying where to"),
        (Fault::Status(418, vec![]), "HTTP 418"),
        (Fault::Garbage, "does not speak valid HTTP"),
        (
            Fault::Body(b"<html>".to_vec()),
            "does not speak the git protocol",
        ),
    ] {
        server.inject(fault.clone());
        let error = poll_error(&server.url("repo.git"));
        assert_eq!(error.reason, Reason::Protocol, "{fault:?}");
        assert!(error.to_string().contains(words), "{fault:?}: {error}");
        server.clear();
    }
    server.inject_on(
        Scope::Under("/repo.git/info"),
        Fault::RedirectTo("/login".to_owned()),
    );
    server.inject(typed("text/html"));
    let error = poll_error(&server.url("repo.git"));
    assert!(error.to_string().contains("web page"), "{error}");
    assert!(error.to_string().contains("/login"), "{error}");
}
