//! Local control: a Unix socket in the root, for the commands `status`, `nudge`, `pin`, `unpin` and
//! `recheck`.
//!
//! One request and one answer a connection, each a JSON document on a line. Only the user that the
//! instance runs as, and root, may ask. This module does nothing by itself: it passes requests to the
//! sync thread, which never waits for it.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the socket in the root's `.gvr` directory.
const SOCKET: &str = "control.sock";

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 4096;

/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What to do.
    #[serde(rename = "do")]
    pub what: What,
    /// The target by name. Without it: the one whose root the socket is in, or all for `status`.
    #[serde(default)]
    pub target: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Tell the state of the targets.
    Status,
    /// Poll now.
    Nudge,
    /// Judge a rejected commit again.
    Recheck,
    /// Hold readers on a revision: `previous`, `current`, or the beginning of a commit's id.
    Pin(String),
    /// Follow the ref again.
    Unpin,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done. For `status`, the document that `/status` shows; else a sentence for people.
    Done(Value),
    /// It was not done; why, for people.
    Failed(String),
}
