//! JSON written by hand (RFC 8259): one flat object, keys that need no escaping, values of any
//! bytes. It cannot fail, and allocates only where the line outgrows the longest before it.
use std::{io::Write, net::IpAddr, time::Duration};

/// One object under construction at the end of `line`.
pub struct Object<'a> {
    line: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    pub fn open(line: &'a mut Vec<u8>) -> Self {
        line.push(b'{');
        Self { line }
    }

    pub fn close(self) {
        self.line.extend_from_slice(b"}\n");
    }

    /// An object in its place.
    pub fn nested(&mut self, key: &'static str, write: impl FnOnce(&mut Self)) {
        self.key(key);
        self.line.push(b'{');
        write(self);
        self.line.push(b'}');
    }

    fn key(&mut self, key: &'static str) {
        // No value ends with a brace that opens.
        if self.line.last() != Some(&b'{') {
            self.line.push(b',');
        }
        self.line.push(b'"');
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    /// RFC 3339 in UTC, from `2026-01-01T00:00:00` and the milliseconds.
    pub fn time(&mut self, key: &'static str, seconds: &[u8], millis: u32) {
        self.key(key);
        self.line.push(b'"');
        self.line.extend_from_slice(seconds);
        self.line.push(b'.');
        push_number(self.line, millis.into(), 3);
        self.line.extend_from_slice(b"Z\"");
    }

    /// Bytes as a string, of which at most `at_most` are taken; `null` for none.
    pub fn bytes(&mut self, key: &'static str, value: Option<&[u8]>, at_most: usize) {
        self.key(key);
        match value {
            Some(value) => {
                self.line.push(b'"');
                escape(self.line, value.get(..at_most).unwrap_or(value));
                self.line.push(b'"');
            }
            None => self.line.extend_from_slice(b"null"),
        }
    }

    /// A list of strings.
    pub fn list(&mut self, key: &'static str, values: &[String], at_most: usize) {
        self.key(key);
        self.line.push(b'[');
        for (index, value) in values.iter().enumerate() {
            self.line.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            escape(self.line, value.as_bytes().get(..at_most).unwrap_or(value.as_bytes()));
            self.line.push(b'"');
        }
        self.line.push(b']');
    }

    pub fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        push_number(self.line, value, 1);
    }

    /// `null` for none.
    pub fn count(&mut self, key: &'static str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.bytes(key, None, 0),
        }
    }

    /// `null` for none.
    pub fn truth(&mut self, key: &'static str, value: Option<bool>) {
        self.key(key);
        self.line.extend_from_slice(match value {
            Some(true) => b"true",
            Some(false) => b"false",
            None => b"null",
        });
    }

    /// Millionths of a millionth, as a number with twelve decimals; `null` for none.
    pub fn trillionths(&mut self, key: &'static str, value: Option<u64>) {
        const ONE: u64 = 1_000_000_000_000;
        let Some(value) = value else { return self.bytes(key, None, 0) };
        self.number(key, value / ONE);
        self.line.push(b'.');
        push_number(self.line, value % ONE, 12);
    }

    /// Milliseconds with three decimals; `null` for none.
    pub fn millis(&mut self, key: &'static str, value: Option<Duration>) {
        self.key(key);
        let Some(value) = value else { return self.line.extend_from_slice(b"null") };
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        push_number(self.line, micros / 1000, 1);
        self.line.push(b'.');
        push_number(self.line, micros % 1000, 3);
    }

    /// An IPv4 address that came by a dual-stack socket is written as IPv4.
    pub fn address(&mut self, key: &'static str, value: IpAddr) {
        self.key(key);
        self.line.push(b'"');
        match value.to_canonical() {
            IpAddr::V4(address) => {
                for (index, octet) in address.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.line.push(b'.');
                    }
                    push_number(self.line, octet.into(), 1);
                }
            }
            // Writing to a vector cannot fail.
            IpAddr::V6(address) => drop(write!(self.line, "{address}")),
        }
        self.line.push(b'"');
    }
}

/// Decimal, with zeros in front up to `width` digits. Two thirds of what `write!` costs (7 to 11 ns).
fn push_number(line: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        used += 1;
    }
    line.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// What may stand in a string as it is: printable ASCII less `"` and `\`. DEL is no business of
/// JSON's, but a log is also read on terminals.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Appends `value` as the inside of a JSON string. Bytes that are not UTF-8 become U+FFFD, and
/// control characters, C1 ones too, become escapes.
fn escape(line: &mut Vec<u8>, value: &[u8]) {
    let plain = value.iter().position(|byte| !is_plain(*byte)).unwrap_or(value.len());
    let (head, tail) = value.split_at_checked(plain).unwrap_or((value, &[]));
    line.extend_from_slice(head);
    for chunk in tail.utf8_chunks() {
        chunk.valid().chars().for_each(|character| escape_character(line, character));
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_character(line: &mut Vec<u8>, character: char) {
    match character {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        // Writing to a vector cannot fail.
        _ if character.is_control() => drop(write!(line, "\\u{:04x}", u32::from(character))),
        _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(value: &[u8], expected: &str) {
        let mut line = Vec::new();
        escape(&mut line, value);
        assert_eq!(String::from_utf8(line).unwrap(), expected, "{value:?}");
    }

    #[test]
    fn strings_are_escaped() {
        check(b"plain/path?x=1", "plain/path?x=1");
        check(b"a\"b\\c", "a\\\"b\\\\c");
        check(b"\x00\x1f\n\t\x7f", "\\u0000\\u001f\\u000a\\u0009\\u007f");
        check("Zoë 😀".as_bytes(), "Zoë 😀");
        check("\u{9b}31m".as_bytes(), "\\u009b31m");
        check(b"a\xffb\xc3", "a\u{fffd}b\u{fffd}");
        check(b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}");
    }

    fn check_number(value: u64, width: usize, expected: &str) {
        let mut line = Vec::new();
        push_number(&mut line, value, width);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn numbers_are_decimal() {
        check_number(0, 1, "0");
        check_number(7, 3, "007");
        check_number(1234, 3, "1234");
        check_number(u64::MAX, 1, "18446744073709551615");
    }

    fn check_address(address: &str, expected: &str) {
        let mut line = Vec::new();
        let mut object = Object::open(&mut line);
        object.address("a", address.parse().unwrap());
        object.close();
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text, format!("{{\"a\":\"{expected}\"}}\n"));
    }

    #[test]
    fn addresses_are_canonical() {
        check_address("192.0.2.10", "192.0.2.10");
        check_address("::ffff:10.0.0.1", "10.0.0.1");
        check_address("2001:db8::1", "2001:db8::1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_valid_json(value: Vec<u8>) {
            let mut line = vec![b'"'];
            escape(&mut line, &value);
            line.push(b'"');
            let read: String = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&value));
            prop_assert!(!line.contains(&b'\n'));
        }
    }
}
