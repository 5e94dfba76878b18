//! The text of a configuration file, and where in it a path is. The places come from reading the
//! text again when first asked for, so a file without problems pays nothing.
use std::{fmt, sync::OnceLock};

use super::{
    brought::{self, Brought},
    tree::Node,
    yaml,
};
use crate::diagnostic::{Path, Place, Places, Problems};

/// A file's name and text. Its `Debug` output has no text, which may hold secrets.
pub struct Source {
    file: Box<str>,
    text: Box<str>,
    tree: OnceLock<Option<Box<Node>>>,
    lines: OnceLock<Box<[usize]>>,
    brought: Vec<Brought>,
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.into(),
            text: text.strip_prefix('\u{feff}').unwrap_or(text).into(),
            tree: OnceLock::new(),
            lines: OnceLock::new(),
            brought: Vec::new(),
        }
    }

    /// With what `${…}` brought in, which is then never shown.
    pub(super) fn with(self, brought: Vec<Brought>) -> Self {
        Self { brought, ..self }
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

impl Places for Source {
    fn file(&self) -> &str {
        &self.file
    }

    fn locate(&self, path: &Path) -> Option<Place> {
        self.tree().map(|tree| tree.locate(path))
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
