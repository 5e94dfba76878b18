//! Guards on what models are asked and answer: in every client's API before every vendor, whole and as a
//! stream, in tool calls, and by webhooks.
use serde_json::{Value, json};

use super::{
    Scene,
    clients::{CLIENTS, Client, expected},
    question,
    speech::{INPUT, OUTPUT},
    vendors::{VENDORS, Vendor},
};
use crate::support::{Behaviour, Response, Upstream, reply, run_tollgate};

const CARD: &str = "4111 1111 1111 1111";
const CARDS: &str = r"{name: cards, pattern: '\b(?:\d[ -]?){13,16}\b', action: mask}";

/// What a client of any API is told that went wrong.
fn said(response: &Response) -> String {
    let error = &response.json()["error"];
    let message = error["message"].as_str().or_else(|| error.as_str());
    message.unwrap_or_else(|| panic!("{}", response.text())).to_owned()
}

fn scene(guards: &str) -> Scene {
    Scene::with(&format!("  guards: [{guards}]\n"), "")
}

#[test]
fn what_spans_events_is_masked_for_every_client_of_every_vendor() {
    let scene = scene(
        "{name: greeting, pattern: 'o, w\\wr', action: mask, with: '-'}, {name: town, pattern: '(?i)züri', action: mask}",
    );
    for vendor in VENDORS {
        for client in CLIENTS {
            for way in ["", ".bytes"] {
                let model = format!("{}{way}", vendor.word());
                for has_tool in [false, true] {
                    let mut wanted = expected(client, vendor, has_tool);
                    wanted.text = wanted.text.replace("o, wör", "-");
                    if let Some((_, arguments)) = &mut wanted.tool {
                        *arguments = json!({"city": "[town]ch"}).to_string();
                    }
                    let streamed = client.hear_stream(&client.ask(&scene, &model, has_tool, true));
                    assert_eq!(streamed, wanted, "{vendor:?} {client:?} {way}");
                    if way.is_empty() {
                        let whole = client.hear(&client.ask(&scene, &model, has_tool, false));
                        assert_eq!(whole, wanted, "{vendor:?} {client:?}");
                    }
                }
            }
        }
    }
    let log = scene.gateway.access_log(1);
    assert_eq!(log[0]["llm"]["guards"], json!(["response:greeting"]), "{}", log[0]);
    let masked = [("guard", "town"), ("on", "response"), ("result", "masked")];
    // Whole, as a stream, and byte by byte.
    let all = (3 * VENDORS.len() * CLIENTS.len()) as f64;
    scene.gateway.wait_metric("tollgate_llm_guard_total", &masked, |it| it == all);
}

#[test]
fn what_is_masked_reaches_no_vendor_by_any_way() {
    let scene = scene(CARDS);
    let check = |target: &str, body: Value, vendor: Vendor| {
        let response = scene.post(target, &body).send();
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        let sent = String::from_utf8(scene.stub(vendor).last().body).unwrap();
        assert!(sent.contains("[cards]") && !sent.contains("1111"), "{sent}");
    };
    let chat = "/v1/chat/completions";
    for vendor in VENDORS {
        let tool = json!({"id": "call00001", "type": "function", "function":
            {"name": "pay", "arguments": "{\"n\": 4111111111111111}"}});
        let messages = json!([
            {"role": "user", "content": CARD}, {"role": "assistant", "tool_calls": [tool]},
            {"role": "tool", "tool_call_id": "call00001", "content": CARD},
        ]);
        // Amazon wants to know the tools that a conversation has in it.
        let tools = json!([{"type": "function", "function":
            {"name": "pay", "parameters": {"type": "object", "properties": {}}}}]);
        let body = json!({"model": vendor.word(), "messages": messages, "tools": tools});
        check(chat, body, vendor);
        let block = json!([{"type": "text", "text": format!("is {CARD} mine?")}]);
        let body = json!({"model": vendor.word(), "max_tokens": 5, "system": block,
            "messages": [{"role": "user", "content": block}]});
        check("/v1/messages", body, vendor);
        let target = format!("/v1beta/models/{}:generateContent", vendor.word());
        check(&target, json!({"contents": [{"parts": [{"text": CARD}]}]}), vendor);
    }
    check("/v1/embeddings", json!({"model": "openai", "input": ["a", CARD]}), Vendor::OpenAi);
    check("/v1/responses", json!({"model": "openai", "input": CARD}), Vendor::OpenAi);
    let body = json!({"model": "anthropic", "messages": [{"role": "user", "content": CARD}]});
    check("/v1/messages/count_tokens", body, Vendor::Anthropic);
}

