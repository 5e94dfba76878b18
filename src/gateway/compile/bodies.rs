//! What a route does with bodies: `validate`, `request_body`, `request_json`, `response_json`, `compress`.
use std::sync::Arc;

use super::{
    Source,
    words::{choice_or, size_or, template, unknown},
};
use crate::{
    config::{
        self,
        raw::{self, Choice, Map, Word},
    },
    content::{
        coding::Coding,
        edits::{Edits, Setting},
        json::Node,
        openapi::Api,
        pointer::Pointer,
        schema::Schema,
    },
    diagnostic::{Path, Problems},
    gateway::Shared,
    policy::{
        Policy,
        answer::Answer,
        compress::Compress,
        content::{Content, Convert},
    },
    shared::file,
    value::{size, template::Variable},
};

/// Bytes below which packing saves less than it costs.
const MIN_SIZE: u64 = 1 << 10;
/// Bytes of a body that are held where nothing is written, and where the most is.
const BUFFER: u64 = 1 << 20;
const BUFFER_MAX: u64 = 64 << 20;
/// Bytes of a schema.
const SCHEMA_MAX: u64 = 4 << 20;

/// A route as it stands in the file.
pub(super) struct Scene<'a> {
    pub route: &'a raw::Route,
    pub id: &'a str,
    pub is_public: bool,
    pub source: Source<'a>,
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

    /// Notes what does nothing to the answers of models: they never pass here.
    fn needs_forwarded_answer(&self, at: &Path, problems: &mut Problems) {
        if self.route.llm.is_some() {
            problems.add(at, "what models answer is neither changed nor compressed");
        }
        if self.route.mcp.is_some() {
            problems.add(at, "what tools answer is neither changed nor compressed");
        }
        self.needs_upstream(at, problems);
    }

    /// Bytes of a body that may be held.
    fn buffer(&self, problems: &mut Problems) -> usize {
        let at = self.at.key("body_buffer");
        let bytes = size_or(self.route.body_buffer.as_ref(), BUFFER, &at, problems);
        if !(1..=BUFFER_MAX).contains(&bytes) {
            problems.add(&at, format!("not within 1 and {}", size::format(BUFFER_MAX)));
        }
        usize::try_from(bytes.min(BUFFER_MAX)).unwrap_or(usize::MAX)
    }

    /// What is done with the bodies of requests.
    pub fn content(&self, problems: &mut Problems) -> Option<Content> {
        let route = self.route;
        let schema = route.validate.as_ref().and_then(|raw| self.schema(raw, problems));
        let api = route.validate.as_ref().and_then(|raw| self.api(raw, problems));
        let convert = route.request_body.as_ref().and_then(|raw| {
            let at = self.at.key("request_body");
            self.needs_upstream(&at, problems);
            let at = at.key("convert");
            if raw.convert.is_none() {
                let hint = "write `convert: form_to_json` or `convert: json_to_form`";
                problems.add_with_hint(&at, "`convert` is missing", hint);
            }
            let choices = Convert::ALL.map(|(word, it)| (word, Some(it)));
            choice_or(raw.convert.as_ref(), None, &choices, &at, problems)
        });
        let edits = route.request_json.as_ref();
        let edits = edits.map(|raw| {
            let at = self.at.key("request_json");
            self.needs_upstream(&at, problems);
            self.edits(raw, &at, problems)
        });
        let is_used = route.validate.is_some() || route.request_body.is_some() || edits.is_some();
        if route.body_buffer.is_some() && !is_used && route.response_json.is_none() {
            problems.add(&self.at.key("body_buffer"), "nothing on this route holds a body");
        }
        is_used.then(|| Content {
            convert,
            schema,
            api,
            edits,
            most: self.buffer(problems),
            metrics: self.shared.metrics.bodies(self.id),
        })
    }

    /// What is done with the JSON that the upstream answers.
    pub fn answer(&self, problems: &mut Problems) -> Option<Answer> {
        let raw = self.route.response_json.as_ref()?;
        let at = self.at.key("response_json");
        self.needs_forwarded_answer(&at, problems);
        let edits = self.edits(raw, &at, problems);
        // Said of the same key once.
        let most = self.buffer(&mut Problems::default());
        Some(Answer { edits, most, metrics: self.shared.metrics.bodies(self.id) })
    }

    /// Of the snapshot before, where only the store has changed: a file that somebody is editing is
    /// not read again for that.
    fn kept(&self) -> Option<&Content> {
        let route = self.source.kept?.routes.iter().find(|it| *it.id == *self.id)?;
        route.policies.iter().find_map(|it| match it {
            Policy::Content(content) => Some(&**content),
            _ => None,
        })
    }

    fn schema(&self, raw: &raw::Validate, problems: &mut Problems) -> Option<Arc<Schema>> {
        let at = self.at.key("validate");
        self.needs_upstream(&at, problems);
        if raw.request_schema.is_none() && raw.openapi.is_none() {
            let message = "write `request_schema`, the file of a JSON Schema, or `openapi`";
            problems.add(&at, message);
        }
        let Word(name) = raw.request_schema.as_ref()?;
        if let Some(kept) = self.kept() {
            return kept.schema.clone();
        }
        let compiled = file::read(&self.source.base_dir.join(name), SCHEMA_MAX)
            .and_then(|text| serde_json::from_slice(&text).map_err(|why| why.to_string()))
            .and_then(|schema| Schema::compile(&schema).map(Arc::new))
            .map_err(|why| format!("{name}: {why}"));
        problems.keep(&at.key("request_schema"), compiled)
    }

    fn api(&self, raw: &raw::Validate, problems: &mut Problems) -> Option<Arc<Api>> {
        let Word(name) = raw.openapi.as_ref()?;
        if let Some(kept) = self.kept() {
            return kept.api.clone();
        }
        let compiled = file::read(&self.source.base_dir.join(name), SCHEMA_MAX)
            .and_then(|text| String::from_utf8(text).map_err(|_| "not UTF-8".to_owned()))
            .and_then(|text| config::document(&text))
            .and_then(|document| Api::compile(document).map(Arc::new))
            .map_err(|why| format!("{name}: {why}"));
        problems.keep(&self.at.key("validate").key("openapi"), compiled)
    }

    fn edits(&self, raw: &raw::Json, at: &Path, problems: &mut Problems) -> Edits {
        let is_empty = raw.set.as_ref().is_none_or(Map::is_empty)
            && raw.remove.as_ref().is_none_or(Vec::is_empty)
            && raw.rename.as_ref().is_none_or(Map::is_empty);
        if is_empty {
            problems.add(at, "nothing is changed: write `set`, `remove` or `rename`");
        }
        let mut edits = (Vec::new(), Vec::new(), Vec::new());
        for (index, Word(text)) in raw.remove.iter().flatten().enumerate() {
            let at = at.key("remove").index(index);
            edits.0.extend(problems.keep(&at, Pointer::parse(text)));
        }
        for (from, Word(to)) in raw.rename.iter().flatten() {
            let at = at.key("rename").key(from);
            let from = problems.keep(&at, Pointer::parse(from));
            let to = problems.keep(&at, Pointer::parse(to));
            if let (Some(from), Some(to)) = (from, to) {
                edits.1.extend(renamed(from, to, &at, problems));
            }
        }
        for (pointer, value) in raw.set.iter().flatten() {
            let at = at.key("set").key(pointer);
            let pointer = problems.keep(&at, Pointer::parse(pointer));
            let setting = self.setting(value, &at, problems);
            edits.2.extend(pointer.zip(setting));
        }
        Edits { remove: edits.0.into(), rename: edits.1.into(), set: edits.2.into() }
    }

    fn setting(&self, value: &Choice, at: &Path, problems: &mut Problems) -> Option<Setting> {
        let text = match value {
            Choice::Word(text) => text,
            Choice::Pair(key, text) if key == "json" => {
                let node = Node::parse(text.as_bytes()).map(Node::into_owned);
                return problems.keep(at, node.map_err(|why| why.to_string())).map(Setting::Json);
            }
            Choice::Pair(..) => {
                let hint = "write a text, or `{json: \"…\"}` for a number, an object or a list";
                problems.add_with_hint(at, "not something that can be set", hint);
                return None;
            }
        };
        let template = template(text, self.id, at, problems)?;
        if self.is_public && template.variables().any(Variable::is_of_caller) {
            problems.add(at, "a public route knows no caller to name");
        }
        Some(Setting::Text(template))
    }

    pub fn compress(&self, problems: &mut Problems) -> Option<Compress> {
        let raw = self.route.compress.as_ref()?;
        let at = self.at.key("compress");
        self.needs_forwarded_answer(&at, problems);
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

/// Both ends of a move, if one can be made into the other.
fn renamed(
    from: Pointer,
    to: Pointer,
    at: &Path,
    problems: &mut Problems,
) -> Option<(Pointer, Pointer)> {
    if from.overlaps(&to) {
        problems.add(at, "one of them lies within the other");
    } else if (from.has_wildcard() || to.has_wildcard()) && !from.is_beside(&to) {
        problems.add(at, "with `*`, both must stand in the same object");
    } else {
        return Some((from, to));
    }
    None
}
