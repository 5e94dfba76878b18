//! Parsing of the words that stand everywhere: durations, sizes, names, whole numbers with bounds.
use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use crate::{
    config::raw::{Map, Word},
    diagnostic::{Path, Problems, did_you_mean},
    value::{
        duration, size,
        template::{self, Mistake, Template},
    },
};

/// The duration at `path`, or `default` where none is written (and where it is wrong, which is a
/// problem of its own).
pub(super) fn duration_or(
    word: Option<&Word>,
    default: Duration,
    path: &Path,
    problems: &mut Problems,
) -> Duration {
    let Some(Word(text)) = word else { return default };
    let parsed = duration::parse(text).and_then(|duration| {
        if duration.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(duration) }
    });
    problems.keep(path, parsed).unwrap_or(default)
}

/// The size in bytes at `path`, or `default`.
pub(super) fn size_or(
    word: Option<&Word>,
    default: u64,
    path: &Path,
    problems: &mut Problems,
) -> u64 {
    let Some(Word(text)) = word else { return default };
    problems.keep(path, size::parse(text)).unwrap_or(default)
}

/// The number at `path` within `range`, or `default`.
pub(super) fn number_or<T>(
    number: Option<u64>,
    default: T,
    range: RangeInclusive<T>,
    path: &Path,
    problems: &mut Problems,
) -> T
where
    T: TryFrom<u64> + PartialOrd + Display + Copy,
{
    let Some(number) = number else { return default };
    match T::try_from(number) {
        Ok(value) if range.contains(&value) => value,
        _ => {
            let message = format!("{number} is not within {} to {}", range.start(), range.end());
            problems.add(path, message);
            default
        }
    }
}

/// The one of `choices` that is written at `path`, or `default`.
pub(super) fn choice_or<T: Copy>(
    word: Option<&Word>,
    default: T,
    choices: &[(&str, T)],
    path: &Path,
    problems: &mut Problems,
) -> T {
    let Some(Word(text)) = word else { return default };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name == text) {
        return *value;
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    unknown(text, "value", &names, path, problems);
    default
}

/// What `name` stands for among `known`, or a problem that names the nearest one.
pub(super) fn resolve<'a, T>(
    name: &str,
    kind: &str,
    known: &'a Map<T>,
    path: &Path,
    problems: &mut Problems,
) -> Option<&'a T> {
    let found = known.get(name);
    if found.is_none() {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        unknown(name, kind, &names, path, problems);
    }
    found
}

pub(super) fn unknown(
    name: &str,
    kind: &str,
    known: &[&str],
    path: &Path,
    problems: &mut Problems,
) {
    let message = format!("unknown {kind} `{name}`");
    if let Some(near) = did_you_mean(name, known) {
        problems.add_with_hint(path, message, near);
    } else if known.is_empty() {
        problems.add(path, message);
    } else {
        let shown = known.iter().take(12).copied().collect::<Vec<_>>().join("`, `");
        let more = if known.len() > 12 { ", …" } else { "" };
        problems.add_with_hint(path, message, format!("there is `{shown}`{more}"));
    }
}

/// The template of the route `route` at `path`, or a problem that names the nearest variable.
pub(super) fn template(
    text: &str,
    route: &str,
    path: &Path,
    problems: &mut Problems,
) -> Option<Template> {
    match Template::parse(text, route) {
        Ok(template) => return Some(template),
        Err(Mistake::Wrong(why)) => problems.add(path, why),
        Err(Mistake::Unknown(name)) => {
            let message = format!("unknown variable `{{{}}}`", name.escape_debug());
            let near = did_you_mean(&name, &template::NAMES);
            let all = || format!("there is `{{{}}}`", template::NAMES.join("}`, `{"));
            problems.add_with_hint(path, message, near.unwrap_or_else(all));
        }
    }
    None
}

/// A name of ours (route, consumer, upstream, …): it stands in metrics, logs and headers.
///
/// # Errors
/// A sentence for people.
pub fn name(text: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-@:+".contains(c);
    if text.is_empty() || text.len() > 128 || !text.chars().all(is_fine) {
        return Err(format!(
            "`{}` is not a name: 1 to 128 of letters, digits and . _ - @ : +",
            text.escape_debug()
        ));
    }
    Ok(())
}
