//! JSON (RFC 8259) read strictly and kept as it was written: numbers of any length, the order of
//! members, escapes. What two parsers could read differently is refused: a member that stands twice,
//! half a surrogate pair, a byte order mark.
use std::borrow::Cow;

/// Objects and lists within each other at most.
pub const DEEPEST: usize = 64;
/// Values of one text at most. Each takes some fifty bytes, however short its text is.
pub const VALUES_MAX: usize = 100_000;

/// What is wrong with a text. Says nothing of what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("it is not JSON")]
    Malformed,
    #[error("a member stands twice in one object")]
    Duplicate,
    #[error("it is nested deeper than 64")]
    Depth,
    #[error("it has more than 100000 values")]
    Values,
}

/// A value, with the texts of its scalars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    Object(Vec<Member<'a>>),
    Array(Vec<Node<'a>>),
    /// A string with its quotes, a number, or a word.
    Scalar(Cow<'a, str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// With its quotes, as it was written.
    raw: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub value: Node<'a>,
}

impl Member<'_> {
    pub fn new(name: &str, value: Node<'static>) -> Member<'static> {
        Member { raw: quoted(name).into(), name: name.to_owned().into(), value }
    }

    pub(super) fn rename(&mut self, name: &str) {
        self.raw = quoted(name).into();
        self.name = name.to_owned().into();
    }
}

/// A text as JSON writes it.
#[must_use]
pub fn quoted(text: &str) -> String {
    // Strings can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

impl<'a> Node<'a> {
    /// # Errors
    /// See [`Problem`].
    pub fn parse(text: &'a [u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(text).map_err(|_| Problem::Malformed)?;
        let mut reader = Reader { text, at: 0, values: 0 };
        reader.skip_space();
        let node = reader.value(0)?;
        reader.skip_space();
        if reader.at == text.len() { Ok(node) } else { Err(Problem::Malformed) }
    }

    #[must_use]
    pub fn string(text: &str) -> Node<'static> {
        Node::Scalar(quoted(text).into())
    }

    /// The text of a string; `None` for anything else.
    #[must_use]
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Scalar(raw) => decoded(raw.strip_prefix('"').map(|_| raw.as_ref())?).ok(),
            _ => None,
        }
    }

    /// The whole without white space.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Scalar(raw) => out.push_str(raw),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, member) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&member.raw);
                    out.push(':');
                    member.value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Bytes of [`Self::to_text`].
    #[must_use]
    pub fn length(&self) -> usize {
        let within = |count: usize, inner: usize| inner + count.max(1) + 1;
        match self {
            Self::Scalar(raw) => raw.len(),
            Self::Array(items) => within(items.len(), items.iter().map(Self::length).sum()),
            Self::Object(members) => {
                let member = |it: &Member<'_>| it.raw.len() + 1 + it.value.length();
                within(members.len(), members.iter().map(member).sum())
            }
        }
    }

    /// The same with the same texts: to be put in many places.
    #[must_use]
    pub fn borrowed(&self) -> Node<'_> {
        match self {
            Self::Scalar(raw) => Node::Scalar(Cow::Borrowed(raw)),
            Self::Array(items) => Node::Array(items.iter().map(Self::borrowed).collect()),
            Self::Object(members) => {
                let same = members.iter().map(|it| Member {
                    raw: Cow::Borrowed(&*it.raw),
                    name: Cow::Borrowed(&*it.name),
                    value: it.value.borrowed(),
                });
                Node::Object(same.collect())
            }
        }
    }

    /// As one that owns its texts.
    #[must_use]
    pub fn into_owned(self) -> Node<'static> {
        match self {
            Self::Scalar(raw) => Node::Scalar(raw.into_owned().into()),
            Self::Array(items) => Node::Array(items.into_iter().map(Self::into_owned).collect()),
            Self::Object(members) => {
                let own = members.into_iter().map(|it| Member {
                    raw: it.raw.into_owned().into(),
                    name: it.name.into_owned().into(),
                    value: it.value.into_owned(),
                });
                Node::Object(own.collect())
            }
        }
    }
}

