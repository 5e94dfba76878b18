//! What a route does with bodies: `compress`.
use super::words::{size_or, unknown};
use crate::{
    config::raw::{self, Word},
    content::coding::Coding,
    diagnostic::{Path, Problems},
    gateway::Shared,
    policy::compress::Compress,
};

/// Bytes below which packing saves less than it costs.
const MIN_SIZE: u64 = 1 << 10;

/// A route as it stands in the file.
pub(super) struct Scene<'a> {
    pub route: &'a raw::Route,
    pub id: &'a str,
    pub shared: &'a Shared,
    pub at: &'a Path,
}

impl Scene<'_> {
    /// Notes what only makes sense where an upstream answers.
    fn needs_upstream(&self, at: &Path, problems: &mut Problems) {
        if self.route.redirect.is_some() || self.route.respond.is_some() {
            problems.add(at, "there is no upstream whose bodies this could be about");
        }
    }

    pub fn compress(&self, problems: &mut Problems) -> Option<Compress> {
        let raw = self.route.compress.as_ref()?;
        let at = self.at.key("compress");
        self.needs_upstream(&at, problems);
        let list = at.key("algorithms");
        let mut algorithms = Vec::new();
        for (index, Word(word)) in raw.algorithms.iter().flatten().enumerate() {
            let at = list.index(index);
            // By the very name: `x-gzip` is for old clients.
            match Coding::ALL.into_iter().find(|it| it.word() == word) {
                Some(it) if algorithms.contains(&it) => {
                    problems.add(&at, format!("`{word}` stands in this list already"));
                }
                Some(it) => algorithms.push(it),
                None => unknown(word, "algorithm", &Coding::ALL.map(Coding::word), &at, problems),
            }
        }
        if raw.algorithms.as_ref().is_some_and(Vec::is_empty) {
            let hint = "leave it out for zstd, br and gzip";
            problems.add_with_hint(&list, "an empty list compresses nothing", hint);
        }
        if raw.algorithms.is_none() {
            algorithms.extend(Coding::ALL);
        }
        Some(Compress {
            algorithms: algorithms.into(),
            min_size: size_or(raw.min_size.as_ref(), MIN_SIZE, &at.key("min_size"), problems),
            metrics: self.shared.metrics.bodies(self.id),
        })
    }
}
