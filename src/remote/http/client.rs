//! One HTTP exchange: the agent with its one idle connection, redirects, and the second try when
//! the server had closed that connection meanwhile.
//!
//! This module does not know what the bytes mean.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::http::Response;
use ureq::http::header::LOCATION;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector};
use ureq::{Agent, Body, Proxy, ProxyProtocol};
use url::Url;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::secret::Secret;
use crate::remote::RemoteConfig;

use super::answer;
use super::proxy::proxy_for;
use super::transport::{LateResolver, SocketConnector, Watch};

/// Some hosts only speak the git protocol to what begins with `git/`.
const USER_AGENT: &str = concat!(
    "git/2.47 (git-volume-reloader/",
    env!("CARGO_PKG_VERSION"),
    ")"
);

/// Redirects that are followed for one question.
const MAX_REDIRECTS: u32 = 5;

/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 << 10;

/// How long to wait for the end of a body whose content is complete.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes to read for the sake of the connection.
const MAX_REST: u64 = 16 << 10;

/// Bytes of an answer read at once.
const INPUT: usize = 32 << 10;

/// What to ask.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// Where it comes up, for the error.
    pub stage: Stage,
    /// The body of a POST; a GET without.
    pub body: Option<&'a [u8]>,
    /// The type of the answer that is wanted; the type of a POST's body follows from it.
    pub content_type: &'static str,
    /// Whether to ask for version 2 of the protocol.
    pub version_2: bool,
    /// The value of `Authorization`, for the host of the configured URL only.
    pub authorization: Option<&'a Secret>,
}

/// A connection to one origin, and what it takes to open another.
pub(super) struct Client {
    config: RemoteConfig,
    origin: Url,
    watch: Arc<Watch>,
    agent: Option<Configured>,
}

struct Configured {
    agent: Agent,
    tls: bool,
    proxy: Option<Secret>,
}

impl Client {
    /// A client for credentials that belong to `origin`.
    pub(super) fn new(config: RemoteConfig, origin: Url) -> Self {
        Self {
            config,
            origin,
            watch: Arc::default(),
            agent: None,
        }
    }

    /// Closes the connection, and reads certificates anew for the next.
    pub(super) fn close(&mut self) {
        self.agent = None;
    }

    /// Asks, following redirects of a GET, and returns where the answer came from. Its status is 200.
    pub(super) fn ask(
        &mut self,
        url: &Url,
        question: Question<'_>,
        budget: &Budget,
    ) -> Result<(Url, Response<Body>), SyncError> {
        self.watch.begin(budget);
        let stage = question.stage;
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(&url, question)?;
            if !response.status().is_redirection() {
                let sent = self.credentials(&url, question);
                answer::check(response.status(), stage, &url).map_err(|refused| {
                    answer::explain(refused, response.headers(), question, sent.is_some())
                })?;
                return Ok((url, response));
            }
            if question.body.is_some() {
                return Err(SyncError::new(
                    stage,
                    Reason::Protocol,
                    format!("{} redirected a POST", answer::shown(&url)),
                ));
            }
            url = self.redirected(&url, &response, stage)?;
            self.finish(response.into_body().into_reader(), budget);
            self.watch.begin(budget);
        }
        Err(SyncError::new(
            stage,
            Reason::Protocol,
            format!("{} redirects for ever", answer::shown(&self.origin)),
        ))
    }

    /// Turns what failed while a body was read into an error.
    pub(super) fn failure(&self, stage: Stage, url: &Url, error: ureq::Error) -> SyncError {
        answer::failure(stage, url, error, self.watch.stop())
    }

    /// Reads what little may follow what was needed of a body: a connection whose answer was read
    /// to its end can be used again. Whether that succeeds only decides on the connection.
    pub(super) fn finish(&self, rest: impl Read, budget: &Budget) {
        self.watch
            .begin(&Budget::new(LINGER, LINGER, budget.cancelled().clone()));
        let _ = io::copy(&mut rest.take(MAX_REST), &mut io::sink());
    }

    /// The credentials, if they are for this URL.
    fn credentials<'q>(&self, url: &Url, question: Question<'q>) -> Option<&'q Secret> {
        question
            .authorization
            .filter(|_| may_authenticate(&self.origin, url))
    }

    fn exchange(&mut self, url: &Url, question: Question<'_>) -> Result<Response<Body>, SyncError> {
        let dialled = self.watch.dialled();
        let authorization = self.credentials(url, question);
        let fails = |error| answer::failure(question.stage, url, error, self.watch.stop());
        let agent = match &self.agent {
            Some(configured) if configured.fits(&self.config, url) => &configured.agent,
            _ => {
                let configured = Configured::new(&self.config, url, &self.watch, question.stage)?;
                &self.agent.insert(configured).agent
            }
        };
        match call(agent, url, question, authorization) {
            // The server may close an idle connection at any time, also while we write to it.
            Err(ureq::Error::Io(_))
                if self.watch.dialled() == dialled && self.watch.stop().is_none() =>
            {
                call(agent, url, question, authorization).map_err(fails)
            }
            result => result.map_err(fails),
        }
    }

    fn redirected(
        &self,
        from: &Url,
        response: &Response<Body>,
        stage: Stage,
    ) -> Result<Url, SyncError> {
        let wrong = |reason, what: &str| {
            SyncError::new(
                stage,
                reason,
                format!("{} redirects {what}", answer::shown(from)),
            )
        };
        let mut to = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| from.join(location).ok())
            .filter(|to| to.host_str().is_some_and(|host| !host.is_empty()))
            .ok_or_else(|| wrong(Reason::Protocol, "to nowhere"))?;
        match (from.scheme(), to.scheme()) {
            ("https", "http") => {
                return Err(wrong(
                    Reason::Tls,
                    "from https to http, which is refused: the way there would be unprotected",
                )
                .with_hint("correct the server, or use its new address for --repo"));
            }
            (_, "http" | "https") => {}
            _ => return Err(wrong(Reason::Protocol, "to something other than HTTP")),
        }
        // Credentials in a Location would be the server's, not the operator's. Neither call fails
        // on a URL with a host.
        let _ = to.set_username("");
        let _ = to.set_password(None);
        to.set_fragment(None);
        Ok(to)
    }
}