#[test]
fn a_call_that_is_blocked_is_sent_to_nobody_and_says_so_in_the_clients_words() {
    let scene = scene("{name: secrets, pattern: 'hello', action: block, on: [request]}");
    for client in CLIENTS {
        let response = client.ask(&scene, "openai", false, false);
        assert_eq!(response.status, 400, "{}", response.text());
        assert_eq!(said(&response), "the guard `secrets` does not let the request pass");
    }
    assert_eq!(scene.chat("openai").json()["error"]["code"], "request_blocked");
    assert_eq!(scene.stub(Vendor::OpenAi).heads(), 0);
    let all = CLIENTS.len() + 1;
    for line in scene.gateway.access_log(all) {
        assert_eq!(line["code"], "request_blocked");
        assert!(line["cause"].as_str().unwrap().contains("`secrets`"), "{line}");
    }
    let blocked = [("guard", "secrets"), ("on", "request"), ("result", "blocked")];
    scene.gateway.wait_metric("tollgate_llm_guard_total", &blocked, |it| it == all as f64);
    // What one reader takes for the text, and another does not.
    let twice =
        r#"{"model":"openai","messages":[{"role":"user","content":"hello","content":"a"}]}"#;
    let request = scene.gateway.request("POST", "/v1/chat/completions").body(twice);
    let response = request.header("Content-Type", "application/json").send();
    assert_eq!(
        (response.status, response.json()["error"]["code"].as_str()),
        (400, Some("request_malformed"))
    );
}

#[test]
fn an_answer_that_is_blocked_costs_what_it_costs() {
    let scene = scene("{name: greeting, pattern: 'o, w\\wrld', action: block, on: [response]}");
    for vendor in VENDORS {
        for client in CLIENTS {
            let response = client.ask(&scene, vendor.word(), false, false);
            assert_eq!(response.status, 400, "{vendor:?} {client:?}: {}", response.text());
            let message = said(&response);
            assert!(message.contains("`greeting` does not let the answer pass"), "{message}");
        }
    }
    let all = VENDORS.len() * CLIENTS.len();
    let log = scene.gateway.access_log(all);
    for line in &log {
        let llm = &line["llm"];
        assert_eq!(
            (&llm["tokens_in"], &llm["tokens_out"]),
            (&json!(INPUT), &json!(OUTPUT)),
            "{line}"
        );
        assert_eq!(llm["guards"], json!(["response:greeting"]), "{line}");
    }
    assert_eq!(scene.tries("blocked"), all as f64);
    // Nobody is asked until one of them says something else.
    assert_eq!(scene.stub(Vendor::OpenAi).heads(), CLIENTS.len());
}

#[test]
fn a_stream_that_is_blocked_ends_with_an_error_and_never_well() {
    let scene = scene("{name: greeting, pattern: 'o, w\\wrld', action: block, on: [response]}");
    for vendor in VENDORS {
        for client in CLIENTS {
            let response = client.ask(&scene, &format!("{}.bytes", vendor.word()), false, true);
            let text = response.text();
            assert_eq!(response.status, 200, "{vendor:?} {client:?}: {text}");
            assert!(text.contains("does not let the answer pass"), "{vendor:?} {client:?}: {text}");
            assert!(!text.contains("o, w") && !text.contains("wörld"), "{text}");
            let ends = [
                "[DONE]",
                "message_stop",
                "\"STOP\"",
                "finish_reason\":\"stop",
                "\"done\":true",
                "response.completed",
            ];
            assert!(!ends.iter().any(|it| text.contains(it)), "{text}");
            let last = text.lines().rfind(|it| !it.is_empty()).unwrap();
            assert!(last.contains("error"), "{text}");
        }
    }
    let all = VENDORS.len() * CLIENTS.len();
    let log = scene.gateway.access_log(all);
    assert!(log.iter().all(|it| it["llm"]["guards"] == json!(["response:greeting"])), "{log:?}");
    assert!(log[0]["cause"].as_str().unwrap().contains("`greeting`"), "{}", log[0]);
}

#[test]
fn what_is_only_reported_passes_byte_for_byte() {
    let guarded = scene("{name: seen, pattern: 'o, w\\wrld|hello', action: report}");
    let plain = Scene::start();
    for is_stream in [false, true] {
        let ask = |scene: &Scene| Client::OpenAi.ask(scene, "openai", false, is_stream).text();
        assert_eq!(ask(&guarded), ask(&plain));
    }
    for side in ["request", "response"] {
        let reported = [("guard", "seen"), ("on", side), ("result", "reported")];
        guarded.gateway.wait_metric("tollgate_llm_guard_total", &reported, |it| it == 2.0);
    }
    let log = guarded.gateway.access_log(2);
    assert_eq!(log[1]["llm"]["guards"], json!(["request:seen", "response:seen"]));
}

