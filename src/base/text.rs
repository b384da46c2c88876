//! Text from outside, made safe to print.

use super::secret::redact;

/// The text without secrets of this process and with control characters escaped. Text from a remote
/// can then neither leak a password, nor send control sequences to a terminal, nor forge a log line.
pub fn printable(text: &str) -> String {
    escaped(&redact(text))
}

fn escaped(text: &str) -> String {
    if !text.chars().any(unprintable) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            let escaped: Box<dyn Iterator<Item = char>> = if unprintable(c) {
                Box::new(c.escape_default())
            } else {
                Box::new(std::iter::once(c))
            };
            escaped
        })
        .collect()
}

/// The printable text, cut after `characters`, because remotes and repositories set no limit.
pub fn excerpt(text: &str, characters: usize) -> String {
    // Before the cut, which could leave a part of a secret.
    let text = redact(text);
    match text.char_indices().nth(characters) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(&text),
    }
}

/// Control characters, line separators, and the marks that change the direction of text.
fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
