//! The HTTP port: probes, metrics, status and nudges.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::positive_duration;
use crate::serve::bind::Bind;

/// The flags about the HTTP port.
#[derive(Args, Debug)]
#[command(next_help_heading = "HTTP port")]
pub struct ServeFlags {
    /// The address that serves /metrics, /livez, /readyz, /status and /nudge: [host]:port
    ///
    /// Default: no port is opened.
    #[arg(long, env = "GVR_HTTP_BIND", value_name = "ADDRESS")]
    pub http_bind: Option<Bind>,

    /// How old the last successful poll may be before /readyz fails and gvr_stale is 1
    ///
    /// Default: no limit, so that an outage of the git host does not make readers unready.
    #[arg(long, env = "GVR_MAX_STALENESS", value_parser = positive_duration, value_name = "DURATION")]
    pub max_staleness: Option<Duration>,

    /// A file with the bearer token that POST /nudge requires
    ///
    /// The file is read again for every request. Without this flag, /nudge answers 404. It needs
    /// --http-bind.
    #[arg(long, env = "GVR_NUDGE_TOKEN_FILE", value_name = "FILE")]
    pub nudge_token_file: Option<PathBuf>,
}
