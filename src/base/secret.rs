//! Values that cannot be printed, and their removal from text from outside.
//!
//! A [`Secret`] prints as `***`. A remote may still send one back, for example in an error page
//! that quotes the request. [`redact`] therefore removes every secret that this process uses from
//! text from outside. [`text::printable`](super::text::printable) calls it.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;

/// What is printed in the place of a secret.
const HIDDEN: &str = "***";

/// The shortest text that is redacted, in bytes. Shorter ones occur in ordinary words.
const SHORTEST: usize = 6;

/// How many forms of secrets are remembered. Rotated secrets push out the oldest.
const REMEMBERED: usize = 256;

/// A password, a token or a key. Debug and Display print `***`; only [`Secret::expose`] gives the
/// value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The secrets that this process uses.
static IN_USE: Mutex<Forms> = Mutex::new(Forms(Vec::new()));

/// The texts to remove, the latest last.
struct Forms(Vec<String>);

impl Secret {
    /// Wraps a value of the operator. From now on, [`redact`] removes it from text from outside.
    pub fn new(value: impl Into<String>) -> Self {
        let value = value.into();
        in_use().remember(&value);
        Self(value)
    }

    /// Wraps a value that a client sent. It is not remembered, because any client could then make
    /// this process redact words of the client's choice.
    pub fn received(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the header or the handshake that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The text with every secret that this process uses replaced by `***`: as it is,
/// percent-encoded and in base64; of a header's value also the part after the scheme, and of a URL
/// also the password. Secrets of fewer than six bytes are not replaced.
pub fn redact(text: &str) -> Cow<'_, str> {
    in_use().redact(text)
}

impl Forms {
    fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut redacted = Cow::Borrowed(text);
        for form in &self.0 {
            if redacted.contains(form.as_str()) {
                redacted = Cow::Owned(redacted.replace(form.as_str(), HIDDEN));
            }
        }
        redacted
    }

    fn remember(&mut self, value: &str) {
        // Every poll wraps the same few secrets again.
        let recent = self.0.iter().rev().take(REMEMBERED / 4);
        let is_recent = recent.into_iter().any(|known| known == value);
        if value.len() < SHORTEST || is_recent || is_plain_address(value) {
            return;
        }
        let mut forms = forms(value);
        self.0.retain(|known| !forms.contains(known));
        forms.retain(|form| form.len() >= SHORTEST);
        self.0.append(&mut forms);
        let excess = self.0.len().saturating_sub(REMEMBERED);
        self.0.drain(..excess);
    }
}

/// How a secret may appear in a text.
fn forms(value: &str) -> Vec<String> {
    let mut parts = vec![value.to_owned()];
    for scheme in ["Basic ", "Bearer "] {
        parts.extend(value.strip_prefix(scheme).map(str::to_owned));
    }
    if let Some((user, password)) = user_information(value) {
        parts.push(format!("{user}:{password}"));
        parts.push(password);
    }
    let mut forms = Vec::new();
    for part in parts {
        let encoded = [
            percent_encoded(&part, true),
            percent_encoded(&part, false),
            BASE64_STANDARD.encode(&part),
            part,
        ];
        for form in encoded {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

/// Whether the value is a URL without a password and a query, such as a proxy's address.
fn is_plain_address(value: &str) -> bool {
    url::Url::parse(value)
        .is_ok_and(|url| url.has_host() && url.password().is_none() && url.query().is_none())
}

/// User and password of a URL, decoded.
fn user_information(value: &str) -> Option<(String, String)> {
    let url = url::Url::parse(value).ok()?;
    let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    Some((decode(url.username()), decode(url.password()?)))
}

/// Every byte encoded that is not unreserved (RFC 3986, section 2.3).
fn percent_encoded(text: &str, upper: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ if upper => drop(write!(encoded, "%{byte:02X}")),
            _ => drop(write!(encoded, "%{byte:02x}")),
        }
    }
    encoded
}

/// Each use leaves the list whole, so a poisoned lock is as good as a sound one.
fn in_use() -> MutexGuard<'static, Forms> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(values: &[&str]) -> Forms {
        let mut forms = Forms(Vec::new());
        for value in values {
            forms.remember(value);
        }
        forms
    }

    #[test]
    fn a_secret_is_removed_in_every_form() {
        let credentials = BASE64_STANDARD.encode("me:t0psecret!");
        let header = format!("Basic {credentials}");
        let proxy = "http://me:pr0xy%2Fpass@proxy:3128";
        let forms = remembered(&["p@ss/w0rd of mine", &header, proxy, "Bearer t0ken-t0ken"]);
        for text in [
            "p@ss/w0rd of mine",
            "p%40ss%2Fw0rd%20of%20mine",
            "p%40ss%2fw0rd%20of%20mine",
            &BASE64_STANDARD.encode("p@ss/w0rd of mine"),
            &header,
            &credentials,
            proxy,
            "pr0xy/pass",
            "pr0xy%2Fpass",
            &BASE64_STANDARD.encode("me:pr0xy/pass"),
            "t0ken-t0ken",
        ] {
            let quoted = format!("you sent <{text}>, go away");
            let redacted = forms.redact(&quoted);
            assert!(!redacted.contains(text), "{redacted}");
            assert!(redacted.contains(HIDDEN), "{redacted}");
        }
    }

    #[test]
    fn short_secrets_names_of_schemes_and_plain_addresses_are_not_redacted() {
        let forms = remembered(&["git", "Bearer t0ken-t0ken", "http://proxy:3128"]);
        let text = "Bearer of the git repository, through http://proxy:3128";
        assert_eq!(forms.redact(text), text);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_latest() {
        let mut forms = Forms(Vec::new());
        for n in 0..2 * REMEMBERED {
            forms.remember(&format!("rotated-secret-number-{n:04}"));
        }
        assert!(forms.0.len() <= REMEMBERED);
        let latest = format!("rotated-secret-number-{:04}", 2 * REMEMBERED - 1);
        assert_eq!(forms.redact(&latest), HIDDEN);
    }

    #[test]
    fn a_secret_in_use_is_removed_from_text_from_outside() {
        let _secret = Secret::new("only-this-test-uses-it");
        assert_eq!(redact("<only-this-test-uses-it>"), "<***>");
        let _sent = Secret::received("only-this-test-receives-it");
        let text = "<only-this-test-receives-it>";
        assert_eq!(redact(text), text);
    }
}
