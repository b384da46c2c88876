//! Who is told about publishes and failures.

use std::path::PathBuf;

use clap::Args;

/// The flags about notifications.
#[derive(Args, Debug)]
#[command(next_help_heading = "Notifications")]
pub struct NotifyFlags {
    /// A file to create or touch after every publish; may be repeated
    ///
    /// Relative to --root unless absolute.
    #[arg(
        long,
        env = "GVR_TOUCH_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub touch_file: Vec<PathBuf>,

    /// A file that holds the last error as JSON; it is deleted when a sync succeeds
    ///
    /// Relative to --root unless absolute.
    #[arg(long, env = "GVR_ERROR_FILE", value_name = "FILE")]
    pub error_file: Option<PathBuf>,

    /// A file that holds the JSON of /status
    ///
    /// Replaced in one step when something changes; its field "running" becomes false when this
    /// process ends in order. Relative to --root unless absolute.
    #[arg(long, env = "GVR_STATUS_FILE", value_name = "FILE")]
    pub status_file: Option<PathBuf>,
}
