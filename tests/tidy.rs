//! The habits of the house, as a test: sizes, module documents, layers, and words that do not belong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    found
}

#[test]
fn files_are_at_most_500_lines() {
    let long: Vec<_> = ["src", "tests", "benches", "vendor"]
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_module_says_what_it_is_in_1_to_6_lines() {
    let wrong: Vec<_> = sources("src")
        .into_iter()
        .map(|(path, text)| (path, text.lines().take_while(|it| it.starts_with("//!")).count()))
        .filter(|(path, lines)| {
            let is_test = path.to_string_lossy().ends_with("tests.rs");
            !(1..=6).contains(lines) && !is_test && !path.ends_with("lib.rs")
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The layers of `docs/ARCHITECTURE.md`: a module names lower ones only, and none of its own layer.
const LAYERS: &[&[&str]] = &[
    &["value", "diagnostic"],
    &["flow", "content"],
    &["telemetry", "shared", "store"],
    &["auth", "cache", "limit", "llm", "mcp", "upstream"],
    &["policy"],
    &["config"],
    &["gateway"],
    &["proxy", "admin"],
    &["reload"],
    &["server", "cli"],
];

#[test]
fn modules_name_lower_layers_only() {
    let layer: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(level, names)| names.iter().map(move |name| (*name, level)))
        .collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let inside = path.strip_prefix(&src).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = layer.get(first) else { continue };
        for named in names(&text) {
            // The process and its verbs are one layer and know each other.
            let is_fine = named == first
                || layer.get(named.as_str()).is_none_or(|it| it < own)
                || *own == LAYERS.len() - 1;
            if !is_fine {
                wrong.push(format!("{} names {named}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The modules of this crate that a file names: `crate::name` and `crate::{a, b::c}`.
fn names(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if !rest.starts_with('{') {
            found.push(word(rest));
            continue;
        }
        let mut depth = 0;
        let mut is_start = false;
        for (index, c) in rest.char_indices() {
            match c {
                '{' => {
                    depth += 1;
                    is_start = depth == 1;
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ',' if depth == 1 => is_start = true,
                c if c.is_whitespace() => {}
                _ if is_start => {
                    found.push(word(&rest[index..]));
                    is_start = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn only_the_data_path_sees_a_session() {
    let wrong: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, text)| {
            let path = path.to_string_lossy();
            let is_allowed = ["/proxy/", "/admin/", "/server"].iter().any(|it| path.contains(it));
            let names_session = text.contains("pingora::proxy::")
                || text.replace("ServerSessionStorage", "").contains("ServerSession");
            names_session && !is_allowed
        })
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn serde_yaml_is_behind_the_configuration() {
    let wrong: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, text)| {
            !path.to_string_lossy().contains("/config/") && text.contains("serde_yaml")
        })
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The fields of every struct, and of every variant of an enum, that derives `Debug`: `name: type`.
fn printed_fields(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut is_derived = false;
    // The indentation of the item that is being read.
    let mut inside = None;
    for line in text.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if let Some(derived) = code.strip_prefix("#[derive(") {
            is_derived = derived.contains("Debug");
        }
        let words: Vec<&str> = code.split([' ', '<', '(', '{', ';']).collect();
        let is_item = words.iter().take(3).any(|it| matches!(*it, "struct" | "enum"));
        match inside {
            None if is_item => {
                inside = (is_derived && code.ends_with('{')).then_some(indent);
                is_derived = false;
            }
            Some(start) if indent == start && code.starts_with('}') => inside = None,
            Some(_) if !code.starts_with("//") && !code.starts_with('#') => {
                // One field a line, or a variant with its fields on one.
                let fields = code.split_once('{').map_or(code, |(_, fields)| fields);
                found.extend(fields.split(", ").filter_map(|it| it.split_once(": ")));
            }
            _ => {}
        }
    }
    let name = |name: &str| name.rsplit(' ').next().map_or(0, |it| name.len() - it.len());
    found.into_iter().map(|(field, kind)| (&field[name(field)..], kind)).collect()
}

/// Whether `Debug` of a field of this name and type would print a secret.
fn is_printed_secret(name: &str, kind: &str) -> bool {
    let names = ["secret", "password", "token", "private_key", "passphrase", "verifier", "pem"];
    let last = |it: &str| name == it || name.ends_with(&format!("_{it}"));
    let is_text =
        ["String", "str", "u8", "Bytes", "HeaderValue"].iter().any(|it| kind.contains(it));
    names.iter().any(|it| last(it)) && is_text && !kind.contains("Secret<")
}

#[test]
fn no_secret_is_in_a_type_that_prints_itself() {
    let fields = "#[derive(Clone, Debug)]\npub struct A {\n    /// a: str\n    pub my_token: String,\n}\n\
        #[derive(Debug)]\nenum B {\n    C { secret: Vec<u8>, tokens: u64 },\n}\n\
        struct D {\n    password: String,\n}\n#[derive(Debug)]\nstruct E(Secret<u8>);\n\
        #[derive(Debug)]\nstruct F<'a> {\n    password: Secret<&'a str>,\n}\n";
    let found: Vec<_> = printed_fields(fields).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["my_token", "secret", "tokens", "password"]);
    let printed = |(name, kind): &(&str, &str)| is_printed_secret(name, kind);
    assert_eq!(printed_fields(fields).iter().filter(|it| printed(it)).count(), 2);

    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        // The tests of a module hold no secrets.
        let code = text.split("#[cfg(test)]").next().unwrap();
        let fields = printed_fields(code).into_iter().filter(printed);
        wrong.extend(fields.map(|(name, kind)| format!("{}: {name}: {kind}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_code_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/errors.md")).unwrap();
    let explained: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code))
        .collect();
    for code in tollgate::flow::rejection::Code::ALL {
        let row = format!("| `{}` | {} |", code.word(), code.status());
        assert!(document.contains(&row), "docs/errors.md lacks a row that begins {row}");
    }
    assert_eq!(explained.len(), tollgate::flow::rejection::Code::ALL.len(), "a code too many");
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether `text` has `word`, and not only as the beginning of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, it)| !text[at + it.len()..].starts_with(is_word))
}

/// Read through what holds them, in one expression with it.
const READ_ELSEWHERE: &[(&str, &str)] =
    &[("Server", "state_directory"), ("Sqlite", "path"), ("Postgres", "url")];

/// A key that can be written and that nothing reads would be taken and have no effect.
#[test]
fn every_key_of_the_configuration_is_read() {
    let all = sources("src");
    let is_raw = |path: &Path| path.ends_with("config/raw.rs");
    let raw = &all.iter().find(|(path, _)| is_raw(path)).unwrap().1;
    let declared = raw.split_once("\nraw! {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let declared: String =
        declared.lines().filter(|it| !it.trim_start().starts_with("//")).collect();
    let (mut keys, mut unread) = (0, Vec::new());
    for part in declared.split('}') {
        let Some((head, body)) = part.rsplit_once('{') else { continue };
        let name = head.trim().rsplit(|c: char| !is_word(c)).next().unwrap();
        // Its keys are methods, which one macro reads.
        if name == "Authenticator" {
            continue;
        }
        let named = format!("raw::{name}");
        let others = all.iter().filter(|it| !is_raw(&it.0)).map(|it| &it.1);
        let readers: Vec<&String> = others.clone().filter(|it| has_word(it, &named)).collect();
        for key in body.split(',').filter_map(|it| it.split_once(':')).map(|it| it.0.trim()) {
            keys += 1;
            let read = format!(".{key}");
            // What no file names is read where its parent is.
            let is_read = match readers.is_empty() {
                true => others.clone().any(|it| has_word(it, &read)),
                false => readers.iter().any(|it| has_word(it, &read)),
            };
            if !is_read && !READ_ELSEWHERE.contains(&(name, key)) {
                unread.push(format!("{name}.{key}"));
            }
        }
    }
    assert!(keys > 150, "only {keys} keys were found");
    assert!(unread.is_empty(), "{unread:?}");
}
