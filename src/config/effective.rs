//! The configuration as it takes effect, as YAML for `check --print`: aliases written out, and
//! secrets and whatever is taken from `${…}` masked.
use std::fmt::Write;

use super::{
    locate::Source,
    tree::{Entry, Kind, Node, Style},
};
use crate::diagnostic::mask;

/// YAML of the file's content without its secrets; empty if the text is not YAML.
#[must_use]
pub fn effective(source: &Source) -> String {
    let mut out = String::new();
    if let Some(tree) = source.tree() {
        node(&mut out, tree, 0, false);
    }
    out
}

/// Writes the node behind `key:` or `-`: on the same line if it is one word, else below.
fn node(out: &mut String, here: &Node, depth: usize, is_secret: bool) {
    match &here.kind {
        Kind::Dropped => out.push_str(" null\n"),
        Kind::List(items) if items.is_empty() => out.push_str(" []\n"),
        Kind::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Kind::Scalar { text, style } => {
            let _ = writeln!(out, " {}", scalar(text, *style, is_secret));
        }
        Kind::List(items) => {
            line_break(out);
            for item in items {
                let _ = write!(out, "{:indent$}-", "", indent = depth * 2);
                node(out, item, depth + 1, is_secret);
            }
        }
        Kind::Map(entries) => {
            line_break(out);
            for Entry { key, value, .. } in entries {
                let _ = write!(out, "{:indent$}{}:", "", plain_key(key), indent = depth * 2);
                node(out, value, depth + 1, is_secret || mask::is_secret(key));
            }
        }
    }
}

/// Not at the very beginning.
fn line_break(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

fn scalar(text: &str, style: Style, is_secret: bool) -> String {
    if style == Style::Plain && text.is_empty() {
        return "null".to_owned();
    }
    if is_secret || text.replace("$${", "").contains("${") {
        return format!("\"{}\"", mask::MASK);
    }
    let shown = mask::without_url_passwords(text);
    // A plain word of several lines was folded; written on one line it may mean something else.
    if style == Style::Plain && !shown.contains('\n') { shown } else { in_quotes(&shown) }
}

fn plain_key(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let starts_plain = key.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if starts_plain && key.chars().all(is_plain) { key.to_owned() } else { in_quotes(key) }
}

/// In double quotes, with the escapes of YAML 1.2.2, 5.7.
fn in_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = effective(&Source::new("t.yaml", text));
        assert_eq!(shown, expected);
        // What is printed is YAML, and printing that changes nothing more.
        assert_eq!(effective(&Source::new("t.yaml", &shown)), expected);
    }

    #[test]
    fn it_is_the_same_configuration_in_one_form() {
        check(
            "# note\nversion: 1\nroutes: [{id: a, auth: [b, 'c: d']}, {}]\nplans: {}\nadmin:\n",
            "version: 1\nroutes:\n  -\n    id: a\n    auth:\n      - b\n      - \"c: d\"\n  - {}\n\
             plans: {}\nadmin: null\n",
        );
        check("a: &x [1, \"1\"]\nb: *x\n", "a:\n  - 1\n  - \"1\"\nb:\n  - 1\n  - \"1\"\n");
        check("\"a b\": \"c\\n\\e\\\\\"\n", "\"a b\": \"c\\n\\U0000001b\\\\\"\n");
        check("a: b\n\n  c\n", "a: \"b\\nc\"\n");
    }

    #[test]
    fn no_secret_is_printed() {
        check("hash: sha256:00\n", "hash: \"…\"\n");
        check("secret: [a, {b: c}]\n", "secret:\n  - \"…\"\n  -\n    b: \"…\"\n");
        check("url: \"x${env:Y}z\"\nbody: $${a}\n", "url: \"…\"\nbody: $${a}\n");
        check("url: redis://a:b@c/\n", "url: redis://a:…@c/\n");
    }
}