#[test]
fn a_route_says_which_guards_hold() {
    let guards =
        format!("  guards: [{CARDS}, {{name: block, pattern: '{CARD}', action: block}}]\n");
    let ask = |route: &str| {
        let scene = Scene::with(&guards, route);
        let mut body = question("openai");
        body["messages"][0]["content"] = json!(CARD);
        let status = scene.post("/v1/chat/completions", &body).send().status;
        let sent = scene.stub(Vendor::OpenAi).requests().last().map(|it| it.body.clone());
        (status, sent.map(|it| String::from_utf8(it).unwrap().contains(CARD)))
    };
    assert_eq!(ask(", guards: []"), (200, Some(true)));
    assert_eq!(ask(", guards: [cards]"), (200, Some(false)));
    assert_eq!(ask(", guards: [block]"), (400, None));
    // The first leaves nothing for the second.
    assert_eq!(ask(""), (200, Some(false)));
}

/// Says no to what it is shown with `wörld` or `no` in it, and falls silent at `silent`.
fn verdicts() -> Upstream {
    Upstream::start(|request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let texts = body["texts"].to_string();
        assert!(body["guard"] == "ask" && body["route"] == "open", "{body}");
        if texts.contains("silent") {
            return Behaviour::Never;
        }
        if texts.contains("broken") {
            return reply(500, "");
        }
        let allow = !texts.contains("never") && !texts.contains(", wörld \u{1f600}!");
        reply(200, json!({"allow": allow, "reason": "a reason"}).to_string())
    })
}

#[test]
fn a_webhook_decides_what_may_be_asked() {
    let hook = verdicts();
    let scene = |outage: &str| {
        scene(&format!(
            "{{name: ask, webhook: {{url: \"{}/\", timeout: 300ms{outage}}}, action: block, on: [request]}}",
            hook.url()
        ))
    };
    let ask = |scene: &Scene, text: &str| {
        let mut body = question("anthropic");
        body["messages"][0]["content"] = json!(text);
        let response = scene.post("/v1/chat/completions", &body).send();
        (response.status, response.json()["error"]["code"].as_str().map(str::to_owned))
    };
    let strict = scene("");
    assert_eq!(ask(&strict, "fine"), (200, None));
    assert_eq!(ask(&strict, "never"), (400, Some("request_blocked".to_owned())));
    for outage in ["silent", "broken"] {
        assert_eq!(ask(&strict, outage), (503, Some("guard_unavailable".to_owned())));
    }
    assert_eq!(strict.stub(Vendor::Anthropic).heads(), 1);
    let failed = [("guard", "ask"), ("on", "request"), ("result", "failed")];
    strict.gateway.wait_metric("tollgate_llm_guard_total", &failed, |it| it == 2.0);
    let lax = scene(", on_outage: allow");
    assert_eq!(ask(&lax, "silent"), (200, None));
    assert_eq!(ask(&lax, "never"), (400, Some("request_blocked".to_owned())));
    let shown: Value = serde_json::from_slice(&hook.last().body).unwrap();
    assert_eq!((&shown["on"], &shown["consumer"]), (&json!("request"), &Value::Null));
}

#[test]
fn a_webhook_sees_an_answer_before_the_client_does() {
    let hook = verdicts();
    let of = |side: &str| {
        scene(&format!(
            "{{name: cut, pattern: 'lo, ', action: mask, with: 'lo '}}, {{name: ask, webhook: {{url: \"{}/\"}}, action: {side}, on: [response]}}",
            hook.url()
        ))
    };
    // It is shown what other guards left: no comma is in it any more.
    let scene = of("block");
    for vendor in VENDORS {
        for client in CLIENTS {
            let wanted = expected(client, vendor, false).text.replace(", ", " ");
            assert_eq!(client.hear(&client.ask(&scene, vendor.word(), false, false)).text, wanted);
            let stream = client.ask(&scene, vendor.word(), false, true);
            assert_eq!(client.hear_stream(&stream).text, wanted, "{vendor:?} {client:?}");
            let shown: Value = serde_json::from_slice(&hook.last().body).unwrap();
            assert_eq!(shown["texts"], json!([wanted]), "{vendor:?} {client:?}");
        }
    }
    let blunt = Scene::with(
        &format!(
            "  guards: [{{name: ask, webhook: {{url: \"{}/\"}}, action: block, on: [response]}}]\n",
            hook.url()
        ),
        "",
    );
    for is_stream in [false, true] {
        let response = Client::OpenAi.ask(&blunt, "anthropic", false, is_stream);
        assert_eq!(response.status, 400, "{}", response.text());
        assert_eq!(response.json()["error"]["code"], "answer_blocked");
    }
}

#[test]
fn explain_names_the_guards() {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/llm.yaml");
    let folder = tempfile::tempdir().unwrap();
    let target = "http://gateway.test/v1/chat/completions";
    let asked = ["explain", "-c", conf, "POST", target, "-H", "X-API-Key: test", "--json"];
    let exit = run_tollgate(folder.path(), &asked);
    let said: Value =
        serde_json::from_str(&exit.stdout).unwrap_or_else(|why| panic!("{why}: {exit:?}"));
    let cards = json!({"guard": "cards", "action": "mask", "on": ["request", "response"]});
    assert_eq!(said["guards"], json!([cards]), "{said}");
}
