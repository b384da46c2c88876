//! The HTTP client by itself, as rooms other than the git transport use it.

use git_volume_reloader::net::http::{
    BoundHeader, Client, Method, Redirects, Request, Response, without_query,
};
use url::Url;

use super::*;

fn request(url: &Url) -> Request<'_> {
    Request {
        stage: Stage::Notify,
        method: Method::GET,
        url,
        headers: &[("X-Test", "yes")],
        bound: None,
        body: None,
        redirects: Redirects::Follow(5),
        shown: without_query,
    }
}

fn client() -> Client {
    Client::new(NetConfig::default(), "test")
}

fn send(client: &mut Client, request: &Request<'_>) -> Response {
    match client.send(request, &budget(AMPLE)) {
        Ok(response) => response,
        Err(failure) => panic!("{}", failure.error.chain()),
    }
}

#[test]
fn every_status_is_an_answer_and_the_connection_is_kept() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    let url = Url::parse(&server.url("x")).unwrap();
    let mut client = client();
    for status in [200, 201, 401, 404, 429, 500] {
        server.clear();
        server.inject(Fault::Status(
            status,
            vec![("Retry-After".to_owned(), "7".to_owned())],
        ));
        let response = send(&mut client, &request(&url));
        assert_eq!(response.status.as_u16(), status);
        assert_eq!(response.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(response.body.bytes(2).unwrap(), b"no");
    }
    assert_eq!(server.connections(), 1);
    let sent = server.requests();
    assert!(
        sent.iter()
            .all(|request| request.headers["x-test"] == "yes")
    );
    assert!(
        sent.iter()
            .all(|request| request.headers["user-agent"] == "test")
    );
}

#[test]
fn a_body_larger_than_its_limit_is_an_error() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject(Fault::Endless(vec![b'x'; 1000]));
    let url = Url::parse(&server.url("x?token=tok3n")).unwrap();
    let response = send(&mut client(), &request(&url));
    let failure = response.body.bytes(100_000).unwrap_err();
    assert_eq!(failure.error.reason, Reason::Limit);
    assert_eq!(failure.error.stage, Stage::Notify);
    assert!(!failure.malformed);
    let told = failure.error.to_string();
    assert!(
        told.contains("100000 bytes") && !told.contains("tok3n"),
        "{told}"
    );
}

#[test]
fn a_redirect_is_followed_or_returned_as_the_caller_wants() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject_on(Scope::Under("/old"), Fault::RedirectTo("/new".to_owned()));
    server.inject_on(Scope::Under("/new"), Fault::Status(203, vec![]));
    let url = Url::parse(&server.url("old")).unwrap();
    let mut client = client();
    let followed = send(&mut client, &request(&url));
    assert_eq!(followed.status.as_u16(), 203);
    assert_eq!(followed.url.path(), "/new");
    drop(followed);

    let mut unfollowed = request(&url);
    unfollowed.redirects = Redirects::Return;
    let returned = send(&mut client, &unfollowed);
    assert_eq!(returned.status.as_u16(), 302);
    assert_eq!(returned.url, url);
    drop(returned);

    let mut none = request(&url);
    none.redirects = Redirects::Follow(0);
    let failure = client.send(&none, &budget(AMPLE)).unwrap_err();
    assert!(failure.malformed);
    assert!(failure.error.to_string().contains("more than 0 times"));
}

#[test]
fn a_bound_header_goes_only_where_the_caller_says() {
    let upstream = Upstream::new();
    let (from, to) = (upstream.serve(), upstream.serve());
    from.inject(Fault::Redirect(302, to.base()));
    to.inject(Fault::Status(200, vec![]));
    let url = Url::parse(&from.url("x")).unwrap();
    let value = Secret::new("tok3n");
    let mut bound = request(&url);
    for (may_follow, expected) in [
        (credentials::may_follow as fn(&Url, &Url) -> bool, false),
        (|_, _| true, true),
    ] {
        bound.bound = Some(BoundHeader {
            name: "Authorization",
            value: &value,
            origin: &url,
            may_follow,
        });
        to.clear_log();
        let response = send(&mut client(), &bound);
        assert_eq!(response.bound_sent, expected);
        let got = to.requests()[0].headers.contains_key("authorization");
        assert_eq!(got, expected);
    }
    assert!(from.requests()[0].headers.contains_key("authorization"));
}

#[test]
fn a_body_and_a_method_are_sent_as_given() {
    let upstream = Upstream::new();
    let server = upstream.serve();
    server.inject(Fault::Status(202, vec![]));
    let url = Url::parse(&server.url("hook")).unwrap();
    let mut put = request(&url);
    put.method = Method::PUT;
    put.body = Some(b"content");
    assert_eq!(send(&mut client(), &put).status.as_u16(), 202);
    let sent = server.requests();
    assert_eq!(sent[0].method, "PUT");
    assert_eq!(sent[0].body, b"content");
}
