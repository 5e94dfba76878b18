//! Bodies against their Content-Digest: nobody behind has the whole before it agrees.
use bytes::Bytes;
use proptest::prelude::*;
use sha2::Sha512;

use super::*;
use crate::auth::signature::content_digest::Mismatch;

fn check_of(field: &str) -> Check {
    let mut headers = http::HeaderMap::new();
    headers.insert(CONTENT_DIGEST.clone(), field.parse().unwrap());
    Check::new(&headers).unwrap()
}

/// What went on after each chunk, the last being the end.
fn pass(check: &mut Check, chunks: &[&[u8]]) -> Result<Vec<Bytes>, Mismatch> {
    let mut passed = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let is_last = index + 1 == chunks.len();
        let mut body = Some(Bytes::copy_from_slice(chunk)).filter(|it| !(is_last && it.is_empty()));
        check.pass(&mut body, is_last)?;
        assert!(is_last || body.is_some(), "`None` before the end ends the body");
        passed.push(body.unwrap_or_default());
    }
    Ok(passed)
}

#[track_caller]
fn check(field: &str, body: &[u8], expected: bool) {
    let mut check = check_of(field);
    assert_eq!(pass(&mut check, &[body]).is_ok(), expected, "{field}");
    let mut check = check_of(field);
    let halves = body.split_at(body.len() / 2);
    assert_eq!(pass(&mut check, &[halves.0, halves.1, b""]).is_ok(), expected, "{field}");
}

fn sha512(body: &[u8]) -> String {
    format!("sha-512=:{}:", STANDARD.encode(Sha512::digest(body)))
}

#[test]
fn every_known_digest_must_match() {
    let (good, bad) = (digest(b"hello"), digest(b"other"));
    check(&good, b"hello", true);
    check(&good, b"hello ", false);
    check(&good, b"hell", false);
    check(&good, b"", false);
    check(&good, b"hellohello", false);
    check(&bad, b"hello", false);
    check(&sha512(b"hello"), b"hello", true);
    check(&sha512(b"other"), b"hello", false);
    check(&format!("{good}, {}", sha512(b"hello")), b"hello", true);
    check(&format!("{good}, {}", sha512(b"other")), b"hello", false);
    check(&format!("{bad}, {}", sha512(b"hello")), b"hello", false);
    // What proves nothing is ignored beside what does.
    check(&format!("md5=:AA==:, {good}"), b"hello", true);
    check(&format!("unixsum=1, x, {good}"), b"hello", true);
    check(&digest(b""), b"", true);
    check(&digest(b""), b"x", false);
}

#[test]
fn the_last_chunk_waits_for_the_digest() {
    let body: [&[u8]; 5] = [b"he", b"", b"ll", b"o", b""];
    let mut right = check_of(&digest(b"hello"));
    assert_eq!(pass(&mut right, &body).unwrap(), ["", "", "he", "ll", "o"]);
    // What was verified is not verified again, and nothing is held back any more.
    right.restart();
    assert_eq!(pass(&mut right, &body).unwrap(), ["he", "", "ll", "o", ""]);
    let mut wrong = check_of(&digest(b"other"));
    assert_eq!(pass(&mut wrong, &body), Err(Mismatch));
}

#[test]
fn another_try_begins_again() {
    let mut check = check_of(&digest(b"hello"));
    for chunk in [b"he".as_slice(), b"ll"] {
        check.pass(&mut Some(Bytes::copy_from_slice(chunk)), false).unwrap();
    }
    check.restart();
    assert_eq!(pass(&mut check, &[b"hello"]).unwrap(), ["hello"]);
}

proptest! {
    /// However a body is cut: all of it comes out when it is right, and less than it before that.
    #[test]
    fn pieces_do_not_matter(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..8),
        is_right in any::<bool>(),
    ) {
        let body = chunks.concat();
        let field = if is_right { digest(&body) } else { digest(b"something else") };
        let mut check = check_of(&field);
        let mut out = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let is_last = index + 1 == chunks.len();
            let mut piece = Some(Bytes::copy_from_slice(chunk));
            let verdict = check.pass(&mut piece, is_last);
            prop_assert_eq!(verdict.is_ok(), !is_last || is_right);
            if verdict.is_ok() {
                out.extend_from_slice(&piece.unwrap_or_default());
            }
            if !is_last && !chunks[..=index].concat().is_empty() {
                prop_assert!(out.len() < chunks[..=index].concat().len());
            }
        }
        if is_right {
            prop_assert_eq!(out, body);
        }
    }

    #[test]
    fn no_field_panics(field in "[ -~]{0,80}|(sha-256|sha-512|md5|x)=(:[A-Za-z0-9+/=]{0,90}:|\\(\\)|1)(;a)?(, sha-256=:AA==:)?") {
        let mut headers = http::HeaderMap::new();
        headers.insert(CONTENT_DIGEST.clone(), field.parse().unwrap());
        let _ = Check::new(&headers);
    }
}
