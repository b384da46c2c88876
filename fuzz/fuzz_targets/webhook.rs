//! A webhook means the same however its body is cut, and counts only if it is authentic.
#![no_main]

use git_volume_reloader::base::secret::Secret;
use git_volume_reloader::serve::limits::parse_head;
use git_volume_reloader::serve::webhooks::body::{Chunks, Room};
use git_volume_reloader::serve::webhooks::{Incoming, recognise};
use libfuzzer_sys::fuzz_target;

/// Receives the body in pieces of this many bytes, and says what it means if it is authentic.
fn receive(head: &[u8], body: &[u8], form: bool, piece: usize) -> Option<String> {
    let (head, _) = parse_head(head).ok()??;
    let secrets = [Secret::received("secret")];
    let mut incoming = Incoming::begin(recognise(&head), &secrets, form, &Room::default())?;
    for piece in body.chunks(piece) {
        incoming.push(piece);
    }
    let received = incoming.finish(1_700_000_000)?;
    Some(format!("{received:?}"))
}

fuzz_target!(|input: &[u8]| {
    let Some((selector, body)) = input.split_first() else {
        return;
    };
    let (provider, form) = (selector % 6, selector & 8 != 0);
    // A password that is right leads to each reader, without a signature to guess.
    let proof = match provider {
        0 => "X-Gitea-Event: push\r\nAuthorization: Bearer secret",
        1 => "X-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: secret",
        2 => "X-Amz-Sns-Message-Type: Notification\r\nAuthorization: Basic OnNlY3JldA==",
        3 => "Authorization: Basic OnNlY3JldA==",
        4 => "Authorization: Bearer secret",
        _ => "X-Event-Key: repo:push",
    };
    let head = format!("POST /webhook HTTP/1.1\r\nHost: x\r\n{proof}\r\n\r\n");
    let whole = receive(head.as_bytes(), body, form, usize::MAX);
    assert_eq!(whole.is_some(), provider != 5, "{proof}");
    assert_eq!(whole, receive(head.as_bytes(), body, form, 1));

    // Whatever heads say, nothing unsigned counts.
    if let Some(at) = body.windows(4).position(|w| w == b"\r\n\r\n") {
        let (head, rest) = body.split_at(at + 4);
        let claims = head.windows(6).any(|w| w.eq_ignore_ascii_case(b"secret"))
            || head.windows(5).any(|w| w.eq_ignore_ascii_case(b"basic"));
        if let Some(received) = receive(head, rest, form, 7) {
            assert!(claims, "{received}");
        }
    }
    let unchunked = |piece| {
        let (mut chunks, mut content) = (Chunks::new(), Vec::new());
        let mut used = 0;
        for piece in body.chunks(piece) {
            used += chunks.feed(piece, &mut |part| content.extend_from_slice(part)).ok()?;
        }
        Some((content, used, chunks.is_done()))
    };
    let whole = unchunked(usize::MAX);
    assert_eq!(whole, unchunked(1));
    if let Some((content, used, _)) = whole {
        assert!(content.len() <= used && used <= body.len());
    }
});
