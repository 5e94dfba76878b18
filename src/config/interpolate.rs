//! `${env:NAME}` and `${file:path}` in values; `$${` is a plain `${`. Works on the parsed tree,
//! never on the text, so that a secret cannot write YAML. No value is ever part of a message.
use std::{env::VarError, fs::File, io::Read, path::Path as FilePath};

use sha2::{Digest, Sha256};

use super::{
    brought::Brought,
    tree::{Kind, Node, Style, Trail, Way},
};
use crate::{
    diagnostic::{Diagnostic, Problems},
    value::secret::Secret,
};

/// Longest file that `${file:}` reads.
const LONGEST_FILE: u64 = 1 << 20;

/// How much all replacements together may add, in bytes.
const MOST_ADDED: usize = 64 << 20;

/// Where values come from.
pub struct Origin<'a> {
    /// What relative paths are relative to.
    pub base_dir: &'a FilePath,
    pub env: &'a dyn Fn(&str) -> Result<String, VarError>,
}

/// Replaces what is to be replaced in `root` and feeds every value used to `hash`. A value with a
/// problem is dropped from the tree, so that no second problem follows from it. Answers what it
/// brought in.
pub fn run(
    root: &mut Node,
    origin: &Origin<'_>,
    hash: &mut Sha256,
    problems: &mut Problems,
) -> Vec<Brought> {
    let mut walk = Walk { origin, hash, problems, brought: Vec::new(), added: 0 };
    walk.node(root, None);
    walk.brought
}

struct Walk<'w> {
    origin: &'w Origin<'w>,
    hash: &'w mut Sha256,
    problems: &'w mut Problems,
    brought: Vec<Brought>,
    added: usize,
}

struct Fault {
    message: String,
    hint: &'static str,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, up: Option<&Trail<'_>>) {
        match &mut node.kind {
            Kind::Dropped => {}
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let trail = Trail { up, step: Way::Index(index) };
                    self.node(item, Some(&trail));
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    let trail = Trail { up, step: Way::Key(&entry.key) };
                    self.node(&mut entry.value, Some(&trail));
                }
            }
            Kind::Scalar { text, style } => {
                if !text.contains("${") {
                    return;
                }
                match self.replace(text, up) {
                    Ok(Replaced { text: new, is_literal }) => {
                        *text = new.into();
                        *style = if is_literal { Style::Quoted } else { Style::Interpolated };
                    }
                    Err(Fault { message, hint }) => {
                        self.problems.push(Diagnostic {
                            path: Trail::path(up),
                            at: Some(node.at),
                            message,
                            hint: Some(hint.to_owned()),
                        });
                        node.kind = Kind::Dropped;
                    }
                }
            }
        }
    }

    fn replace(&mut self, text: &str, at: Option<&Trail<'_>>) -> Result<Replaced, Fault> {
        let mut replaced = Replaced { text: String::new(), is_literal: true };
        for piece in Pieces(text) {
            match piece? {
                Piece::Literal(text) => replaced.text.push_str(text),
                Piece::Env(name) => {
                    let value = self.env(name)?;
                    self.add(&mut replaced, value, at)?;
                }
                Piece::File(path) => {
                    let value = self.file(path)?;
                    self.add(&mut replaced, value, at)?;
                }
            }
        }
        Ok(replaced)
    }

    fn add(
        &mut self,
        replaced: &mut Replaced,
        value: String,
        at: Option<&Trail<'_>>,
    ) -> Result<(), Fault> {
        self.added = self.added.saturating_add(value.len());
        if self.added > MOST_ADDED {
            return Err(Fault {
                message: "the values of all `${…}` together are too long".to_owned(),
                hint: "64 MiB is the most",
            });
        }
        // With the length before each value, no two lists of values hash alike.
        self.hash.update(value.len().to_le_bytes());
        self.hash.update(&value);
        replaced.text.push_str(&value);
        let value = Secret::new(value.into_boxed_str());
        self.brought.push(Brought { path: Trail::path(at), value });
        replaced.is_literal = false;
        Ok(())
    }

    fn env(&self, name: &str) -> Result<String, Fault> {
        (self.origin.env)(name).map_err(|why| match why {
            VarError::NotPresent => Fault {
                message: format!("the environment variable {name} is not set"),
                hint: "set it where tollgate is started, or write ${file:path}",
            },
            VarError::NotUnicode(_) => Fault {
                message: format!("the environment variable {name} is not UTF-8"),
                hint: "only text can stand in a configuration",
            },
        })
    }

    /// The file's text without its last line break.
    fn file(&self, path: &str) -> Result<String, Fault> {
        let path = self.origin.base_dir.join(path);
        let fault = |why: &str| Fault {
            message: format!("cannot read {}: {why}", path.display()),
            hint: "a relative path is relative to the configuration file",
        };
        let unreadable = |error: std::io::Error| fault(&error.to_string());
        // Before it is opened: opening a pipe waits for a writer.
        if !std::fs::metadata(&path).map_err(unreadable)?.is_file() {
            return Err(fault("it is not a regular file"));
        }
        let file = File::open(&path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LONGEST_FILE {
            return Err(fault("it is longer than 1 MiB"));
        }
        let mut text = String::from_utf8(bytes).map_err(|_| fault("it is not UTF-8"))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }
}

