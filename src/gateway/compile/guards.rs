//! `llm.guards`, and which of them hold on a route.
use std::{sync::Arc, time::Duration};

use super::{
    oauth,
    words::{choice_or, duration_or, name, unknown},
};
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::Shared,
    llm::guard::{Action, Check, Guards, MOST, Rule, Side, Webhook, pattern::Pattern},
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// A call waits for it.
const MOST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of what takes the place of what is masked.
const WITH_MAX: usize = 256;

pub(super) fn compile(
    raw: Option<&[raw::LlmGuard]>,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Vec<Arc<Rule>> {
    let mut compiled: Vec<Arc<Rule>> = Vec::new();
    let raw = raw.unwrap_or_default();
    if raw.len() > MOST {
        problems.add(at, format!("there are at most {MOST} guards"));
        return compiled;
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let at = at.index(index);
        let Some(Word(label)) = &raw.name else {
            problems.add(&at, "`name` is missing: logs and metrics name the guard by it");
            continue;
        };
        problems.keep(&at.key("name"), name(label));
        if names.contains(&label.as_str()) {
            problems.add(&at.key("name"), format!("`{label}` stands in this list already"));
        }
        names.push(label);
        compiled.extend(rule(raw, label, shared, &at, problems).map(Arc::new));
    }
    compiled
}

fn rule(
    raw: &raw::LlmGuard,
    label: &str,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Rule> {
    let sides = sides(raw, at, problems);
    let (on_request, on_response) =
        (sides.contains(&Side::Request), sides.contains(&Side::Response));
    if raw.action.is_none() {
        problems.add_with_hint(at, "`action` is missing", "write block, mask or report");
    }
    let at_action = at.key("action");
    let action = choice_or(raw.action.as_ref(), Action::Block, &Action::ALL, &at_action, problems);
    if raw.with.is_some() && action != Action::Mask {
        problems.add(&at.key("with"), "only `action: mask` puts something in its place");
    }
    let check = match (&raw.pattern, &raw.webhook) {
        (Some(Word(text)), None) => {
            let pattern = Pattern::compile(text, on_response);
            let pattern = problems.keep(&at.key("pattern"), pattern)?;
            let with = raw.with.as_ref().map_or_else(|| format!("[{label}]"), |it| it.0.clone());
            if with.len() > WITH_MAX {
                problems.add(&at.key("with"), format!("is at most {WITH_MAX} bytes"));
            }
            Check::Pattern { pattern, with: with.into() }
        }
        (None, Some(raw)) => {
            if action == Action::Mask {
                let hint = "write block or report; patterns mask";
                problems.add_with_hint(&at_action, "a webhook says yes or no", hint);
            }
            Check::Webhook(webhook(raw, shared, &at.key("webhook"), problems)?)
        }
        _ => {
            problems.add(at, "exactly one is needed: `pattern` or `webhook`");
            return None;
        }
    };
    Some(Rule {
        name: label.into(),
        check,
        action,
        on_request,
        on_response,
        fingerprint: format!("{:?}", fingerprint(raw)).into(),
        metrics: shared.metrics.guard(label),
    })
}

/// What it is made of.
fn fingerprint(raw: &raw::LlmGuard) -> Vec<Option<&str>> {
    fn word(it: &Option<Word>) -> Option<&str> {
        it.as_ref().map(|it| it.0.as_str())
    }
    let webhook = raw.webhook.as_ref().and_then(|it| it.url.as_ref()).map(|it| it.0.as_str());
    let mut all =
        vec![word(&raw.name), word(&raw.pattern), word(&raw.action), word(&raw.with), webhook];
    all.extend(raw.on.iter().flatten().map(|it| Some(it.0.as_str())));
    all
}

/// Both where nothing is said.
fn sides(raw: &raw::LlmGuard, at: &Path, problems: &mut Problems) -> Vec<Side> {
    let Some(words) = &raw.on else { return vec![Side::Request, Side::Response] };
    let at = at.key("on");
    if words.is_empty() {
        problems.add(&at, "an empty list looks at nothing: write request, response or both");
    }
    let mut sides = Vec::new();
    for (index, Word(word)) in words.iter().enumerate() {
        match Side::ALL.iter().find(|(it, _)| it == word) {
            Some((_, side)) if sides.contains(side) => {
                problems.add(&at.index(index), format!("`{word}` stands in this list already"));
            }
            Some((_, side)) => sides.push(*side),
            None => unknown(word, "side", &["request", "response"], &at.index(index), problems),
        }
    }
    sides
}

fn webhook(
    raw: &raw::LlmWebhook,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Webhook> {
    let timeout = duration_or(raw.timeout.as_ref(), TIMEOUT, &at.key("timeout"), problems);
    if timeout > MOST_TIMEOUT {
        problems.add(&at.key("timeout"), "every call waits for it: at most 60s");
    }
    let outage = [("deny", false), ("allow", true)];
    let at_outage = at.key("on_outage");
    let allows_on_outage = choice_or(raw.on_outage.as_ref(), false, &outage, &at_outage, problems);
    let url = oauth::endpoint(raw.url.as_ref(), "url", at, problems)?;
    Some(Webhook { http: shared.http_client.clone(), url, timeout, allows_on_outage })
}

/// Those of a route, in their order in the file.
pub(super) fn chosen(
    words: Option<&[Word]>,
    all: &[Arc<Rule>],
    at: &Path,
    problems: &mut Problems,
) -> Guards {
    let Some(words) = words else { return Guards::new(all.to_vec()) };
    let known: Vec<&str> = all.iter().map(|it| &*it.name).collect();
    for (index, Word(word)) in words.iter().enumerate() {
        if !known.contains(&word.as_str()) {
            unknown(word, "guard", &known, &at.index(index), problems);
        } else if words.iter().take(index).any(|it| it.0 == *word) {
            problems.add(&at.index(index), format!("`{word}` stands in this list already"));
        }
    }
    let is_chosen = |rule: &&Arc<Rule>| words.iter().any(|it| it.0 == *rule.name);
    Guards::new(all.iter().filter(is_chosen).cloned().collect())
}
