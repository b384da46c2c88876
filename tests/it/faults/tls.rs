//! A remote over HTTPS whose certificate is of no use.

use std::fs;

use super::{Row, Told, World, launch, no_failure, serve};
use crate::support::http_server::{Certificate, Fault, HttpServer};
use crate::support::root::Root;
use crate::support::upstream::Upstream;

const fn failure(fault: &'static str, message: &'static str, prove: fn(&Row)) -> Row {
    super::failure(fault, "poll", "tls", message, prove)
}

section!("The remote, over HTTPS", {
    an_expired_certificate: failure(
        "has a certificate that has expired",
        "has expired",
        |row| moves_to(row, Certificate::Expired, true),
    ),
    a_certificate_from_the_future: failure(
        "has a certificate that is not valid yet",
        "not valid yet",
        |row| moves_to(row, Certificate::NotYetValid, true),
    ),
    a_certificate_for_another_name: failure(
        "has a certificate for another name",
        "not for the name",
        |row| moves_to(row, Certificate::WrongName, true),
    ),
    a_certificate_of_an_unknown_authority: failure(
        "has a certificate of an unknown authority",
        "authority",
        |row| moves_to(row, Certificate::Valid, false),
    ),
    a_redirect_away_from_https: failure(
        "redirects from https to http, which is refused",
        "from https to http",
        away_from_https,
    ),
    a_redirect_to_https: no_failure(
        "redirects from http to https",
        to_https,
    ),
});

fn tls(upstream: &Upstream, certificate: Certificate) -> HttpServer {
    HttpServer::start_tls(upstream.path().parent().unwrap(), certificate)
}

/// The certificates that the sidecar is to trust, in a file of their own.
fn bundle(servers: &[&HttpServer]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text: String = servers
        .iter()
        .map(|server| fs::read_to_string(server.ca_file()).unwrap())
        .collect();
    fs::write(file.path(), text).unwrap();
    file
}

/// The address comes to lead to a server with this certificate, and back.
fn moves_to(row: &Row, certificate: Certificate, known: bool) {
    let upstream = Upstream::empty();
    let good = tls(&upstream, Certificate::Valid);
    let bad = tls(&upstream, certificate);
    let trusted = if known {
        vec![&good, &bad]
    } else {
        vec![&good]
    };
    let bundle = bundle(&trusted);
    let root = Root::new();
    let launch = launch(&good.url("upstream.git"), &root)
        .variable("SSL_CERT_FILE", bundle.path().to_str().unwrap());
    let mut world = World::new(upstream, root, launch);
    good.inject(Fault::Redirect(307, bad.base()));
    let pushed = world.push(1);
    world.endure(row);
    assert!(bad.requests().is_empty(), "it was asked all the same");
    world.recover(row, || good.clear(), &pushed);
}

fn away_from_https(row: &Row) {
    let upstream = Upstream::empty();
    let plain = serve(&upstream);
    let encrypted = tls(&upstream, Certificate::Valid);
    let root = Root::new();
    let launch = launch(&encrypted.url("upstream.git"), &root)
        .variable("SSL_CERT_FILE", encrypted.ca_file().to_str().unwrap());
    let mut world = World::new(upstream, root, launch);
    encrypted.inject(Fault::Redirect(301, plain.base()));
    let pushed = world.push(1);
    world.endure(row);
    assert!(plain.requests().is_empty(), "it was asked all the same");
    world.recover(row, || encrypted.clear(), &pushed);
}

fn to_https(row: &Row) {
    let upstream = Upstream::empty();
    let plain = serve(&upstream);
    let encrypted = tls(&upstream, Certificate::Valid);
    plain.inject(Fault::Redirect(308, encrypted.base()));
    let root = Root::new();
    let launch = launch(&plain.url("upstream.git"), &root)
        .variable("SSL_CERT_FILE", encrypted.ca_file().to_str().unwrap());
    let mut world = World::new(upstream, root, launch);
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    assert_eq!(row.operator, Told::Nothing);
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0);
    assert!(!encrypted.requests().is_empty());
    world.end(row, &pushed);
}
