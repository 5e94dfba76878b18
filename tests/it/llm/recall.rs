//! Answers that are given again: whole and as streams, by consumer, and to questions that mean the same.
use serde_json::{Value, json};

use super::{
    Scene,
    clients::{CLIENTS, Client, expected},
    events, question,
    vendors::{VENDORS, Vendor},
};
use crate::support::{Gateway, Request, Response, Upstream, hash_of, key, reply};

/// The models of each vendor once more, with a cache.
fn scene() -> Scene {
    let mut models = String::new();
    for vendor in VENDORS {
        let word = vendor.word();
        for way in ["m", "cut", "broken"] {
            models += &format!(
                "    c-{word}-{way}: {{targets: [{{provider: {word}, model: {way}}}], retry: {{attempts: 0}}, cache: {{ttl: 10m}}}}\n"
            );
        }
    }
    Scene::with(&models, "")
}

fn status(response: &Response) -> &str {
    response.header("cache-status").unwrap_or("none")
}

#[test]
fn every_client_gets_the_answer_of_every_vendor_again() {
    let scene = scene();
    for vendor in VENDORS {
        let model = format!("c-{}-m", vendor.word());
        // What lives with its provider is not given again.
        for client in CLIENTS.into_iter().filter(|it| *it != Client::Responses) {
            let before = scene.stub(vendor).heads();
            let first = client.ask(&scene, &model, false, false);
            assert_eq!(status(&first), "tollgate; fwd=uri-miss", "{vendor:?} {client:?}");
            let again = client.ask(&scene, &model, false, false);
            assert!(status(&again).starts_with("tollgate; hit; ttl="), "{vendor:?} {client:?}");
            assert_eq!(again.header("age"), Some("0"));
            assert_eq!(
                (again.text(), client.hear(&again)),
                (first.text(), expected(client, vendor, false))
            );

            // A stream is another question, and comes again as it was.
            let first = client.ask(&scene, &model, false, true);
            assert_eq!(status(&first), "tollgate; fwd=uri-miss", "{vendor:?} {client:?}");
            let again = client.ask(&scene, &model, false, true);
            assert!(status(&again).starts_with("tollgate; hit"), "{vendor:?} {client:?}");
            assert_eq!(again.text(), first.text());
            assert_eq!(
                client.hear_stream(&again),
                expected(client, vendor, false),
                "{vendor:?} {client:?}"
            );
            assert_eq!(scene.stub(vendor).heads(), before + 2);
        }
    }
    let hits = [("model", "c-openai-m"), ("result", "hit")];
    scene.gateway.wait_metric("tollgate_llm_cache_total", &hits, |it| it == 8.0);
    // What is given again costs nothing: the first of each was all.
    let tokens = [("model", "c-openai-m"), ("kind", "input")];
    scene.gateway.wait_metric("tollgate_llm_tokens_total", &tokens, |it| it == 80.0);
    let unknown = [("model", "c-openai-m")];
    assert_eq!(scene.gateway.metric("tollgate_llm_usage_estimated_total", &unknown), 0.0);
    let again = Client::OpenAi.ask(&scene, "c-openai-m", false, false);
    let line = scene.gateway.logged(&again);
    assert_eq!(line["llm"]["cache"], "hit", "{line}");
    assert!(line["llm"]["tokens_in"].is_null() && line["llm"]["provider"].is_null(), "{line}");
}

