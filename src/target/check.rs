//! The acceptors that the operator configures: required paths, a selection that matches something,
//! a command, and a request to a container beside this one.
//!
//! The command runs in the sealed tree. The tree must not change, because it shares files with the
//! tree that readers see; afterwards the tree is compared with its manifest, and one that changed is
//! rejected. The contents of files are not compared, only their sizes, times and permissions.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::accept::{Acceptor, Judgement, Proposal};
use super::context::Context;
use super::settings::{CheckUrlConfig, Target};
use crate::base::budget::Budget;
use crate::base::durations;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::excerpt;
use crate::child::{Command, How};
use crate::manifest;
use crate::net::http::{Client, Method, Redirects, Request, without_query};
use crate::volume::Revision;

/// How requests introduce themselves.
const USER_AGENT: &str = concat!("git-volume-reloader/", env!("CARGO_PKG_VERSION"));

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 << 10;

/// The acceptors of a target, in the order in which they judge: the cheap ones first.
pub fn acceptors(target: &Arc<Target>) -> Vec<Box<dyn Acceptor>> {
    let gate = &target.gate;
    let mut acceptors: Vec<Box<dyn Acceptor>> = Vec::new();
    if target.tree.sparse.is_some() && !gate.allow_empty {
        acceptors.push(Box::new(NotEmpty));
    }
    if !gate.require_paths.is_empty() {
        acceptors.push(Box::new(RequiredPaths(gate.require_paths.clone())));
    }
    if let Some(command) = &gate.command {
        acceptors.push(Box::new(CheckCommand {
            command: command.clone(),
            directory: gate.directory.clone(),
        }));
    }
    if let Some(check) = &gate.url {
        let net = check.net.clone().direct_to_loopback(&check.url);
        acceptors.push(Box::new(CheckUrl {
            client: Client::new(net, USER_AGENT),
            check: check.clone(),
        }));
    }
    acceptors
}

/// Rejects a tree without any file.
struct NotEmpty;

impl Acceptor for NotEmpty {
    fn identity(&self) -> String {
        "not empty".to_owned()
    }

    fn judge(
        &mut self,
        proposal: &Proposal<'_>,
        _: &mut Context<'_>,
    ) -> Result<Judgement, SyncError> {
        Ok(if manifest::is_empty(&proposal.revision.manifest)? {
            Judgement::Reject(
                "--path or --sparse-checkout-file matches nothing in it (--allow-empty publishes \
                 it all the same)"
                    .to_owned(),
            )
        } else {
            Judgement::Accept
        })
    }
}

/// Rejects a tree that lacks one of these paths.
struct RequiredPaths(Vec<PathBuf>);

impl Acceptor for RequiredPaths {
    fn identity(&self) -> String {
        format!("paths {:?}", self.0)
    }

    fn judge(
        &mut self,
        proposal: &Proposal<'_>,
        _: &mut Context<'_>,
    ) -> Result<Judgement, SyncError> {
        for path in &self.0 {
            let full = proposal.revision.path.join(path);
            match full.try_exists() {
                Ok(true) => {}
                Ok(false) => return Ok(lacks(path)),
                // A file in the place of a directory.
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                    return Ok(lacks(path));
                }
                Err(error) => return Err(SyncError::disk(Stage::Check, "look at", &full, error)),
            }
        }
        Ok(Judgement::Accept)
    }
}

fn lacks(path: &Path) -> Judgement {
    Judgement::Reject(format!(
        "it has no {}, which --require-path asks for",
        path.display()
    ))
}

/// Runs a command: exit code 0 accepts, 1 to 125 reject, everything else is no verdict.
struct CheckCommand {
    command: Command,
    /// Where it starts, if not in the tree.
    directory: Option<PathBuf>,
}

impl Acceptor for CheckCommand {
    fn identity(&self) -> String {
        format!(
            "command {:?} {:?}",
            self.command.path, self.command.arguments
        )
    }

    fn judge(
        &mut self,
        proposal: &Proposal<'_>,
        context: &mut Context<'_>,
    ) -> Result<Judgement, SyncError> {
        let command = Command {
            timeout: limit(self.command.timeout, context)?,
            ..self.command.clone()
        };
        let tree = &proposal.revision.path;
        let directory = self.directory.as_deref().unwrap_or(tree);
        let variables = variables(proposal, context.settings);
        let ended = command
            .run("check", directory, &variables, context.budget.cancelled())
            .map_err(|error| no_verdict(error.at(Stage::Check)))?;
        if let Some(changed) = changed(proposal.revision, context)? {
            return Ok(changed);
        }
        let what = command.what(&ended);
        match ended.how {
            How::Exited(0) => Ok(Judgement::Accept),
            How::Exited(1..=125) => Ok(Judgement::Reject(what)),
            How::Cancelled => Err(SyncError::new(Stage::Check, Reason::Cancelled, what)),
            How::TimedOut(_) => Err(SyncError::new(Stage::Check, Reason::Check, what)
                .with_hint("raise --check-timeout, and --sync-timeout above it")),
            How::Exited(_) | How::Signalled(_) => {
                Err(SyncError::new(Stage::Check, Reason::Check, what))
            }
        }
    }
}

