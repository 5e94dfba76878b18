//! The path that an upstream is asked for. A prefix goes, a regex (linear-time) is replaced, a prefix is
//! put before, in this order. What comes of it is canonical again, or the request is refused: no capture
//! becomes a dot segment, and so none leaves the prefix that was added.
use std::borrow::Cow;

use http::HeaderValue;
use regex::Regex;

use crate::value::path::{self, Rules};

#[derive(Debug)]
pub struct Rewrite {
    /// Whole segments: `/a` is no prefix of `/ab`.
    pub strip: Option<Box<str>>,
    pub replace: Option<Replace>,
    /// A canonical path without a slash at its end.
    pub add: Option<Box<str>>,
    pub host: Option<HeaderValue>,
    pub rules: Rules,
}

/// Replaces what a regex matches, each time.
#[derive(Debug)]
pub struct Replace {
    from: Regex,
    to: Box<[Piece]>,
}

#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    Group(usize),
}

/// What is wrong, and with which of the two.
#[derive(Debug, PartialEq, Eq)]
pub enum Mistake {
    From(String),
    To(String),
}

impl Rewrite {
    /// What becomes of a canonical path; none where it stays.
    ///
    /// # Errors
    /// Why it cannot be sent, for the log.
    pub fn path(&self, path: &str) -> Result<Option<String>, &'static str> {
        if !path.starts_with('/') {
            return Ok(None);
        }
        let rest = match &self.strip {
            Some(prefix) => strip(path, prefix).unwrap_or(path),
            None => path,
        };
        let replaced = match &self.replace {
            Some(replace) => replace.apply(if rest.is_empty() { "/" } else { rest }, self.rules)?,
            None => None,
        };
        let rest = replaced.as_deref().unwrap_or(rest);
        let add = self.add.as_deref().unwrap_or("");
        if add.is_empty() && rest == path {
            return Ok(None);
        }
        let whole = format!("{add}{rest}");
        Ok(Some(if whole.is_empty() { "/".to_owned() } else { whole }))
    }
}

fn strip<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Replace {
    /// `to` may name groups, `$1` or `${name}`; `$$` is a dollar.
    ///
    /// # Errors
    /// See [`Mistake`].
    pub fn parse(from: &str, to: &str) -> Result<Self, Mistake> {
        let from = Regex::new(from).map_err(|why| {
            // The lines before the last draw the place, which the file's own line shows.
            let why = why.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Mistake::From(format!("{from:?} is not a regex: {why}"))
        })?;
        let mut pieces = Vec::new();
        let mut rest = to;
        while let Some((before, after)) = rest.split_once('$') {
            push(&mut pieces, before)?;
            if let Some(after) = after.strip_prefix('$') {
                push(&mut pieces, "$")?;
                rest = after;
                continue;
            }
            let (name, after) = match after.strip_prefix('{') {
                Some(inner) => inner
                    .split_once('}')
                    .ok_or_else(|| Mistake::To("a `${` is not closed".to_owned()))?,
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
                }
            };
            pieces.push(Piece::Group(group(&from, name)?));
            rest = after;
        }
        push(&mut pieces, rest)?;
        Ok(Self { from, to: pieces.into() })
    }

    fn apply(&self, path: &str, rules: Rules) -> Result<Option<String>, &'static str> {
        let mut out = String::new();
        let mut end = 0;
        for found in self.from.captures_iter(path) {
            let Some(whole) = found.get(0) else { continue };
            out.push_str(path.get(end..whole.start()).unwrap_or_default());
            for piece in &self.to {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Group(index) => {
                        out.push_str(found.get(*index).map_or("", |it| it.as_str()));
                    }
                }
            }
            end = whole.end();
        }
        if end == 0 && out.is_empty() && !self.from.is_match(path) {
            return Ok(None);
        }
        out.push_str(path.get(end..).unwrap_or_default());
        if !out.starts_with('/') {
            out.insert(0, '/');
        }
        canonical(out, path, rules).map(Some)
    }
}

