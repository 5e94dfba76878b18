//! Secrets that a test makes, and the search for pieces of them.
use std::collections::{BTreeSet, HashMap};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use sha2::{Digest, Sha256};

/// A log that cuts a secret short still shows it. Shorter pieces would be found by chance.
const PIECE: usize = 10;

#[derive(Default)]
pub struct Vault(HashMap<[u8; PIECE], String>);

impl Vault {
    /// A secret of 40 digits that begins with `prefix`, the same for the same name.
    pub fn make(&mut self, prefix: &str, name: &str) -> String {
        let digest = Sha256::digest(format!("planted {name}"));
        let digits: String = digest.iter().take(20).map(|it| format!("{it:02x}")).collect();
        self.keep(name, &digits);
        format!("{prefix}{digits}")
    }

    /// Looks for this too, as it is and in base64 at each offset.
    pub fn keep(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= PIECE, "{name} is too short to be found");
        self.pieces(name, secret.as_bytes());
        for offset in 0..3 {
            let shifted = format!("{}{secret}", &"   "[..offset]);
            // The characters at both ends depend on what stands beside.
            for encoded in [STANDARD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                let inner = encoded.trim_end_matches('=').as_bytes();
                self.pieces(name, inner.get(4..inner.len() - 2).unwrap_or_default());
            }
        }
    }

    fn pieces(&mut self, name: &str, bytes: &[u8]) {
        for piece in bytes.windows(PIECE) {
            self.0.insert(piece.try_into().unwrap(), name.to_owned());
        }
    }

    /// The names of the secrets of which these bytes show a piece.
    pub fn found(&self, bytes: &[u8]) -> Vec<&str> {
        let names: BTreeSet<_> = bytes.windows(PIECE).filter_map(|it| self.0.get(it)).collect();
        names.into_iter().map(String::as_str).collect()
    }
}

#[test]
fn a_piece_of_a_secret_is_found_in_any_form() {
    let mut vault = Vault::default();
    let (one, two) = (vault.make("tg_", "one"), vault.make("", "two"));
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(vault.found(text.as_bytes()), expected, "{text}");
    };
    check("", &[]);
    check("tg_ nothing of them", &[]);
    check(&one, &["one"]);
    check(&format!("{two}{one}"), &["one", "two"]);
    check(&format!("cut short: {}…", &two[..PIECE]), &["two"]);
    check(&two[..PIECE - 1], &[]);
    for user in ["a:", "ab:", "abc:"] {
        check(&STANDARD.encode(format!("{user}{two}")), &["two"]);
        check(&URL_SAFE_NO_PAD.encode(format!("{user}{two}, and more")), &["two"]);
    }
}
