//! `llm.prompts`, and the OpenAPI documents of the routes that answer with them.
use std::{collections::BTreeSet, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};

use super::{
    llm::Models,
    words::{name, number_or, resolve},
};
use crate::{
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems, did_you_mean},
    gateway::{
        Gateway, Shared,
        llm::Model,
        matcher::{PathPattern, Spec},
        route::{Action, Respond, Route},
    },
    llm::prompt::{Checked, Field, Kind, Mistake, Output, Prompt, Template, document, schema_of},
    policy::{Policy, report::Mode},
    shared::file,
};

/// Bytes of a schema.
const SCHEMA_MAX: u64 = 1 << 20;
/// Where a prompt's document is, below its own path.
const DOCUMENT: &str = "/openapi.json";

/// What prompts are compiled with.
pub(super) struct Scene<'a> {
    pub models: &'a Map<Arc<Model>>,
    pub base_dir: &'a FilePath,
    /// The snapshot before, where only the store has changed: no file of its prompts is read again.
    pub kept: Option<&'a Gateway>,
    pub at: &'a Path,
}

impl Scene<'_> {
    pub fn compile(
        &self,
        raw: Option<&Map<raw::LlmPrompt>>,
        problems: &mut Problems,
    ) -> Map<Arc<Prompt>> {
        let mut compiled = Map::new();
        for (label, raw) in raw.into_iter().flatten() {
            let at = self.at.key(label);
            problems.keep(&at, name(label));
            if let Some(kept) = self.kept.and_then(|it| used(it, label)) {
                compiled.insert(label.clone(), kept);
            } else if let Some(prompt) = self.prompt(raw, label, &at, problems) {
                compiled.insert(label.clone(), Arc::new(prompt));
            }
        }
        compiled
    }

    fn prompt(
        &self,
        raw: &raw::LlmPrompt,
        label: &str,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<Prompt> {
        let before = problems.0.len();
        let model = match &raw.model {
            Some(Word(model)) => resolve(model, "model", self.models, &at.key("model"), problems),
            None => {
                problems.add(at, "`model` is missing: the one of `models` that is asked");
                None
            }
        };
        let input = fields(raw.input.as_ref(), &at.key("input"), problems);
        let names: Vec<&str> = raw.input.iter().flatten().map(|(name, _)| name.as_str()).collect();
        let mut text = |word: &Option<Word>, key: &str| {
            let Word(text) = word.as_ref()?;
            template(text, &names, &at.key(key), problems)
        };
        let (system, user) = (text(&raw.system, "system"), text(&raw.user, "user"));
        if raw.user.is_none() {
            problems.add_with_hint(at, "`user` is missing", "write `user: \"{input.text}\"`");
        }
        let used: BTreeSet<&str> = system.iter().chain(&user).flat_map(Template::inputs).collect();
        for name in names.iter().filter(|it| !used.contains(**it)) {
            if problems.0.len() == before {
                let message = "stands in no text: nobody would hear of it";
                problems.add(&at.key("input").key(name), message);
            }
        }
        let output = self.output(raw, at, problems);
        let max_tokens = raw
            .max_tokens
            .map(|it| number_or(Some(it), 1_u64, 1..=10_000_000, &at.key("max_tokens"), problems));
        let temperature = raw.temperature.as_ref().and_then(|Word(text)| {
            let parsed = text.parse::<f64>().ok().filter(|it| (0.0..=2.0).contains(it));
            let parsed = parsed.ok_or_else(|| format!("`{text}` is not within 0 and 2"));
            problems.keep(&at.key("temperature"), parsed)
        });
        let input = problems.keep(at, Checked::new(schema_of(&input)))?;
        (problems.0.len() == before).then_some(())?;
        Some(Prompt {
            name: label.into(),
            model: model?.name.as_ref().into(),
            input,
            system,
            user: user?,
            output,
            max_tokens,
            temperature,
        })
    }

    fn output(&self, raw: &raw::LlmPrompt, at: &Path, problems: &mut Problems) -> Option<Output> {
        let schema = match (&raw.output, &raw.output_schema) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                problems.add(at, "`output` and `output_schema` exclude each other");
                return None;
            }
            (Some(raw), None) => {
                let at = at.key("output");
                let fields = fields(Some(raw), &at, problems);
                if fields.is_empty() {
                    problems.add(&at, "there is no member: leave it out for text");
                }
                for field in fields.iter().filter(|it| it.is_optional) {
                    problems.add(&at.key(&field.name), "is always answered: without ?");
                }
                schema_of(&fields)
            }
            (None, Some(Word(name))) => {
                let read = file::read(&self.base_dir.join(name), SCHEMA_MAX)
                    .and_then(|text| serde_json::from_slice(&text).map_err(|why| why.to_string()))
                    .and_then(Checked::new)
                    .map_err(|why| format!("{name}: {why}"));
                let checked = problems.keep(&at.key("output_schema"), read)?;
                return Some(Output { checked, is_strict: false });
            }
        };
        let checked = problems.keep(at, Checked::new(schema))?;
        Some(Output { checked, is_strict: true })
    }
}

