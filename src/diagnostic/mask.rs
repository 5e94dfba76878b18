//! Keeps secrets out of the source lines that are shown with a problem. It works on the text, not
//! on parsed YAML, because the file may be the very thing that is broken; in doubt it hides more.
use std::ops::Range;

use super::Places;

/// What is shown in place of a secret.
pub const MASK: &str = "…";

/// A value that began more lines above than this is not recognised as a secret's.
const LOOK_BACK: usize = 1000;

/// Whether what stands under this key must not be shown.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["secret", "password", "hash", "token", "authorization"].iter().any(|word| key.ends_with(word))
}

/// A source line with its secrets masked.
pub(super) struct Masked {
    pub shown: Vec<char>,
    hidden: Vec<Range<usize>>,
}

impl Masked {
    pub fn of(places: &dyn Places, line: usize) -> Option<Self> {
        let text = places.line(line)?;
        let chars: Vec<char> = text.chars().collect();
        let mut found = if is_inside_secret(places, line, text) {
            std::iter::once(leading(text)..chars.len()).collect()
        } else {
            let mut found = secrets(&chars).hidden;
            found.extend(url_passwords(&chars));
            found
        };
        found.sort_by_key(|range| range.start);
        let mut masked = Self { shown: Vec::with_capacity(chars.len()), hidden: Vec::new() };
        let mut done = 0;
        for range in found {
            if range.start >= done && !range.is_empty() {
                masked.shown.extend(chars.iter().skip(done).take(range.start - done));
                masked.shown.extend(MASK.chars());
                done = range.end;
                masked.hidden.push(range);
            }
        }
        masked.shown.extend(chars.iter().skip(done));
        Some(masked)
    }

    /// Where a column of the file is in what is shown, both from 1.
    pub fn column(&self, column: usize) -> usize {
        let mut shown = column;
        for hidden in self.hidden.iter().take_while(|hidden| hidden.start < column) {
            // One character stands for all of them.
            shown -= (column.min(hidden.end) - hidden.start).saturating_sub(1);
        }
        shown
    }
}

struct Secrets {
    hidden: Vec<Range<usize>>,
    /// Whether the last secret reaches the end of the line, so that it may go on below.
    is_open: bool,
}

/// The values of secret keys in one line, in characters.
fn secrets(chars: &[char]) -> Secrets {
    let mut found = Secrets { hidden: Vec::new(), is_open: false };
    let mut is_flow = false;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        is_flow |= matches!(c, '{' | '[');
        at += 1;
        if c == ':' && is_secret(&key_before(chars, at - 1)) {
            let start = at + chars.iter().skip(at).take_while(|c| c.is_whitespace()).count();
            let end = value_end(chars, start, is_flow);
            let value: String = chars.iter().skip(start).take(end - start).collect();
            if !is_reference(&value) {
                found.hidden.push(start..end);
            }
            found.is_open = end == chars.len();
            at = end;
        }
    }
    found
}

/// The key that ends before the colon at `colon`, without its quotes.
fn key_before(chars: &[char], colon: usize) -> String {
    let mut key: Vec<char> = chars
        .iter()
        .take(colon)
        .rev()
        .skip_while(|c| c.is_whitespace() || matches!(c, '"' | '\''))
        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        .copied()
        .collect();
    key.reverse();
    key.into_iter().collect()
}

fn value_end(chars: &[char], start: usize, is_flow: bool) -> usize {
    let first = chars.get(start).copied();
    if let Some(quote @ ('"' | '\'')) = first {
        return quoted_end(chars, start, quote);
    }
    if !is_flow {
        // A plain value may hold anything, commas and braces included.
        return chars.len();
    }
    if let Some('[' | '{') = first {
        // No secret is a list or a map: what stands in it is one that was written wrong.
        return chars.len();
    }
    let rest = chars.iter().skip(start);
    let reference = u32::from(chars.get(start..start + 2) == Some(&['$', '{']));
    let mut braces = 0_u32;
    let mut length = 0;
    for &c in rest {
        match c {
            '"' | '\'' => return chars.len(),
            '{' if braces < reference => braces += 1,
            '}' if braces > 0 => braces -= 1,
            ',' | '{' | '}' | '[' | ']' => break,
            _ => {}
        }
        length += 1;
    }
    start + length
}

/// Where a quoted value ends, its closing quote included; the end of the line if it has none.
fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while let Some(&c) = chars.get(at) {
        at += 1;
        if c == '\\' && quote == '"' {
            at += 1;
        } else if c == quote {
            if quote == '\'' && chars.get(at) == Some(&'\'') {
                at += 1;
            } else {
                return at;
            }
        }
    }
    chars.len()
}

/// `${env:NAME}` or `${file:path}` and nothing else says where a secret is, and is none.
fn is_reference(value: &str) -> bool {
    let value = value.trim().trim_matches(['"', '\'']);
    value
        .strip_suffix('}')
        .and_then(|value| value.strip_prefix("${env:").or_else(|| value.strip_prefix("${file:")))
        .is_some_and(|name| !name.contains(['{', '}']))
}

