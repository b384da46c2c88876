//! Smart HTTP: a poll is one request on one kept-alive connection, a fetch is another.
//!
//! The first contact asks `info/refs` for the server's version and capabilities; they are
//! remembered until something fails. With version 2 a poll is then one POST of `ls-refs`, whose
//! answer has only the wanted ref; a server that only speaks version 0 lists all its refs, and they
//! are read as a stream. See gitprotocol-http(5).
//!
//! This module does not decide when to try again, except once on a connection that the server had
//! closed, and once when remembered capabilities no longer hold.

mod answer;
mod auth;
mod client;
mod proxy;
mod transport;

use std::io::Read;

use ureq::Body;
use ureq::http::Response;
use url::Url;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::repo_url::{HttpUrl, RepoUrl};

use super::protocol::{
    Advertisement, Decoder, Dialect, FetchAnswer, Greeting, LsRefs, Machine, ProtocolError, Step,
    Tags, V0Capabilities, V2Capabilities, fetch_request, ls_refs_request, pinned, tags_request,
};
use super::{Advertised, FetchRequest, Fetched, PackSink, RefName, Remote, RemoteConfig, Tip};

use client::{Client, Question};

const INFO_REFS: &str = "/info/refs";
const UPLOAD_PACK: &str = "/git-upload-pack";
const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";

/// Bytes of a body read at once.
const CHUNK: usize = 32 << 10;

/// An upstream repository behind smart HTTP.
pub struct HttpRemote {
    config: RemoteConfig,
    url: HttpUrl,
    client: Client,
    known: Option<Known>,
}

/// What the first contact taught.
#[derive(Clone)]
struct Known {
    /// The repository's address after redirects.
    base: Url,
    server: Server,
}

#[derive(Clone)]
enum Server {
    V2(V2Capabilities),
    V0(V0Capabilities),
}

impl HttpRemote {
    /// Prepares for the address in `config`; nothing is connected yet.
    ///
    /// # Errors
    /// When the address is not an HTTP one.
    pub fn new(config: &RemoteConfig) -> Result<Self, SyncError> {
        let RepoUrl::Http(url) = &config.url else {
            return Err(SyncError::new(
                Stage::Start,
                Reason::Other,
                format!("{} is not an HTTP address", config.url),
            ));
        };
        Ok(Self {
            config: config.clone(),
            url: url.clone(),
            client: Client::new(config.clone(), url.url.clone()),
            known: None,
        })
    }

    /// Asks what the server can do, and a version 0 server about the ref in the same request.
    fn learn(
        &mut self,
        name: &RefName,
        stage: Stage,
        budget: &Budget,
    ) -> Result<(Known, Option<Tip>), SyncError> {
        let asked = service_url(&self.url.url, INFO_REFS, Some("service=git-upload-pack"));
        let (url, response) = self.ask(&asked, None, ADVERTISEMENT_TYPE, true, stage, budget)?;
        let base = repository_of(&url).ok_or_else(|| {
            SyncError::new(
                stage,
                Reason::Protocol,
                format!(
                    "{} redirects to {}, which is not a git repository",
                    self.url,
                    answer::shown(&url)
                ),
            )
            .with_hint("a login page answers like this: check --repo and the credentials")
        })?;
        let mut machine = Advertisement::new(name);
        self.read(response, &url, &mut machine, stage, budget)?;
        let greeting = machine.finish().map_err(|e| e.at(stage, &self.url))?;
        let (server, tip) = match greeting {
            Greeting::V2(capabilities) => (Server::V2(capabilities), None),
            Greeting::V0(capabilities, tip) => (Server::V0(capabilities), Some(tip)),
        };
        let known = Known { base, server };
        self.known = Some(known.clone());
        Ok((known, tip))
    }