#[test]
fn only_the_same_question_is_answered_again() {
    let scene = scene();
    let ask = |body: &Value, headers: &[(&str, &str)]| {
        let request = scene.post("/v1/chat/completions", body);
        let request = headers.iter().fold(request, |it, (name, value)| it.header(name, value));
        status(&request.send()).split(';').nth(1).unwrap().trim().to_owned()
    };
    let body = question("c-openai-m");
    assert_eq!(ask(&body, &[]), "fwd=uri-miss");
    assert_eq!(ask(&body, &[]), "hit");
    assert_eq!(ask(&body, &[("Cache-Control", "no-cache")]), "fwd=uri-miss");
    assert_eq!(ask(&body, &[("Cache-Control", "no-store")]), "fwd=request");
    let request = scene.gateway.request("POST", "/v1/chat/completions");
    let other = r#" {"messages": [ {"content":"hello","role":"user"}],"model":"c-openai-m"}"#;
    let response = request.header("Content-Type", "application/json").body(other).send();
    assert!(status(&response).starts_with("tollgate; hit"), "the same in other white space");
    for change in [
        json!({"seed": 1}),
        json!({"temperature": 0}),
        json!({"n": 1}),
        json!({"model": "c-mistral-m"}),
    ] {
        let mut changed = body.clone();
        changed.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(ask(&changed, &[]), "fwd=uri-miss", "{change}");
    }
    // Without a cache nothing is said of one.
    assert_eq!(status(&scene.chat("openai")), "none");
    let embedding = json!({"model": "c-openai-m", "input": "a"});
    let embed = || status(&scene.post("/v1/embeddings", &embedding).send()).to_owned();
    assert_eq!(embed(), "tollgate; fwd=uri-miss");
    assert!(embed().starts_with("tollgate; hit"));
    let respond = scene.post("/v1/responses", &embedding).send();
    assert_eq!(status(&respond), "tollgate; fwd=request");
}

#[test]
fn what_failed_or_broke_off_is_not_kept() {
    let scene = scene();
    for vendor in VENDORS {
        let cut = format!("c-{}-cut", vendor.word());
        let broken = format!("c-{}-broken", vendor.word());
        for _ in 0..2 {
            let stream = scene.chat_stream(&cut);
            assert_eq!(status(&stream), "tollgate; fwd=uri-miss", "{vendor:?}");
            assert!(events(&stream).last().unwrap()["error"].is_object(), "{}", stream.text());
            assert_eq!(scene.chat(&broken).status, 500);
        }
        assert_eq!(scene.stub(vendor).heads(), 4);
    }
}

/// A model that says what it was asked, and another that knows what words mean.
struct Mind {
    gateway: Gateway,
    model: Upstream,
    meaning: Upstream,
}

impl Mind {
    fn start() -> Self {
        let model = Upstream::start(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let said = body["messages"].as_array().unwrap().last().unwrap()["content"].clone();
            let answer = json!({"choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": said}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
            reply(200, answer.to_string()).with("content-type", "application/json")
        });
        let meaning = Upstream::start(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let text = body["input"].as_str().unwrap();
            if text.contains("unknown") {
                return reply(500, "");
            }
            let vector = if text.contains("weather") { [0.9, 0.1] } else { [0.1, 0.9] };
            let answer = json!({"data": [{"embedding": vector}], "usage": {"prompt_tokens": 2, "total_tokens": 2}});
            reply(200, answer.to_string()).with("content-type", "application/json")
        });
        let yaml = format!(
            "consumers:\n  acme: {{api_keys: [{{id: one, hash: \"{}\"}}]}}\n  other: {{api_keys: [{{id: two, hash: \"{}\"}}]}}\n\
             routes:\n  - {{id: ai, match: {{paths: [/v1/*]}}, auth: [api_key], llm: {{models: [m, exact]}}}}\n\
             llm:\n  providers:\n    own: {{api: openai, url: \"{}/v1\"}}\n    words: {{api: openai, url: \"{}/v1\"}}\n  models:\n    \
             embed: {{targets: [{{provider: words, model: e}}], retry: {{attempts: 0}}, price: {{input: 1, output: 0}}}}\n    \
             m: {{targets: [{{provider: own, model: x}}], cache: {{ttl: 10m, semantic: {{model: embed, threshold: 0.95}}}}}}\n    \
             exact: {{targets: [{{provider: own, model: x}}], cache: {{ttl: 10m}}}}\n",
            hash_of(&key("one")),
            hash_of(&key("two")),
            model.url(),
            meaning.url(),
        );
        Self { gateway: Gateway::start(&yaml, &[]), model, meaning }
    }

    fn request(&self, name: &str, model: &str, messages: Value) -> Request {
        let body = json!({"model": model, "messages": messages}).to_string();
        let request = self.gateway.request("POST", "/v1/chat/completions").body(body);
        request.header("Content-Type", "application/json").header("X-API-Key", &key(name))
    }

    fn ask(&self, name: &str, model: &str, text: &str) -> (String, String) {
        let messages = json!([{"role": "user", "content": text}]);
        let response = self.request(name, model, messages).send();
        assert_eq!(response.status, 200, "{}", response.text());
        let said = response.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        let status = status(&response).to_owned();
        let near = if status.contains("detail=near") { " near" } else { "" };
        (said, format!("{}{near}", status.split(';').nth(1).unwrap().trim()))
    }
}

