//! `signature`.
use std::time::Duration;

use super::{Compiled, Scene};
use crate::{
    auth::{
        Method,
        signature::{
            self,
            component::Component,
            field::{Wanted, check_label, check_tag},
        },
    },
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::compile::words::duration_or,
    value::duration,
};

const MAX_AGE: Duration = Duration::from_secs(60);
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// Nonces are kept for so long.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What a signature covers unless the configuration says otherwise: all of the request but its fields.
const COMPONENTS: [&str; 3] = ["@method", "@target-uri", "content-digest"];

pub(super) fn compile(
    raw: &raw::Signature,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let at_max_age = at.key("max_age");
    let max_age = duration_or(raw.max_age.as_ref(), MAX_AGE, &at_max_age, problems);
    let at_skew = at.key("clock_skew");
    // None at all is fine here.
    let clock_skew = raw
        .clock_skew
        .as_ref()
        .map_or(Some(CLOCK_SKEW), |Word(text)| problems.keep(&at_skew, duration::parse(text)));
    let clock_skew = clock_skew.unwrap_or(CLOCK_SKEW);
    for (duration, at) in [(max_age, &at_max_age), (clock_skew, &at_skew)] {
        if duration > LONGEST {
            problems.add(at, "must be at most 1d");
        } else if duration.subsec_nanos() != 0 {
            problems.add(at, "must be whole seconds, as `created` is");
        }
    }
    let mut word = |word: &Option<Word>, key: &str, check: fn(&str) -> Result<(), String>| {
        let Word(text) = word.as_ref()?;
        problems.keep(&at.key(key), check(text))?;
        Some(text.as_str().into())
    };
    let label = word(&raw.label, "label", check_label);
    let tag = word(&raw.tag, "tag", check_tag);
    let config = signature::Config {
        components: components(raw, at, problems),
        max_age,
        clock_skew,
        require_nonce: raw.require_nonce.unwrap_or(false),
        wanted: Wanted { label, tag },
    };
    let keys = scene.identities.signature_keys.clone();
    let method = signature::Signature::new(config, keys, scene.shared.nonces.clone());
    Some(Method::Signature(method).into())
}

fn components(raw: &raw::Signature, at: &Path, problems: &mut Problems) -> Box<[Component]> {
    let at = at.key("components");
    let Some(words) = &raw.components else {
        return COMPONENTS.into_iter().filter_map(|it| Component::parse(it).ok()).collect();
    };
    if words.is_empty() {
        problems.add(&at, "a signature that may cover nothing proves nothing of the request");
    }
    let mut components = Vec::new();
    for (index, Word(text)) in words.iter().enumerate() {
        let at = at.index(index);
        if let Some(component) = problems.keep(&at, Component::parse(text)) {
            if components.contains(&component) {
                problems.add(&at, format!("`{text}` is there already"));
            }
            components.push(component);
        }
    }
    components.into()
}
