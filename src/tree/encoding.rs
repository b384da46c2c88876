//! `working-tree-encoding`: the encodings of files, as git's utf8.c applies them on checkout.
//!
//! The encodings are those of `encoding_rs`; UTF-16, UTF-32, ASCII and the ISO-8859 sets are done here
//! as iconv does them. Where the tables of `encoding_rs` differ from iconv's, a file may differ from
//! git's: EUC-JP lacks JIS X 0212, GB2312 and EUC-KR are replaced by their supersets, and UTF-7 is
//! missing.

use encoding_rs::{EncoderResult, Encoding};

/// Whether the name stands for UTF-8, the encoding of blobs (git's `same_encoding`).
pub(super) fn is_utf8(name: &str) -> bool {
    strip_utf(name) == Some("8")
}

/// The rest of a name after "utf" or "utf-", which may be upper or lower case.
fn strip_utf(name: &str) -> Option<&str> {
    let rest = name
        .get(..3)
        .filter(|start| start.eq_ignore_ascii_case("utf"))
        .map(|_| &name[3..])?;
    Some(rest.strip_prefix('-').unwrap_or(rest))
}

/// Encodes UTF-8 content. `None` if the encoding is unknown, the content is not UTF-8, or the
/// encoding cannot express it.
pub(super) fn encode(content: &[u8], name: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    if let Some(form) = strip_utf(name) {
        let form = form.to_ascii_uppercase();
        // As in glibc's iconv: if the name does not say the byte order, a byte order mark and
        // little-endian, the order of all supported machines.
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
    // The web's tables have printable characters at 0x80 to 0x9f; the ISO sets have control
    // characters there.
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

/// The highest code of a character set that is a prefix of Unicode.
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
    fn an_unknown_encoding_or_one_that_cannot_express_the_text_encodes_nothing() {
        assert_eq!(encode("é".as_bytes(), "ISO-8859-1"), Some(vec![0xe9]));
        assert_eq!(encode("€".as_bytes(), "ISO-8859-1"), None);
        assert_eq!(encode("€".as_bytes(), "ISO-8859-15"), Some(vec![0xa4]));
        assert_eq!(encode(b"x", "no-such-encoding"), None);
        assert_eq!(encode(b"\xff", "UTF-16"), None);
        assert_eq!(encode(b"x", "UTF-16"), Some(b"\xff\xfex\0".to_vec()));
    }
}