fn told(said: &str, status: &str) -> (String, String) {
    (said.to_owned(), status.to_owned())
}

#[test]
fn nobody_gets_what_another_consumer_was_answered() {
    let mind = Mind::start();
    for model in ["exact", "m"] {
        assert_eq!(mind.ask("one", model, "the weather"), told("the weather", "fwd=uri-miss"));
        assert_eq!(mind.ask("one", model, "the weather"), told("the weather", "hit"));
        assert_eq!(mind.ask("two", model, "the weather"), told("the weather", "fwd=uri-miss"));
    }
}

#[test]
fn a_question_that_means_the_same_gets_the_same_answer() {
    let mind = Mind::start();
    assert_eq!(mind.ask("one", "m", "the weather?"), told("the weather?", "fwd=uri-miss"));
    assert_eq!(mind.ask("one", "m", "weather, please"), told("the weather?", "hit near"));
    assert_eq!(mind.ask("one", "m", "the time?"), told("the time?", "fwd=uri-miss"));
    assert_eq!(mind.ask("one", "m", "what time"), told("the time?", "hit near"));
    // Another conversation, another consumer, or a model that goes by the letter.
    let messages =
        json!([{"role": "system", "content": "rhyme"}, {"role": "user", "content": "weather"}]);
    assert_eq!(status(&mind.request("one", "m", messages).send()), "tollgate; fwd=uri-miss");
    assert_eq!(mind.ask("two", "m", "weather"), told("weather", "fwd=uri-miss"));
    assert_eq!(mind.ask("one", "exact", "weather"), told("weather", "fwd=uri-miss"));
    // What nobody can tell the meaning of is asked.
    assert_eq!(mind.ask("one", "m", "unknown"), told("unknown", "fwd=uri-miss"));
    assert_eq!(mind.ask("one", "m", "unknown"), told("unknown", "hit"));
    let near = [("model", "m"), ("result", "near")];
    mind.gateway.wait_metric("tollgate_llm_cache_total", &near, |it| it == 2.0);
    // To ask for a meaning costs what it costs.
    let tokens = [("model", "embed"), ("consumer", "acme"), ("kind", "input")];
    mind.gateway.wait_metric("tollgate_llm_tokens_total", &tokens, |it| it == 10.0);
    assert_eq!((mind.model.heads(), mind.meaning.heads()), (6, 7));
}

#[test]
fn a_reload_keeps_what_was_answered_and_other_guards_do_not() {
    let scene = scene();
    let ask = || status(&Client::OpenAi.ask(&scene, "c-anthropic-m", false, false)).to_owned();
    assert_eq!(ask(), "tollgate; fwd=uri-miss");
    let yaml = std::fs::read_to_string(scene.gateway.config_file()).unwrap();
    scene.gateway.reload_with(&format!("{yaml}# again\n"));
    assert!(ask().starts_with("tollgate; hit"));
    let guarded = format!("{yaml}  guards: [{{name: w, pattern: 'w\\wrld', action: mask}}]\n");
    scene.gateway.reload_with(&guarded);
    assert_eq!(ask(), "tollgate; fwd=uri-miss");
    assert_eq!(scene.stub(Vendor::Anthropic).heads(), 2);
}
