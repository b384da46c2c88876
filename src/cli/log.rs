//! How log lines are written, and which.

use clap::{Args, ValueEnum};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The flags about the log.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogFlags {
    /// The format of log lines on standard error
    #[arg(long, env = "GVR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// error, warn, info, debug, trace, or a tracing filter such as info,git_volume_reloader=debug
    #[arg(
        long,
        env = "GVR_LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_level: String,
}
