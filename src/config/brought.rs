//! The values that `${…}` brought into a configuration, kept to take them out of what is said about
//! it: a message names the word that is wrong, and that word may be a secret put in the wrong place.
use std::borrow::Cow;

use crate::{
    diagnostic::{Path, mask::MASK},
    value::secret::Secret,
};

/// Shorter values are taken out only where a message quotes nothing else: `a` is in every sentence.
const SHORT: usize = 4;
/// A shorter piece of a value tells nothing, and may be a word of ours: `sha256:`.
const PIECE: usize = 8;

/// One value and where it went.
#[derive(Debug)]
pub struct Brought {
    pub path: Path,
    pub value: Secret<Box<str>>,
}

/// `text`, which is about what stands at `path`, without the values.
pub fn hide(all: &[Brought], path: &Path, text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for brought in all {
        let value = brought.value.expose();
        replace(&mut text, value);
        replace(&mut text, &value.escape_debug().to_string());
        replace(&mut text, &value.to_lowercase());
        // A key in PEM is one value of many lines.
        value.lines().filter(|it| it.len() >= PIECE).for_each(|line| replace(&mut text, line));
    }
    let here = |it: &&Brought| it.path.contains(path) || path.contains(&it.path);
    let here: Vec<&Brought> = all.iter().filter(here).collect();
    if here.is_empty() {
        return text.into_owned();
    }
    // What was cut out of a value, such as the host of a URL.
    let is_piece = |quoted: &str| {
        let quoted = quoted.trim_end_matches('…');
        quoted.len() >= PIECE && here.iter().any(|it| it.value.expose().contains(quoted))
    };
    let pieces = text.split('`').enumerate().map(|(number, piece)| match number % 2 {
        1 if is_piece(piece) => MASK,
        _ => piece,
    });
    pieces.collect::<Vec<_>>().join("`")
}

fn replace(text: &mut Cow<'_, str>, value: &str) {
    let (value, by) = if value.chars().count() >= SHORT {
        (Cow::Borrowed(value), MASK.to_owned())
    } else {
        (Cow::Owned(format!("`{value}`")), format!("`{MASK}`"))
    };
    if text.contains(&*value) {
        *text = Cow::Owned(text.replace(&*value, &by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, text: &str, expected: &str) {
        let path = Path::root().key("a").index(0);
        let all = [Brought { path: path.clone(), value: Secret::new(value.into()) }];
        assert_eq!(hide(&all, &path, text), expected);
        assert_eq!(hide(&all, &path.key("b"), text), expected, "behind it");
    }

    #[test]
    fn no_value_is_quoted() {
        check("hunter2", "unknown plan `hunter2`", "unknown plan `…`");
        check("hunter2", "unknown plan `my-hunter2`", "unknown plan `my-…`");
        check("Hunter2", "bad host hunter2.", "bad host ….");
        check("a\nb2345", "`a\\nb2345` is no word", "`…` is no word");
        check("x", "`x` is not an address", "`…` is not an address");
        check("x", "expected `y`, say `z`", "expected `y`, say `z`");
        check("http://hunter2-host/x", "`hunter2-host` is no host", "`…` is no host");
        check("http://hunter2-host/x", "`hunter2-…` is no host", "`…` is no host");
        check("sha256:0011", "must be `sha256:` and 64 digits", "must be `sha256:` and 64 digits");
        check("-- KEY\nMIIEvQIBADAN\n", "found MIIEvQIBADAN", "found …");
        check("hunter2", "a ` too many", "a ` too many");
    }
}
