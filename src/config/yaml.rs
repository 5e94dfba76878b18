//! From YAML 1.2 text to a tree of nodes, with every bound that a hostile or broken file needs:
//! depth, aliases, one document. No tags, no merge keys, no keys that are not words.
use std::collections::{HashMap, hash_map};

use ahash::AHashMap;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::tree::{Entry, Kind, Node, Style};
use crate::diagnostic::{Diagnostic, Path, Place, Problems};

/// Deepest nesting; the deepest that the configuration has is about 10.
const DEEPEST: usize = 64;

/// How much all anchors and aliases together may copy, in bytes: ten aliases of ten aliases of …
/// are few bytes of text and 10^n of memory.
const MOST_COPIED: usize = 16 << 20;

/// What a node weighs beyond its text.
const NODE: usize = 64;

/// Reads one document. Problems that leave the rest readable go to `problems`.
///
/// # Errors
/// The problem after which nothing more can be read.
pub fn read(text: &str, problems: &mut Problems) -> Result<Node, Diagnostic> {
    refuse_control_characters(text)?;
    let mut reader =
        Reader { open: Vec::new(), anchors: HashMap::new(), root: None, copied: 0, problems };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        reader.take(event, span)?;
    }
    let start = Place { line: 1, column: 1 };
    reader.root.filter(|root| !root.is_nothing()).ok_or_else(|| {
        fatal(
            Path::root(),
            start,
            "the configuration is empty",
            "it begins with `version: 1`, `listeners:`, `upstreams:` and `routes:`",
        )
    })
}

/// YAML 1.2.2, 5.1. For the parser a NUL is the end, and what stands behind it would be ignored.
fn refuse_control_characters(text: &str) -> Result<(), Diagnostic> {
    let is_refused = |b: u8| b == 0x7f || (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r'));
    let Some(before) = text.bytes().position(is_refused).and_then(|at| text.get(..at)) else {
        return Ok(());
    };
    let line = before.replace("\r\n", "\n").matches(['\r', '\n']).count() + 1;
    let column = before.chars().rev().take_while(|c| !matches!(c, '\r' | '\n')).count() + 1;
    let hint = "remove it, or write it in double quotes as \"\\u001b\"";
    Err(fatal(Path::root(), Place { line, column }, "a control character", hint))
}

struct Reader<'p> {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    copied: usize,
    problems: &'p mut Problems,
}

