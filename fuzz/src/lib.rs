//! What the fuzz targets for the git protocol share: an answer arrives in pieces, and its meaning
//! must not depend on where it was cut.

use std::fmt::Debug;

use git_volume_reloader::remote::RefName;
use git_volume_reloader::remote::protocol::{Decoder, Machine, ProtocolError, Step};

/// The refs that an answer may be about.
pub fn ref_name(selector: u8) -> RefName {
    match selector % 4 {
        0 => RefName::Head,
        1 => RefName::Full("refs/heads/main".to_owned()),
        2 => RefName::Short("v1".to_owned()),
        _ => RefName::Short("main".to_owned()),
    }
}

/// Feeds an answer in pieces of this many bytes; says how much of it was used.
///
/// # Errors
/// What the decoder or the machine says.
pub fn feed(machine: &mut dyn Machine, input: &[u8], piece: usize) -> Result<usize, ProtocolError> {
    let mut decoder = Decoder::new();
    let mut total = 0;
    for piece in input.chunks(piece.max(1)) {
        let (used, step) = decoder.feed(piece, machine)?;
        assert!(used <= piece.len());
        total += used;
        if step == Step::Done {
            break;
        }
        assert_eq!(used, piece.len(), "input was left although more is needed");
    }
    Ok(total)
}

/// What must be the same however an answer is cut: all but the words about garbage, which quote
/// as much of it as there was.
pub fn outcome<T: Debug>(result: &Result<T, ProtocolError>) -> String {
    match result {
        Err(ProtocolError::Malformed(_)) => "malformed".to_owned(),
        other => format!("{other:?}"),
    }
}
