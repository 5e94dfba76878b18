//! How a route writes the paths that it serves.
use std::{borrow::Cow, fmt};

use regex::Regex;

use crate::value::path::{self, Rules};

/// `/a` is that path; `/a/*` is every path that begins with `/a/` (and not `/a`, which is listed
/// beside it where it is meant); `~^/v[0-9]+$` is a regex that is looked for in the path.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// A canonical path.
    Exact(String),
    /// A canonical path without the `/*`: empty for `/*`.
    Prefix(String),
    Regex(Regex),
}

impl PathPattern {
    /// # Errors
    /// What is wrong with the text, for the person who wrote it. A pattern that is not in canonical
    /// form could never match and is refused with that form as the hint; slashes count as merged.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(regex) = text.strip_prefix('~') {
            return match Regex::new(regex) {
                _ if regex.is_empty() => Err("a regex must follow \"~\"".to_owned()),
                Ok(regex) => Ok(Self::Regex(regex)),
                Err(why) => {
                    // The lines before the last draw the place, which the file's own line shows.
                    let why = why.to_string();
                    let why = why.lines().last().unwrap_or_default();
                    Err(format!("{regex:?} is not a regex: {}", why.trim_start_matches("error: ")))
                }
            };
        }
        if !text.starts_with('/') {
            return Err(format!("{text:?} begins neither with \"/\" nor, as a regex, with \"~\""));
        }
        let prefix = text.strip_suffix("/*");
        if prefix.unwrap_or(text).contains('*') {
            return Err(format!(
                "{text:?} has a \"*\" that is not the whole last segment; write \"/a/*\" for all \
                 paths under \"/a/\", or a regex such as \"~^/a/[^/]+/b$\""
            ));
        }
        if text.contains('?') {
            return Err(format!("{text:?} has a \"?\"; a query is matched by `query`"));
        }
        let literal = prefix.map_or(Cow::Borrowed(text), |it| Cow::Owned(format!("{it}/")));
        let canonical = path::canonicalise(&literal, Rules { merge_slashes: true })
            .map_err(|why| format!("{text:?} can match no request: {why}"))?
            .path;
        if canonical != literal {
            let star = if prefix.is_some() { "*" } else { "" };
            return Err(format!("{text:?} can match no request; write \"{canonical}{star}\""));
        }
        Ok(prefix.map_or_else(|| Self::Exact(text.into()), |it| Self::Prefix(it.into())))
    }
}

/// As it is written.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/*"),
            Self::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_is_told_by_its_marks() {
        for text in ["/", "/a", "/a/", "/a%2Fb", "/*", "/a/*", "/a/b/*", "~^/v[0-9]+$", "~a*"] {
            let parsed = PathPattern::parse(text).unwrap();
            assert_eq!(parsed.to_string(), text);
            let kind = match parsed {
                PathPattern::Exact(_) => "exact",
                PathPattern::Prefix(_) => "prefix",
                PathPattern::Regex(_) => "regex",
            };
            let expected = match text {
                _ if text.starts_with('~') => "regex",
                _ if text.ends_with("/*") => "prefix",
                _ => "exact",
            };
            assert_eq!(kind, expected, "{text}");
        }
    }

    #[test]
    fn what_can_match_nothing_says_what_to_write() {
        for (text, hint) in [
            ("", "begins neither"),
            ("a", "begins neither"),
            ("*", "begins neither"),
            ("^/a", "as a regex, with \"~\""),
            ("~", "must follow"),
            ("~(", "not a regex"),
            ("/a*", "whole last segment"),
            ("/*/b", "whole last segment"),
            ("/*/*", "whole last segment"),
            ("/a/**", "whole last segment"),
            ("/a?b=c", "`query`"),
            ("/a//b", "write \"/a/b\""),
            ("//*", "write \"/*\""),
            ("/a/../b/*", "write \"/b/*\""),
            ("/%7euser", "write \"/~user\""),
            ("/a%2f*", "whole last segment"),
            ("/a%2fb", "write \"/a%2Fb\""),
            ("/../*", "above the root"),
            ("/a b", "percent-encoded"),
            ("/é", "percent-encoded"),
        ] {
            let why = PathPattern::parse(text).unwrap_err();
            assert!(why.contains(hint), "{text:?}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String, tricky in "[~/.*%2Fea(]{0,10}") {
            let _ = PathPattern::parse(&text);
            let _ = PathPattern::parse(&format!("/{text}/*"));
            if let Ok(parsed) = PathPattern::parse(&tricky) {
                prop_assert_eq!(parsed.to_string(), tricky);
            }
        }
    }
}