struct Replaced {
    text: String,
    /// Whether nothing came from elsewhere: only `$${` was there.
    is_literal: bool,
}

enum Piece<'t> {
    Literal(&'t str),
    Env(&'t str),
    File(&'t str),
}

/// The pieces of a text, in order, up to the first that is wrong.
struct Pieces<'t>(&'t str);

impl<'t> Iterator for Pieces<'t> {
    type Item = Result<Piece<'t>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        if let Some(rest) = self.0.strip_prefix("$${") {
            self.0 = rest;
            return Some(Ok(Piece::Literal("${")));
        }
        let Some(rest) = self.0.strip_prefix("${") else {
            // From the second character on, so that each step takes something.
            let first = self.0.chars().next().map_or(0, char::len_utf8);
            let next = ["$${", "${"]
                .iter()
                .filter_map(|start| self.0.get(first..)?.find(start))
                .min()
                .map_or(self.0.len(), |at| at + first);
            let (literal, rest) = self.0.split_at_checked(next)?;
            self.0 = rest;
            return Some(Ok(Piece::Literal(literal)));
        };
        let Some((inner, rest)) = rest.split_once('}') else {
            self.0 = "";
            return Some(Err(Fault {
                message: "`${` is not closed by `}`".to_owned(),
                hint: "write $${ for a plain ${",
            }));
        };
        self.0 = rest;
        Some(reference(inner))
    }
}

