//! Turns the bytes of a blob into the bytes of a file: `ident`, then line ends, then the encoding.
//!
//! A port of git's convert.c for checkouts. As in git, an encoding that is unknown or cannot express
//! the content leaves the content as it is in the repository.
//!
//! A file may have twelve times the bytes of its blob (`$Id$`), so it is never held in memory: [`plan`]
//! goes through the blob to learn the size, and [`write()`] goes through it again and hands out pieces.

use git2::Oid;

use super::conversion::{Conversion, Eol};
use super::encoding::Encoder;

/// Bytes that are converted at a time.
const PIECE: usize = 64 << 10;

/// How one blob becomes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConversionPlan {
    /// Bytes of the file.
    pub size: u64,
    /// Whether the encoding could not be applied.
    pub left_encoding: bool,
    crlf: bool,
    encode: bool,
}

/// Takes the pieces of a file.
pub(super) type Sink<'s, E> = dyn FnMut(&[u8]) -> Result<(), E> + 's;

/// Decides how the content of the blob `id` is converted. Calls `proceed` once per 64 KiB, and stops
/// if it fails.
pub(super) fn plan<E>(
    conversion: &Conversion,
    id: Oid,
    content: &[u8],
    mut proceed: impl FnMut() -> Result<(), E>,
) -> Result<ConversionPlan, E> {
    let crlf = match conversion.eol {
        Eol::Keep => false,
        Eol::Crlf => true,
        Eol::AutoCrlf => {
            let mut stats = TextStats::default();
            expand(conversion.ident, id, content, &mut |piece| {
                proceed()?;
                stats.add(piece);
                Ok(())
            })?;
            stats.is_plain_text()
        }
    };
    let mut plan = ConversionPlan {
        size: 0,
        left_encoding: false,
        crlf,
        encode: conversion.encoding.is_some() && !content.is_empty(),
    };
    let mut count = |plan: &ConversionPlan| {
        let mut size = 0;
        let mut add = |piece: &[u8]| {
            proceed()?;
            size += piece.len() as u64;
            Ok(())
        };
        convert(plan, conversion, id, content, &mut add).map(|whole| (size, whole))
    };
    let (size, whole) = count(&plan)?;
    plan.size = size;
    if !whole {
        plan.left_encoding = true;
        plan.encode = false;
        plan.size = count(&plan)?.0;
    }
    Ok(plan)
}

/// Hands the pieces of the file to `sink`, in order.
pub(super) fn write<E>(
    plan: &ConversionPlan,
    conversion: &Conversion,
    id: Oid,
    content: &[u8],
    sink: &mut Sink<'_, E>,
) -> Result<(), E> {
    // The plan says whether the content can be encoded.
    convert(plan, conversion, id, content, sink).map(drop)
}

/// Converts as the plan says; returns false if the content cannot be encoded.
fn convert<E>(
    plan: &ConversionPlan,
    conversion: &Conversion,
    id: Oid,
    content: &[u8],
    sink: &mut Sink<'_, E>,
) -> Result<bool, E> {
    let mut encoder = None;
    if let Some(name) = conversion.encoding.as_deref().filter(|_| plan.encode) {
        encoder = Encoder::new(name);
        if encoder.is_none() {
            return Ok(false);
        }
    }
    let mut encodable = true;
    let mut last = 0;
    let mut lines = Vec::new();
    let mut out = Vec::new();
    expand(conversion.ident, id, content, &mut |piece| {
        let piece = match plan.crlf {
            true => {
                lines.clear();
                for byte in piece {
                    if *byte == b'\n' && last != b'\r' {
                        lines.push(b'\r');
                    }
                    lines.push(*byte);
                    last = *byte;
                }
                &lines
            }
            false => piece,
        };
        match &mut encoder {
            Some(encoder) => {
                encodable = encodable && encoder.push(piece, false, &mut out).is_some()
            }
            None => out.extend_from_slice(piece),
        }
        if out.len() >= PIECE {
            sink(&out)?;
            out.clear();
        }
        Ok(())
    })?;
    if let Some(encoder) = &mut encoder {
        encodable = encodable && encoder.push(b"", true, &mut out).is_some();
    }
    sink(&out)?;
    Ok(encodable)
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
    last: u8,
}

impl TextStats {
    fn add(&mut self, piece: &[u8]) {
        for byte in piece {
            let after_cr = std::mem::replace(&mut self.last, *byte) == b'\r';
            match byte {
                b'\n' if after_cr => {
                    // It was counted as a lone CR.
                    self.lone_cr -= 1;
                    self.crlf += 1;
                }
                b'\r' => self.lone_cr += 1,
                b'\n' => self.lone_lf += 1,
                0x08 | b'\t' | 0x1b | 0x0c => self.printable += 1,
                0 => {
                    self.nul += 1;
                    self.nonprintable += 1;
                }
                1..=31 | 127 => self.nonprintable += 1,
                _ => self.printable += 1,
            }
        }
    }

