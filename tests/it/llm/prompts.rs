//! Prompts as endpoints: typed input, JSON answers, streams, and the document that says so.
use serde_json::{Value, json};

use super::{
    Scene,
    speech::{INPUT, OUTPUT, TEXT},
    vendors::{VENDORS, Vendor},
};
use crate::support::{Gateway, Response, Upstream, hash_of, key, reply, run_tollgate};

/// A gateway with a prompt for the model of each vendor's way, at `/ask/MODEL`.
fn scene(ways: &[&str], more: &str) -> Scene {
    let (mut prompts, mut routes) = (String::new(), String::new());
    for way in ways {
        prompts += &format!(
            "    \"{way}\": {{model: {way}, input: {{text: string, tone: kind | blunt?}}, system: \"Be {{input.tone}}.\", user: \"Say: {{input.text}}\"}}\n"
        );
        routes += &format!(
            "  - {{id: \"ask-{way}\", match: {{paths: [/ask/{way}], methods: [POST]}}, public: true, llm: {{prompt: \"{way}\"}}}}\n"
        );
    }
    Scene::with_routes(&format!("  prompts:\n{prompts}{more}"), &routes)
}

fn ask(scene: &Scene, way: &str, body: &Value) -> Response {
    scene.post(&format!("/ask/{way}"), body).send()
}

