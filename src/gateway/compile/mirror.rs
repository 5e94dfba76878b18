//! `mirror` of a route: where copies of its requests go, of how many of them, and what bounds them.
use std::sync::Arc;

use super::{
    routes::Scene,
    words::{number_or, resolve, size_or},
};
use crate::{
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    gateway::route::{Action, Mirror},
    limit::{Key, LimitId, Subject},
    upstream::Upstream,
};

/// Bytes of one body: short ones are what APIs mostly get, and a hundred of them are little.
const MAX_BODY: u64 = 64 << 10;
const MOST_BODY: u64 = 16 << 20;
const CONCURRENCY: u64 = 100;

/// The route that is mirrored.
pub(super) struct From<'a> {
    pub raw: &'a raw::Config,
    pub route: &'a str,
    pub action: Option<&'a Action>,
    pub scene: &'a Scene<'a>,
}

impl From<'_> {
    pub fn compile(
        &self,
        raw: Option<&raw::Mirror>,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<Arc<Mirror>> {
        let raw = raw?;
        let shared = self.scene.shared;
        let upstream = self.upstream(raw, at, problems);
        self.check_action(upstream.as_ref(), at, problems);
        let share = raw.percent.as_ref().map_or(Some(Mirror::WHOLE), |Word(text)| {
            problems.keep(&at.key("percent"), share(text))
        });
        let max_body = size_or(raw.max_body.as_ref(), MAX_BODY, &at.key("max_body"), problems);
        if max_body > MOST_BODY {
            problems.add(&at.key("max_body"), "a copy is held in memory: 16MiB at most");
        }
        let concurrency = at.key("concurrency");
        let concurrency =
            number_or(raw.concurrency, CONCURRENCY, 1..=100_000, &concurrency, problems);
        let upstream = upstream?;
        Some(Arc::new(Mirror {
            share: share?,
            max_body: usize::try_from(max_body).ok()?,
            concurrency,
            key: Key::new(LimitId::new("mirror", self.route, 0), Subject::Route),
            in_flight: shared.in_flight.clone(),
            metrics: shared.metrics.mirror(self.route),
            upstream_metrics: shared.metrics.upstream(upstream.name()),
            upstream,
        }))
    }

    fn upstream(
        &self,
        raw: &raw::Mirror,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<Arc<Upstream>> {
        let Some(Word(label)) = &raw.upstream else {
            problems.add(at, "`upstream` is missing");
            return None;
        };
        let none = Map::new();
        // Against the raw names: an upstream that failed to compile has its own problem already.
        let known = self.raw.upstreams.as_ref().unwrap_or(&none);
        resolve(label, "upstream", known, &at.key("upstream"), problems)?;
        self.scene.upstreams.get(label.as_str()).cloned()
    }

    fn check_action(&self, upstream: Option<&Arc<Upstream>>, at: &Path, problems: &mut Problems) {
        let is_same = |it: &Arc<Upstream>| upstream.is_some_and(|other| other.name() == it.name());
        let goes_there = match self.action {
            Some(Action::Proxy(upstream)) => is_same(upstream),
            Some(Action::Split(split)) => split.upstreams().any(is_same),
            Some(Action::Redirect(_) | Action::Respond(_) | Action::Llm(_) | Action::Mcp(_)) => {
                problems.add(at, "only what goes to an upstream can be mirrored");
                false
            }
            // A problem of its own.
            None => false,
        };
        if goes_there {
            let message = "requests go to this upstream anyway: each would come twice";
            problems.add(&at.key("upstream"), message);
        }
    }
}

/// `10`, `0.5`, `12.5%` is not one: the key says that it is percent.
fn share(text: &str) -> Result<u32, String> {
    const DIGITS: usize = 4;
    const UNIT: u32 = Mirror::WHOLE / 100;
    let wrong = || {
        format!(
            "`{}` is not a percentage: write a number from 0 to 100, such as 10 or 0.5, with at most \
             {DIGITS} decimals",
            text.escape_debug()
        )
    };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > DIGITS || whole.len() > 3 {
        return Err(wrong());
    }
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let decimals: u32 = format!("{decimals:0<DIGITS$}").parse().map_err(|_| wrong())?;
    let share = whole * UNIT + decimals;
    if share > Mirror::WHOLE { Err(wrong()) } else { Ok(share) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_may_have_decimals() {
        let check = |text: &str, expected: Option<u32>| {
            assert_eq!(share(text).ok(), expected, "{text}");
        };
        check("0", Some(0));
        check("10", Some(100_000));
        check("100", Some(1_000_000));
        check("0.5", Some(5_000));
        check("0.0001", Some(1));
        check("12.25", Some(122_500));
        check("100.0000", Some(1_000_000));
        for wrong in [
            "100.0001", "101", "1000", "-1", "+1", "", ".", "1.", ".5", "0.00001", "1e2", "5%", "½",
        ] {
            check(wrong, None);
        }
    }
}