/// What a string with its quotes says.
fn decoded(raw: &str) -> Result<Cow<'_, str>, Problem> {
    if raw.contains('\\') {
        return serde_json::from_str(raw).map(Cow::Owned).map_err(|_| Problem::Malformed);
    }
    let inner = raw.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inner.map(Cow::Borrowed).ok_or(Problem::Malformed)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, Problem> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Problem::Values);
        }
        let is_deep = depth == DEEPEST;
        match self.peek() {
            Some(b'{' | b'[') if is_deep => Err(Problem::Depth),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => {
                let raw = self.string()?;
                if raw.contains('\\') {
                    decoded(raw)?;
                }
                Ok(Node::Scalar(raw.into()))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, Problem> {
        self.at += 1;
        let mut members = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            self.skip_space();
            let raw = self.string()?;
            let name = decoded(raw)?;
            self.skip_space();
            if !self.take(b':') {
                return Err(Problem::Malformed);
            }
            self.skip_space();
            let value = self.value(depth)?;
            members.push(Member { raw: raw.into(), name, value });
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(Problem::Malformed);
            }
        }
        let mut names: Vec<&str> = members.iter().map(|it| &*it.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(Problem::Duplicate);
        }
        Ok(Node::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>, Problem> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Node::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Node::Array(items));
            }
            if !self.take(b',') {
                return Err(Problem::Malformed);
            }
        }
    }

    /// With its quotes; escapes are not looked at yet.
    fn string(&mut self) -> Result<&'a str, Problem> {
        let start = self.at;
        if !self.take(b'"') {
            return Err(Problem::Malformed);
        }
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(self.since(start));
                }
                // Whatever is escaped, it is not the end.
                Some(b'\\') => self.at += 2,
                Some(0x20..) => self.at += 1,
                Some(..0x20) | None => return Err(Problem::Malformed),
            }
        }
    }

    fn number(&mut self) -> Result<Node<'a>, Problem> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Node::Scalar(self.since(start).into()))
    }

    /// One at least.
    fn digits(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Problem::Malformed) }
    }

    fn word(&mut self) -> Result<Node<'a>, Problem> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let found = ["true", "false", "null"].into_iter().find(|it| rest.starts_with(it));
        let word = found.ok_or(Problem::Malformed)?;
        self.at += word.len();
        Ok(Node::Scalar(word.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, Problem>) {
        let read = Node::parse(text.as_bytes()).map(|it| it.to_text());
        assert_eq!(read.as_deref().map_err(|it| *it), expected, "{text}");
        if let Ok(node) = Node::parse(text.as_bytes()) {
            assert_eq!(node.length(), node.to_text().len(), "{text}");
            assert_eq!((node.borrowed(), node.clone().into_owned()), (node.clone(), node.clone()));
        }
    }

    #[test]
    fn what_is_written_stays() {
        check(
            " { \"b\" : [ 1 , -0.50e+07 ] , \"a\" : null }\n",
            Ok(r#"{"b":[1,-0.50e+07],"a":null}"#),
        );
        check("123456789012345678901234567890", Ok("123456789012345678901234567890"));
        check("1e999", Ok("1e999"));
        check(r#""\u0041\/\ud83d\ude00é""#, Ok(r#""\u0041\/\ud83d\ude00é""#));
        check("[]", Ok("[]"));
        check("{}", Ok("{}"));
        check("[{},[],true,false]", Ok("[{},[],true,false]"));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "\"",
            "\"\\\"",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "0x1",
            "NaN",
            "nul",
            "nulll",
            "'a'",
            "\"\u{1}\"",
            "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\\ud800\"",
            "\"\\u12\"",
            "{\"\\ud800\":1}",
            "1 2",
            "{}{}",
            "\u{feff}{}",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
            "//",
            "\"é",
            "\"\\é",
        ] {
            check(text, Err(Problem::Malformed));
        }
        assert_eq!(Node::parse(b"\"\xff\""), Err(Problem::Malformed));
        check(r#"{"a":1,"a":1}"#, Err(Problem::Duplicate));
        check(r#"[{"b":{"a":1,"c":2,"\u0061":3}}]"#, Err(Problem::Duplicate));
        check(r#"{"a":{"a":1}}"#, Ok(r#"{"a":{"a":1}}"#));
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        check(&nested(DEEPEST), Ok(&nested(DEEPEST)));
        check(&nested(DEEPEST + 1), Err(Problem::Depth));
        check(&"[".repeat(1_000_000), Err(Problem::Depth));
        let list = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        check(&list(VALUES_MAX - 1), Ok(&list(VALUES_MAX - 1)));
        check(&list(VALUES_MAX), Err(Problem::Values));
    }

    proptest! {
        /// Nothing that another reader takes for something else: what we take, serde takes, and reads
        /// in it what we write.
        #[test]
        fn agrees_with_serde(text in r#"([\[\]{}:, ]|"a"|"b\\u0061?\\?n?"|-?[0-9]{1,3}|\.[0-9]|[eE]\+?|true|null){0,20}"#) {
            match (Node::parse(text.as_bytes()), serde_json::from_str::<serde_json::Value>(&text)) {
                (Ok(node), Ok(value)) => {
                    let again: serde_json::Value = serde_json::from_str(&node.to_text()).unwrap();
                    prop_assert_eq!(again, value);
                }
                // serde takes the last of two members, and no number beyond a float.
                (Err(Problem::Duplicate), Ok(_)) | (Err(_), Err(_)) => {}
                (Ok(_), Err(why)) => prop_assert!(why.to_string().contains("out of range"), "{}", why),
                (Err(why), Ok(_)) => prop_assert!(false, "{} {}", why, text),
            }
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Node::parse(&text);
        }
    }
}
