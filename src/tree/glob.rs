//! Matches a path against a pattern of `.gitattributes` or of a sparse-checkout file.
//!
//! `gix_glob` parses the pattern. The matcher is one of its own, because a matcher that backtracks
//! (git's wildmatch.c, `gix_glob`) takes exponential time for a pattern such as `**/**/**/…`. This
//! one advances all positions in the pattern at once, byte by byte of the path, so the time is at
//! most the product of both lengths. What matches is what wildmatch.c matches with `WM_PATHNAME`.
//! Letters are compared exactly (`core.ignoreCase` is off on Linux).

use gix_glob::Pattern;
use gix_glob::pattern::Mode;

use super::effort::Effort;
use crate::base::error::SyncError;

/// What one position of a pattern matches.
enum Token {
    Byte(u8),
    /// `?`: any byte but a slash.
    Any,
    /// `[…]`: the bytes whose bits are set.
    Class([u64; 4]),
    /// `*`: any bytes but slashes.
    Star,
    /// `**` at the end or before an escaped slash: any bytes.
    Deep,
    /// `**/`: nothing, or any bytes and a slash. The position after it is [`Token::Directory`].
    Directories,
    /// Inside the bytes that `**/` matches.
    Directory,
}

/// Whether the path of a file or directory, relative to the pattern's directory, matches.
///
/// # Errors
/// That of `effort`.
pub(super) fn matches(
    pattern: &Pattern,
    path: &[u8],
    directory: bool,
    effort: &mut Effort<'_>,
) -> Result<bool, SyncError> {
    if !directory && pattern.mode.contains(Mode::MUST_BE_DIR) {
        return Ok(false);
    }
    let only_name =
        pattern.mode.contains(Mode::NO_SUB_DIR) && !pattern.mode.contains(Mode::ABSOLUTE);
    let value = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) if only_name => &path[slash + 1..],
        _ => path,
    };
    let text: &[u8] = pattern.text.as_ref();
    let Some(wildcard) = pattern.first_wildcard_pos else {
        effort.spend(1)?;
        return Ok(text == value);
    };
    // A pattern `*literal`.
    if pattern.mode.contains(Mode::ENDS_WITH) && !value.contains(&b'/') {
        effort.spend(1)?;
        return Ok(value.ends_with(&text[wildcard + 1..]));
    }
    if !value.starts_with(&text[..wildcard]) {
        effort.spend(1)?;
        return Ok(false);
    }
    wildmatch(text, value, effort)
}

/// Matches a whole path against a whole pattern.
fn wildmatch(pattern: &[u8], path: &[u8], effort: &mut Effort<'_>) -> Result<bool, SyncError> {
    effort.spend(pattern.len() as u64 + 1)?;
    let Some(tokens) = compile(pattern) else {
        return Ok(false);
    };
    // A bit per position: whether the tokens before it can match the path so far.
    let words = tokens.len() / 64 + 1;
    let mut reached = vec![0_u64; words];
    let mut next = vec![0_u64; words];
    reach(&tokens, 0, &mut reached);
    for byte in path {
        next.fill(0);
        let mut any = false;
        let mut steps = words as u64;
        for (word, bits) in reached.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let position = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                steps += 1;
                any |= advance(&tokens, position, *byte, &mut next);
            }
        }
        effort.spend(steps)?;
        if !any {
            return Ok(false);
        }
        std::mem::swap(&mut reached, &mut next);
    }
    Ok(reached[tokens.len() / 64] >> (tokens.len() % 64) & 1 == 1)
}

/// Marks the positions to which a byte leads from a position; returns whether there are any.
fn advance(tokens: &[Token], position: usize, byte: u8, next: &mut [u64]) -> bool {
    let slash = byte == b'/';
    match tokens.get(position) {
        Some(Token::Byte(expected)) if *expected == byte => reach(tokens, position + 1, next),
        Some(Token::Any) if !slash => reach(tokens, position + 1, next),
        Some(Token::Class(set)) if holds(set, byte) => reach(tokens, position + 1, next),
        Some(Token::Star) if !slash => reach(tokens, position, next),
        Some(Token::Deep) => reach(tokens, position, next),
        Some(Token::Directory) => {
            next[position / 64] |= 1 << (position % 64);
            if slash {
                reach(tokens, position + 1, next);
            }
        }
        _ => return false,
    }
    true
}

/// Marks a position, and those that follow it without a byte of the path.
fn reach(tokens: &[Token], position: usize, marked: &mut [u64]) {
    let mut position = position;
    loop {
        let (word, bit) = (position / 64, 1 << (position % 64));
        // Its followers are marked, too.
        if marked[word] & bit != 0 {
            return;
        }
        marked[word] |= bit;
        match tokens.get(position) {
            Some(Token::Star | Token::Deep) => position += 1,
            Some(Token::Directories) => {
                // The position inside is left by a byte only.
                let inside = position + 1;
                marked[inside / 64] |= 1 << (inside % 64);
                position += 2;
            }
            _ => return,
        }
    }
}