/// A list or map whose end has not been seen.
struct Open {
    at: Place,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(Box<str>, Place)> },
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = place(span.start);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err(fatal(
                Path::root(),
                at,
                "a second document begins here",
                "one file is one configuration: remove `---`",
            )),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at)?;
                let is_plain = style == ScalarStyle::Plain;
                let style = if is_plain { Style::Plain } else { Style::Quoted };
                let kind = Kind::Scalar { text: text.into(), style };
                self.put(Node { at, kind }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at)?;
                self.enter(at, anchor, Inside::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at)?;
                self.enter(at, anchor, Inside::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Ok(()),
        }
    }

    fn refuse_tag(&self, is_tagged: bool, at: Place) -> Result<(), Diagnostic> {
        if is_tagged {
            let hint = "remove it, or quote a word that begins with `!`";
            return Err(fatal(self.path(), at, "a tag (`!…`) means nothing here", hint));
        }
        Ok(())
    }

    fn enter(&mut self, at: Place, anchor: usize, inside: Inside) -> Result<(), Diagnostic> {
        if self.open.len() >= DEEPEST {
            return Err(self.too_deep(at));
        }
        self.open.push(Open { at, anchor, inside });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Diagnostic> {
        let Some(Open { at, anchor, inside }) = self.open.pop() else { return Ok(()) };
        let kind = match inside {
            Inside::List(items) => Kind::List(items),
            Inside::Map { entries, .. } => Kind::Map(self.without_repeats(entries)),
        };
        self.put(Node { at, kind }, anchor)
    }

    /// The first of equal keys stays; each further one is a problem.
    fn without_repeats(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut lines = AHashMap::with_capacity(entries.len());
        let firsts: Vec<Option<usize>> = entries
            .iter()
            .map(|entry| match lines.entry(&*entry.key) {
                hash_map::Entry::Occupied(first) => Some(*first.get()),
                hash_map::Entry::Vacant(place) => {
                    place.insert(entry.at.line);
                    None
                }
            })
            .collect();
        if firsts.iter().all(Option::is_none) {
            return entries;
        }
        let path = self.path();
        let mut kept = Vec::with_capacity(entries.len());
        for (entry, first) in entries.into_iter().zip(firsts) {
            match first {
                None => kept.push(entry),
                Some(line) => self.problems.push(Diagnostic {
                    path: path.key(&entry.key),
                    at: Some(entry.at),
                    message: format!("the key {} stands here a second time", quoted(&entry.key)),
                    hint: Some(format!("the first is on line {line}")),
                }),
            }
        }
        kept
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), Diagnostic> {
        let Some(node) = self.anchors.get(&anchor) else {
            let hint = "an anchor can be used only after its value has ended";
            return Err(fatal(self.path(), at, "this alias stands within its own anchor", hint));
        };
        let size = measure(node);
        if self.open.len() + size.height > DEEPEST {
            return Err(self.too_deep(at));
        }
        self.copied = self.copied.saturating_add(size.weight);
        if self.copied > MOST_COPIED {
            return Err(self.too_much_copied(at));
        }
        let node = node.clone();
        self.put(node, 0)
    }

    /// A finished node goes where it belongs: a key, a value, an item or the root.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.copied = self.copied.saturating_add(measure(&node).weight);
            if self.copied > MOST_COPIED {
                return Err(self.too_much_copied(node.at));
            }
            self.anchors.insert(anchor, node.clone());
        }
        let is_key =
            matches!(self.open.last(), Some(Open { inside: Inside::Map { key: None, .. }, .. }));
        let mut new_key = if is_key { Some(self.key(&node)?) } else { None };
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, key }) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => *key = new_key.take(),
            },
        }
        Ok(())
    }

    fn key(&mut self, node: &Node) -> Result<(Box<str>, Place), Diagnostic> {
        let Kind::Scalar { text, style } = &node.kind else {
            let hint = "quote a word that begins with `{` or `[`";
            return Err(fatal(self.path(), node.at, "a key is one word", hint));
        };
        let is_plain = *style == Style::Plain;
        if is_plain && **text == *"<<" {
            let hint = "write the keys out; an alias can stand for one whole value";
            return Err(fatal(self.path(), node.at, "`<<` does not merge maps here", hint));
        }
        let problem = if is_plain && text.is_empty() {
            Some(("a key is missing before `:`", "write `key: value`"))
        } else if text.contains("${env:") || text.contains("${file:") {
            Some(("`${…}` is not replaced in a key", "it can stand in a value"))
        } else {
            None
        };
        if let Some((message, hint)) = problem {
            let problem = fatal(self.path(), node.at, message, hint);
            self.problems.push(problem);
        }
        Ok((text.clone(), node.at))
    }

    /// Where the next node goes.
    fn path(&self) -> Path {
        let mut path = Path::root();
        for open in &self.open {
            match &open.inside {
                Inside::List(items) => path = path.index(items.len()),
                Inside::Map { key: Some((key, _)), .. } => path = path.key(key),
                Inside::Map { key: None, .. } => {}
            }
        }
        path
    }

    fn too_deep(&self, at: Place) -> Diagnostic {
        let message = format!("lists and maps stand in each other more than {DEEPEST} deep");
        Diagnostic { path: Path::root(), at: Some(at), message, hint: None }
    }

    fn too_much_copied(&self, at: Place) -> Diagnostic {
        let message = "anchors and aliases copy too much";
        let hint = format!("at most {} MiB together", MOST_COPIED >> 20);
        fatal(self.path(), at, message, &hint)
    }
}

struct Size {
    weight: usize,
    height: usize,
}

fn measure(node: &Node) -> Size {
    let mut size = Size { weight: NODE, height: 1 };
    let mut add = |inner: &Node| {
        let inner = measure(inner);
        size.weight = size.weight.saturating_add(inner.weight);
        size.height = size.height.max(inner.height + 1);
    };
    match &node.kind {
        Kind::Scalar { text, .. } => size.weight += text.len(),
        Kind::List(items) => items.iter().for_each(&mut add),
        Kind::Map(entries) => entries.iter().for_each(|entry| add(&entry.value)),
        Kind::Dropped => {}
    }
    if let Kind::Map(entries) = &node.kind {
        size.weight = entries.iter().fold(size.weight, |sum, entry| sum + NODE + entry.key.len());
    }
    size
}

