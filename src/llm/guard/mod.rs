//! Guards: what may not go to a model or come back from one. Patterns are looked for in every text of a
//! call, whichever API it speaks, in tool calls and their results too, whole or as a stream; webhooks are
//! shown the same texts by whoever has connections. What stands here changes texts and counts nothing.
//!
//! `pattern` finds, `body` knows where texts stand in JSON, `events` and `frames` are the same for streams.
pub mod body;
pub mod events;
pub mod frames;
pub mod pattern;

use std::{sync::Arc, time::Duration};

use self::pattern::{Pattern, Tail};
use crate::{
    shared::http_client::{Client, Url},
    telemetry::{GuardMetrics, GuardOutcome},
};

/// What is done where a guard finds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call ends.
    Block,
    /// Something else takes its place.
    Mask,
    /// It is counted and passes.
    Report,
}

impl Action {
    pub const ALL: [(&'static str, Self); 3] =
        [("block", Self::Block), ("mask", Self::Mask), ("report", Self::Report)];

    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, it)| *it == self).map_or("", |(word, _)| word)
    }
}

/// Which way a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

impl Side {
    pub const ALL: [(&'static str, Self); 2] =
        [("request", Self::Request), ("response", Self::Response)];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Who finds it.
#[derive(Debug)]
pub enum Check {
    Pattern {
        pattern: Pattern,
        /// What takes its place.
        with: Box<str>,
    },
    Webhook(Webhook),
}

/// Somebody who is asked.
#[derive(Debug)]
pub struct Webhook {
    pub http: Client,
    pub url: Url,
    pub timeout: Duration,
    /// Whether a call goes on when there is no answer.
    pub allows_on_outage: bool,
}

/// A guard.
#[derive(Debug)]
pub struct Rule {
    pub name: Arc<str>,
    pub check: Check,
    pub action: Action,
    pub on_request: bool,
    pub on_response: bool,
    /// What it is made of: other guards, other answers.
    pub fingerprint: Box<str>,
    pub metrics: Arc<GuardMetrics>,
}

impl Rule {
    #[must_use]
    pub const fn is_on(&self, side: Side) -> bool {
        match side {
            Side::Request => self.on_request,
            Side::Response => self.on_response,
        }
    }

    const fn pattern(&self) -> Option<(&Pattern, &str)> {
        match &self.check {
            Check::Pattern { pattern, with } => Some((pattern, with)),
            Check::Webhook(_) => None,
        }
    }
}

/// Guards of one route, at most: which of them found something is bits of a number.
pub const MOST: usize = 64;

/// The guards of one route, in their order: each sees what those before it left.
#[derive(Clone, Debug)]
pub struct Guards {
    rules: Arc<[Arc<Rule>]>,
}

impl Default for Guards {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// Which guards found something, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found(u64);

impl Found {
    pub const fn add(&mut self, index: usize) {
        self.0 |= 1 << (index % MOST);
    }

    #[must_use]
    pub const fn has(self, index: usize) -> bool {
        self.0 >> (index % MOST) & 1 == 1
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Guards {
    /// Counts what was found in one call.
    pub fn count(&self, side: Side, found: Found) {
        for (_, rule) in self.of(side).filter(|(index, _)| found.has(*index)) {
            rule.metrics.record(match (side, rule.action) {
                (Side::Request, Action::Block) => GuardOutcome::RequestBlocked,
                (Side::Request, Action::Mask) => GuardOutcome::RequestMasked,
                (Side::Request, Action::Report) => GuardOutcome::RequestReported,
                (Side::Response, Action::Block) => GuardOutcome::ResponseBlocked,
                (Side::Response, Action::Mask) => GuardOutcome::ResponseMasked,
                (Side::Response, Action::Report) => GuardOutcome::ResponseReported,
            });
        }
    }

    /// The names of those that found something.
    pub fn names(&self, found: Found) -> impl Iterator<Item = &str> {
        let named = self.rules.iter().enumerate().filter(move |(index, _)| found.has(*index));
        named.map(|(_, rule)| &*rule.name)
    }
}

/// A call that may not go on, by the place of the guard that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked(pub usize);

/// One text as it streams, on its way through all guards.
#[derive(Clone, Debug, Default)]
pub struct Flow(Vec<Tail>);

impl Guards {
    #[must_use]
    pub fn new(rules: Vec<Arc<Rule>>) -> Self {
        Self { rules: rules.into() }
    }

    #[must_use]
    pub fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        self.rules.get(index).map_or("", |it| &*it.name)
    }

    fn of(&self, side: Side) -> impl Iterator<Item = (usize, &Arc<Rule>)> {
        self.rules.iter().enumerate().filter(move |(_, it)| it.is_on(side))
    }

    /// Whether anybody looks at what goes this way.
    #[must_use]
    pub fn look_at(&self, side: Side) -> bool {
        self.of(side).next().is_some()
    }

    /// Whether what goes this way may be changed or kept back, and not only be looked at.
    #[must_use]
    pub fn change(&self, side: Side) -> bool {
        self.of(side).any(|(_, it)| it.action != Action::Report)
    }

    pub fn webhooks(&self, side: Side) -> impl Iterator<Item = (usize, &Arc<Rule>, &Webhook)> {
        self.of(side).filter_map(|(index, rule)| match &rule.check {
            Check::Webhook(it) => Some((index, rule, it)),
            Check::Pattern { .. } => None,
        })
    }

    /// A text that is whole: what takes its place, if anything does.
    ///
    /// # Errors
    /// A guard blocks it.
    pub fn text(
        &self,
        side: Side,
        text: &str,
        found: &mut Found,
    ) -> Result<Option<String>, Blocked> {
        let mut changed: Option<String> = None;
        for (index, rule) in self.of(side) {
            let Some((pattern, with)) = rule.pattern() else { continue };
            let text = changed.as_deref().unwrap_or(text);
            match rule.action {
                Action::Mask => {
                    if let Some(masked) = pattern.replaced(text, with) {
                        found.add(index);
                        changed = Some(masked);
                    }
                }
                action if pattern.is_in(text) => {
                    found.add(index);
                    if action == Action::Block {
                        return Err(Blocked(index));
                    }
                }
                Action::Block | Action::Report => {}
            }
        }
        Ok(changed)
    }

    /// More of an answer's text: what of it may go out.
    ///
    /// # Errors
    /// A guard blocks it.
    pub fn more(
        &self,
        flow: &mut Flow,
        text: String,
        found: &mut Found,
    ) -> Result<String, Blocked> {
        self.flow(flow, text, false, found)
    }

    /// The end of an answer's text: what is left of it.
    ///
    /// # Errors
    /// A guard blocks it.
    pub fn end(&self, flow: &mut Flow, found: &mut Found) -> Result<String, Blocked> {
        self.flow(flow, String::new(), true, found)
    }

    fn flow(
        &self,
        flow: &mut Flow,
        mut text: String,
        is_last: bool,
        found: &mut Found,
    ) -> Result<String, Blocked> {
        flow.0.resize(self.rules.len(), Tail::default());
        let tails = self.rules.iter().zip(&mut flow.0).enumerate();
        for (index, (rule, tail)) in tails.filter(|(_, (rule, _))| rule.on_response) {
            let Some((pattern, with)) = rule.pattern() else { continue };
            let mut out = String::new();
            let mut is_found = pattern.advance(tail, &text, with, &mut out);
            if is_last {
                is_found |= pattern.end(tail, with, &mut out);
            }
            if is_found {
                found.add(index);
            }
            match rule.action {
                Action::Block if is_found => return Err(Blocked(index)),
                // Nobody waits for what is only counted.
                Action::Report => {}
                Action::Block | Action::Mask => text = out,
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn rule(name: &str, pattern: &str, action: Action) -> Arc<Rule> {
        let pattern = Pattern::compile(pattern, true).unwrap();
        Arc::new(Rule {
            name: name.into(),
            check: Check::Pattern { pattern, with: format!("[{name}]").into() },
            action,
            on_request: true,
            on_response: true,
            fingerprint: Box::default(),
            metrics: crate::telemetry::Metrics::new().unwrap().guard(name),
        })
    }

    fn guards() -> Guards {
        Guards::new(vec![
            rule("digits", r"\b\d{3,5}\b", Action::Mask),
            rule("word", "ab?c", Action::Report),
            rule("masked", r"x\[digits\]", Action::Mask),
            rule("bad", "bad", Action::Block),
        ])
    }

    #[test]
    fn each_guard_sees_what_those_before_it_left() {
        let check = |text: &str, expected: Result<&str, usize>, bits: u64| {
            let mut found = Found::default();
            let guarded = guards().text(Side::Response, text, &mut found);
            let guarded = guarded.map(|it| it.unwrap_or_else(|| text.to_owned()));
            assert_eq!(guarded, expected.map(str::to_owned).map_err(Blocked), "{text}");
            assert_eq!(found.0, bits, "{text}");
        };
        check("nothing", Ok("nothing"), 0);
        check("a 123 b", Ok("a [digits] b"), 1);
        check("abc 123", Ok("abc [digits]"), 3);
        check("x 12 x-123", Ok("x 12 x-[digits]"), 1);
        check("so bad", Err(3), 8);
    }

    proptest! {
        #[test]
        fn a_stream_is_guarded_as_the_whole_is(
            text in "(ab?c|b?ad|[abcdx1-3 -]{1,4}|12 ?3|x123){0,12}",
            cuts in proptest::collection::vec(0_usize..60, 0..10),
        ) {
            let guards = guards();
            let mut whole = Found::default();
            let expected = guards.text(Side::Response, &text, &mut whole);
            let expected = expected.map(|it| it.unwrap_or_else(|| text.clone()));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|it| it.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut flow, mut found) = (Flow::default(), Found::default());
            let mut stream = || {
                let mut out = String::new();
                for cut in cuts.windows(2) {
                    out += &guards.more(&mut flow, text[cut[0]..cut[1]].to_owned(), &mut found)?;
                }
                out += &guards.end(&mut flow, &mut found)?;
                Ok(out)
            };
            let streamed = stream();
            prop_assert_eq!(&streamed, &expected);
            if streamed.is_ok() {
                prop_assert_eq!(found, whole);
            }
        }
    }
}
