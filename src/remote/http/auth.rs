//! The `Authorization` header: Basic, sent without being asked (RFC 7617).

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::base::error::{Reason, Stage, SyncError};
use crate::base::repo_url::HttpUrl;
use crate::base::secret::Secret;
use crate::remote::Auth;

/// The user name that goes with a password alone. The hosts that take tokens ignore it.
const ANY_USER: &str = "git";

/// The header's value, or `None` without credentials. The password file is read each time, so
/// that a rotated token is used at once; it wins over the environment, which wins over the URL.
///
/// # Errors
/// When the password file cannot be read or is empty.
pub(super) fn authorization(
    auth: &Auth,
    url: &HttpUrl,
    stage: Stage,
) -> Result<Option<Secret>, SyncError> {
    let password = match (&auth.password_file, &auth.password, &url.password) {
        (Some(path), _, _) => {
            let shown = path.display();
            let text = fs::read_to_string(path).map_err(|cause| {
                SyncError::new(
                    stage,
                    Reason::Auth,
                    format!("cannot read the password file {shown}"),
                )
                .with_source(cause)
                .with_hint("check --password-file and the mounted secret")
            })?;
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                return Err(SyncError::new(
                    stage,
                    Reason::Auth,
                    format!("the password file {shown} is empty"),
                )
                .with_hint("check --password-file and the mounted secret"));
            }
            Some(Secret::new(text))
        }
        (None, Some(password), _) | (None, None, Some(password)) => Some(password.clone()),
        (None, None, None) => None,
    };
    let username = auth.username.as_deref().or(url.username.as_deref());
    if username.is_none() && password.is_none() {
        return Ok(None);
    }
    let pair = format!(
        "{}:{}",
        username.unwrap_or(ANY_USER),
        password.as_ref().map_or("", Secret::expose)
    );
    Ok(Some(Secret::new(format!(
        "Basic {}",
        BASE64_STANDARD.encode(pair)
    ))))
}
