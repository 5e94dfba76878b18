//! Routes that models answer: each client's API before each vendor's stub, whole and as a stream, and
//! what happens when vendors, keys or clients misbehave.
mod bedrock;
mod checks;
mod clients;
mod endpoints;
mod faults;
mod guards;
mod http2;
mod ledger;
mod matrix;
mod metering;
mod prompts;
mod quotas;
mod recall;
mod refusals;
mod sdks;
mod speech;
mod state;
mod vendors;

use serde_json::{Value, json};

use self::vendors::{AZURE, VENDORS, Vendor};
use crate::support::{Gateway, Request, Response, Upstream, hash_of, key};

/// A gateway before a stub of each vendor. A model is called `VENDOR` or `VENDOR.WAY`, and the stub does
/// what the way says.
pub struct Scene {
    pub gateway: Gateway,
    stubs: Vec<(Vendor, Upstream)>,
}

/// Ways of the stubs that the models are made for.
const WAYS: [&str; 19] = [
    "m",
    "limited",
    "overloaded",
    "broken",
    "refused",
    "unknown",
    "html",
    "no-json",
    "silent",
    "cut",
    "cut-early",
    "error-early",
    "error-late",
    "lies",
    "bytes",
    "hangs",
    "dies",
    "no-usage",
    "denied",
];

impl Scene {
    #[track_caller]
    pub fn start() -> Self {
        Self::with("", "")
    }

    /// With further models, and further words for the route's `llm`.
    #[track_caller]
    pub fn with(models: &str, route: &str) -> Self {
        Self::of(models, route, "")
    }

    /// With further members of `llm`, and further routes.
    #[track_caller]
    pub fn with_routes(models: &str, routes: &str) -> Self {
        Self::of(models, "", routes)
    }

    #[track_caller]
    fn of(models: &str, route: &str, routes: &str) -> Self {
        let stubs: Vec<_> = VENDORS.into_iter().map(|it| (it, it.start())).collect();
        let (mut providers, mut all, mut names) = (String::new(), String::new(), Vec::new());
        for (vendor, stub) in &stubs {
            let (word, secret) = (vendor.word(), vendor.secret());
            let path = if matches!(vendor, Vendor::OpenAi | Vendor::Mistral) { "/v1" } else { "" };
            let version = match vendor {
                Vendor::Azure => format!(", version: {AZURE}"),
                _ => String::new(),
            };
            let url = stub.url();
            providers += &format!(
                "    {word}: {{api: {word}, url: \"{url}{path}\"{version}, keys: [{{id: k, secret: {secret}}}]}}\n"
            );
            if *vendor == Vendor::OpenAi {
                // The stub is at no place of OpenAI's: this one is said to be it all the same.
                providers += &format!(
                    "    itself: {{api: openai, compatible: false, url: \"{url}/v1\", keys: [{{id: k, secret: {secret}}}]}}\n"
                );
                all += "    itself: {targets: [{provider: itself, model: m}]}\n";
                names.push("itself".to_owned());
            }
            for way in WAYS {
                let name = if way == "m" { word.to_owned() } else { format!("{word}.{way}") };
                all += &format!(
                    "    {name}: {{targets: [{{provider: {word}, model: {way}}}], retry: {{attempts: 0}}, timeouts: {{first_byte: 2s, whole: 2s}}}}\n"
                );
                names.push(name);
            }
        }
        let more = models.lines().take_while(|it| it.starts_with("    "));
        let more = more.filter(|it| !it.starts_with("     "));
        names.extend(more.map(|it| it.trim().split(':').next().unwrap().to_owned()));
        let yaml = format!(
            "consumers:\n  acme: {{api_keys: [{{id: one, hash: \"{}\"}}]}}\n\
             routes:\n  - id: open\n    match: {{paths: [/v1/*, /v1beta/*, /api/*]}}\n    public: true\n    \
             body_limit: 1MiB\n    llm: {{models: [{names}]{route}}}\n  - id: keyed\n    match: {{paths: [/keyed/*]}}\n    \
             auth: [api_key]\n    llm: {{models: [{names}]}}\n{routes}\
             llm:\n  providers:\n{providers}  models:\n{all}{models}",
            hash_of(&key("one")),
            names = names.join(", "),
        );
        Self { gateway: Gateway::start(&yaml, &[]), stubs }
    }

    pub fn stub(&self, vendor: Vendor) -> &Upstream {
        &self.stubs.iter().find(|(it, _)| *it == vendor).unwrap().1
    }

    pub fn post(&self, target: &str, body: &Value) -> Request {
        let request = self.gateway.request("POST", target);
        request.header("Content-Type", "application/json").body(body.to_string())
    }

    /// A question in OpenAI's words.
    pub fn chat(&self, model: &str) -> Response {
        self.post("/v1/chat/completions", &question(model)).send()
    }

    pub fn chat_stream(&self, model: &str) -> Response {
        let mut body = question(model);
        body["stream"] = json!(true);
        self.post("/v1/chat/completions", &body).send()
    }

    /// How often tries at a provider ended so.
    pub fn tries(&self, result: &str) -> f64 {
        self.gateway.metric("tollgate_llm_requests_total", &[("result", result)])
    }
}

pub fn question(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

/// The data of a stream's events.
pub fn events(response: &Response) -> Vec<Value> {
    let text = response.text();
    let data = text.lines().filter_map(|line| {
        // Ollama's are lines of JSON.
        line.strip_prefix("data: ").or_else(|| line.starts_with('{').then_some(line))
    });
    data.filter(|it| *it != "[DONE]")
        .map(|it| serde_json::from_str(it).unwrap_or_else(|why| panic!("{why}: {it}")))
        .collect()
}
