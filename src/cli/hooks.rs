//! Which programs are told about a publish.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// The flags about hooks.
#[derive(Args, Debug)]
#[command(next_help_heading = "Hooks")]
pub struct HookFlags {
    /// A program to run after every publish, and at the start
    ///
    /// It runs in the published tree, without a shell, and never delays a sync. A failure is
    /// repeated until it succeeds or a newer commit is published. Its environment has GVR_COMMIT,
    /// GVR_PREVIOUS_COMMIT (of its last success), GVR_REF, GVR_LINK, GVR_TREE, GITSYNC_HASH, and
    /// GVR_CHANGED_FILES: a file with what changed since the last success, in the format of `git diff
    /// --no-renames --name-status -z`. The last is empty when that is not known.
    #[arg(long, env = "GVR_EXECHOOK_COMMAND", value_name = "PROGRAM")]
    pub exechook_command: Option<PathBuf>,

    /// An argument for --exechook-command; may be repeated
    #[arg(
        long,
        env = "GVR_EXECHOOK_ARG",
        value_name = "ARGUMENT",
        requires = "exechook_command",
        allow_hyphen_values = true
    )]
    pub exechook_arg: Vec<OsString>,

    /// How long --exechook-command may take
    ///
    /// Then it gets SIGTERM, and SIGKILL 2 s later, together with all processes that it started.
    #[arg(long, env = "GVR_EXECHOOK_TIMEOUT", default_value = "30s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub exechook_timeout: Duration,

    /// How long to wait after a failure of --exechook-command
    ///
    /// The wait doubles with each failure in a row, up to ten times this.
    #[arg(long, env = "GVR_EXECHOOK_BACKOFF", default_value = "3s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub exechook_backoff: Duration,

    /// Run --exechook-command only when something under this path changed; may be repeated
    ///
    /// A sparse-checkout pattern: docs or /docs/*.md. When it is not known what changed, the program
    /// runs.
    #[arg(
        long,
        env = "GVR_EXECHOOK_ON_PATH",
        value_name = "PATTERN",
        value_delimiter = ',',
        requires = "exechook_command"
    )]
    pub exechook_on_path: Vec<String>,

    /// A signal to send to another process after every publish, and at the start
    ///
    /// NAME or NAME:PROCESS, as in HUP:nginx. Needs a shared process namespace
    /// (shareProcessNamespace) and the same user. The topmost processes of that name get the signal;
    /// without a name, the main process of every other container in the pod. HUP, INT, QUIT, USR1,
    /// USR2, TERM or WINCH.
    #[arg(long, env = "GVR_NOTIFY_SIGNAL", value_name = "SIGNAL[:PROCESS]")]
    pub notify_signal: Option<String>,

    /// A URL to send a request to
    ///
    /// It gets a request after every publish, and at the start; see --webhook-on. The request has the
    /// header Gitsync-Hash with the commit. A failure is repeated like one of --exechook-command.
    /// Proxies and SSL_CERT_FILE apply, but loopback addresses are reached directly.
    #[arg(
        long,
        env = "GVR_WEBHOOK_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub webhook_url: Option<String>,

    /// The method of --webhook-url
    #[arg(
        long,
        env = "GVR_WEBHOOK_METHOD",
        default_value = "POST",
        value_name = "METHOD"
    )]
    pub webhook_method: String,

    /// The status that means success; 0 or -1: any
    #[arg(
        long,
        env = "GVR_WEBHOOK_SUCCESS_STATUS",
        default_value_t = 200,
        allow_negative_numbers = true,
        value_name = "STATUS"
    )]
    pub webhook_success_status: i32,

    /// How long one request to --webhook-url may take
    #[arg(long, env = "GVR_WEBHOOK_TIMEOUT", default_value = "1s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub webhook_timeout: Duration,

    /// How long to wait after a failure of --webhook-url
    ///
    /// The wait doubles with each failure in a row, up to ten times this.
    #[arg(long, env = "GVR_WEBHOOK_BACKOFF", default_value = "3s", value_parser = super::values::positive_duration, value_name = "DURATION")]
    pub webhook_backoff: Duration,

    /// A file with headers for --webhook-url: lines of NAME: VALUE
    ///
    /// Read for every request. For tokens.
    #[arg(long, env = "GVR_WEBHOOK_HEADER_FILE", value_name = "FILE")]
    pub webhook_header_file: Option<PathBuf>,

    /// What --webhook-url is sent: none, json, slack or a file
    ///
    /// json is an object with all that is known; slack is an object with one sentence as "text". A
    /// file is a template in which {{commit}}, {{subject}} and every other key of the json object is
    /// replaced; if its name ends in .json, values are escaped for JSON strings.
    #[arg(
        long,
        env = "GVR_WEBHOOK_BODY",
        default_value = "none",
        value_name = "none|json|slack|FILE"
    )]
    pub webhook_body: String,

    /// A file with the key that signs the body for --webhook-url
    ///
    /// Read for every request. The header X-Hub-Signature-256 holds the HMAC-SHA256, as from GitHub.
    #[arg(long, env = "GVR_WEBHOOK_HMAC_FILE", value_name = "FILE")]
    pub webhook_hmac_file: Option<PathBuf>,

    /// What --webhook-url hears of: published, failed, recovered, rejected, stale
    ///
    /// failed is the first failure in a row, recovered the success after it, rejected a commit that a
    /// check rejected, stale a last success that is longer ago than --max-staleness.
    #[arg(
        long,
        env = "GVR_WEBHOOK_ON",
        default_value = "published",
        value_delimiter = ',',
        value_name = "EVENTS"
    )]
    pub webhook_on: Vec<String>,
}
