//! Whom to reach, and as whom.

use std::fmt;

use crate::net::dial;

/// A server and the user to log in as.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Host name or address, without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// The user to log in as.
    pub(super) user: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dial::endpoint(&self.host, self.port))
    }
}
