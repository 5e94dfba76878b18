//! `llm`: providers, their keys, the models that clients ask for; and what a route has of them.
use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::{
    Source, dialects, guards, prompts, recall, upstreams,
    words::{choice_or, duration_or, name, number_or, resolve, unknown},
};
use crate::{
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        llm::{Balance, Llm, MOST, Model, Provider, Retry, Target},
    },
    llm::{
        Dialect,
        api::Azure,
        estimate::Length,
        guard::Rule,
        keys::{self, Key, Pool},
        price::{Cost, Price},
        prompt::Prompt,
        seal::Tag,
        signer::{self, Signer},
        speed::Speed,
        thoughts::Memory,
    },
    upstream::{EndpointSpec, Spec, Upstream},
    value::secret::Secret,
};

/// No upstream of the file can have it: names have no slash.
const PREFIX: &str = "llm/";

const RETRIED: [u16; 6] = [429, 500, 502, 503, 504, 529];

type Upstreams = BTreeMap<Arc<str>, Arc<Upstream>>;

/// What routes refer to.
pub(super) struct Models {
    pub providers: BTreeMap<Arc<str>, Arc<Provider>>,
    pub models: Map<Arc<Model>>,
    pub prompts: Map<Arc<Prompt>>,
    pub guards: Vec<Arc<Rule>>,
    thoughts: Arc<Memory>,
}

pub(super) fn compile(
    source: &Source<'_>,
    shared: &Shared,
    upstreams: &mut Upstreams,
    root: &Path,
    problems: &mut Problems,
) -> Models {
    let (providers, models) = (BTreeMap::new(), Map::new());
    let (prompts, guards, thoughts) = (Map::new(), Vec::new(), shared.llm_thoughts.clone());
    let mut compiled = Models { providers, models, prompts, guards, thoughts };
    let Source { raw, base_dir, kept, .. } = *source;
    let Some(raw) = &raw.llm else { return compiled };
    let at = root.key("llm");
    let none = Map::new();
    let raw_providers = raw.providers.as_ref().unwrap_or(&none);
    for (label, raw) in raw_providers {
        let at = at.key("providers").key(label);
        problems.keep(&at, name(label));
        let scene = Scene { label, base_dir, shared, at: &at };
        if let Some(provider) = scene.provider(raw, upstreams, problems) {
            compiled.providers.insert(provider.name.clone(), Arc::new(provider));
        }
    }
    // Those last that ask others what a question means.
    let asks = |it: &&raw::LlmModel| it.cache.as_ref().is_some_and(|it| it.semantic.is_some());
    for is_last in [false, true] {
        let due = raw.models.iter().flatten().filter(|(_, it)| asks(it) == is_last);
        for (label, raw) in due {
            let at = at.key("models").key(label);
            problems.keep(&at, model_name(label));
            let scene = Scene { label, base_dir, shared, at: &at };
            let targets = Targets { raw: raw_providers, compiled: &compiled.providers };
            let mut model = scene.model(raw, &targets, problems);
            let scene = recall::Scene { label, shared, models: &compiled.models, at: &at };
            model.recall = raw.cache.as_ref().and_then(|it| scene.compile(it, problems));
            compiled.models.insert(label.clone(), Arc::new(model));
        }
    }
    let (models, prompts_at) = (&compiled.models, at.key("prompts"));
    let scene = prompts::Scene { models, base_dir, kept, at: &prompts_at };
    compiled.prompts = scene.compile(raw.prompts.as_ref(), problems);
    compiled.guards = guards::compile(raw.guards.as_deref(), shared, &at.key("guards"), problems);
    compiled
}

/// A name that clients ask for: it stands in paths, too.
fn model_name(text: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-@:/+".contains(c);
    if text.is_empty() || text.len() > 128 || !text.chars().all(is_fine) {
        return Err(format!(
            "`{}` is not a model's name: 1 to 128 of letters, digits and . _ - @ : / +",
            text.escape_debug()
        ));
    }
    Ok(())
}

struct Scene<'a> {
    label: &'a str,
    base_dir: &'a FilePath,
    shared: &'a Shared,
    at: &'a Path,
}

