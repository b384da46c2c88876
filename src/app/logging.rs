//! Writes log lines to standard error, as text or JSON.
//!
//! This module does not decide what is logged.

use std::io;

use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::cli::LogFormat;
use crate::config::LogConfig;

/// Installs the subscriber of the process; call it once.
pub fn install(config: LogConfig) {
    let registry = tracing_subscriber::registry().with(config.filter);
    match config.format {
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_writer(io::stderr)
                    .with_ansi(false)
                    .with_target(false),
            )
            .init(),
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false)
                    .with_writer(io::stderr)
                    .with_target(false),
            )
            .init(),
    }
}
