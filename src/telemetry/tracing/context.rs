//! W3C Trace Context, level 1: the `traceparent` of a request, read and written, and who decides whether
//! its trace is kept.
use http::{HeaderMap, HeaderName, HeaderValue};

pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits (section 3.2.2).
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// What the caller says of its own span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: u128,
    pub span: u64,
    pub is_sampled: bool,
}

impl Parent {
    /// None where there is no header, more than one, or one that is not valid: a new trace begins then.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let first = lines.next()?;
        if lines.next().is_some() { None } else { Self::parse(first.as_bytes()) }
    }

    /// A version above 00 may go on behind what is known of it (section 4.3).
    fn parse(bytes: &[u8]) -> Option<Self> {
        let version = u8::try_from(hex(bytes.get(..2)?)?).ok()?;
        let is_length = bytes.len() == LENGTH || version > 0 && bytes.get(LENGTH) == Some(&b'-');
        let dash = |at: usize| bytes.get(at) == Some(&b'-');
        if version == 0xff || !is_length || !dash(2) || !dash(35) || !dash(52) {
            return None;
        }
        let trace = hex(bytes.get(3..35)?)?;
        let span = u64::try_from(hex(bytes.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(bytes.get(53..55)?)?).ok()?;
        let is_sampled = flags & SAMPLED != 0;
        (trace != 0 && span != 0).then_some(Self { trace, span, is_sampled })
    }
}

/// Lower-case digits only (section 3.2.2.1).
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub is_sampled: bool,
}

impl Context {
    /// The trace's name, as logs have it.
    #[must_use]
    pub fn text(self) -> [u8; 32] {
        let mut text = [b'0'; 32];
        write_hex(Some(&mut text), self.trace);
        text
    }

    /// What the next hop is told: the span that it is called from.
    #[must_use]
    pub fn traceparent(self, span: u64) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(text.get_mut(3..35), self.trace);
        write_hex(text.get_mut(36..52), span.into());
        if let Some(last) = text.last_mut().filter(|_| self.is_sampled) {
            *last = b'1';
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn write_hex(place: Option<&mut [u8]>, mut value: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in place.into_iter().flatten().rev() {
        let low = usize::try_from(value & 15).unwrap_or(0);
        *digit = DIGITS.get(low).copied().unwrap_or(b'0');
        value >>= 4;
    }
}

/// Not zero, which stands for none (section 3.2.2.4).
#[must_use]
pub fn random_span() -> u64 {
    fastrand::u64(1..)
}

/// Which traces are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Of a thousand million requests.
    pub share: u32,
    /// Whether any caller's decision is followed, or a trusted proxy's only: anybody could fill the
    /// queue otherwise.
    pub follows_anybody: bool,
}

impl Sampler {
    /// All of them.
    pub const WHOLE: u32 = 1_000_000_000;

    /// A caller's trace is gone on with in any case, so that what it wrote down itself finds ours.
    #[must_use]
    pub fn begin(self, parent: Option<Parent>, is_trusted: bool) -> Context {
        let followed = parent.filter(|_| is_trusted || self.follows_anybody);
        let by_chance = || fastrand::u32(..Self::WHOLE) < self.share;
        Context {
            trace: parent.map_or_else(|| fastrand::u128(1..), |it| it.trace),
            is_sampled: followed.map_or_else(by_chance, |it| it.is_sampled),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check(lines: &[&str], expected: Option<bool>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&TRACEPARENT, line.parse().unwrap());
        }
        let parent = Parent::of(&headers);
        assert_eq!(parent.map(|it| it.is_sampled), expected, "{lines:?}");
        if let Some(parent) = parent {
            assert_eq!(parent.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
            assert_eq!(parent.span, 0xb7ad_6b71_6920_3331);
        }
    }

    #[test]
    fn what_is_not_valid_is_none() {
        check(&[VALID], Some(true));
        check(&[&VALID.replace("-01", "-00")], Some(false));
        check(&[&VALID.replace("-01", "-ff")], Some(true));
        check(&[&VALID.replace("00-0", "cc-0")], Some(true));
        check(&[&format!("{}-what-will-be", VALID.replace("00-0", "cc-0"))], Some(true));
        check(&[&format!("{}.x", VALID.replace("00-0", "cc-0"))], None);
        check(&[&format!("{VALID}-x")], None);
        check(&[&VALID.replace("00-0", "ff-0")], None);
        check(&[VALID, VALID], None);
        check(&[""], None);
        check(&["00"], None);
        check(&[&VALID.to_uppercase()], None);
        check(&[&VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32))], None);
        check(&[&VALID.replace("b7ad6b7169203331", &"0".repeat(16))], None);
        check(&[&VALID.replace("-b7", "b-7")], None);
        check(&[&VALID.replace("-01", "-0x")], None);
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let parent = Parent::parse(VALID.as_bytes()).unwrap();
        let context = Context { trace: parent.trace, is_sampled: true };
        assert_eq!(context.traceparent(parent.span), VALID);
        let context = Context { is_sampled: false, ..context };
        assert_eq!(context.traceparent(parent.span), VALID.replace("-01", "-00"));
    }

    #[test]
    fn only_those_who_are_believed_decide() {
        let parent = |is_sampled| Some(Parent { trace: 7, span: 1, is_sampled });
        let check = |share, follows_anybody, parent, is_trusted, expected| {
            let context = Sampler { share, follows_anybody }.begin(parent, is_trusted);
            assert_eq!(context.is_sampled, expected);
            assert_eq!(context.trace == 7, parent.is_some());
        };
        check(Sampler::WHOLE, false, None, false, true);
        check(0, false, None, true, false);
        check(0, false, parent(true), true, true);
        check(Sampler::WHOLE, false, parent(false), true, false);
        check(0, false, parent(true), false, false);
        check(Sampler::WHOLE, false, parent(false), false, true);
        check(0, true, parent(true), false, true);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>, tail in "[0-9a-f-]{0,60}") {
            let _ = Parent::parse(&bytes);
            let _ = Parent::parse(tail.as_bytes());
        }
    }
}