fn fatal(path: Path, at: Place, message: &str, hint: &str) -> Diagnostic {
    Diagnostic { path, at: Some(at), message: message.to_owned(), hint: Some(hint.to_owned()) }
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A key as it is repeated in a message: one that is no word, or is very long, is cut.
pub fn quoted(key: &str) -> String {
    const LONGEST: usize = 60;
    if key.chars().count() <= LONGEST {
        return format!("`{key}`");
    }
    format!("`{}…`", key.chars().take(LONGEST).collect::<String>())
}

/// The parser's words for a fault, and what most often is behind it.
const FAULTS: [(&str, &str, &str); 16] = [
    ("tab", "a tab stands where only spaces may", "indent with spaces"),
    ("byte order mark", "a byte order mark stands inside the file", "remove it"),
    (
        "unknown anchor",
        "`*` names an anchor that is not above",
        "quote a word that begins with `*`: \"*.example.com\"",
    ),
    ("anchor or alias", "`&` or `*` without a name", "quote a word that begins with `&` or `*`"),
    (
        "mapping values are not allowed",
        "`: ` is not expected here",
        "quote a value that holds `: `; or a key above lacks its `:`",
    ),
    ("flow construct", "a `{` or `[` above is not closed", "write {a: 1, b: 2} and [a, b]"),
    (
        "illegal placement of ':'",
        "a `{` or `[` above is not closed",
        "write {a: 1, b: 2} and [a, b]",
    ),
    ("',' or '}'", "a map in braces is not closed or lacks a comma", "write {a: 1, b: 2}"),
    ("',' or ']'", "a list in brackets is not closed or lacks a comma", "write [a, b]"),
    (
        "did not find expected key",
        "this line fits no key above it",
        "keys of one map begin in the same column",
    ),
    ("simple key", "a key without `:` and a space", "write `key: value`"),
    (
        "unknown escape character",
        "an unknown escape in double quotes",
        "write single quotes around a regular expression",
    ),
    (
        "indentation in quoted scalar",
        "the quotes that open here are not closed",
        "write the closing quote on the same line",
    ),
    ("unexpected character", "this character cannot begin a word", "put the word in quotes"),
    (
        "recursion limit",
        "lists and maps stand in each other too deep",
        "64 is the most; perhaps a bracket is not closed",
    ),
    ("end of stream", "quotes are not closed", "the file ended before their end"),
];

fn syntax(error: &ScanError) -> Diagnostic {
    let info = error.info();
    let known = FAULTS.iter().find(|(part, ..)| info.contains(part));
    let (message, hint) = match known {
        Some((_, message, hint)) => ((*message).to_owned(), Some((*hint).to_owned())),
        None => (format!("not valid YAML: {info}"), None),
    };
    Diagnostic { path: Path::root(), at: Some(place(*error.marker())), message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, line: usize, column: usize, part: &str) {
        let problem = read(text, &mut Problems::default()).unwrap_err();
        let text: String = text.chars().take(80).collect();
        assert!(problem.message.contains(part), "{text:?}: {problem:?}");
        assert_eq!(problem.at, Some(Place { line, column }), "{text:?}");
    }

    #[test]
    fn a_bomb_of_aliases_is_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..30 {
            let items = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{items}]\n"));
        }
        let problem = read(&text, &mut Problems::default()).unwrap_err();
        assert!(problem.message.contains("copy too much"), "{problem:?}");
        let long = "x".repeat(1 << 20);
        let text = format!("a: &a {long}\nb: [{}]\n", ["*a"; 100].join(", "));
        assert!(read(&text, &mut Problems::default()).is_err());
    }

    #[test]
    fn nesting_is_bounded_aliases_included() {
        check(&"[".repeat(200), 1, 65, "64 deep");
        check(&"[".repeat(100_000), 1, 256, "too deep");
        check(&"- ".repeat(100_000), 1, 129, "64 deep");
        let mut text = "a0: &a0 [x]\n".to_owned();
        for n in 1..100 {
            text.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
        }
        let problem = read(&text, &mut Problems::default()).unwrap_err();
        assert!(problem.message.contains("64 deep"), "{problem:?}");
    }

    #[test]
    fn nothing_behind_a_nul_is_ignored() {
        check("a: 1\r\nä\0b: 2\n", 2, 2, "control character");
    }

    #[test]
    fn of_equal_keys_the_first_stays() {
        let mut problems = Problems::default();
        let tree = read("a: {b: 1, 'b': 2, b: 3}\n", &mut problems).unwrap();
        let columns: Vec<_> = problems.0.iter().map(|problem| problem.at.unwrap().column).collect();
        assert_eq!(columns, [11, 19]);
        let Kind::Map(entries) = &tree.kind else { panic!("{tree:?}") };
        let Kind::Map(inner) = &entries[0].value.kind else { panic!("{tree:?}") };
        assert_eq!(inner.len(), 1);
    }

    #[test]
    fn an_empty_text_is_told_how_to_begin() {
        for text in ["", "\n\n", "# note", "---", "---\n...\n", "~"] {
            check(text, 1, 1, "is empty");
        }
    }
}
