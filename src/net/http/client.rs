//! One exchange: the agent with its one idle connection, redirects, and the second try when the
//! server had closed that connection meanwhile.

use std::sync::Arc;
use std::time::Duration;

use ureq::http;
use ureq::http::header::LOCATION;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector};
use ureq::{Agent, Proxy, ProxyProtocol};
use url::Url;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::secret::Secret;
use crate::net::config::NetConfig;
use crate::net::proxy::proxy_for;
use crate::net::tls;

use super::failure::{Failure, Peer};
use super::message::{Body, BoundHeader, Redirects, Request, Response};
use super::transport::{LateResolver, SocketConnector, Watch};

/// The most bytes that the head of an answer may have.
const MAX_HEAD: usize = 16 << 10;

/// Bytes of an answer read at once.
const INPUT: usize = 32 << 10;

/// Bytes of a request written at once.
const OUTPUT: usize = 4 << 10;

/// A client that keeps one connection. Every request bounds the connection by its own budget.
pub struct Client {
    config: NetConfig,
    user_agent: &'static str,
    watch: Arc<Watch>,
    agent: Option<Configured>,
}

/// An agent, and the settings that it was made for.
struct Configured {
    agent: Agent,
    tls: bool,
    proxy: Option<Secret>,
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(config: NetConfig, user_agent: &'static str) -> Self {
        Self {
            config,
            user_agent,
            watch: Arc::default(),
            agent: None,
        }
    }

    /// Closes the connection; certificate authorities are read anew for the next one.
    pub fn close(&mut self) {
        self.agent = None;
    }

    /// Sends a request and returns the head of the answer. The budget also bounds the reading of
    /// its body.
    ///
    /// # Errors
    /// When no server answers, the answer's head breaks HTTP's rules, or a redirect is refused.
    pub fn send(&mut self, request: &Request<'_>, budget: &Budget) -> Result<Response, Failure> {
        let mut url = request.url.clone();
        let mut followed = 0;
        loop {
            self.watch.begin(budget);
            let response = self.exchange(&url, request)?;
            let limit = match request.redirects {
                Redirects::Follow(limit) if response.status.is_redirection() => limit,
                _ => return Ok(response),
            };
            if followed == limit {
                let what = format!("redirects more than {limit} times");
                let peer = peer(request, request.url);
                return Err(Failure::malformed(peer.error(Reason::Protocol, &what)));
            }
            followed += 1;
            url = redirected(&response)?;
            response.body.finish(budget);
        }
    }

    fn exchange(&mut self, url: &Url, request: &Request<'_>) -> Result<Response, Failure> {
        let dialled = self.watch.dialled();
        let bound = request.bound.filter(|bound| bound.is_for(url));
        let agent = match &self.agent {
            Some(configured) if configured.fits(&self.config, url) => &configured.agent,
            _ => {
                let configured = self.configure(url, request.stage)?;
                &self.agent.insert(configured).agent
            }
        };
        let peer = peer(request, url);
        let answer = match call(agent, url, request, bound) {
            // The server may close an idle connection at any time, also while we write to it.
            Err(ureq::Error::Io(_))
                if self.watch.dialled() == dialled && self.watch.stop().is_none() =>
            {
                call(agent, url, request, bound)
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| peer.failure(error, self.watch.stop()))?;
        let (head, body) = answer.into_parts();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            url: url.clone(),
            bound_sent: bound.is_some(),
            body: Body {
                reader: body.into_reader(),
                watch: self.watch.clone(),
                peer,
            },
        })
    }

    fn configure(&self, url: &Url, stage: Stage) -> Result<Configured, SyncError> {
        let tls = url.scheme() == "https";
        let secret = proxy_for(&self.config.proxy, url).cloned();
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
            // Whether an idle connection still works is found out by using it.
            .max_idle_age(Duration::from_secs(24 * 3600))
            .max_response_header_size(MAX_HEAD)
            .input_buffer_size(INPUT)
            .output_buffer_size(OUTPUT)
            .user_agent(self.user_agent)
            .proxy(proxy);
        if tls || over_tls {
            settings = settings.tls_config(tls::config(self.config.ca_file.as_deref(), stage)?);
        }
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(SocketConnector(self.watch.clone()))
                .chain(RustlsConnector::default());
        Ok(Configured {
            agent: Agent::with_parts(settings.build(), connector, LateResolver),
            tls,
            proxy: secret,
        })
    }
}

impl Configured {
    fn fits(&self, config: &NetConfig, url: &Url) -> bool {
        (self.tls || url.scheme() == "http") && self.proxy.as_ref() == proxy_for(&config.proxy, url)
    }
}

fn peer(request: &Request<'_>, url: &Url) -> Peer {
    Peer {
        stage: request.stage,
        shown: (request.shown)(url),
        host: url.host_str().unwrap_or_default().to_owned(),
    }
}

fn call(
    agent: &Agent,
    url: &Url,
    request: &Request<'_>,
    bound: Option<BoundHeader<'_>>,
) -> Result<http::Response<ureq::Body>, ureq::Error> {
    let mut builder = http::Request::builder()
        .method(request.method.clone())
        .uri(url.as_str());
    for (name, value) in request.headers {
        builder = builder.header(*name, *value);
    }
    if let Some(bound) = bound {
        builder = builder.header(bound.name, bound.value.expose());
    }
    match request.body {
        Some(body) => agent.run(builder.body(body)?),
        None => agent.run(builder.body(())?),
    }
}

/// Where a redirect leads.
fn redirected(response: &Response) -> Result<Url, Failure> {
    let (from, peer) = (&response.url, &response.body.peer);
    let wrong =
        |what: &str| Failure::malformed(peer.error(Reason::Protocol, &format!("redirects {what}")));
    let mut to = response
        .headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .filter(|to| to.host_str().is_some_and(|host| !host.is_empty()))
        .ok_or_else(|| wrong("without saying where to"))?;
    match (from.scheme(), to.scheme()) {
        ("https", "http") => {
            let what = "redirects from https to http, which is refused because the connection \
                        would not be encrypted";
            return Err(peer
                .error(Reason::Tls, what)
                .with_hint("correct the server, or configure its new address")
                .into());
        }
        (_, "http" | "https") => {}
        _ => return Err(wrong("to something other than HTTP")),
    }
    // Credentials in a Location would be the server's, not the operator's. Neither call fails on a
    // URL with a host.
    let _ = to.set_username("");
    let _ = to.set_password(None);
    to.set_fragment(None);
    Ok(to)
}

/// Never quotes the setting, because it may hold a password.
fn proxy(setting: &Secret, stage: Stage) -> Result<Proxy, SyncError> {
    let wrong = |what| {
        SyncError::new(stage, Reason::Network, format!("the proxy setting {what}"))
            .with_hint("set HTTPS_PROXY (or http_proxy) to http://[user:password@]host:port")
    };
    let proxy = Proxy::new(setting.expose()).map_err(|_| wrong("is not a valid URL"))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err(wrong("names a protocol other than http and https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
