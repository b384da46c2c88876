//! The HTTP port: probes, metrics, status and nudges.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{duration, positive_duration};
use crate::serve::bind::Bind;

/// The flags about the HTTP port.
#[derive(Args, Debug)]
#[command(next_help_heading = "HTTP port")]
pub struct ServeFlags {
    /// The address that serves /metrics, /livez, /readyz, /status, /nudge and /webhook: [host]:port
    ///
    /// Default: no port is opened.
    #[arg(long, env = "GVR_HTTP_BIND", value_name = "ADDRESS")]
    pub http_bind: Option<Bind>,

    /// How old the last successful poll may be before /readyz fails and gvr_stale is 1
    ///
    /// Default: no limit, so that an outage of the git host does not make readers unready.
    #[arg(long, env = "GVR_MAX_STALENESS", value_parser = positive_duration, value_name = "DURATION")]
    pub max_staleness: Option<Duration>,

    /// A host name that requests may be addressed to; may be repeated; * for any
    ///
    /// Addresses and names within a cluster (docs, docs.web.svc, docs.local) are always allowed. Any
    /// other name is refused with 421, because a web page could have brought it (DNS rebinding).
    /// /nudge and /webhook take any name.
    #[arg(
        long,
        env = "GVR_HTTP_ALLOWED_HOST",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub http_allowed_host: Vec<String>,

    /// The address that serves /nudge and /webhook instead of --http-bind: [host]:port
    ///
    /// With a port of its own, webhooks can be exposed while metrics and status are not.
    #[arg(long, env = "GVR_NUDGE_BIND", value_name = "ADDRESS")]
    pub nudge_bind: Option<Bind>,

    /// A file with the bearer token that POST /nudge requires
    ///
    /// The file is read again for every request. Without this flag and --nudge-secret-file, /nudge
    /// answers 404. It needs --http-bind or --nudge-bind.
    #[arg(long, env = "GVR_NUDGE_TOKEN_FILE", value_name = "FILE")]
    pub nudge_token_file: Option<PathBuf>,

    /// A file with a secret for POST /webhook and POST /nudge; may be repeated
    ///
    /// All of them are valid, so that a secret can be rotated. The files are read again for every
    /// request. Without this flag, /webhook answers 404. It needs --http-bind or --nudge-bind.
    #[arg(
        long,
        env = "GVR_NUDGE_SECRET_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub nudge_secret_file: Vec<PathBuf>,

    /// The ARN of an AWS SNS topic whose messages count; may be repeated
    ///
    /// For CodeCommit. A subscription of such a topic is confirmed, which needs access to SNS.
    #[arg(
        long,
        env = "GVR_NUDGE_SNS_TOPIC",
        value_delimiter = ',',
        value_name = "ARN"
    )]
    pub nudge_sns_topic: Vec<String>,

    /// How many polls an hour requests to /nudge and /webhook may cause for each target
    ///
    /// Up to 60 of them at once, and never more than one a second. The polls of --period do not
    /// count. What is held back is served by the next poll.
    #[arg(
        long,
        env = "GVR_NUDGE_RATE",
        default_value_t = 600,
        value_name = "COUNT"
    )]
    pub nudge_rate: u32,

    /// How long to go on polling for a commit that was announced and is not there yet
    ///
    /// The first time after 250 ms, then less often, down to once a second. Then --period counts
    /// again.
    #[arg(long, env = "GVR_NUDGE_WAIT", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub nudge_wait: Duration,
}