/// The passwords of `scheme://user:password@host` in one line, in characters.
fn url_passwords(chars: &[char]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for at in 0..chars.len() {
        if chars.get(at..at + 3) != Some(&[':', '/', '/']) {
            continue;
        }
        let start = at + 3;
        let ends = |c: &char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#');
        let authority: Vec<char> =
            chars.iter().skip(start).take_while(|c| !ends(c)).copied().collect();
        let host = authority.iter().rposition(|c| *c == '@');
        let colon = authority.iter().position(|c| *c == ':');
        if let (Some(host), Some(colon)) = (host, colon)
            && colon < host
        {
            found.push(start + colon + 1..start + host);
        }
    }
    found
}

/// The text without passwords in its URLs.
#[must_use]
pub fn without_url_passwords(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    for range in url_passwords(&chars) {
        shown.extend(chars.iter().skip(done).take(range.start.saturating_sub(done)));
        shown.push_str(MASK);
        done = range.end;
    }
    shown.extend(chars.iter().skip(done));
    shown
}

/// Whether the line belongs to a value that began on a line above under a secret's key: a block
/// of text, or quotes that span lines.
fn is_inside_secret(places: &dyn Places, line: usize, text: &str) -> bool {
    let mut indent = leading(text) + usize::from(is_item(text));
    let first = line.saturating_sub(LOOK_BACK).max(1);
    for above in (first..line).rev() {
        let Some(above) = places.line(above) else { continue };
        if indent == 0 {
            break;
        }
        if above.trim().is_empty() || key_column(above) >= indent {
            continue;
        }
        let chars: Vec<char> = above.chars().collect();
        if secrets(&chars).is_open {
            return true;
        }
        indent = leading(above) + usize::from(is_item(above));
    }
    false
}

fn leading(text: &str) -> usize {
    text.chars().take_while(|c| c.is_whitespace()).count()
}

fn is_item(text: &str) -> bool {
    text.trim_start().starts_with("- ")
}

/// Where the key of `- - key: …` stands.
fn key_column(text: &str) -> usize {
    text.chars().take_while(|c| c.is_whitespace() || *c == '-').count()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Path, Place},
        *,
    };

    struct Text(String);

    impl Places for Text {
        fn hide(&self, _: &Path, text: &str) -> String {
            text.to_owned()
        }

        fn file(&self) -> &str {
            ""
        }
        fn locate(&self, _: &Path) -> Option<Place> {
            None
        }
        fn line(&self, line: usize) -> Option<&str> {
            self.0.lines().nth(line - 1)
        }
    }

    /// `text` has `^` before the character that the column is of; the last line is shown.
    fn check(text: &str, expected: &str) {
        let last = text.lines().last().unwrap();
        let column = last.chars().position(|c| c == '^').unwrap() + 1;
        let places = Text(text.replace('^', ""));
        let masked = Masked::of(&places, text.lines().count()).unwrap();
        let column = masked.column(column);
        let mut shown: String = masked.shown.iter().collect();
        let byte = shown.char_indices().nth(column - 1).map_or(shown.len(), |(byte, _)| byte);
        shown.insert(byte, '^');
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn the_value_of_a_secret_key_is_hidden() {
        check("^secret: hunter2, and 'more' # x", "^secret: …");
        check("secret: hun^ter2", "secret: ^…");
        check("  - password: '^it''s'", "  - password: ^…");
        check("client_secret: \"a\\\"b\"  # ^note", "client_secret: …  # ^note");
        check("{id: a, hash: sha256:00, exp^ires: x}", "{id: a, hash: …, exp^ires: x}");
        check("{token: a, hash: b, x: ^1}", "{token: …, hash: …, x: ^1}");
        check("{\"password\":\"a\",^ x: 1}", "{\"password\":…,^ x: 1}");
        check("{password: &a \"b, c\", x: ^1}", "{password: ^…");
        check("secret:hunter2^", "secret:…^");
        check("secret: \"hunt^er2", "secret: ^…");
    }

    #[test]
    fn a_reference_is_no_secret() {
        check("secret: ^${env:NAME}", "secret: ^${env:NAME}");
        check("{secret: \"^${file:a/b}\", x: 1}", "{secret: \"^${file:a/b}\", x: 1}");
        check("{secret: ${env:NAME}, ^x: 1}", "{secret: ${env:NAME}, ^x: 1}");
        check("secret: ^${env:A}hunter2", "secret: ^…");
        check("secret: ^${hunter2}", "secret: ^…");
    }

    #[test]
    fn other_keys_stay() {
        check("hash_on: ^{header: X}", "hash_on: ^{header: X}");
        check("token_url: ^https://id.example.com/", "token_url: ^https://id.example.com/");
        check("tokens: [^]", "tokens: [^]");
    }

    #[test]
    fn a_secret_goes_on_below() {
        check("a:\n  secret: |\n    one\n\n    t^wo", "    ^…");
        check("secret: \"one\n  ^two\"", "  ^…");
        check("- secret: |\n    one\n     ^two", "     ^…");
        check("token:\n- ^one", "^…");
        check("- secret: |\n    one\n  ^id: x", "  ^id: x");
        check("a:\n  secret: |\n    one\nb: ^two", "b: ^two");
    }

    #[test]
    fn a_password_in_a_url_is_hidden() {
        check("url: ^redis://me:pw@host:1/x", "url: ^redis://me:…@host:1/x");
        check("url: ^redis://host:1/x@y", "url: ^redis://host:1/x@y");
        assert_eq!(without_url_passwords("a://b:c@d e://f:g@h"), "a://b:…@d e://f:…@h");
    }
}