struct Targets<'a> {
    raw: &'a Map<raw::LlmProvider>,
    compiled: &'a BTreeMap<Arc<str>, Arc<Provider>>,
}

impl Scene<'_> {
    fn provider(
        &self,
        raw: &raw::LlmProvider,
        upstreams: &mut Upstreams,
        problems: &mut Problems,
    ) -> Option<Provider> {
        let before = problems.0.len();
        let dialect = dialects::read(raw, self.at, problems);
        let keys = self.keys(raw, dialect, problems);
        let Some(Word(url)) = &raw.url else {
            problems.add(self.at, "`url` is missing, such as https://api.openai.com/v1");
            return None;
        };
        let (origin, base) = problems.keep(&self.at.key("url"), dialects::split(url))?;
        let address = problems.keep(&self.at.key("url"), Spec::parse_url(origin))?;
        let dialect = dialects::settle(dialect, raw.compatible, &address.host);
        let upstream: Arc<str> = format!("{PREFIX}{}", self.label).into();
        let mut spec = Spec::new(upstream.clone(), vec![EndpointSpec { address, weight: 1 }]);
        spec.keepalive = 512;
        // Vendors are far away.
        spec.timeouts.connect = Duration::from_secs(5);
        let at = self.at.key("tls");
        // Of a snapshot that is only changed it is there already, and no file of it is read again.
        let known = upstreams.get(&upstream).cloned();
        if known.is_none() {
            let tls = raw.tls.as_ref();
            spec.tls = tls.and_then(|it| upstreams::tls(it, self.base_dir, &at, problems));
        }
        if problems.0.len() > before {
            return None;
        }
        let known = match known {
            Some(known) => known,
            None => {
                let made = Upstream::new(spec, &self.shared.endpoints);
                let made = Arc::new(problems.keep(self.at, made)?);
                upstreams.insert(upstream, made.clone());
                made
            }
        };
        let version = match dialect {
            Dialect::Azure(Azure::Deployments) => {
                raw.version.as_ref().map(|it| it.0.as_str().into())
            }
            _ => None,
        };
        Some(Provider {
            name: self.label.into(),
            dialect,
            base: base.into(),
            upstream: known,
            version,
            keys,
            key_header: dialects::key_header(dialect),
            tag: Tag::new(self.label),
        })
    }

    fn keys(&self, raw: &raw::LlmProvider, dialect: Dialect, problems: &mut Problems) -> Pool {
        let at = self.at.key("keys");
        let region = dialects::region(raw);
        let mut compiled: Vec<Key> = Vec::new();
        let raw = raw.keys.as_deref().unwrap_or_default();
        if raw.len() > keys::MOST {
            problems.add(&at, format!("a provider has at most {} keys", keys::MOST));
            return Pool::default();
        }
        for (index, key) in raw.iter().enumerate() {
            let at = at.index(index);
            let weight = number_or(key.weight, 1_u64, 0..=1_000_000, &at.key("weight"), problems);
            let Some(Word(id)) = &key.id else {
                problems.add(&at, "`id` is missing: logs and metrics name the key by it");
                continue;
            };
            problems.keep(&at.key("id"), name(id));
            if compiled.iter().any(|it| *it.id == **id) {
                problems.add(&at.key("id"), format!("`{id}` stands in this list already"));
            }
            let Some(Word(secret)) = &key.secret else {
                problems.add_with_hint(&at, "`secret` is missing", "write \"${env:NAME}\"");
                continue;
            };
            let Some(value) =
                problems.keep(&at.key("secret"), dialects::header_value(secret, dialect))
            else {
                continue;
            };
            // By the secret too: another one in its place begins anew.
            let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
            let state = format!("{}\0{id}\0{hash:?}", self.label);
            let state =
                self.shared.llm_keys.get_or_make(&state, || Ok::<_, String>(Default::default()));
            let Some(state) = problems.keep(&at, state) else { continue };
            let (id, value) = (id.as_str().into(), Secret::new(value));
            let signs = dialect == Dialect::Bedrock && signer::is_access_key(secret);
            let signer = if signs { self.signer(secret, region, &at, problems) } else { None };
            compiled.push(Key { id, value, signer, weight, state });
        }
        if !compiled.is_empty() && compiled.iter().all(|it| it.weight == 0) {
            problems.add(&at, "no key has a weight: none would be used");
        }
        Pool::new(compiled)
    }

    fn signer(
        &self,
        secret: &str,
        region: Option<&str>,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<Box<Signer>> {
        let Some(region) = region else {
            let why = "`region` is missing: a key that signs is for one of Amazon's";
            problems.add_with_hint(self.at, why, "write `region: eu-west-1`");
            return None;
        };
        problems.keep(&at.key("secret"), Signer::new(secret, region)).map(Box::new)
    }

    fn model(&self, raw: &raw::LlmModel, known: &Targets<'_>, problems: &mut Problems) -> Model {
        let targets = self.targets(raw.targets.as_deref(), "targets", known, problems);
        let fallback = self.targets(raw.fallback.as_deref(), "fallback", known, problems);
        let at = self.at.key("targets");
        if raw.targets.as_ref().is_none_or(Vec::is_empty) {
            let hint = "write `targets: [{provider: openai, model: gpt-5-mini}]`";
            problems.add_with_hint(&at, "there is no target", hint);
        }
        if !targets.is_empty() && targets.iter().all(|it| it.weight == 0) {
            problems.add(&at, "no target has a weight: no request could be sent anywhere");
        }
        let none = raw::LlmTimeouts::default();
        let timeouts = raw.timeouts.as_ref().unwrap_or(&none);
        let at = self.at.key("timeouts");
        let seconds = Duration::from_secs;
        let total = duration_or(timeouts.total.as_ref(), seconds(600), &at.key("total"), problems);
        let first = &at.key("first_byte");
        let first_byte = duration_or(timeouts.first_byte.as_ref(), seconds(30), first, problems);
        let whole = duration_or(timeouts.whole.as_ref(), seconds(300), &at.key("whole"), problems);
        let length =
            self.shared.llm_lengths.get_or_make(self.label, || Ok::<_, String>(Length::default()));
        let ways = [("weighted", Balance::Weighted), ("least_latency", Balance::LeastLatency)];
        let at = self.at.key("balance");
        let balance = choice_or(raw.balance.as_ref(), Balance::Weighted, &ways, &at, problems);
        Model {
            name: self.label.into(),
            targets,
            balance,
            fallback,
            length: length.unwrap_or_default(),
            retry: self.retry(raw.retry.as_ref(), problems),
            first_byte: first_byte.min(total),
            whole: whole.min(total),
            total,
            recall: None,
            price: raw.price.as_ref().and_then(|it| price(it, &self.at.key("price"), problems)),
            metrics: self.shared.metrics.llm_model(self.label),
        }
    }

    fn targets(
        &self,
        raw: Option<&[raw::LlmTarget]>,
        key: &str,
        known: &Targets<'_>,
        problems: &mut Problems,
    ) -> Box<[Target]> {
        let at = self.at.key(key);
        let raw = raw.unwrap_or_default();
        if raw.len() > MOST {
            problems.add(&at, format!("a model has at most {MOST} of them"));
            return Box::default();
        }
        let mut targets = Vec::new();
        for (index, target) in raw.iter().enumerate() {
            let at = at.index(index);
            let weight =
                number_or(target.weight, 1_u64, 0..=1_000_000, &at.key("weight"), problems);
            let Some(Word(provider)) = &target.provider else {
                problems.add(&at, "`provider` is missing");
                continue;
            };
            let model = target.model.as_ref().map(|it| it.0.as_str());
            let Some(model) = model else {
                problems.add(&at, "`model` is missing: what the provider calls it");
                continue;
            };
            problems.keep(&at.key("model"), model_name(model));
            if key == "fallback" && target.weight.is_some() {
                problems.add(&at.key("weight"), "fallbacks are tried in their order: no weight");
            }
            resolve(provider, "provider", known.raw, &at.key("provider"), problems);
            // One that failed to compile has its own problem already.
            let Some(provider) = known.compiled.get(provider.as_str()) else { continue };
            let metrics = self.shared.metrics.llm_tries(self.label, &provider.name);
            let known = format!("{}\0{}\0{model}", self.label, provider.name);
            let speed =
                self.shared.llm_speeds.get_or_make(&known, || Ok::<_, String>(Speed::default()));
            let Some(speed) = problems.keep(&at, speed) else { continue };
            let (provider, model) = (provider.clone(), model.into());
            targets.push(Target { provider, model, weight, metrics, speed });
        }
        targets.into()
    }

    fn retry(&self, raw: Option<&raw::LlmRetry>, problems: &mut Problems) -> Retry {
        let at = self.at.key("retry");
        let default = raw::LlmRetry::default();
        let raw = raw.unwrap_or(&default);
        let attempts = number_or(raw.attempts, 2_u32, 0..=10, &at.key("attempts"), problems);
        let Some(words) = &raw.on else {
            let statuses = RETRIED.into();
            return Retry { attempts, statuses, on_timeout: true, on_connect: true };
        };
        let mut retry =
            Retry { attempts, statuses: Box::default(), on_timeout: false, on_connect: false };
        let mut statuses = Vec::new();
        for (index, Word(word)) in words.iter().enumerate() {
            match (word.as_str(), word.parse()) {
                ("timeout", _) => retry.on_timeout = true,
                ("connect", _) => retry.on_connect = true,
                (_, Ok(status @ (408 | 409 | 429 | 500..=599))) => statuses.push(status),
                _ => unknown(
                    word,
                    "reason to try again",
                    &["connect", "timeout", "408", "409", "429", "500", "502", "503", "504", "529"],
                    &at.key("on").index(index),
                    problems,
                ),
            }
        }
        retry.statuses = statuses.into();
        retry
    }
}

