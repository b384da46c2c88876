//! Connections that break, stall or are cancelled.

use super::*;

#[test]
fn a_restarted_server_is_found_again_within_the_same_poll() {
    let mut lab = Lab::new();
    let mut remote = lab.remote();
    poll(&mut remote).unwrap();
    lab.sshd.restart();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
    let mut store = Store::new();
    lab.sshd.restart();
    let head = lab.head();
    store.fetch(&mut remote, head, 1, &patient()).unwrap();
    assert_eq!(lab.sshd.logins(), 1);
}

#[test]
fn a_connection_that_died_silently_is_replaced_within_the_same_poll() {
    let lab = Lab::new();
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    proxy.freeze();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_dropped_connection_is_a_network_failure_and_the_next_poll_recovers() {
    let lab = Lab::new();
    let proxy = TcpProxy::to(lab.sshd.port());
    for fault in [
        Fault::ResetAfter(0),
        Fault::ResetAfter(300),
        Fault::ResetAfter(2_000),
    ] {
        proxy.set(fault);
        let mut remote = lab.remote_at(proxy.port());
        let error = poll_error(&mut remote);
        assert_eq!(
            error.reason,
            Reason::Network,
            "{fault:?}: {}",
            error.chain()
        );
        proxy.set(Fault::None);
        assert_eq!(poll(&mut remote).unwrap(), lab.head());
    }
}

#[test]
fn a_connection_that_breaks_in_mid_pack_is_not_retried_into_the_same_pack() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    proxy.set(Fault::ResetAfter(1_000_000));
    let error = Store::new()
        .fetch(&mut remote, head, 1, &patient())
        .unwrap_err();
    assert_eq!((error.stage, error.reason), (Stage::Fetch, Reason::Network));
    assert_eq!(proxy.accepted(), 1, "{}", error.chain());
    proxy.set(Fault::None);
    Store::new()
        .fetch(&mut remote, head, 1, &patient())
        .unwrap();
}

#[test]
fn nobody_listening_is_a_network_failure() {
    let mut lab = Lab::new();
    let gone = TcpProxy::to(1).port();
    let error = poll_error(&mut lab.remote_at(gone));
    assert_eq!(error.reason, Reason::Network);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    lab.client.hosts = SshHosts::Any;
    let error = poll_error(&mut open("git@host.invalid:x", &lab.client));
    assert_eq!(error.reason, Reason::Network, "{}", error.chain());
    assert!(error.to_string().contains("host.invalid"), "{error}");
}

#[test]
fn a_server_that_stalls_is_left_at_the_deadline() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    std::thread::scope(|scope| {
        for fault in [
            Fault::Silent,
            Fault::StallAfter(10),
            Fault::StallAfter(500),
            Fault::StallAfter(2_000),
            Fault::StallAfter(1_000_000),
        ] {
            let proxy = TcpProxy::to(lab.sshd.port());
            proxy.set(fault);
            let mut remote = lab.remote_at(proxy.port());
            scope.spawn(move || {
                let mut store = Store::new();
                let begun = Instant::now();
                let error = store.fetch(&mut remote, head, 1, &short()).unwrap_err();
                let took = begun.elapsed();
                let told = format!("{fault:?}: {took:?}: {}", error.chain());
                assert_eq!(error.reason, Reason::Timeout, "{told}");
                // The deadline, and what a busy machine may add.
                assert!(took >= Duration::from_millis(1_900), "{told}");
                assert!(took < Duration::from_millis(3_500), "{told}");
                assert_eq!(proxy.accepted(), 1, "{told}");
            });
        }
    });
}

#[test]
fn a_dropped_remote_closes_its_connection() {
    let lab = Lab::new();
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    assert_eq!(proxy.open(), 1);
    drop(remote);
    wait_until(PATIENCE, "the connection's end", || proxy.open() == 0);
}

#[test]
fn a_stall_is_left_before_the_deadline() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    let mut remote = lab.remote_at(proxy.port());
    poll(&mut remote).unwrap();
    proxy.set(Fault::StallAfter(1_000_000));
    let budget = Budget::new(PATIENCE, Duration::from_secs(1), Arc::default());
    let begun = Instant::now();
    let error = Store::new()
        .fetch(&mut remote, head, 1, &budget)
        .unwrap_err();
    assert_eq!(error.reason, Reason::Timeout);
    assert!(error.hint().unwrap().contains("--stall-timeout"));
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[test]
fn a_cancelled_fetch_ends_in_mid_pack() {
    let lab = Lab::new();
    let head = lab.push_noise(3_000_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    proxy.set(Fault::StallAfter(1_000_000));
    let mut remote = lab.remote_at(proxy.port());
    let cancelled = Arc::new(AtomicBool::new(false));
    let budget = Budget::new(PATIENCE, PATIENCE, Arc::clone(&cancelled));
    let store = Store::new();
    let mut sink = IndexPack::start(store.path());
    let received = Arc::clone(&sink.received);
    let fetching = std::thread::spawn(move || {
        let request = FetchRequest {
            want: head,
            also: &[],
            name: None,
            haves: &[],
            shallow: &[],
            depth: 1,
            thin: true,
        };
        let error = remote.fetch(&request, &mut sink, &budget).unwrap_err();
        (error, Instant::now())
    });
    wait_until(PATIENCE, "pack bytes", || {
        received.load(Ordering::Relaxed) > 500_000
    });
    let begun = Instant::now();
    cancelled.store(true, Ordering::Relaxed);
    let (error, ended) = fetching.join().unwrap();
    assert!(error.is_cancelled(), "{}", error.chain());
    assert!(ended.duration_since(begun) < Duration::from_secs(1));
}
