//! Who may use which tool. What somebody may not use does not exist for them: it is in no list, and a call
//! of it is answered as one of a tool that is not there.
use std::sync::Arc;

use crate::flow::identity::Identity;

/// A name, or the beginning of one and a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    start: Box<str>,
    is_open: bool,
}

impl Pattern {
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (start, is_open) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        if text.is_empty() || start.contains('*') {
            return Err(format!(
                "`{}` is neither a name nor the beginning of one with a * at its end",
                text.escape_debug()
            ));
        }
        Ok(Self { start: start.into(), is_open })
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.is_open { name.starts_with(&*self.start) } else { name == &*self.start }
    }

    /// Whether some name that begins so may match.
    #[must_use]
    pub fn may_match(&self, beginning: &str) -> bool {
        self.start.starts_with(beginning) || self.is_open && beginning.starts_with(&*self.start)
    }
}

/// `allow` and `deny` of one server, by its own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// None: everything.
    pub allow: Option<Box<[Pattern]>>,
    pub deny: Box<[Pattern]>,
}

impl Filter {
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        let is_in = |all: &[Pattern]| all.iter().any(|it| it.matches(name));
        self.allow.as_deref().is_none_or(is_in) && !is_in(&self.deny)
    }
}

/// Whom a rule is for: everybody, or who is in one of these in each list that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub consumers: Box<[Arc<str>]>,
    pub groups: Box<[Arc<str>]>,
    pub scopes: Box<[Arc<str>]>,
}

impl Subject {
    #[must_use]
    pub fn covers(&self, identity: Option<&Identity>) -> bool {
        let consumer = identity.and_then(Identity::consumer);
        let is_named = self.consumers.is_empty()
            || consumer
                .is_some_and(|it| self.consumers.iter().any(|name| **name == *it.name.as_str()));
        let is_member = self.groups.is_empty()
            || consumer.is_some_and(|it| it.groups.iter().any(|group| self.groups.contains(group)));
        let has_scope = self.scopes.is_empty()
            || identity.is_some_and(|it| {
                it.credential.scopes.iter().any(|scope| self.scopes.contains(scope))
            });
        is_named && is_member && has_scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        let check = |pattern: &str, name: &str, expected| {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        };
        check("crm__search", "crm__search", true);
        check("crm__search", "crm__searches", false);
        check("crm__search", "CRM__search", false);
        check("crm__search_*", "crm__search_all", true);
        check("crm__search_*", "crm__search", false);
        check("*", "anything", true);
        for wrong in ["", "a*b", "**"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_is_seen_by_whom_some_of_its_tools_are_for() {
        let check = |pattern: &str, expected| {
            assert_eq!(Pattern::parse(pattern).unwrap().may_match("crm__"), expected, "{pattern}");
        };
        check("crm__search", true);
        check("crm__*", true);
        check("c*", true);
        check("*", true);
        check("crm2__*", false);
        check("orders__*", false);
        check("crm", false);
    }

    #[test]
    fn what_is_denied_is_denied_whatever_allows_it() {
        let parse = |it: &[&str]| it.iter().map(|it| Pattern::parse(it).unwrap()).collect();
        let filter = Filter { allow: Some(parse(&["a*", "b"])), deny: parse(&["ab"]) };
        let check = |name: &str, expected| assert_eq!(filter.admits(name), expected, "{name}");
        check("a", true);
        check("ab", false);
        check("abc", true);
        check("b", true);
        check("c", false);
        assert!(Filter::default().admits("c"));
    }
}
