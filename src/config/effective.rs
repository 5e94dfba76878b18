//! The configuration as it takes effect, as YAML for `check --print`: aliases written out, and
//! secrets and whatever is taken from `${…}` masked.
use serde_yaml::{Mapping, Value};

use super::{
    locate::Source,
    tree::{Entry, Kind, Node, Style},
};
use crate::diagnostic::mask;

/// YAML of the file's content without its secrets; empty if the text is not YAML.
#[must_use]
pub fn effective(source: &Source) -> String {
    // Writing maps with keys that are strings cannot fail.
    source
        .tree()
        .map(|tree| serde_yaml::to_string(&value(tree, false)).unwrap_or_default())
        .unwrap_or_default()
}

fn value(here: &Node, is_secret: bool) -> Value {
    match &here.kind {
        Kind::Dropped => Value::Null,
        Kind::Scalar { text, style } => scalar(text, *style, is_secret),
        Kind::List(items) => items.iter().map(|item| value(item, is_secret)).collect(),
        Kind::Map(entries) => {
            let pair = |Entry { key, value: it, .. }: &Entry| {
                (key.as_ref().into(), value(it, is_secret || mask::is_secret(key)))
            };
            entries.iter().map(pair).collect::<Mapping>().into()
        }
    }
}

fn scalar(text: &str, style: Style, is_secret: bool) -> Value {
    if style == Style::Plain && matches!(text, "" | "null" | "~") {
        return Value::Null;
    }
    if is_secret || text.replace("$${", "").contains("${") {
        return mask::MASK.into();
    }
    if style == Style::Plain {
        // Only what is written in the one way that it would be printed in: `1.20` is a word.
        let typed = serde_yaml::from_str(text).ok().filter(|it| match it {
            Value::Bool(it) => it.to_string() == text,
            Value::Number(it) => it.to_string() == text,
            _ => false,
        });
        if let Some(typed) = typed {
            return typed;
        }
    }
    mask::without_url_passwords(text).into()
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
            "version: 1\nroutes:\n- id: a\n  auth:\n  - b\n  - 'c: d'\n- {}\nplans: {}\nadmin: null\n",
        );
        check("a: &x [1, \"1\"]\nb: *x\n", "a:\n- 1\n- '1'\nb:\n- 1\n- '1'\n");
        check("a: 1.20\nb: true\nc: 0x10\n", "a: '1.20'\nb: true\nc: '0x10'\n");
    }

    #[test]
    fn no_secret_is_printed() {
        check("hash: sha256:00\n", "hash: …\n");
        check("secret: [a, {b: c}]\n", "secret:\n- …\n- b: …\n");
        check("url: \"x${env:Y}z\"\nbody: $${a}\n", "url: …\nbody: $${a}\n");
        check("url: redis://a:b@c/\n", "url: redis://a:…@c/\n");
    }
}
