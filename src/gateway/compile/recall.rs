//! `cache` of a model: answers that are given again.
use std::{sync::Arc, time::Duration};

use super::words::{duration_or, resolve, size_or};
use crate::{
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        llm::{Model, Recall, Semantic},
    },
    llm::{Dialect, answers::Memory, api::anthropic::Version},
};

const ANTHROPIC: Dialect = Dialect::Anthropic(Version::V2023);
const TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
const MEMORY: u64 = 16 << 20;
const MEMORY_MIN: u64 = 1 << 20;
const MEMORY_MAX: u64 = 64 << 30;

pub(super) struct Scene<'a> {
    /// The model.
    pub label: &'a str,
    pub shared: &'a Shared,
    /// Those that say what a text means are among them.
    pub models: &'a Map<Arc<Model>>,
    pub at: &'a Path,
}

impl Scene<'_> {
    pub fn compile(&self, raw: &raw::LlmCache, problems: &mut Problems) -> Option<Recall> {
        let at = self.at.key("cache");
        if raw.ttl.is_none() {
            problems.add_with_hint(&at, "`ttl` is missing", "write `cache: {ttl: 10m}`");
        }
        let ttl = duration_or(raw.ttl.as_ref(), TTL_MAX, &at.key("ttl"), problems);
        if ttl > TTL_MAX {
            problems.add(&at.key("ttl"), "is at most 30d");
        }
        let bytes = size_or(raw.memory.as_ref(), MEMORY, &at.key("memory"), problems);
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes) {
            problems.add(&at.key("memory"), "is not within 1MiB and 64GiB");
            return None;
        }
        let semantic = match &raw.semantic {
            Some(raw) => Some(self.semantic(raw, &at.key("semantic"), problems)?),
            None => None,
        };
        // By its name and size: a reload finds what was answered.
        let key = format!("{}\0{bytes}", self.label);
        let memory = self.shared.llm_answers.get_or_make(&key, || Memory::new(bytes));
        Some(Recall { memory: problems.keep(&at, memory)?, ttl, semantic })
    }

    fn semantic(
        &self,
        raw: &raw::LlmSemantic,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<Semantic> {
        let threshold = match &raw.threshold {
            Some(Word(text)) => {
                let parsed = text.parse::<f32>().ok().filter(|it| (0.5..=1.0).contains(it));
                let parsed = parsed.ok_or_else(|| format!("`{text}` is not within 0.5 and 1"));
                problems.keep(&at.key("threshold"), parsed)
            }
            None => {
                let hint = "write `threshold: 0.95`; the nearer to 1, the more alike";
                problems.add_with_hint(at, "`threshold` is missing", hint);
                None
            }
        };
        let Some(Word(name)) = &raw.model else {
            problems.add(at, "`model` is missing: the one that says what a text means");
            return None;
        };
        let at = at.key("model");
        let model = resolve(name, "model without `semantic`", self.models, &at, problems)?;
        let has_none = [(Dialect::Bedrock, "Bedrock's Converse"), (ANTHROPIC, "Anthropic")];
        for (dialect, name) in has_none {
            if model.all().any(|it| it.provider.dialect.word() == dialect.word()) {
                problems.add(&at, format!("{name} has no embeddings"));
            }
        }
        Some(Semantic { model: model.clone(), threshold: threshold? })
    }
}