/// How long a check may take: its own limit, or what is left of the cycle.
fn limit(timeout: Duration, context: &Context<'_>) -> Result<Duration, SyncError> {
    let left = context
        .budget
        .remaining()
        .map_err(|cause| SyncError::interrupted(Stage::Check, "the check", cause))?;
    Ok(timeout.min(left))
}

/// Asks a container beside this one: 200 accepts, 422 rejects, everything else is no verdict.
struct CheckUrl {
    check: CheckUrlConfig,
    client: Client,
}

impl Acceptor for CheckUrl {
    fn identity(&self) -> String {
        format!("url {}", self.check.url)
    }

    fn judge(
        &mut self,
        proposal: &Proposal<'_>,
        context: &mut Context<'_>,
    ) -> Result<Judgement, SyncError> {
        let limit = limit(self.check.timeout, context)?;
        let budget = Budget::new(limit, limit, context.budget.cancelled().clone());
        let target = context.settings;
        let tree = &proposal.revision.path;
        let body = json!({
            "target": target.name,
            "commit": proposal.revision.commit.to_string(),
            "previous": proposal.live.map(|commit| commit.to_string()),
            "ref": target.reference.to_string(),
            "tree": tree.to_string_lossy(),
            "path": tree.strip_prefix(&target.layout.root).unwrap_or(tree).to_string_lossy(),
        })
        .to_string();
        let url = &self.check.url;
        let request = Request {
            stage: Stage::Check,
            method: Method::POST,
            url,
            headers: &[("Content-Type", "application/json")],
            bound: None,
            body: Some(body.as_bytes()),
            redirects: Redirects::Return,
            shown: without_query,
        };
        let answer = self.client.send(&request, &budget).and_then(|response| {
            let status = response.status;
            let body = response.body.bytes(MAX_ANSWER)?;
            Ok((status, body))
        });
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(failure) if failure.error.reason == Reason::Timeout => {
                let what = format!(
                    "{} did not answer within {}",
                    without_query(url),
                    durations::shown(limit)
                );
                return Err(SyncError::new(Stage::Check, Reason::Check, what)
                    .with_hint("raise --check-timeout, and --sync-timeout above it"));
            }
            Err(failure) => return Err(failure.error),
        };
        if let Some(changed) = changed(proposal.revision, context)? {
            return Ok(changed);
        }
        let said = excerpt(String::from_utf8_lossy(&body).trim(), MAX_ANSWER);
        match status.as_u16() {
            200 => Ok(Judgement::Accept),
            422 if said.is_empty() => Ok(Judgement::Reject(format!(
                "{} answered 422",
                without_query(url)
            ))),
            422 => Ok(Judgement::Reject(said)),
            other => {
                let what = format!("{} answered {other} {said}", without_query(url));
                Err(SyncError::new(Stage::Check, Reason::Check, what)
                    .with_hint("200 accepts the commit, 422 rejects it"))
            }
        }
    }
}

/// Rejects the tree if something changed it since it was sealed.
pub(super) fn changed(
    revision: &Revision,
    context: &Context<'_>,
) -> Result<Option<Judgement>, SyncError> {
    let (tree, manifest) = (&revision.path, &revision.manifest);
    let what = match manifest::verify(tree, manifest, context.budget)
        .map_err(|error| error.at(Stage::Check))?
    {
        Some(what) => Some(what),
        None => manifest::unlisted(tree, manifest, context.budget)?
            .map(|path| format!("{path} was added")),
    };
    Ok(what.map(|what| {
        Judgement::Reject(format!(
            "the check changed the tree: {what}; let it write elsewhere (--check-dir)"
        ))
    }))
}

fn variables(proposal: &Proposal<'_>, target: &Target) -> [(&'static str, OsString); 5] {
    let live = proposal.live.map(|commit| commit.to_string());
    [
        ("GVR_COMMIT", proposal.revision.commit.to_string().into()),
        ("GVR_PREVIOUS_COMMIT", live.unwrap_or_default().into()),
        ("GVR_REF", target.reference.to_string().into()),
        ("GVR_LINK", target.layout.link.clone().into()),
        ("GVR_TREE", proposal.revision.path.clone().into()),
    ]
}

/// A program that cannot be started says nothing about the commit.
fn no_verdict(mut error: SyncError) -> SyncError {
    if error.reason == Reason::Other {
        error.reason = Reason::Check;
    }
    error
}
