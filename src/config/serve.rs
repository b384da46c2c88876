//! The HTTP ports.

use super::error::{ConfigError, bad};
use super::paths::WorkingDirectory;
use crate::base::allowance::Allowance;
use crate::cli::ServeFlags;
use crate::serve::bind::Bind;
use crate::serve::hosts::AllowedHosts;
use crate::serve::nudge::NudgeConfig;
use crate::serve::webhooks::sns;

/// Polls that requests may cause at once.
const BURST: u32 = 60;

/// What is served over HTTP. At least one address is given.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to serve everything, or all but nudges if they have an address of their own.
    pub bind: Option<Bind>,
    /// Where to serve nudges and nothing else.
    pub nudge_bind: Option<Bind>,
    /// Who may nudge; `None` hides the routes.
    pub nudge: Option<NudgeConfig>,
    /// Polls that nudges may cause, for each target.
    pub allowance: Allowance,
    /// Host names that may be asked for.
    pub hosts: AllowedHosts,
}

/// What is served, if anything.
pub(super) fn serve(
    flags: &ServeFlags,
    from: &WorkingDirectory,
) -> Result<Option<ServeConfig>, ConfigError> {
    for topic in &flags.nudge_sns_topic {
        if sns::confirmation(topic, "0").is_none() {
            return Err(bad(
                "--nudge-sns-topic",
                "it must be the ARN of an SNS topic: arn:aws:sns:REGION:ACCOUNT:NAME",
            ));
        }
    }
    let token_file = flags.nudge_token_file.as_deref();
    let secret_files = flags.nudge_secret_file.iter();
    let nudge = NudgeConfig {
        token_file: token_file.map(|file| from.absolute(file)),
        secret_files: secret_files.map(|file| from.absolute(file)).collect(),
        sns_topics: flags.nudge_sns_topic.clone(),
        confirm: None,
    };
    let needs = |flag| Err(bad(flag, "it needs --http-bind or --nudge-bind"));
    let has_address = flags.http_bind.is_some() || flags.nudge_bind.is_some();
    match (&nudge.token_file, nudge.secret_files.is_empty()) {
        (Some(_), _) if !has_address => return needs("--nudge-token-file"),
        (_, false) if !has_address => return needs("--nudge-secret-file"),
        (None, true) if flags.nudge_bind.is_some() => {
            return Err(bad(
                "--nudge-bind",
                "it needs --nudge-secret-file or --nudge-token-file",
            ));
        }
        (_, true) if !nudge.sns_topics.is_empty() => {
            return Err(bad("--nudge-sns-topic", "it needs --nudge-secret-file"));
        }
        _ => {}
    }
    let wants_nudges = nudge.token_file.is_some() || !nudge.secret_files.is_empty();
    Ok(has_address.then(|| ServeConfig {
        bind: flags.http_bind,
        nudge_bind: flags.nudge_bind,
        nudge: wants_nudges.then_some(nudge),
        allowance: Allowance::new(flags.nudge_rate, BURST),
        hosts: AllowedHosts::new(flags.http_allowed_host.iter().cloned()),
    }))
}