    fn is_binary(&self) -> bool {
        // A DOS end-of-file mark does not make a text binary.
        let nonprintable = self.nonprintable - usize::from(self.last == 0x1a);
        self.lone_cr > 0 || self.nul > 0 || (self.printable >> 7) < nonprintable
    }

    /// Whether an automatic conversion may change the line ends.
    fn is_plain_text(&self) -> bool {
        self.lone_lf > 0 && self.crlf == 0 && !self.is_binary()
    }
}

/// Hands out the content in pieces of at most 64 KiB, with `$Id$` expanded if that is wanted.
fn expand<E>(ident: bool, id: Oid, content: &[u8], sink: &mut Sink<'_, E>) -> Result<(), E> {
    let mut all = |bytes: &[u8]| bytes.chunks(PIECE).try_for_each(&mut *sink);
    if !ident {
        return all(content);
    }
    let value = format!("Id: {id} $");
    // What precedes `rest` and was not handed out yet begins here.
    let mut kept = content;
    let mut rest = content;
    while let Some(dollar) = rest.iter().position(|byte| *byte == b'$') {
        rest = &rest[dollar + 1..];
        if rest.len() < 3 || !rest.starts_with(b"Id") {
            continue;
        }
        let length = match rest[2] {
            b'$' => 3,
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
                3 + end + 1
            }
            _ => continue,
        };
        all(&kept[..kept.len() - rest.len()])?;
        all(value.as_bytes())?;
        rest = &rest[length..];
        kept = rest;
    }
    all(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(conversion: &Conversion, content: &[u8]) -> (ConversionPlan, Vec<u8>) {
        let id = Oid::ZERO_SHA1;
        let plan = plan::<()>(conversion, id, content, || Ok(())).unwrap();
        let mut file = Vec::new();
        write::<()>(&plan, conversion, id, content, &mut |piece| {
            assert!(piece.len() <= 8 * PIECE);
            file.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(plan.size, file.len() as u64);
        (plan, file)
    }

    fn eol(eol: Eol, content: &[u8]) -> Vec<u8> {
        let conversion = Conversion {
            eol,
            ..Conversion::default()
        };
        converted(&conversion, content).1
    }

    #[test]
    fn an_automatic_conversion_leaves_binary_content_and_mixed_line_ends() {
        assert_eq!(eol(Eol::AutoCrlf, b"a\nb\n"), b"a\r\nb\r\n");
        assert_eq!(eol(Eol::AutoCrlf, b"a\nb\n\x1a"), b"a\r\nb\r\n\x1a");
        for kept in [&b"a\r\nb\n"[..], b"a\0\n", b"a\rb\n", b"a", b""] {
            assert_eq!(eol(Eol::AutoCrlf, kept), kept);
        }
        assert_eq!(eol(Eol::Crlf, b"a\r\nb\n"), b"a\r\nb\r\n");
        assert_eq!(eol(Eol::Crlf, b"a"), b"a");
    }

    #[test]
    fn foreign_keywords_are_kept() {
        let ours = format!("$Id: {} $", Oid::ZERO_SHA1);
        let ident = Conversion {
            ident: true,
            ..Conversion::default()
        };
        for (from, to) in [
            ("$Id$", ours.clone()),
            ("x $Id: old $ y", format!("x {ours} y")),
            ("$Id: a b c $", "$Id: a b c $".to_owned()),
            ("$Id: line\n$", "$Id: line\n$".to_owned()),
            ("$Idea$", "$Idea$".to_owned()),
            ("$Id:$$Id$", format!("{ours}{ours}")),
            ("$Id: unfinished", "$Id: unfinished".to_owned()),
        ] {
            assert_eq!(
                converted(&ident, from.as_bytes()).1,
                to.as_bytes(),
                "{from}"
            );
        }
    }

    #[test]
    fn pieces_meet_where_a_line_end_or_a_character_is_cut() {
        // Each shift puts another byte of the text on the border of two pieces.
        for shift in 0..4 {
            let text = format!("{}{}", "x".repeat(shift), "\u{20ac}\n\r\n".repeat(PIECE));
            let crlf = text.replace("\r\n", "\n").replace('\n', "\r\n");
            assert_eq!(eol(Eol::Crlf, text.as_bytes()), crlf.as_bytes());
            let both = Conversion {
                eol: Eol::Crlf,
                encoding: Some("UTF-16LE".to_owned()),
                ident: false,
            };
            let utf16: Vec<u8> = crlf.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(converted(&both, text.as_bytes()).1, utf16);
        }
    }

    #[test]
    fn a_late_byte_that_cannot_be_encoded_leaves_the_whole_content() {
        let conversion = Conversion {
            encoding: Some("UTF-16".to_owned()),
            ..Conversion::default()
        };
        for end in [&b"\xff"[..], b"\xe2\x82"] {
            let content = [b"text ".repeat(PIECE), end.to_vec()].concat();
            let (plan, file) = converted(&conversion, &content);
            assert!(plan.left_encoding);
            assert_eq!(file, content);
        }
    }
}
