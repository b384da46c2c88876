//! The bytes of a file from the bytes of its blob: `ident`, then line ends, then the encoding.
//!
//! A port of what git's convert.c and utf8.c do on checkout. Encodings are those of `encoding_rs`,
//! with UTF-16, UTF-32, ASCII and the ISO-8859 sets done here as iconv does them; one that is not
//! known, or cannot express the content, leaves the content as it is in the repository, as in git.
//! Where the tables differ from iconv's (EUC-JP lacks JIS X 0212; GB2312 and EUC-KR are their
//! supersets; UTF-7 is not there) a file may differ from git's.

use std::borrow::Cow;

use encoding_rs::{EncoderResult, Encoding};
use git2::Oid;

use super::attributes::{Conversion, Eol};

/// A blob as it is to be written.
pub(super) struct Converted<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// The encoding that was asked for and could not be applied.
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
        match encode(&bytes, name) {
            Some(encoded) => bytes = Cow::Owned(encoded),
            None => left_encoding = true,
        }
    }
    Converted {
        bytes,
        left_encoding,
    }
}

/// Whether an encoding is the one that blobs have anyway (git's `same_encoding`).
pub(super) fn is_utf8(name: &str) -> bool {
    strip_utf(name) == Some("8")
}

/// What follows "utf" or "utf-", in any case.
fn strip_utf(name: &str) -> Option<&str> {
    let rest = name
        .get(..3)
        .filter(|start| start.eq_ignore_ascii_case("utf"))
        .map(|_| &name[3..])?;
    Some(rest.strip_prefix('-').unwrap_or(rest))
}

#[derive(Default)]
struct Stats {
    nul: usize,
    lone_cr: usize,
    lone_lf: usize,
    crlf: usize,
    printable: usize,
    nonprintable: usize,
}

impl Stats {
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
    let stats = Stats::of(content);
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
                // A space within the value: the keyword of another version control system.
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

/// `None` if the encoding is unknown, the content is not UTF-8, or the encoding cannot express it.
fn encode(content: &[u8], name: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    if let Some(form) = strip_utf(name) {
        let form = form.to_ascii_uppercase();
        // As glibc's iconv: a mark in the machine's order, which is little-endian wherever this
        // runs, unless the name says the order.
        return Some(match form.as_str() {
            "16" | "16LE-BOM" => utf16(u16::to_le_bytes, true, text),
            "16LE" => utf16(u16::to_le_bytes, false, text),
            "16BE-BOM" => utf16(u16::to_be_bytes, true, text),
            "16BE" => utf16(u16::to_be_bytes, false, text),
            "32" => utf32(u32::to_le_bytes, true, text),
            "32LE" => utf32(u32::to_le_bytes, false, text),
            "32BE" => utf32(u32::to_be_bytes, false, text),
            _ => return None,
        });
    }
    if let Some(limit) = plain_charset(name) {
        return text
            .chars()
            .map(|c| {
                u8::try_from(u32::from(c))
                    .ok()
                    .filter(|byte| *byte <= limit)
            })
            .collect();
    }
    let iso = name.to_ascii_uppercase().starts_with("ISO");
    let encoding = Encoding::for_label(name.as_bytes())?;
    if encoding.output_encoding() != encoding {
        return None;
    }
    // The web's tables put other characters where the ISO sets have control characters.
    if iso && encoding.name().starts_with("windows-") {
        return text
            .chars()
            .map(|c| match u32::from(c) {
                code @ 0x80..=0x9f => u8::try_from(code).ok(),
                _ => single_byte(encoding, c).filter(|byte| !(0x80..=0x9f).contains(byte)),
            })
            .collect();
    }
    let mut encoded = vec![
        0;
        encoding
            .new_encoder()
            .max_buffer_length_from_utf8_without_replacement(text.len())?
    ];
    let mut encoder = encoding.new_encoder();
    let (result, _, written) =
        encoder.encode_from_utf8_without_replacement(text, &mut encoded, true);
    encoded.truncate(written);
    (result == EncoderResult::InputEmpty).then_some(encoded)
}

fn utf16(order: fn(u16) -> [u8; 2], mark: bool, text: &str) -> Vec<u8> {
    mark.then_some(0xfeff)
        .into_iter()
        .chain(text.encode_utf16())
        .flat_map(order)
        .collect()
}

fn utf32(order: fn(u32) -> [u8; 4], mark: bool, text: &str) -> Vec<u8> {
    mark.then_some(0xfeff)
        .into_iter()
        .chain(text.chars().map(u32::from))
        .flat_map(order)
        .collect()
}

/// The highest code of a set that is a prefix of Unicode.
fn plain_charset(name: &str) -> Option<u8> {
    match name.to_ascii_uppercase().as_str() {
        "ASCII" | "US-ASCII" | "ANSI_X3.4-1968" | "646" => Some(0x7f),
        "ISO-8859-1" | "ISO8859-1" | "ISO_8859-1" | "ISO88591" | "LATIN1" | "LATIN-1" | "L1" => {
            Some(0xff)
        }
        _ => None,
    }
}

fn single_byte(encoding: &'static Encoding, c: char) -> Option<u8> {
    let mut source = [0; 4];
    let mut byte = [0; 4];
    let (result, _, written) = encoding.new_encoder().encode_from_utf8_without_replacement(
        c.encode_utf8(&mut source),
        &mut byte,
        true,
    );
    (result == EncoderResult::InputEmpty && written == 1).then_some(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_conversion_leaves_what_looks_binary_or_mixed() {
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

    #[test]
    fn an_encoding_that_cannot_express_the_text_leaves_it() {
        assert_eq!(encode("é".as_bytes(), "ISO-8859-1"), Some(vec![0xe9]));
        assert_eq!(encode("€".as_bytes(), "ISO-8859-1"), None);
        assert_eq!(encode("€".as_bytes(), "ISO-8859-15"), Some(vec![0xa4]));
        assert_eq!(encode(b"x", "no-such-encoding"), None);
        assert_eq!(encode(b"\xff", "UTF-16"), None);
        assert_eq!(encode(b"x", "UTF-16"), Some(b"\xff\xfex\0".to_vec()));
    }
}