/// The origin of the configured URL, and its own upgrade from http to https.
fn may_authenticate(origin: &Url, url: &Url) -> bool {
    let upgraded = origin.scheme() == "http"
        && url.scheme() == "https"
        && origin.port().is_none()
        && url.port().is_none();
    origin.host_str() == url.host_str() && (origin.origin() == url.origin() || upgraded)
}

fn call(
    agent: &Agent,
    url: &Url,
    question: Question<'_>,
    authorization: Option<&Secret>,
) -> Result<Response<Body>, ureq::Error> {
    let mut headers = Vec::with_capacity(4);
    if question.version_2 {
        headers.push(("Git-Protocol", "version=2".to_owned()));
    }
    if let Some(value) = authorization {
        headers.push(("Authorization", value.expose().to_owned()));
    }
    match question.body {
        None => {
            let mut request = agent.get(url.as_str());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.call()
        }
        Some(body) => {
            let sent = question.content_type.replace("-result", "-request");
            let mut request = agent
                .post(url.as_str())
                .header("Accept", question.content_type)
                .header("Content-Type", sent);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.send(body)
        }
    }
}

impl Configured {
    fn new(
        config: &RemoteConfig,
        url: &Url,
        watch: &Arc<Watch>,
        stage: Stage,
    ) -> Result<Self, SyncError> {
        let tls = url.scheme() == "https";
        let secret = proxy_for(&config.proxy, url).cloned();
        let proxy = secret
            .as_ref()
            .map(|secret| proxy(secret, stage))
            .transpose()?;
        let over_tls = proxy
            .as_ref()
            .is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
        let mut settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            // Whether an idle connection still works is found out by asking it.
            .max_idle_age(Duration::from_secs(24 * 3600))
            .max_response_header_size(MAX_HEAD)
            .input_buffer_size(INPUT)
            .output_buffer_size(4 << 10)
            .user_agent(USER_AGENT)
            .proxy(proxy);
        if tls || over_tls {
            settings = settings.tls_config(tls_config(config, stage)?);
        }
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(SocketConnector(watch.clone()))
                .chain(RustlsConnector::default());
        Ok(Self {
            agent: Agent::with_parts(settings.build(), connector, LateResolver),
            tls,
            proxy: secret,
        })
    }

    fn fits(&self, config: &RemoteConfig, url: &Url) -> bool {
        (self.tls || url.scheme() == "http") && self.proxy.as_ref() == proxy_for(&config.proxy, url)
    }
}

/// Never quotes the setting: it may hold a password.
fn proxy(setting: &Secret, stage: Stage) -> Result<Proxy, SyncError> {
    let wrong = |what| {
        SyncError::new(stage, Reason::Network, format!("the proxy setting {what}"))
            .with_hint("set HTTPS_PROXY (or HTTP_PROXY) to http://[user:password@]host:port")
    };
    let proxy = Proxy::new(setting.expose()).map_err(|_| wrong("is not a valid URL"))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err(wrong("names a protocol other than http and https")),
    }
}

fn tls_config(config: &RemoteConfig, stage: Stage) -> Result<TlsConfig, SyncError> {
    let certificates = match &config.ca_file {
        Some(path) => {
            let fails = |what| {
                SyncError::new(
                    stage,
                    Reason::Tls,
                    format!("{what} the certificate authorities in {}", path.display()),
                )
                .with_hint("SSL_CERT_FILE must name a file of PEM certificates")
            };
            let found: Vec<_> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|cause| fails("cannot read").with_source(cause))?;
            if found.is_empty() {
                return Err(fails("there are none of"));
            }
            found
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let error = SyncError::new(
                    stage,
                    Reason::Tls,
                    "this system has no certificate authorities",
                )
                .with_hint("name a file of PEM certificates in SSL_CERT_FILE");
                return Err(match found.errors.into_iter().next() {
                    Some(cause) => error.with_source(cause),
                    None => error,
                });
            }
            found.certs
        }
    };
    let certificates: Vec<_> = certificates
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_own_origin_and_its_https_only() {
        for (origin, url, allowed) in [
            ("https://h/r", "https://h/other", true),
            ("https://h/r", "https://h:443/r", true),
            ("https://h/r", "https://h:8443/r", false),
            ("https://h/r", "https://h.evil/r", false),
            ("http://h/r", "https://h/r", true),
            ("http://h:8080/r", "https://h:8443/r", false),
            ("https://h/r", "http://h/r", false),
        ] {
            let parse = |text| Url::parse(text).unwrap();
            assert_eq!(
                may_authenticate(&parse(origin), &parse(url)),
                allowed,
                "{origin} {url}"
            );
        }
    }

    #[test]
    fn a_bad_proxy_setting_is_refused_without_being_quoted() {
        for setting in [
            "http://user:tok3n@",
            "socks5://user:tok3n@host:1080",
            "::tok3n::",
        ] {
            let error = proxy(&Secret::new(setting), Stage::Poll).unwrap_err();
            assert!(!error.chain().contains("tok3n"), "{}", error.chain());
        }
    }
}
