//! Log lines on standard error: one subscriber, text or JSON.
//!
//! What is logged, and at which level, is up to those who log.

use std::io;

use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::cli::LogFormat;
use crate::config::LogConfig;

/// Installs the subscriber; once per process.
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