/// `path` if it is canonical, but for slashes that are merged. `before` is what it was made of.
fn canonical(path: String, before: &str, rules: Rules) -> Result<String, &'static str> {
    let it = path::canonicalise(&path, Rules { merge_slashes: false })
        .map_err(|_| "rewrite.regex makes what is no path")?;
    if it.path != path {
        return Err("rewrite.regex makes a path that is not canonical");
    }
    let has = |text: &str, what: [&str; 2]| what.iter().any(|it| text.contains(it));
    if it.has_encoded_slash && !has(before, ["%2F", "%5C"])
        || it.has_encoded_nul && !before.contains("%00")
    {
        return Err("rewrite.regex makes an encoded slash or NUL");
    }
    match path::canonicalise(&path, rules) {
        Ok(it) => match it.path {
            Cow::Borrowed(_) => Ok(path),
            Cow::Owned(merged) => Ok(merged),
        },
        Err(_) => Err("rewrite.regex makes what is no path"),
    }
}

/// # Errors
/// The text cannot stand in a canonical path.
fn push(pieces: &mut Vec<Piece>, text: &str) -> Result<(), Mistake> {
    if text.is_empty() {
        return Ok(());
    }
    let rooted = format!("/x{text}x");
    let is_fine = path::canonicalise(&rooted, Rules { merge_slashes: false })
        .is_ok_and(|it| it.path == rooted && !it.has_encoded_slash && !it.has_encoded_nul);
    if !is_fine {
        let text = text.escape_debug();
        return Err(Mistake::To(format!("`{text}` cannot stand in a path as it is")));
    }
    pieces.push(Piece::Text(text.into()));
    Ok(())
}