fn reference(inner: &str) -> Result<Piece<'_>, Fault> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match inner.split_once(':') {
        Some(("env", name)) if is_name(name) => Ok(Piece::Env(name)),
        Some(("env", _)) => Err(Fault {
            message: "`${env:}` needs the name of a variable".to_owned(),
            hint: "a name has letters, digits and _, such as ${env:ORDERS_SECRET}",
        }),
        Some(("file", path)) if !path.is_empty() && !path.contains('\0') => Ok(Piece::File(path)),
        Some(("file", _)) => Err(Fault {
            message: "`${file:}` needs a path".to_owned(),
            hint: "write ${file:/run/secrets/name}",
        }),
        // What stands in the braces may be half of a secret: it is not repeated.
        _ => Err(Fault {
            message: "`${…}` is neither `${env:NAME}` nor `${file:path}`".to_owned(),
            hint: "write $${ for a plain ${",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn env(name: &str) -> Result<String, VarError> {
        match name {
            "A" => Ok("one".to_owned()),
            "YAML" => Ok("x}, {y: *z\n- \"".to_owned()),
            "LOOP" => Ok("${env:A}".to_owned()),
            "NUMBER" => Ok("42".to_owned()),
            "BYTES" => Err(VarError::NotUnicode("?".into())),
            _ => Err(VarError::NotPresent),
        }
    }

    fn run_on(value: &str, base_dir: &FilePath) -> (Node, Sha256, Problems) {
        let mut problems = Problems::default();
        let mut tree = yaml::read(&format!("- '{value}'"), &mut problems).unwrap();
        let mut hash = Sha256::new();
        run(&mut tree, &Origin { base_dir, env: &env }, &mut hash, &mut problems);
        let Kind::List(mut items) = tree.kind else { panic!("{tree:?}") };
        (items.remove(0), hash, problems)
    }

    fn check_in(base_dir: &FilePath, value: &str, expected: &str) {
        let (node, _, problems) = run_on(value, base_dir);
        assert!(problems.is_empty(), "{value}: {problems:?}");
        assert!(matches!(&node.kind, Kind::Scalar { text, .. } if **text == *expected), "{node:?}");
    }

    fn check(value: &str, expected: &str) {
        check_in(FilePath::new("."), value, expected);
    }

    fn check_refused_in(base_dir: &FilePath, value: &str, part: &str) {
        let (node, _, problems) = run_on(value, base_dir);
        assert!(matches!(node.kind, Kind::Dropped), "{node:?}");
        assert!(problems.0[0].message.contains(part), "{problems:?}");
        assert_eq!(problems.0[0].path.to_string(), "[0]");
    }

    fn check_refused(value: &str, part: &str) {
        check_refused_in(FilePath::new("."), value, part);
    }

    #[test]
    fn references_are_replaced_once_and_as_text() {
        check("${env:A}", "one");
        check("a${env:A}-${env:A}b", "aone-oneb");
        check("${env:YAML}", "x}, {y: *z\n- \"");
        check("${env:LOOP}", "${env:A}");
    }

    #[test]
    fn a_dollar_is_a_dollar() {
        check("$", "$");
        check("$1 $ {a} {env:A} $$", "$1 $ {a} {env:A} $$");
        check("$${env:A}", "${env:A}");
        check("$$${env:A}", "$${env:A}");
        check("ä$${ö}${env:A}", "ä${ö}one");
    }

    #[test]
    fn a_bad_reference_is_told_without_its_content() {
        check_refused("${env:NOT_THERE}", "NOT_THERE is not set");
        check_refused("${env:BYTES}", "BYTES is not UTF-8");
        check_refused("${env:}", "needs the name");
        check_refused("${env:A B}", "needs the name");
        check_refused("${file:}", "needs a path");
        check_refused("${A}", "is neither");
        check_refused("${}", "is neither");
        check_refused("a${env:A", "not closed");
        check_refused("${env:A}${", "not closed");
        let (_, _, problems) = run_on("${hunter2}", FilePath::new("."));
        assert!(!format!("{problems:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_is_read_without_its_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        for (content, expected) in
            [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", ""), ("a", "a")]
        {
            std::fs::write(folder.path().join("s"), content).unwrap();
            check_in(folder.path(), "${file:s}", expected);
            check(&format!("${{file:{}/s}}", folder.path().display()), expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_a_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| std::fs::write(folder.path().join("s"), bytes).unwrap();
        check_refused_in(folder.path(), "${file:s}", "No such file");
        check_refused_in(folder.path(), "${file:.}", "not a regular file");
        write(b"a\xff");
        check_refused_in(folder.path(), "${file:s}", "not UTF-8");
        write(&vec![b'a'; (1 << 20) + 1]);
        check_refused_in(folder.path(), "${file:s}", "longer than 1 MiB");
        let big = "${file:s}".repeat(65);
        write(&vec![b'a'; 1 << 20]);
        check_refused_in(folder.path(), &big, "together");
    }

    #[test]
    fn what_was_replaced_is_read_as_what_is_asked_for() {
        let style = |value| match run_on(value, FilePath::new(".")).0.kind {
            Kind::Scalar { style, .. } => style,
            kind => panic!("{kind:?}"),
        };
        assert_eq!(style("${env:NUMBER}"), Style::Interpolated);
        assert_eq!(style("$${env:NUMBER}"), Style::Quoted);
        assert_eq!(style("42"), Style::Quoted);
    }

    #[test]
    fn values_change_the_hash() {
        let hash = |value| run_on(value, FilePath::new(".")).1.finalize();
        assert_eq!(hash("${env:A}"), hash("${env:A}"));
        assert_ne!(hash("${env:A}"), hash("${env:LOOP}"));
        assert_eq!(hash("a"), Sha256::new().finalize());
    }
}