/// The tokens of a pattern; `None` if nothing matches it.
fn compile(pattern: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'\\' => {
                at += 1;
                tokens.push(Token::Byte(*pattern.get(at)?));
            }
            b'?' => tokens.push(Token::Any),
            b'[' => {
                let (set, end) = class(pattern, at)?;
                tokens.push(Token::Class(set));
                at = end;
            }
            b'*' => {
                let stars = pattern[at..].iter().take_while(|b| **b == b'*').count();
                let starts = at == 0 || pattern[at - 1] == b'/';
                let rest = &pattern[at + stars..];
                at += stars - 1;
                if stars > 1 && starts && rest.first() == Some(&b'/') {
                    tokens.push(Token::Directories);
                    tokens.push(Token::Directory);
                    at += 1;
                } else if stars > 1 && starts && (rest.is_empty() || rest.starts_with(b"\\/")) {
                    tokens.push(Token::Deep);
                } else {
                    tokens.push(Token::Star);
                }
            }
            literal => tokens.push(Token::Byte(*literal)),
        }
        at += 1;
    }
    Some(tokens)
}

fn holds(set: &[u64; 4], byte: u8) -> bool {
    set[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
}

fn add(set: &mut [u64; 4], byte: u8) {
    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

/// The set that begins with the bracket at `start`, and the offset of its closing bracket; `None` if
/// it is malformed, because then the pattern matches nothing.
fn class(pattern: &[u8], start: usize) -> Option<([u64; 4], usize)> {
    let mut set = [0; 4];
    let mut at = start + 1;
    let negated = matches!(pattern.get(at)?, b'!' | b'^');
    if negated {
        at += 1;
    }
    // Zero stands for "no byte that may begin a range", as in wildmatch.c.
    let mut before = 0;
    loop {
        let mut byte = *pattern.get(at)?;
        let following = pattern.get(at + 1).copied();
        match byte {
            b'\\' => {
                at += 1;
                byte = following?;
                add(&mut set, byte);
            }
            b'-' if before != 0 && following.is_some_and(|next| next != b']') => {
                at += 1;
                let mut last = pattern[at];
                if last == b'\\' {
                    at += 1;
                    last = *pattern.get(at)?;
                }
                (before..=last).for_each(|byte| add(&mut set, byte));
                byte = 0;
            }
            b'[' if following == Some(b':') => {
                let name = at + 2;
                let end = name + pattern[name..].iter().position(|byte| *byte == b']')?;
                if end > name && pattern[end - 1] == b':' {
                    let is_member = named(&pattern[name..end - 1])?;
                    (0..=u8::MAX)
                        .filter(is_member)
                        .for_each(|byte| add(&mut set, byte));
                    at = end;
                    byte = 0;
                } else {
                    add(&mut set, b'[');
                }
            }
            _ => add(&mut set, byte),
        }
        before = byte;
        at += 1;
        if *pattern.get(at)? == b']' {
            break;
        }
    }
    if negated {
        set = set.map(|word| !word);
    }
    set[usize::from(b'/' >> 6)] &= !(1 << (b'/' & 63));
    Some((set, at))
}

/// The members of `[:name:]`, as git's ctype.c defines them; `None` if the name is unknown.
fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, 0x20..=0x7e),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gix_glob::wildmatch::Mode as Wildmatch;

    fn is_match(pattern: &[u8], path: &[u8]) -> (bool, u64) {
        let mut effort = Effort::new(u64::MAX, &|| Ok(()));
        let found = wildmatch(pattern, path, &mut effort).unwrap();
        (found, effort.spent())
    }

    #[test]
    fn what_matches_is_what_a_matcher_that_backtracks_matches() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces: [&[u8]; 18] = [
            b"a",
            b"b",
            b"/",
            b"*",
            b"**",
            b"**/",
            b"/**",
            b"?",
            b"[ab]",
            b"[!a]",
            b"[a-",
            b"]",
            b"\\",
            b"[[:alpha:]",
            b"[",
            b"-",
            b".",
            b"\\/",
        ];
        let mut matched = 0;
        for _ in 0..200_000 {
            let pattern: Vec<u8> = (0..random.usize(1..7))
                .flat_map(|_| random.choice(pieces).unwrap())
                .copied()
                .collect();
            let path: Vec<u8> = (0..random.usize(1..7))
                .map(|_| *random.choice(b"aab/.[").unwrap())
                .collect();
            let expected = gix_glob::wildmatch(
                pattern.as_slice().into(),
                path.as_slice().into(),
                Wildmatch::NO_MATCH_SLASH_LITERAL,
            );
            matched += u32::from(expected);
            assert_eq!(
                is_match(&pattern, &path).0,
                expected,
                "{} {}",
                pattern.escape_ascii(),
                path.escape_ascii()
            );
        }
        assert!(matched > 5_000, "{matched}");
    }

    #[test]
    fn the_work_is_at_most_the_product_of_the_lengths() {
        let path = [b"a/".repeat(2000), b"b".to_vec()].concat();
        for piece in ["**/", "*", "*a", "**/*", "?*", "[a-z]*/"] {
            let pattern = piece.repeat(2000 / piece.len());
            for end in ["", "x"] {
                let pattern = format!("{pattern}{end}");
                let (_, steps) = is_match(pattern.as_bytes(), &path);
                let most = 2 * (pattern.len() as u64 + 1) * (path.len() as u64 + 1);
                assert!(steps <= most, "{piece}: {steps} of {most}");
            }
        }
    }
}