    fn poll(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, SyncError> {
        let stage = Stage::Poll;
        let base = match &self.known {
            Some(Known {
                base,
                server: Server::V2(_),
            }) => base.clone(),
            _ => match self.learn(name, stage, budget)? {
                (_, Some(tip)) => return Ok(tip),
                (known, None) => known.base,
            },
        };
        let url = service_url(&base, UPLOAD_PACK, None);
        let body = ls_refs_request(name);
        let (url, response) = self.ask(&url, Some(&body), RESULT_TYPE, true, stage, budget)?;
        let mut machine = LsRefs::new(name);
        self.read(response, &url, &mut machine, stage, budget)?;
        machine.finish().map_err(|e| e.at(stage, &self.url))
    }

    fn list_tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, SyncError> {
        let stage = Stage::Fetch;
        let known = match &self.known {
            Some(known) => known.clone(),
            None => self.learn(&RefName::Head, stage, budget)?.0,
        };
        if matches!(known.server, Server::V0(_)) {
            return Ok(Vec::new());
        }
        let url = service_url(&known.base, UPLOAD_PACK, None);
        let body = tags_request();
        let (url, response) = self.ask(&url, Some(&body), RESULT_TYPE, true, stage, budget)?;
        let mut machine = Tags::default();
        self.read(response, &url, &mut machine, stage, budget)?;
        machine.finish().map_err(|e| e.at(stage, &self.url))
    }

    fn fetch_once(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, SyncError> {
        let stage = Stage::Fetch;
        let known = match &self.known {
            Some(known) => known.clone(),
            None => self.learn(&RefName::Commit(request.want), stage, budget)?.0,
        };
        let dialect = match &known.server {
            Server::V2(capabilities) => Dialect::V2(capabilities),
            Server::V0(capabilities) => Dialect::V0(capabilities),
        };
        let body = fetch_request(request, dialect).map_err(|e| e.at(stage, &self.url))?;
        let url = service_url(&known.base, UPLOAD_PACK, None);
        let version_2 = matches!(dialect, Dialect::V2(_));
        let (url, response) = self.ask(&url, Some(&body), RESULT_TYPE, version_2, stage, budget)?;
        let mut machine = FetchAnswer::new(request, dialect, pack);
        self.read(response, &url, &mut machine, stage, budget)?;
        machine.finish().map_err(|e| e.at(stage, &self.url))
    }

    fn ask(
        &mut self,
        url: &Url,
        body: Option<&[u8]>,
        content_type: &'static str,
        version_2: bool,
        stage: Stage,
        budget: &Budget,
    ) -> Result<(Url, Response<Body>), SyncError> {
        let authorization = auth::authorization(&self.config.auth, &self.url, stage)?;
        let question = Question {
            stage,
            body,
            content_type,
            version_2,
            authorization: authorization.as_ref(),
        };
        let (url, response) = self.client.ask(url, question, budget)?;
        answer::check_type(&response, content_type, stage, &url)?;
        Ok((url, response))
    }

    /// Reads a body into the machine, and to its end, so that the connection can be used again.
    fn read(
        &self,
        response: Response<Body>,
        url: &Url,
        machine: &mut dyn Machine,
        stage: Stage,
        budget: &Budget,
    ) -> Result<(), SyncError> {
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        let mut decoder = Decoder::new();
        loop {
            let length = body
                .read(&mut chunk)
                .map_err(|error| self.client.failure(stage, url, error.into()))?;
            if length == 0 {
                return Err(ProtocolError::Truncated.at(stage, &self.url));
            }
            let (_, step) = decoder
                .feed(&chunk[..length], machine)
                .map_err(|error| error.at(stage, &self.url))?;
            if step == Step::Done {
                self.client.finish(body, budget);
                return Ok(());
            }
        }
    }

    /// Runs `attempt`, and once more if what it relied on may have been remembered wrongly.
    fn with_known<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, SyncError>,
        may_repeat: impl Fn() -> bool,
    ) -> Result<T, SyncError> {
        let remembered = self.known.is_some();
        let mut result = attempt(self);
        if let Err(error) = &result {
            let outdated = matches!(error.reason, Reason::Protocol | Reason::NotFound);
            self.forget();
            if remembered && outdated && may_repeat() {
                result = attempt(self);
                if result.is_err() {
                    self.forget();
                }
            }
        }
        result
    }

    fn forget(&mut self) {
        self.known = None;
        self.client.close();
    }
}

impl Remote for HttpRemote {
    fn tip(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, SyncError> {
        match pinned(name) {
            Some(tip) => Ok(tip),
            None => self.with_known(|remote| remote.poll(name, budget), || true),
        }
    }

    fn tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, SyncError> {
        self.with_known(|remote| remote.list_tags(budget), || true)
    }

    fn fetch(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, SyncError> {
        let touched = std::cell::Cell::new(false);
        let mut pack = Touched {
            pack,
            touched: &touched,
        };
        self.with_known(
            |remote| remote.fetch_once(request, &mut pack, budget),
            || !touched.get(),
        )
    }
}

/// Notes whether anything was written: a pack cannot begin twice.
struct Touched<'a> {
    pack: &'a mut dyn PackSink,
    touched: &'a std::cell::Cell<bool>,
}

impl PackSink for Touched<'_> {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SyncError> {
        self.touched.set(true);
        self.pack.write(chunk)
    }

    fn progress(&mut self, line: &[u8]) {
        self.pack.progress(line);
    }
}

/// `base` with `service` appended to its path, and `query` to its query.
fn service_url(base: &Url, service: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{service}", base.path().trim_end_matches('/')));
    let query: Vec<&str> = base.query().into_iter().chain(query).collect();
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    url
}

/// The repository whose `info/refs` this is.
fn repository_of(url: &Url) -> Option<Url> {
    let path = url.path().strip_suffix(INFO_REFS)?;
    let mut base = url.clone();
    base.set_path(path);
    let query: Vec<&str> = url
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty() && *part != "service=git-upload-pack")
        .collect();
    base.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_stays_and_the_service_comes_and_goes() {
        for (base, asked) in [
            (
                "https://h/r",
                "https://h/r/info/refs?service=git-upload-pack",
            ),
            (
                "https://h/r/",
                "https://h/r/info/refs?service=git-upload-pack",
            ),
            ("https://h/", "https://h/info/refs?service=git-upload-pack"),
            (
                "https://h/r?a=b",
                "https://h/r/info/refs?a=b&service=git-upload-pack",
            ),
        ] {
            let base = Url::parse(base).unwrap();
            let url = service_url(&base, INFO_REFS, Some("service=git-upload-pack"));
            assert_eq!(url.as_str(), asked);
            let again = repository_of(&url).unwrap();
            assert_eq!(
                again.path().trim_end_matches('/'),
                base.path().trim_end_matches('/')
            );
            assert_eq!(again.query(), base.query());
        }
        assert!(repository_of(&Url::parse("https://h/login").unwrap()).is_none());
    }
}
