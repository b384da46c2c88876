//! Turns the bytes of a blob into the bytes of a file: `ident`, then line ends, then the encoding.
//!
//! A port of git's convert.c for checkouts. As in git, an encoding that is unknown or cannot express
//! the content leaves the content as it is in the repository.

use std::borrow::Cow;

use git2::Oid;

use super::conversion::{Conversion, Eol};
use super::encoding;

/// The content of a file.
pub(super) struct Converted<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// Whether the encoding could not be applied.
    pub left_encoding: bool,
}

/// Applies a conversion to the content of the blob `id`.
pub(super) fn convert<'a>(conversion: &Conversion, id: Oid, content: &'a [u8]) -> Converted<'a> {
    let mut bytes = Cow::Borrowed(content);
    if conversion.ident
        && let Some(expanded) = expand_ident(&bytes, id)
    {
        bytes = Cow::Owned(expanded);
    }
    if conversion.eol != Eol::Keep
        && let Some(converted) = lf_to_crlf(&bytes, conversion.eol == Eol::AutoCrlf)
    {
        bytes = Cow::Owned(converted);
    }
    let mut left_encoding = false;
    if let Some(name) = &conversion.encoding
        && !bytes.is_empty()
    {
        match encoding::encode(&bytes, name) {
            Some(encoded) => bytes = Cow::Owned(encoded),
            None => left_encoding = true,
        }
    }
    Converted {
        bytes,
        left_encoding,
    }
}

/// Counts of the bytes in a content (git's `text_stat`).
#[derive(Default)]
struct TextStats {
    nul: usize,
    lone_cr: usize,
    lone_lf: usize,
    crlf: usize,
    printable: usize,
    nonprintable: usize,
}

impl TextStats {
    fn of(content: &[u8]) -> Self {
        let mut stats = Self::default();
        let mut bytes = content.iter().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' if bytes.peek() == Some(&&b'\n') => {
                    bytes.next();
                    stats.crlf += 1;
                }
                b'\r' => stats.lone_cr += 1,
                b'\n' => stats.lone_lf += 1,
                0x08 | b'\t' | 0x1b | 0x0c => stats.printable += 1,
                0 => {
                    stats.nul += 1;
                    stats.nonprintable += 1;
                }
                1..=31 | 127 => stats.nonprintable += 1,
                _ => stats.printable += 1,
            }
        }
        // A DOS end-of-file mark does not make a text binary.
        if content.last() == Some(&0x1a) {
            stats.nonprintable -= 1;
        }
        stats
    }

    fn is_binary(&self) -> bool {
        self.lone_cr > 0 || self.nul > 0 || (self.printable >> 7) < self.nonprintable
    }
}

fn lf_to_crlf(content: &[u8], auto: bool) -> Option<Vec<u8>> {
    let stats = TextStats::of(content);
    if stats.lone_lf == 0 {
        return None;
    }
    if auto && (stats.lone_cr > 0 || stats.crlf > 0 || stats.is_binary()) {
        return None;
    }
    let mut converted = Vec::with_capacity(content.len() + stats.lone_lf);
    let mut last = 0;
    for byte in content {
        if *byte == b'\n' && last != b'\r' {
            converted.push(b'\r');
        }
        converted.push(*byte);
        last = *byte;
    }
    Some(converted)
}

fn expand_ident(content: &[u8], id: Oid) -> Option<Vec<u8>> {
    let mut expanded = Vec::new();
    let mut any = false;
    let mut rest = content;
    while let Some(dollar) = rest.iter().position(|byte| *byte == b'$') {
        expanded.extend_from_slice(&rest[..=dollar]);
        rest = &rest[dollar + 1..];
        if rest.len() < 3 || !rest.starts_with(b"Id") {
            continue;
        }
        match rest[2] {
            b'$' => rest = &rest[3..],
            b':' => {
                let Some(end) = rest[3..].iter().position(|byte| *byte == b'$') else {
                    break;
                };
                let value = &rest[3..3 + end];
                if value.contains(&b'\n') {
                    continue;
                }
                // A space within the value means that another version control system wrote it.
                let space = value.iter().skip(1).position(|byte| *byte == b' ');
                if space.is_some_and(|at| at + 2 < value.len()) {
                    continue;
                }
                rest = &rest[3 + end + 1..];
            }
            _ => continue,
        }
        any = true;
        expanded.extend_from_slice(format!("Id: {id} $").as_bytes());
    }
    expanded.extend_from_slice(rest);
    any.then_some(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_conversion_leaves_binary_content_and_mixed_line_ends() {
        assert_eq!(
            lf_to_crlf(b"a\nb\n", true).as_deref(),
            Some(&b"a\r\nb\r\n"[..])
        );
        assert_eq!(lf_to_crlf(b"a\r\nb\n", true), None);
        assert_eq!(lf_to_crlf(b"a\0\n", true), None);
        assert_eq!(
            lf_to_crlf(b"a\r\nb\n", false).as_deref(),
            Some(&b"a\r\nb\r\n"[..])
        );
        assert_eq!(lf_to_crlf(b"a", false), None);
    }

    #[test]
    fn foreign_keywords_are_kept() {
        let id = Oid::ZERO_SHA1;
        let ours = format!("$Id: {id} $");
        for (from, to) in [
            ("$Id$", Some(ours.clone())),
            ("$Id: old $ x", Some(format!("{ours} x"))),
            ("$Id: a b c $", None),
            ("$Id: line\n$", None),
            ("$Idea$", None),
            ("$Id:$", Some(ours.clone())),
            ("$Id: unfinished", None),
        ] {
            let expanded = expand_ident(from.as_bytes(), id);
            assert_eq!(expanded, to.map(String::into_bytes), "{from}");
        }
    }
}
