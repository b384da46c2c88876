//! Certificates and proxies.

use super::*;
use crate::support::connect_proxy::Proxy;

#[test]
fn a_certificate_from_the_given_authority_is_trusted_and_the_connection_kept() {
    let upstream = Upstream::new();
    let server = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let mut settings = config(&server.url("repo.git"));
    settings.net.ca_file = Some(server.ca_file().to_owned());
    let mut remote = remote::open(&settings).unwrap();
    let mut store = Store::new();
    for text in ["a", "b"] {
        upstream.commit("main", text);
        let tip = tip_of(&mut *remote, &main_branch()).commit;
        store.fetch(&mut *remote, tip, &[], 1).unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn each_fault_of_a_certificate_is_told_apart() {
    let upstream = Upstream::new();
    let valid = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    for (certificate, words) in [
        (Certificate::Expired, "has expired"),
        (Certificate::NotYetValid, "not valid yet"),
        (Certificate::WrongName, "not for the name"),
    ] {
        let server = HttpServer::start_tls(upstream.0.path(), certificate);
        let mut settings = config(&server.url("repo.git"));
        settings.net.ca_file = Some(server.ca_file().to_owned());
        let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Tls, "{}", error.chain());
        assert!(error.to_string().contains(words), "{error}");

        settings.net.ca_file = Some(valid.ca_file().to_owned());
        let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Tls);
        if certificate == Certificate::WrongName {
            assert!(error.to_string().contains("authority"), "{error}");
        }
    }
    // An authority of the same name with another key.
    let other = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let mut settings = config(&valid.url("repo.git"));
    settings.net.ca_file = Some(other.ca_file().to_owned());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Tls);
    assert!(error.to_string().contains("authority"), "{error}");
    assert!(error.hint().unwrap().contains("SSL_CERT_FILE"));
}

#[test]
fn tls_that_cannot_begin_is_a_clear_error() {
    let upstream = Upstream::new();
    let plain = upstream.serve();
    let encrypted = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let mut settings = config(&format!("https://127.0.0.1:{}/repo.git", plain.port()));
    settings.net.ca_file = Some(encrypted.ca_file().to_owned());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert!(
        matches!(error.reason, Reason::Tls | Reason::Network),
        "{}",
        error.chain()
    );

    settings.net.ca_file = Some("/nonexistent/ca.pem".into());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Tls);
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}

#[test]
fn a_redirect_to_https_is_followed_and_one_away_from_it_refused() {
    let upstream = Upstream::new();
    let plain = upstream.serve();
    let encrypted = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    plain.inject(Fault::Redirect(308, encrypted.base()));
    let mut settings = config(&plain.url("repo.git"));
    settings.net.ca_file = Some(encrypted.ca_file().to_owned());
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());
    plain.clear();

    encrypted.inject(Fault::Redirect(302, plain.base()));
    plain.clear_log();
    let mut settings = config(&encrypted.url("repo.git"));
    settings.net.ca_file = Some(encrypted.ca_file().to_owned());
    let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
    assert_eq!(error.reason, Reason::Tls);
    assert!(error.to_string().contains("from https to http"), "{error}");
    assert!(plain.requests().is_empty());
}

#[test]
fn a_proxy_is_used_with_its_credentials_unless_the_host_is_excepted() {
    let upstream = Upstream::new();
    let server = HttpServer::start_tls(upstream.0.path(), Certificate::Valid);
    let proxy = Proxy::start("HTTP/1.1 200 Connected\r\n\r\n");
    let mut settings = config(&server.url("repo.git"));
    settings.net.ca_file = Some(server.ca_file().to_owned());
    settings.net.proxy.https = Some(Secret::new(proxy.url.as_str()));
    let mut remote = remote::open(&settings).unwrap();
    for _ in 0..3 {
        tip_of(&mut *remote, &main_branch());
    }
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "one tunnel is kept");
    assert!(
        heads[0].contains("Proxy-Authorization: Basic dXNAZXI6dG9rM24="),
        "{}",
        heads[0]
    );

    settings.net.proxy.no_proxy = Some("127.0.0.0/8".to_owned());
    tip_of(&mut *remote::open(&settings).unwrap(), &main_branch());
    assert_eq!(proxy.heads().len(), 1);
}

#[test]
fn a_proxy_that_refuses_or_is_gone_is_a_network_failure() {
    let refusing = Proxy::start("HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n");
    for url in [refusing.url.as_str(), "http://us:tok3n@127.0.0.1:1"] {
        let mut settings = config("http://127.0.0.1:2/r");
        settings.net.proxy.http = Some(Secret::new(url));
        let error = poll(&mut *remote::open(&settings).unwrap(), &main_branch()).unwrap_err();
        assert_eq!(error.reason, Reason::Network, "{}", error.chain());
        assert!(!format!("{error:?}").contains("tok3n"));
    }
}