/// The prompt of this name, if a route has it.
fn used(gateway: &Gateway, label: &str) -> Option<Arc<Prompt>> {
    gateway.routes.iter().find_map(|route| match &route.action {
        Action::Llm(llm) => llm.prompt.clone().filter(|it| *it.name == *label),
        _ => None,
    })
}

fn fields(raw: Option<&Map<Word>>, at: &Path, problems: &mut Problems) -> Vec<Field> {
    let mut all = Vec::new();
    for (label, Word(text)) in raw.into_iter().flatten() {
        let at = at.key(label);
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if label.is_empty() || label.len() > 64 || !label.chars().all(is_fine) {
            problems.add(&at, "is not a name: 1 to 64 of letters, digits, _ and -");
        }
        if let Some((kind, is_optional)) = problems.keep(&at, Kind::parse(text)) {
            all.push(Field { name: label.as_str().into(), kind, is_optional });
        }
    }
    all
}

fn template(text: &str, inputs: &[&str], at: &Path, problems: &mut Problems) -> Option<Template> {
    match Template::parse(text, inputs) {
        Ok(template) => return Some(template),
        Err(Mistake::Wrong(why)) => problems.add(at, why),
        Err(Mistake::Unknown(name)) => {
            let message = format!("unknown variable `{{{}}}`", name.escape_debug());
            let known: Vec<String> = inputs.iter().map(|it| format!("input.{it}")).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            match did_you_mean(&name, &known) {
                Some(near) => problems.add_with_hint(at, message, near),
                None if known.is_empty() => problems.add(at, message),
                None => {
                    let hint = format!("there is `{{{}}}`", known.join("}`, `{"));
                    problems.add_with_hint(at, message, hint);
                }
            }
        }
    }
    None
}

/// What a route answers with.
pub(super) fn chosen(
    word: &Word,
    models: &Models,
    raw: Option<&Map<raw::LlmPrompt>>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Arc<Prompt>> {
    let none = Map::new();
    // Against the raw names: one that failed to compile has its own problem already.
    resolve(&word.0, "prompt", raw.unwrap_or(&none), at, problems)?;
    models.prompts.get(&word.0).cloned()
}

/// The route that says what a prompt takes and answers, for whoever may ask it.
pub(super) fn published(
    spec: &Spec,
    route: &Route,
    policies: impl FnOnce() -> Vec<Policy>,
    shared: &Shared,
) -> Option<(Spec, Route)> {
    let Action::Llm(llm) = &route.action else { return None };
    let prompt = llm.prompt.as_ref()?;
    let exact = spec.paths.iter().filter_map(|it| match it {
        PathPattern::Exact(path) => Some(path.as_str()),
        _ => None,
    });
    let exact: Vec<&str> = exact.collect();
    if exact.is_empty() {
        return None;
    }
    let below =
        |path: &&str| PathPattern::Exact(format!("{}{DOCUMENT}", path.trim_end_matches('/')));
    let paths = exact.iter().map(below).collect();
    let spec = Spec { paths, methods: vec![Method::GET], ..spec.clone() };
    let mut policies = policies();
    policies.retain(|it| !matches!(it, Policy::Content(_) | Policy::Answer(_)));
    let route = Route {
        id: route.id.clone(),
        policies: policies.into(),
        mode: route.mode,
        action: Action::Respond(Respond {
            status: StatusCode::OK,
            body: Bytes::from(document(prompt, &exact).to_string()),
            content_type: HeaderValue::from_static("application/json"),
            headers: Box::default(),
        }),
        cache: None,
        cache_metrics: None,
        allows_encoded_slash: route.allows_encoded_slash,
        allows_encoded_nul: route.allows_encoded_nul,
        is_query_secret: false,
        mirror: None,
        is_grpc_web: false,
        metrics: route.metrics.clone(),
        reported: (route.mode == Mode::Report).then(|| shared.metrics.report(&route.id)),
    };
    Some((spec, route))
}