fn price(raw: &raw::LlmPrice, at: &Path, problems: &mut Problems) -> Option<Price> {
    let mut read = |word: &Option<Word>, key: &str| {
        let parsed = Cost::parse_per_million(&word.as_ref()?.0);
        problems.keep(&at.key(key), parsed)
    };
    let input = read(&raw.input, "input");
    let cached_input = read(&raw.cached_input, "cached_input");
    let output = read(&raw.output, "output");
    for (word, key) in [(&raw.input, "input"), (&raw.output, "output")] {
        if word.is_none() {
            problems.add(at, format!("`{key}` is missing: US dollars a million tokens"));
        }
    }
    let input = input?;
    Some(Price { input, cached_input: cached_input.unwrap_or(input), output: output? })
}

/// What a route has of the models.
pub(super) fn route(
    raw: &raw::RouteLlm,
    all: &raw::Config,
    models: &Models,
    at: &Path,
    problems: &mut Problems,
) -> Llm {
    let at = &at.key("llm");
    let mut known = BTreeMap::new();
    let words = raw.models.as_deref().unwrap_or_default();
    let prompts = all.llm.as_ref().and_then(|it| it.prompts.as_ref());
    let prompt = raw
        .prompt
        .as_ref()
        .and_then(|word| prompts::chosen(word, models, prompts, &at.key("prompt"), problems));
    if raw.models.is_none()
        && let Some(prompt) = &prompt
        && let Some(model) = models.models.get(&*prompt.model)
    {
        known.insert(model.name.clone(), model.clone());
    }
    if raw.prompt.is_some() && raw.models.is_some() {
        problems.add(at, "`models` and `prompt` exclude each other: a prompt names its model");
    } else if words.is_empty() && raw.prompt.is_none() {
        let hint = "write `llm: {models: [fast]}` or `llm: {prompt: sentiment}`";
        problems.add_with_hint(at, "`models` is missing", hint);
    }
    for (index, Word(word)) in words.iter().enumerate() {
        let at = at.key("models").index(index);
        if let Some(model) = resolve(word, "model", &models.models, &at, problems)
            && known.insert(model.name.clone(), model.clone()).is_some()
        {
            problems.add(&at, format!("`{word}` stands in this list already"));
        }
    }
    let chosen = raw.guards.as_deref();
    let guards = guards::chosen(chosen, &models.guards, &at.key("guards"), problems);
    Llm {
        models: known,
        is_strict: raw.strict.unwrap_or(false),
        thoughts: models.thoughts.clone(),
        prompt,
        logs_bodies: raw.log_bodies.unwrap_or(false),
        guards,
    }
}