#[test]
fn every_vendor_answers_a_prompt() {
    let scene = scene(&VENDORS.map(Vendor::word), "");
    for vendor in VENDORS {
        let response =
            ask(&scene, vendor.word(), &json!({"text": "a \"b\" {input.tone}", "tone": "blunt"}));
        assert_eq!(response.status, 200, "{vendor:?}: {}", response.text());
        let usage = json!({"input_tokens": INPUT, "output_tokens": OUTPUT});
        assert_eq!(response.json(), json!({"output": TEXT.concat(), "usage": usage}), "{vendor:?}");
        let sent: Value = serde_json::from_slice(&scene.stub(vendor).last().body).unwrap();
        let sent = sent.to_string();
        assert!(
            sent.contains("Be blunt.") && sent.contains(r#"Say: a \"b\" {input.tone}"#),
            "{sent}"
        );
        let target = format!("/ask/{}", vendor.word());
        let request = scene.post(&target, &json!({"text": "a"}));
        let stream = request.header("Accept", "text/html, text/event-stream;q=0.9").send();
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        let pieces: String =
            events(&stream, "text").iter().map(|it| it["text"].as_str().unwrap()).collect();
        assert_eq!(pieces, TEXT.concat(), "{vendor:?}");
        let done = events(&stream, "done");
        assert_eq!(done, [json!({"output": TEXT.concat(), "usage": usage})], "{vendor:?}");
    }
    let log = scene.gateway.access_log(8);
    assert_eq!(log[0]["llm"]["model"], "openai", "{}", log[0]);
}

/// The data of a stream's events with this name.
fn events(response: &Response, name: &str) -> Vec<Value> {
    let text = response.text();
    let blocks =
        text.split("\n\n").filter_map(|it| it.strip_prefix(&format!("event: {name}\ndata: ")));
    blocks.map(|it| serde_json::from_str(it).unwrap()).collect()
}

#[test]
fn an_input_that_is_none_says_which_member_and_is_sent_to_nobody() {
    let scene = scene(&["openai"], "");
    let check = |body: &str, status: u16, pointer: Option<&str>| {
        let request = scene.gateway.request("POST", "/ask/openai").body(body);
        let response = request.header("Content-Type", "application/json").send();
        let code = if status == 422 { "request_invalid" } else { "request_malformed" };
        response.assert_problem(status, code);
        assert_eq!(response.json()["pointer"].as_str(), pointer, "{body}: {}", response.text());
        assert!(!response.text().contains("planted"), "{}", response.text());
    };
    check("{}", 422, Some("/text"));
    check(r#"{"text": 5}"#, 422, Some("/text"));
    check(r#"{"text": "a", "tone": "planted"}"#, 422, Some("/tone"));
    check(r#"{"text": "a", "model": "planted"}"#, 422, Some("/model"));
    check("[]", 422, Some(""));
    check("", 400, None);
    check(r#"{"text": "a", "text": "b"}"#, 400, None);
    check("{\"text\": \"\u{0}\"}", 400, None);
    assert_eq!(scene.stub(Vendor::OpenAi).heads(), 0);
    let response = scene.gateway.get("/ask/openai").send();
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
}

#[test]
fn what_goes_wrong_is_a_problem_and_no_vendors_words() {
    let scene = scene(
        &[
            "openai.broken",
            "openai.limited",
            "anthropic.refused",
            "openai.silent",
            "mistral.cut",
            "openai.unknown",
        ],
        "",
    );
    let check = |way: &str, status: u16, code: &str| {
        let response = ask(&scene, way, &json!({"text": "a"}));
        response.assert_problem(status, code);
        let text = response.text();
        assert!(
            !text.contains("planted")
                && !text.contains("a defect")
                && !text.contains("no such model"),
            "{text}"
        );
        response
    };
    check("openai.broken", 502, "upstream_failed");
    check("anthropic.refused", 502, "upstream_failed");
    check("openai.unknown", 502, "upstream_failed");
    check("openai.silent", 504, "upstream_timeout");
    let busy = check("openai.limited", 503, "upstream_unavailable");
    assert_eq!(busy.header("retry-after"), Some("7"));
    let request = scene.post("/ask/mistral.cut", &json!({"text": "a"}));
    let stream = request.header("Accept", "text/event-stream").send();
    assert_eq!(events(&stream, "error")[0]["code"], "upstream_failed", "{}", stream.text());
    assert!(events(&stream, "done").is_empty(), "{}", stream.text());
}

#[test]
fn guards_hold_for_prompts_too() {
    let guards = "  guards: [{name: in, pattern: 'secret', action: mask, on: [request]}, {name: out, pattern: 'w\\wrld', action: mask, on: [response]}]\n";
    let scene = scene(&["openai", "anthropic"], guards);
    for vendor in [Vendor::OpenAi, Vendor::Anthropic] {
        let response = ask(&scene, vendor.word(), &json!({"text": "a secret"}));
        assert_eq!(response.json()["output"], "Hello, [out] \u{1f600}!", "{}", response.text());
        let sent = String::from_utf8(scene.stub(vendor).last().body).unwrap();
        assert!(sent.contains("Say: a [in]"), "{sent}");
        let request = scene.post(&format!("/ask/{}", vendor.word()), &json!({"text": "a"}));
        let stream = request.header("Accept", "text/event-stream").send();
        assert_eq!(events(&stream, "done")[0]["output"], "Hello, [out] \u{1f600}!");
    }
}

#[test]
fn an_answer_is_the_json_that_was_asked_for_or_none() {
    let model = Upstream::start(|request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let schema = &body["response_format"]["json_schema"];
        assert!(
            schema["strict"] == true && schema["schema"]["required"] == json!(["mood", "score"]),
            "{body}"
        );
        let text = body["messages"][0]["content"].as_str().unwrap();
        if body["stream"] == true {
            let chunk = |delta: Value, finish: Value| {
                let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
                format!("data: {}\n\n", json!({"choices": [choice]}))
            };
            let events = chunk(json!({"content": text}), Value::Null)
                + &chunk(json!({}), json!("stop"))
                + "data: [DONE]\n\n";
            return reply(200, events).with("content-type", "text/event-stream");
        }
        let answer = json!({"choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text}}]});
        reply(200, answer.to_string()).with("content-type", "application/json")
    });
    let yaml = format!(
        "consumers:\n  acme: {{api_keys: [{{id: one, hash: \"{}\"}}]}}\n\
         routes:\n  - {{id: ask, match: {{paths: [/ask], methods: [POST]}}, auth: [api_key], llm: {{prompt: rate}}}}\n\
         llm:\n  providers: {{own: {{api: openai, url: \"{}/v1\"}}}}\n  models: {{m: {{targets: [{{provider: own, model: x}}], retry: {{attempts: 1}}, cache: {{ttl: 10m}}}}}}\n  \
         prompts:\n    rate: {{model: m, input: {{text: string}}, user: \"{{input.text}}\", output: {{score: integer, mood: good | bad}}}}\n",
        hash_of(&key("one")),
        model.url(),
    );
    let gateway = Gateway::start(&yaml, &[]);
    let ask = |text: &str| {
        let request = gateway.request("POST", "/ask").header("X-API-Key", &key("one"));
        request
            .header("Content-Type", "application/json")
            .body(json!({"text": text}).to_string())
            .send()
    };
    let response = ask(r#"{"score": 5, "mood": "good"}"#);
    assert_eq!(
        (response.status, &response.json()["output"]),
        (200, &json!({"score": 5, "mood": "good"}))
    );
    assert_eq!(model.heads(), 1);
    for wrong in ["planted", r#"{"score": 5, "mood": "planted"}"#, r#"{"score": 5}"#] {
        let response = ask(wrong);
        response.assert_problem(502, "upstream_failed");
        assert!(!response.text().contains("planted"), "{}", response.text());
    }
    assert_eq!(model.heads(), 7, "each wrong answer is worth one more try");

    let stream = |text: &str| {
        let request = gateway.request("POST", "/ask").header("X-API-Key", &key("one"));
        let request = request.header("Accept", "text/event-stream");
        request.body(json!({"text": text}).to_string()).send()
    };
    for _ in 0..2 {
        // Not even one that is kept to be given again.
        let wrong = stream(r#"{"score": "planted", "mood": "good"}"#);
        let error = &events(&wrong, "error")[0];
        assert_eq!((&error["status"], &error["code"]), (&json!(502), &json!("upstream_failed")));
        assert!(events(&wrong, "done").is_empty(), "{}", wrong.text());
    }
    let right = stream(r#"{"score": 6, "mood": "bad"}"#);
    assert_eq!(events(&right, "done")[0]["output"]["score"], 6, "{}", right.text());

    // Whoever may ask may know what.
    let target = "/ask/openapi.json";
    assert_eq!(gateway.get(target).send().status, 401);
    let document = gateway.get(target).header("X-API-Key", &key("one")).send();
    assert_eq!(document.header("content-type"), Some("application/json"));
    let document = document.json();
    let post = &document["paths"]["/ask"]["post"];
    let input = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(input["properties"], json!({"text": {"type": "string"}}), "{document}");
    let output =
        &post["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["output"];
    assert_eq!(output["properties"]["mood"]["enum"], json!(["good", "bad"]), "{document}");
    let asked = [
        "explain",
        "-c",
        gateway.config_file().to_str().unwrap(),
        "POST",
        "/ask",
        "-H",
        &format!("X-API-Key: {}", key("one")),
        "--json",
    ]
    .map(str::to_owned);
    let exit = run_tollgate(&gateway.path(""), &asked.each_ref().map(String::as_str));
    let said: Value =
        serde_json::from_str(&exit.stdout).unwrap_or_else(|why| panic!("{why}: {exit:?}"));
    assert_eq!(said["prompt"]["name"], "rate", "{said}");
}