fn group(from: &Regex, name: &str) -> Result<usize, Mistake> {
    let index = match name.parse::<usize>() {
        Ok(index) => Some(index).filter(|it| *it < from.captures_len()),
        Err(_) => from.capture_names().position(|it| it == Some(name)),
    };
    index.ok_or_else(|| {
        let name = name.escape_debug();
        let why = format!("`from` has no group `{name}`; write `${{1}}x` for a group before text, and `$$` for a dollar");
        Mistake::To(why)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite(
        strip: &str,
        regex: Option<(&str, &str)>,
        add: &str,
        merge_slashes: bool,
    ) -> Rewrite {
        let some = |text: &str| Some(text).filter(|it| !it.is_empty()).map(Box::from);
        Rewrite {
            strip: some(strip),
            replace: regex.map(|(from, to)| Replace::parse(from, to).unwrap()),
            add: some(add),
            host: None,
            rules: Rules { merge_slashes },
        }
    }

    fn check(rewrite: &Rewrite, path: &str, expected: &str) {
        let found = rewrite.path(path).map(|it| it.unwrap_or_else(|| path.to_owned()));
        assert_eq!(found.as_deref(), Ok(expected), "{path} by {rewrite:?}");
    }

    fn refuse(rewrite: &Rewrite, path: &str) {
        assert!(rewrite.path(path).is_err(), "{path} becomes {:?}", rewrite.path(path));
    }

    #[test]
    fn whole_segments_are_stripped() {
        let it = rewrite("/orders", None, "", true);
        check(&it, "/orders/1", "/1");
        check(&it, "/orders", "/");
        check(&it, "/orders/", "/");
        check(&it, "/ordersx", "/ordersx");
        check(&it, "/Orders/1", "/Orders/1");
        check(&it, "/x/orders", "/x/orders");
        assert_eq!(it.path("/x"), Ok(None));
        assert_eq!(it.path("*"), Ok(None));
    }

    #[test]
    fn a_prefix_is_added() {
        let it = rewrite("/orders", None, "/v2", true);
        check(&it, "/orders/1", "/v2/1");
        check(&it, "/orders", "/v2");
        check(&it, "/orders/", "/v2/");
        check(&it, "/x", "/v2/x");
        check(&rewrite("", None, "/v2", true), "/", "/v2/");
    }

    #[test]
    fn a_regex_is_replaced_after_stripping_and_before_adding() {
        check(&rewrite("", Some(("^/old/(.*)", "/new/$1")), "", true), "/old/a/b", "/new/a/b");
        check(&rewrite("", Some(("^/old/(.*)", "/new/$1")), "", true), "/older", "/older");
        check(
            &rewrite("/x", Some(("^/(?P<id>[0-9]+)$", "/by/${id}")), "/v2", true),
            "/x/7",
            "/v2/by/7",
        );
        check(&rewrite("", Some(("_", "-")), "", true), "/a_b_c", "/a-b-c");
        check(&rewrite("", Some(("^/a/", "")), "", true), "/a/b", "/b");
        check(&rewrite("", Some(("^/a$", "")), "/v2", true), "/a", "/v2/");
        check(&rewrite("", Some(("^", "/$$$$")), "", true), "/a", "/$$/a");
        check(&rewrite("", Some(("b?", "")), "", true), "/ab", "/a");
        check(&rewrite("/a", Some(("^/$", "/root")), "", true), "/a", "/root");
        check(&rewrite("", Some(("^/(a)?(.*)$", "/$1-$2")), "", true), "/x", "/-x");
    }

    #[test]
    fn slashes_are_merged_where_the_server_merges_them() {
        let regex = Some(("^/old(.*)", "/new/$1"));
        check(&rewrite("", regex, "", true), "/old/a", "/new/a");
        check(&rewrite("", regex, "", false), "/old/a", "/new//a");
    }

    #[test]
    fn no_capture_leaves_the_prefix() {
        let dots = rewrite("", Some(("^/f/a(.*)$", "/$1")), "/safe", true);
        check(&dots, "/f/axx", "/safe/xx");
        for path in ["/f/a..", "/f/a../x", "/f/a.", "/f/a..;x", "/f/a..%2Fx"] {
            refuse(&dots, path);
        }
        let split = rewrite("", Some(("^/(%2)0(E)(%2)0(E)$", "/$1$2$3$4")), "/safe", true);
        refuse(&split, "/%20E%20E");
        refuse(&rewrite("", Some(("^/(%2)0(F)", "/$1$2")), "", true), "/%20F");
        refuse(&rewrite("", Some(("%", "")), "", true).also("^/(.)", "/%$1"), "/ab");
    }

    impl Rewrite {
        fn also(mut self, from: &str, to: &str) -> Self {
            // The text alone could not be compiled.
            let from = Regex::new(from).unwrap();
            let group = Piece::Group(1);
            let text = Piece::Text(to.trim_end_matches("$1").into());
            self.replace = Some(Replace { from, to: [text, group].into() });
            self
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_refused_when_parsed() {
        let from = |from: &str| {
            assert!(matches!(Replace::parse(from, "/"), Err(Mistake::From(_))), "{from}");
        };
        from("(");
        from("(?=a)");
        let to = |to: &str| {
            assert!(matches!(Replace::parse("^/(a)", to), Err(Mistake::To(_))), "{to}");
        };
        for text in [
            "/$2", "/$name", "/$1x", "/${1", "/$", "/a b", "/a?b=$1", "/é", "/a/../$1", "/%2f$1",
            "/%2F", "/%00", "/%",
        ] {
            to(text);
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_canonical_and_within_the_prefix(
            raw in "/[a./%2E;]{0,12}", from in "[a./]{1,3}", to in "[$1./a]{0,6}",
        ) {
            let rules = Rules { merge_slashes: true };
            let (Ok(path), Ok(replace)) =
                (path::canonicalise(&raw, rules), Replace::parse(&format!("({from})"), &to))
            else {
                return Ok(());
            };
            let it = Rewrite { replace: Some(replace), ..rewrite("", None, "/safe", true) };
            if let Ok(Some(sent)) = it.path(&path.path) {
                prop_assert!(sent.starts_with("/safe/"), "{}", sent);
                let again = path::canonicalise(&sent, rules);
                prop_assert_eq!(again.map(|it| it.path.into_owned()), Ok(sent));
            }
        }
    }
}
