//! The keys that we make: `tg_<id>_<secret><checksum>`. The prefix is for scanners of leaked secrets,
//! the checksum lets them tell a key from a look-alike; neither decides whether a key is good.
use sha2::{Digest, Sha256};

use crate::value::secret::Secret;

pub const PREFIX: &str = "tg_";
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID: usize = 8;
/// 22 digits of 62 are 131 bits.
const SECRET: usize = 22;
const CHECKSUM: usize = 6;

/// A fresh key.
///
/// # Errors
/// The system gives no randomness.
pub fn generate() -> Result<Secret<String>, String> {
    let id = random(ID)?;
    let secret = random(SECRET)?;
    let body = format!("{PREFIX}{id}_{secret}");
    let checksum = checksum(&body);
    Ok(Secret::new(format!("{body}{checksum}")))
}

/// What a configuration holds of a key or a token: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn hash(key: &str) -> String {
    let digits = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{digits}")
}

/// Whether `key` is of our form and its checksum is right.
#[must_use]
pub fn is_sound(key: &str) -> bool {
    let length = PREFIX.len() + ID + 1 + SECRET + CHECKSUM;
    let Some((body, given)) = key.split_at_checked(length - CHECKSUM) else { return false };
    key.len() == length && key.starts_with(PREFIX) && checksum(body) == given
}

fn random(count: usize) -> Result<String, String> {
    let mut text = String::with_capacity(count);
    while text.len() < count {
        let mut bytes = [0_u8; 64];
        getrandom::fill(&mut bytes).map_err(|why| why.to_string())?;
        // 248 is 4 x 62: the bytes from there on would favour the first digits.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let digits = fair.filter_map(|byte| DIGITS.get(usize::from(byte % 62)));
        text.extend(digits.map(|digit| char::from(*digit)).take(count - text.len()));
    }
    Ok(text)
}

/// CRC-32 (ISO 3309) in six digits of base 62.
fn checksum(text: &str) -> String {
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let is_odd = crc & 1 == 1;
            crc >>= 1;
            if is_odd {
                crc ^= 0xedb8_8320;
            }
        }
    }
    let mut rest = !crc;
    let mut digits = [b'0'; CHECKSUM];
    for place in digits.iter_mut().rev() {
        *place = DIGITS.get((rest % 62) as usize).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sound_long_and_different() {
        let keys: std::collections::HashSet<String> =
            (0..1000).map(|_| generate().unwrap().expose().clone()).collect();
        assert_eq!(keys.len(), 1000);
        for key in keys {
            assert!(is_sound(&key), "{key}");
            assert_eq!(key.len(), 40);
            assert!(key.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'));
        }
    }

    #[test]
    fn a_changed_key_is_not_sound() {
        let key = generate().unwrap().expose().clone();
        for at in 0..key.len() {
            let mut changed = key.clone().into_bytes();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_sound(std::str::from_utf8(&changed).unwrap()), "{at}");
        }
        assert!(!is_sound(""));
        assert!(!is_sound("tg_é"));
    }

    #[test]
    fn the_checksum_is_crc_32() {
        // The check value of CRC-32/ISO-HDLC for "123456789" is 0xCBF43926, here in base 62.
        let value = checksum("123456789").bytes().fold(0_u64, |sum, digit| {
            sum * 62 + DIGITS.iter().position(|it| *it == digit).unwrap() as u64
        });
        assert_eq!(value, 0xcbf4_3926);
    }
}
