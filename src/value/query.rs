//! Names and values of a query.
use std::borrow::Cow;

/// A name or value of a query: percent-decoded, with `+` as a space. What is not valid stays as it is.
#[must_use]
pub fn decode(text: &str) -> Cow<'_, str> {
    match decode_bytes(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(decoded) => String::from_utf8(decoded).map_or(Cow::Borrowed(text), Cow::Owned),
    }
}

/// As [`decode`], where the bytes may be no text.
#[must_use]
pub fn decode_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let triplet = || {
            let (digits, after) = after.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok().filter(|it| !it.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        };
        match (byte, triplet) {
            (b'+', _) => decoded.push(b' '),
            (b'%', triplet) => match triplet() {
                Some((value, after)) => {
                    decoded.push(value);
                    rest = after;
                }
                None => decoded.push(b'%'),
            },
            (byte, _) => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let check = |text: &str, expected: &str| assert_eq!(decode(text), expected);
        check("plain", "plain");
        check("a+b%20c", "a b c");
        check("%41%zz%4", "A%zz%4");
        check("%+1", "% 1");
        check("%ff", "%ff");
    }
}
