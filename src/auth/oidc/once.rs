//! What may be used once, or no more: answered logins and ended sessions. In the memory of this
//! process, of a fixed size; another node does not know of them, and its provider refuses a code that
//! was redeemed already (RFC 6749 section 4.1.2).
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

/// Some 100 bytes each.
const MOST: usize = 32_768;

/// Remembers the latest words; a flood of others pushes the oldest out.
pub struct Once(Cache<[u8; 16], ()>);

impl Default for Once {
    fn default() -> Self {
        Self(Cache::new(MOST))
    }
}

impl Once {
    /// Whether `word` is used now for the first time.
    pub fn take(&self, word: &[u8]) -> bool {
        let mut is_first = false;
        let made: Result<(), std::convert::Infallible> =
            self.0.get_or_insert_with(&key(word), || {
                is_first = true;
                Ok(())
            });
        made.is_ok() && is_first
    }

    pub fn has(&self, word: &[u8]) -> bool {
        self.0.peek(&key(word)).is_some()
    }
}

fn key(word: &[u8]) -> [u8; 16] {
    Sha256::digest(word).first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_taken_once() {
        let once = Once::default();
        assert!(!once.has(b"a"));
        assert!(once.take(b"a"));
        assert!(once.has(b"a"));
        assert!(!once.take(b"a"));
        assert!(once.take(b"b"));
    }

    #[test]
    fn a_flood_of_others_is_bounded() {
        let once = Once::default();
        for number in 0..u32::try_from(2 * MOST).unwrap() {
            once.take(&number.to_le_bytes());
        }
        assert!(once.0.len() <= MOST);
    }
}
