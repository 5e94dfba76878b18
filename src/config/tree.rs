//! The file as a tree of nodes that know their places. Scalars stay as they were written: what
//! they mean is decided by who reads them, so `1.20` is a fine word and no number is rounded.
use crate::diagnostic::{Path, Place, Step};

#[derive(Clone, Debug)]
pub struct Node {
    pub at: Place,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Scalar {
        text: Box<str>,
        style: Style,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Had a problem that was reported: readers go on as if nothing stood here, and the items
    /// behind it keep their index.
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: may be a number, a boolean or nothing.
    Plain,
    /// In quotes or a block: a word, whatever it looks like.
    Quoted,
    /// Came from `${…}`: never nothing, else whatever is asked for.
    Interpolated,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Box<str>,
    pub at: Place,
    pub value: Node,
}

impl Entry {
    /// The place to show for the value: its own, or its key's if it begins on a line below.
    pub fn place(&self) -> Place {
        if self.at.line == self.value.at.line { self.value.at } else { self.at }
    }
}

/// The way from the root to a node while walking, kept on the stack: a `Path`, which allocates,
/// is made of it only for a problem.
pub struct Trail<'t> {
    pub up: Option<&'t Trail<'t>>,
    pub step: Way<'t>,
}

pub enum Way<'t> {
    Key(&'t str),
    Index(usize),
}

impl Trail<'_> {
    pub fn path(mut trail: Option<&Trail<'_>>) -> Path {
        let mut steps = Vec::new();
        while let Some(here) = trail {
            steps.push(match here.step {
                Way::Key(key) => Step::Key(key.to_owned()),
                Way::Index(index) => Step::Index(index),
            });
            trail = here.up;
        }
        steps.reverse();
        Path(steps)
    }
}

/// What a node looks like, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Nothing,
    Boolean,
    Whole,
    Negative,
    TooLarge,
    Fraction,
    Word,
    Quoted,
    List,
    Map,
}

impl Node {
    /// Whether this is `null`, `~` or an empty place (YAML 1.2.2, 10.2.1.1).
    pub fn is_nothing(&self) -> bool {
        self.look() == Look::Nothing
    }

    pub fn look(&self) -> Look {
        match &self.kind {
            Kind::List(_) => Look::List,
            Kind::Map(_) => Look::Map,
            Kind::Dropped => Look::Nothing,
            Kind::Scalar { style: Style::Quoted, .. } => Look::Quoted,
            Kind::Scalar { style: Style::Interpolated, .. } => Look::Word,
            Kind::Scalar { text, style: Style::Plain } => look(text),
        }
    }

    /// The place to show for the node at `path`, or for its nearest ancestor that exists.
    pub fn locate(&self, path: &Path) -> Place {
        let mut node = self;
        let mut place = self.at;
        for step in &path.0 {
            let next = match (step, &node.kind) {
                (Step::Index(index), Kind::List(items)) => {
                    items.get(*index).map(|item| (item, item.at))
                }
                (Step::Key(key), Kind::Map(entries)) => entries
                    .iter()
                    .find(|entry| *entry.key == **key)
                    .map(|entry| (&entry.value, entry.place())),
                _ => None,
            };
            let Some((next, at)) = next else { break };
            (node, place) = (next, at);
        }
        place
    }

    /// The node at `path`.
    pub fn find(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match (step, &node.kind) {
            (Step::Index(index), Kind::List(items)) => items.get(*index),
            (Step::Key(key), Kind::Map(entries)) => {
                entries.iter().find(|entry| *entry.key == **key).map(|entry| &entry.value)
            }
            _ => None,
        })
    }

    pub fn find_mut(&mut self, path: &Path) -> Option<&mut Self> {
        path.0.iter().try_fold(self, |node, step| match (step, &mut node.kind) {
            (Step::Index(index), Kind::List(items)) => items.get_mut(*index),
            (Step::Key(key), Kind::Map(entries)) => {
                entries.iter_mut().find(|entry| *entry.key == **key).map(|entry| &mut entry.value)
            }
            _ => None,
        })
    }
}

/// The core schema of YAML 1.2.2, 10.3.2, as far as messages need it.
fn look(text: &str) -> Look {
    if is_null(text) {
        Look::Nothing
    } else if boolean(text).is_some() {
        Look::Boolean
    } else if whole(text).is_some() {
        Look::Whole
    } else if signed(text).is_some() {
        Look::Negative
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        Look::TooLarge
    } else if fraction(text).is_some() {
        Look::Fraction
    } else {
        Look::Word
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A whole number that is not negative, in decimal, `0x` or `0o`.
pub fn whole(text: &str) -> Option<u64> {
    let (digits, radix) = match text.get(..2) {
        Some("0x") => (text.get(2..)?, 16),
        Some("0o") => (text.get(2..)?, 8),
        _ => (text.strip_prefix('+').unwrap_or(text), 10),
    };
    // `from_str_radix` would take one more sign.
    if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, radix).ok() }
}

pub fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
        None => whole(text).and_then(|number| i64::try_from(number).ok()),
    }
}

/// A finite number, with or without a fraction.
pub fn fraction(text: &str) -> Option<f64> {
    let looks_right = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && text.bytes().any(|b| b.is_ascii_digit());
    if looks_right { text.parse().ok().filter(|number: &f64| number.is_finite()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_look_like_the_core_schema_says() {
        let check = |text: &str, expected| assert_eq!(look(text), expected, "{text}");
        check("", Look::Nothing);
        check("~", Look::Nothing);
        check("null", Look::Nothing);
        check("True", Look::Boolean);
        check("yes", Look::Word);
        check("0", Look::Whole);
        check("+7", Look::Whole);
        check("0xff", Look::Whole);
        check("0x+f", Look::Word);
        check("++7", Look::Word);
        check("-7", Look::Negative);
        check("--7", Look::Word);
        check("1.5", Look::Fraction);
        check("1e3", Look::Fraction);
        check("-", Look::Word);
        check(".", Look::Word);
        check("nan", Look::Word);
        check("18446744073709551616", Look::TooLarge);
        check("1e999", Look::Word);
        check("10s", Look::Word);
    }
}
