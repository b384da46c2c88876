//! Smart HTTP: a poll is one request on one kept-alive connection, a fetch is another.
//!
//! The first contact asks `info/refs` for the server's version and capabilities; they are
//! remembered until something fails. With version 2 a poll is then one POST of `ls-refs`, whose
//! answer has only the wanted ref; a server that only speaks version 0 lists all its refs, and they
//! are read as a stream. See gitprotocol-http(5).
//!
//! Retries are the caller's decision, with three exceptions: once on a new connection when the
//! server had closed the kept one, once when the remembered capabilities no longer hold, and once
//! when refused credentials have been replaced by others.

mod exchange;
mod failure;
mod status;
mod urls;

use url::Url;

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::repo_url::{HttpUrl, RepoUrl};
use crate::base::transfer::{Advertised, Fetched, PackSink};
use crate::net::http::Response;

use super::config::RemoteConfig;
use super::protocol::{
    Advertisement, Decoder, Dialect, FetchAnswer, Greeting, LsRefs, Machine, ProtocolError, Step,
    Tags, V0Capabilities, V2Capabilities, fetch_request, ls_refs_request, pinned, tags_request,
};
use super::upstream::{FetchRequest, RefName, Remote, Tip};

use exchange::{Exchange, Question};
use failure::Failure;

/// Bytes of a body read at once.
const CHUNK: usize = 32 << 10;

/// An upstream repository behind smart HTTP.
pub struct HttpRemote {
    url: HttpUrl,
    exchange: Exchange,
    known: Option<Known>,
}

/// What the first contact told about the server.
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
            url: url.clone(),
            exchange: Exchange::new(config.net.clone(), config.credentials.clone(), url),
            known: None,
        })
    }

    /// Asks what the server can do, and a version 0 server about the ref in the same request.
    fn learn(
        &mut self,
        name: &RefName,
        stage: Stage,
        budget: &Budget,
    ) -> Result<(Known, Option<Tip>), Failure> {
        let question = Question {
            url: urls::info_refs(&self.url.url),
            body: None,
            version_2: true,
            stage,
        };
        let response = self.exchange.ask(&question, budget)?;
        let base = urls::repository_of(&response.url).ok_or_else(|| {
            SyncError::new(
                stage,
                Reason::Protocol,
                format!(
                    "{} redirects to {}, which is not a git repository",
                    self.url,
                    urls::shown(&response.url)
                ),
            )
            .with_hint("a login page answers like this: check --repo and the credentials")
        })?;
        let mut machine = Advertisement::new(name);
        self.read(response, &mut machine, stage, budget)?;
        let greeting = machine.finish().map_err(|error| self.at(stage, error))?;
        let (server, tip) = match greeting {
            Greeting::V2(capabilities) => (Server::V2(capabilities), None),
            Greeting::V0(capabilities, tip) => (Server::V0(capabilities), Some(tip)),
        };
        let known = Known { base, server };
        self.known = Some(known.clone());
        Ok((known, tip))
    }

    fn poll(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, Failure> {
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
        let mut machine = LsRefs::new(name);
        let body = ls_refs_request(name);
        self.upload_pack(&base, &body, true, &mut machine, stage, budget)?;
        machine.finish().map_err(|error| self.at(stage, error))
    }

    fn list_tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, Failure> {
        let stage = Stage::Fetch;
        let known = match &self.known {
            Some(known) => known.clone(),
            None => self.learn(&RefName::Head, stage, budget)?.0,
        };
        if matches!(known.server, Server::V0(_)) {
            return Ok(Vec::new());
        }
        let mut machine = Tags::default();
        let body = tags_request();
        self.upload_pack(&known.base, &body, true, &mut machine, stage, budget)?;
        machine.finish().map_err(|error| self.at(stage, error))
    }

    fn fetch_once(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, Failure> {
        let stage = Stage::Fetch;
        let known = match &self.known {
            Some(known) => known.clone(),
            None => self.learn(&RefName::Commit(request.want), stage, budget)?.0,
        };
        let dialect = match &known.server {
            Server::V2(capabilities) => Dialect::V2(capabilities),
            Server::V0(capabilities) => Dialect::V0(capabilities),
        };
        let body = fetch_request(request, dialect).map_err(|error| self.at(stage, error))?;
        let version_2 = matches!(dialect, Dialect::V2(_));
        let mut machine = FetchAnswer::new(request, dialect, pack);
        self.upload_pack(&known.base, &body, version_2, &mut machine, stage, budget)?;
        machine.finish().map_err(|error| self.at(stage, error))
    }

    /// Sends a request to `git-upload-pack` and reads the answer into the machine.
    fn upload_pack(
        &mut self,
        base: &Url,
        body: &[u8],
        version_2: bool,
        machine: &mut dyn Machine,
        stage: Stage,
        budget: &Budget,
    ) -> Result<(), Failure> {
        let question = Question {
            url: urls::upload_pack(base),
            body: Some(body),
            version_2,
            stage,
        };
        let response = self.exchange.ask(&question, budget)?;
        self.read(response, machine, stage, budget)
    }

    /// Reads a body into the machine, and to its end, so that the connection can be used again.
    fn read(
        &self,
        response: Response,
        machine: &mut dyn Machine,
        stage: Stage,
        budget: &Budget,
    ) -> Result<(), Failure> {
        let mut body = response.body;
        let mut chunk = vec![0; CHUNK];
        let mut decoder = Decoder::new();
        loop {
            let length = body.read(&mut chunk)?;
            if length == 0 {
                return Err(self.at(stage, ProtocolError::Truncated));
            }
            let (_, step) = decoder
                .feed(&chunk[..length], machine)
                .map_err(|error| self.at(stage, error))?;
            if step == Step::Done {
                body.finish(budget);
                return Ok(());
            }
        }
    }

    /// Runs `attempt`. If the server answered in a way that does not fit what is remembered of it,
    /// forgets that and runs it once more, unless the caller has used a part of the answer.
    fn with_known<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Failure>,
        may_repeat: impl Fn() -> bool,
    ) -> Result<T, SyncError> {
        let remembered = self.known.is_some();
        let failure = match attempt(self) {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        self.forget();
        if !(remembered && failure.unexpected && may_repeat()) {
            return Err(failure.error);
        }
        attempt(self).map_err(|failure| {
            self.forget();
            failure.error
        })
    }

    fn forget(&mut self) {
        self.known = None;
        self.exchange.close();
    }

    fn at(&self, stage: Stage, error: ProtocolError) -> Failure {
        Failure::protocol(error, stage, &self.url)
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

/// Records whether anything was written, because a pack must not begin twice.
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
