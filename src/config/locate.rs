//! The text of a configuration file, and where in it a path is. The places come from reading the
//! text again when first asked for, so a file without problems pays nothing.
use std::{fmt, str::Chars, sync::OnceLock};

use super::{
    brought::{self, Brought},
    tree::{Kind, Node},
    yaml,
};
use crate::diagnostic::{Path, Place, Places, Problems, Step};

/// A file's name and text. Its `Debug` output has no text, which may hold secrets.
pub struct Source {
    file: Box<str>,
    text: Box<str>,
    tree: OnceLock<Option<Box<Node>>>,
    lines: OnceLock<Box<[usize]>>,
    brought: Box<[Brought]>,
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.into(),
            text: text.strip_prefix('\u{feff}').unwrap_or(text).into(),
            tree: OnceLock::new(),
            lines: OnceLock::new(),
            brought: Box::default(),
        }
    }

    /// With what `${…}` brought in, which is then never shown.
    pub(super) fn with(self, brought: Vec<Brought>) -> Self {
        Self { brought: brought.into(), ..self }
    }

    /// The text, without a byte order mark.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tree as written, nothing replaced; `None` if the text is not YAML.
    pub(super) fn tree(&self) -> Option<&Node> {
        let read = || yaml::read(&self.text, &mut Problems::default()).ok().map(Box::new);
        self.tree.get_or_init(read).as_deref()
    }

    /// Where the character at `offset` of a word stands. A word may be in quotes, with escapes, or
    /// folded over lines: it is followed through the text, white space aside. `None` where it leaves
    /// the text, as by a `${…}`.
    fn within(&self, node: &Node, offset: usize) -> Option<Place> {
        let Kind::Scalar { text: word, .. } = &node.kind else { return None };
        if word.contains("${") {
            return None;
        }
        let start = *self.lines().get(node.at.line.checked_sub(1)?)?;
        let mut rest = Cursor { left: self.text.get(start..)?.chars(), place: node.at };
        rest.left.by_ref().take(node.at.column - 1).for_each(drop);
        let quote = match rest.peek()? {
            quote @ ('"' | '\'') => rest.next().map(|_| quote),
            '|' | '>' => {
                while rest.next()? != '\n' {}
                None
            }
            _ => None,
        };
        for (index, wanted) in word.chars().enumerate() {
            if !wanted.is_whitespace() {
                while rest.peek()? != wanted {
                    let passed = rest.next()?;
                    let is_escape =
                        matches!((quote, passed), (Some('"'), '\\') | (Some('\''), '\''));
                    if !is_escape && !passed.is_whitespace() {
                        return None;
                    }
                }
            }
            if index == offset {
                return Some(rest.place);
            }
            if !wanted.is_whitespace() {
                rest.next();
            }
        }
        Some(rest.place)
    }

    /// Where each line begins, in bytes, and the end of the text.
    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let bytes = self.text.as_bytes();
            // CR LF, LF and CR alone end a line (YAML 1.2.2, 5.4).
            let ends = memchr::memchr2_iter(b'\n', b'\r', bytes)
                .filter(|&at| bytes.get(at) == Some(&b'\n') || bytes.get(at + 1) != Some(&b'\n'));
            std::iter::once(0).chain(ends.map(|at| at + 1)).chain([self.text.len()]).collect()
        })
    }
}

/// The text from a place on.
struct Cursor<'a> {
    left: Chars<'a>,
    place: Place,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.left.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        let passed = self.left.next()?;
        if passed == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
        Some(passed)
    }
}

impl Places for Source {
    fn file(&self) -> &str {
        &self.file
    }

    fn locate(&self, path: &Path) -> Option<Place> {
        let tree = self.tree()?;
        let within = || match path.0.as_slice() {
            [word @ .., Step::Offset(offset)] => self.within(tree.find(word)?, *offset),
            _ => None,
        };
        within().or_else(|| Some(tree.locate(path)))
    }

    fn line(&self, line: usize) -> Option<&str> {
        let lines = self.lines();
        let (start, end) = (lines.get(line.checked_sub(1)?)?, lines.get(line)?);
        self.text.get(*start..*end).map(|line| line.trim_end_matches(['\r', '\n']))
    }

    fn hide(&self, path: &Path, text: &str) -> String {
        brought::hide(&self.brought, path, text)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("t.yaml", text)
    }

    fn check(text: &str, path: &Path, line: usize, column: usize) {
        assert_eq!(source(text).locate(path), Some(Place { line, column }), "{path} in {text:?}");
    }

    #[test]
    fn a_value_beside_its_key_is_shown_itself_and_one_below_by_its_key() {
        let root = Path::root();
        check("a: 1\nb: {c: x}\n", &root.key("a"), 1, 4);
        check("a: 1\nb: {c: x}\n", &root.key("b"), 2, 4);
        check("a: 1\nb: {c: x}\n", &root.key("b").key("c"), 2, 8);
        check("a:\n  b: 1\n", &root.key("a"), 1, 1);
        check("a:\n- b\n- c: d\n", &root.key("a").index(1), 3, 3);
        check("ä: ö\n", &root.key("ä"), 1, 4);
    }

    #[test]
    fn what_is_not_there_is_at_its_nearest_ancestor() {
        let route = Path::root().key("routes").index(1);
        check("routes:\n- id: a\n- id: b\n", &route.key("auth"), 3, 3);
        check("routes:\n- id: a\n", &route.key("auth"), 1, 1);
        check("a: 1\n", &route, 1, 1);
        assert_eq!(source("a: [").locate(&route), None);
    }

    #[test]
    fn a_character_of_a_word_is_found_however_the_word_is_written() {
        let check = |text: &str, offset, line, column| {
            check(text, &Path::root().key("a").offset(offset), line, column);
        };
        check("a: one two\n", 0, 1, 4);
        check("a: one two\n", 4, 1, 8);
        check("a: one two\n", 7, 1, 11);
        check("a: 'one two'\n", 4, 1, 9);
        check("a: {x: 1}\n", 4, 1, 4);
        check("{a: \"é == 'x'\", b: 1}\n", 5, 1, 11);
        // Seven characters of text, nine of YAML: 'it''s ''x'.
        check("a: 'it''s ''x'\n", 6, 1, 13);
        check("a: \"p \\\"q\\\" r\"\n", 6, 1, 13);
        check("a: |\n  one\n  two\n", 0, 2, 3);
        check("a: |\n  one\n  two\n", 5, 3, 4);
        check("a: >-\n  one\n  two\n", 5, 3, 4);
        check("a:\n  one\n  two\n", 5, 3, 4);
        // What an escape stands for is not in the text: the beginning has to do.
        check("a: \"\\x6fne\"\n", 2, 1, 4);
        check("a: x ${env:A} y\n", 3, 1, 4);
    }

    #[test]
    fn lines_end_as_in_yaml() {
        let source = source("\u{feff}a: 1\r\nb: 2\rc: 3\n\nd: 4");
        let lines: Vec<_> = (0..8).map(|n| source.line(n)).collect();
        let some = Some;
        assert_eq!(
            lines,
            [None, some("a: 1"), some("b: 2"), some("c: 3"), some(""), some("d: 4"), None, None]
        );
        assert_eq!(source.locate(&Path::root().key("d")), Some(Place { line: 5, column: 4 }));
    }

    #[test]
    fn debug_does_not_print_the_text() {
        assert!(!format!("{:?}", source("secret: hunter2")).contains("hunter2"));
    }
}
