//! How a file differs from its blob: line ends, `$Id$`, encoding.
//!
//! `attributes` decides it, `convert` applies it, and the manifest records it.

/// The conversion of line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Eol {
    /// Nothing.
    #[default]
    Keep,
    /// Every lone LF becomes CRLF.
    Crlf,
    /// Like `Crlf`, unless the content looks binary or holds a CR already.
    AutoCrlf,
}

/// How a file differs from its blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conversion {
    pub eol: Eol,
    /// Whether `$Id$` is expanded.
    pub ident: bool,
    /// The encoding of the file, if it is not UTF-8.
    pub encoding: Option<String>,
}

impl Conversion {
    /// Whether the file is equal to its blob.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The form in which the manifest records it: empty for no conversion.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.is_none() {
            return Vec::new();
        }
        let eol = match self.eol {
            Eol::Keep => 0,
            Eol::Crlf => 1,
            Eol::AutoCrlf => 2,
        };
        let mut bytes = vec![eol | u8::from(self.ident) << 2];
        bytes.extend_from_slice(self.encoding.as_deref().unwrap_or_default().as_bytes());
        bytes
    }

    /// The inverse of [`Conversion::to_bytes`]; `None` for bytes that it never returns.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Some((flags, encoding)) = bytes.split_first() else {
            return Some(Self::default());
        };
        Some(Self {
            eol: match flags & 3 {
                0 => Eol::Keep,
                1 => Eol::Crlf,
                2 => Eol::AutoCrlf,
                _ => return None,
            },
            ident: flags & 4 != 0,
            encoding: match encoding {
                [] => None,
                name => Some(std::str::from_utf8(name).ok()?.to_owned()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_survives_the_manifest() {
        let conversion = Conversion {
            eol: Eol::AutoCrlf,
            ident: true,
            encoding: Some("UTF-16LE-BOM".to_owned()),
        };
        assert_eq!(
            Conversion::from_bytes(&conversion.to_bytes()),
            Some(conversion)
        );
        assert!(Conversion::default().to_bytes().is_empty());
    }
}
