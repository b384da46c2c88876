//! One question to a git server, with the credentials that are for the repository.
//!
//! Credentials are sent unasked, because a server that wants them would otherwise cost every poll a
//! second request. After a 401 the question is asked once more if the source of the credentials has
//! others by then: they may have been rotated in between.

use url::Url;

use crate::base::budget::Budget;
use crate::base::error::{Stage, SyncError};
use crate::base::repo_url::{HttpUrl, RepoUrl};
use crate::base::secret::Secret;
use crate::credentials::{self, Credential, Keyring};
use crate::net::NetConfig;
use crate::net::http::{
    BoundHeader, Client, Method, Redirects, Request, Response, StatusCode, header,
};

use super::failure::Failure;
use super::status::{self, Sent};
use super::urls;

/// Some hosts only speak the git protocol to what begins with `git/`.
const USER_AGENT: &str = concat!(
    "git/2.47 (git-volume-reloader/",
    env!("CARGO_PKG_VERSION"),
    ")"
);

/// Redirects that are followed for one question.
const MAX_REDIRECTS: u32 = 5;

const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";

/// What to ask.
pub(super) struct Question<'a> {
    /// Where.
    pub url: Url,
    /// The request to `git-upload-pack`; None asks for the advertisement.
    pub body: Option<&'a [u8]>,
    /// Whether to ask for version 2 of the protocol.
    pub version_2: bool,
    /// The step that wants the answer.
    pub stage: Stage,
}

/// The client with the credentials of one repository.
pub(super) struct Exchange {
    client: Client,
    credentials: Keyring,
    /// The configured address, which the credentials are for.
    repository: RepoUrl,
    origin: Url,
}

impl Exchange {
    pub(super) fn new(net: NetConfig, credentials: Keyring, url: &HttpUrl) -> Self {
        Self {
            client: Client::new(net, USER_AGENT),
            credentials,
            repository: RepoUrl::Http(url.clone()),
            origin: url.url.clone(),
        }
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.client.close();
    }

    /// Asks, and returns an answer of status 200 and of git's content type. Redirects of a GET are
    /// followed.
    pub(super) fn ask(
        &mut self,
        question: &Question<'_>,
        budget: &Budget,
    ) -> Result<Response, Failure> {
        let mut credential = self
            .credentials
            .get(&self.wanted(question.stage, None), budget)?;
        let mut response = self.send(question, credential.as_ref(), budget)?;
        if let Some(refused) = credential
            .as_ref()
            .filter(|_| response.bound_sent && response.status == StatusCode::UNAUTHORIZED)
            && let Some(renewed) = self.renewed(question.stage, refused, &response, budget)?
        {
            response.body.finish(budget);
            response = self.send(question, Some(&renewed), budget)?;
            credential = Some(renewed);
        }
        let sent = match &credential {
            None => Sent::Nothing,
            Some(_) if response.bound_sent => Sent::Credentials,
            Some(_) => Sent::Withheld,
        };
        status::check(&response, sent, question.stage)?;
        if let Some(accepted) = credential.filter(|_| response.bound_sent) {
            let wanted = self.wanted(question.stage, None);
            self.credentials.accepted(&wanted, &accepted);
        }
        let expected = match question.body {
            None => ADVERTISEMENT_TYPE,
            Some(_) => RESULT_TYPE,
        };
        status::check_type(&response, expected, question.stage)?;
        Ok(response)
    }

    /// Other credentials than those that the server refused.
    fn renewed(
        &self,
        stage: Stage,
        refused: &Credential,
        response: &Response,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        let challenge = response.headers.get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|challenge| challenge.to_str().ok());
        let wanted = self.wanted(stage, challenge);
        let renewed = self.credentials.rejected(&wanted, refused, budget)?;
        if renewed.is_some() {
            tracing::info!(
                remote = %self.repository,
                "the server refused the credentials, and others are there by now: trying those"
            );
        }
        Ok(renewed)
    }

    fn wanted<'a>(&'a self, stage: Stage, challenge: Option<&'a str>) -> credentials::Request<'a> {
        credentials::Request {
            url: &self.repository,
            stage,
            challenge,
        }
    }

    fn send(
        &mut self,
        question: &Question<'_>,
        credential: Option<&Credential>,
        budget: &Budget,
    ) -> Result<Response, Failure> {
        let mut headers = Vec::with_capacity(3);
        if question.version_2 {
            headers.push(("Git-Protocol", "version=2"));
        }
        let (method, redirects) = match question.body {
            None => (Method::GET, Redirects::Follow(MAX_REDIRECTS)),
            Some(_) => {
                headers.push(("Accept", RESULT_TYPE));
                headers.push(("Content-Type", REQUEST_TYPE));
                (Method::POST, Redirects::Return)
            }
        };
        let authorization: Option<Secret> = credential.and_then(Credential::authorization);
        let request = Request {
            stage: question.stage,
            method,
            url: &question.url,
            headers: &headers,
            bound: authorization.as_ref().map(|value| BoundHeader {
                name: "Authorization",
                value,
                origin: &self.origin,
                may_follow: credentials::may_follow,
            }),
            body: question.body,
            redirects,
            shown: urls::shown,
        };
        Ok(self.client.send(&request, budget)?)
    }
}
