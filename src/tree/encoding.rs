//! `working-tree-encoding`: the encodings of files, as git's utf8.c applies them on checkout.
//!
//! The encodings are those of `encoding_rs`; UTF-16, UTF-32, ASCII and the ISO-8859 sets are done here
//! as iconv does them. Where the tables of `encoding_rs` differ from iconv's, a file may differ from
//! git's: EUC-JP lacks JIS X 0212, GB2312 and EUC-KR are replaced by their supersets, and UTF-7 is
//! missing.

use std::str::from_utf8;

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

/// Encodes UTF-8 content that arrives in pieces.
pub(super) struct Encoder {
    form: Form,
    /// Whether a byte order mark is still to be written.
    mark: bool,
    /// The first bytes of a character that the last piece cut.
    cut: Vec<u8>,
}

enum Form {
    Utf16(fn(u16) -> [u8; 2]),
    Utf32(fn(u32) -> [u8; 4]),
    /// The first characters of Unicode, up to this code.
    Prefix(u8),
    /// The web's tables have printable characters at 0x80 to 0x9f; the ISO sets have control
    /// characters there.
    Iso(&'static Encoding),
    Table(encoding_rs::Encoder),
}

impl Encoder {
    /// The encoder for a name; `None` if the encoding is unknown.
    pub fn new(name: &str) -> Option<Self> {
        let with = |form, mark| {
            Some(Self {
                form,
                mark,
                cut: Vec::new(),
            })
        };
        if let Some(form) = strip_utf(name) {
            let form = form.to_ascii_uppercase();
            // As in glibc's iconv: if the name does not say the byte order, a byte order mark and
            // little-endian, the order of all supported machines.
            return match form.as_str() {
                "16" | "16LE-BOM" => with(Form::Utf16(u16::to_le_bytes), true),
                "16LE" => with(Form::Utf16(u16::to_le_bytes), false),
                "16BE-BOM" => with(Form::Utf16(u16::to_be_bytes), true),
                "16BE" => with(Form::Utf16(u16::to_be_bytes), false),
                "32" => with(Form::Utf32(u32::to_le_bytes), true),
                "32LE" => with(Form::Utf32(u32::to_le_bytes), false),
                "32BE" => with(Form::Utf32(u32::to_be_bytes), false),
                _ => None,
            };
        }
        if let Some(limit) = plain_charset(name) {
            return with(Form::Prefix(limit), false);
        }
        let encoding = Encoding::for_label(name.as_bytes())?;
        if encoding.output_encoding() != encoding {
            return None;
        }
        let iso = name.to_ascii_uppercase().starts_with("ISO");
        match iso && encoding.name().starts_with("windows-") {
            true => with(Form::Iso(encoding), false),
            false => with(Form::Table(encoding.new_encoder()), false),
        }
    }

    /// Appends the encoded form of a piece to `out`; `last` says that no piece follows. `None` if the
    /// content is not UTF-8 or the encoding cannot express it; the encoder is of no use then.
    pub fn push(&mut self, piece: &[u8], last: bool, out: &mut Vec<u8>) -> Option<()> {
        let joined;
        let bytes = match self.cut.is_empty() {
            true => piece,
            false => {
                joined = [std::mem::take(&mut self.cut).as_slice(), piece].concat();
                &joined
            }
        };
        let text = match from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && !last => {
                let (whole, cut) = bytes.split_at(error.valid_up_to());
                self.cut = cut.to_vec();
                from_utf8(whole).ok()?
            }
            Err(_) => return None,
        };
        if std::mem::take(&mut self.mark) {
            self.form.encode("\u{feff}", false, out)?;
        }
        self.form.encode(text, last, out)
    }
}

impl Form {
    fn encode(&mut self, text: &str, last: bool, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Utf16(order) => out.extend(text.encode_utf16().flat_map(*order)),
            Self::Utf32(order) => out.extend(text.chars().map(u32::from).flat_map(*order)),
            Self::Prefix(limit) => {
                for c in text.chars() {
                    out.push(u8::try_from(c).ok().filter(|byte| byte <= limit)?);
                }
            }
            Self::Iso(encoding) => {
                for c in text.chars() {
                    let byte = match u32::from(c) {
                        code @ 0x80..=0x9f => u8::try_from(code).ok(),
                        _ => single_byte(encoding, c).filter(|byte| !(0x80..=0x9f).contains(byte)),
                    };
                    out.push(byte?);
                }
            }
            Self::Table(encoder) => {
                let most = encoder.max_buffer_length_from_utf8_without_replacement(text.len())?;
                out.reserve(most);
                let (result, _) =
                    encoder.encode_from_utf8_to_vec_without_replacement(text, out, last);
                return (result == EncoderResult::InputEmpty).then_some(());
            }
        }
        Some(())
    }
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

    fn encode(content: &[u8], name: &str) -> Option<Vec<u8>> {
        let mut encoder = Encoder::new(name)?;
        let mut encoded = Vec::new();
        // Cut within characters.
        for byte in content {
            encoder.push(&[*byte], false, &mut encoded)?;
        }
        encoder.push(b"", true, &mut encoded)?;
        Some(encoded)
    }

    #[test]
    fn an_unknown_encoding_or_one_that_cannot_express_the_text_encodes_nothing() {
        assert_eq!(encode("é".as_bytes(), "ISO-8859-1"), Some(vec![0xe9]));
        assert_eq!(encode("€".as_bytes(), "ISO-8859-1"), None);
        assert_eq!(encode("€".as_bytes(), "ISO-8859-15"), Some(vec![0xa4]));
        assert_eq!(encode(b"x", "no-such-encoding"), None);
        assert_eq!(encode(b"\xff", "UTF-16"), None);
        assert_eq!(encode(b"a\xe2\x82", "UTF-16"), None);
        assert_eq!(encode(b"x", "UTF-16"), Some(b"\xff\xfex\0".to_vec()));
    }
}
