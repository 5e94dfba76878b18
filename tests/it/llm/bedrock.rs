//! Amazon's Bedrock: what its stub says, in binary where it streams, and keys that sign, whose signatures
//! the stub computes for itself.
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Scene, question,
    speech::{ARGUMENTS, CACHED, INPUT, OUTPUT, TEXT},
    vendors::Asks,
};
use crate::support::{Behaviour, Recorded, Upstream, reply};

/// One message with this header and the type of all of them.
pub fn frame(name: &str, value: &str, payload: &Value) -> Vec<u8> {
    let kind = if name == ":event-type" { "event" } else { "exception" };
    let mut inside = Vec::new();
    for (name, value) in
        [(name, value), (":content-type", "application/json"), (":message-type", kind)]
    {
        inside.push(u8::try_from(name.len()).unwrap());
        inside.extend(name.bytes());
        inside.push(7);
        inside.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        inside.extend(value.bytes());
    }
    let headers = u32::try_from(inside.len()).unwrap();
    inside.extend(payload.to_string().bytes());
    let mut bytes = (u32::try_from(inside.len()).unwrap() + 16).to_be_bytes().to_vec();
    bytes.extend(headers.to_be_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend(inside);
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn usage() -> Value {
    json!({
        "inputTokens": INPUT - CACHED, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT,
        "cacheReadInputTokens": CACHED, "cacheWriteInputTokens": 0,
    })
}

pub fn whole(asks: &Asks) -> Value {
    let input: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
    let (block, reason) = match asks.wants_tool {
        true => (
            json!({"toolUse": {"toolUseId": "tooluse_1", "name": asks.tool, "input": input}}),
            "tool_use",
        ),
        false => (json!({"text": TEXT.concat()}), "end_turn"),
    };
    json!({
        "output": {"message": {"role": "assistant", "content": [block]}}, "stopReason": reason,
        "usage": usage(), "metrics": {"latencyMs": 1},
    })
}

pub fn events(asks: &Asks, hides_usage: bool) -> Vec<Vec<u8>> {
    let event = |name: &str, payload: Value| frame(":event-type", name, &payload);
    let delta = |delta: Value| {
        event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": delta, "p": "abc"}))
    };
    let mut all = vec![event("messageStart", json!({"role": "assistant"}))];
    let reason = if asks.wants_tool {
        let start = json!({"toolUse": {"toolUseId": "tooluse_1", "name": asks.tool}});
        all.push(event("contentBlockStart", json!({"contentBlockIndex": 0, "start": start})));
        all.extend(ARGUMENTS.map(|it| delta(json!({"toolUse": {"input": it}}))));
        "tool_use"
    } else {
        all.extend(TEXT.map(|it| delta(json!({"text": it}))));
        "end_turn"
    };
    all.push(event("contentBlockStop", json!({"contentBlockIndex": 0})));
    all.push(event("messageStop", json!({"stopReason": reason})));
    if !hides_usage {
        all.push(event("metadata", json!({"usage": usage(), "metrics": {"latencyMs": 1}})));
    }
    all
}

pub fn check(body: &Value) -> Result<(), String> {
    let mut last = "";
    for message in body["messages"].as_array().ok_or("messages")? {
        let role = message["role"].as_str().ok_or("role")?;
        if role == last || !["user", "assistant"].contains(&role) {
            return Err(format!("the role {role} follows {last}"));
        }
        last = role;
        let content = message["content"].as_array().filter(|it| !it.is_empty());
        for block in content.ok_or("a turn says nothing")? {
            let kinds = ["text", "image", "document", "toolUse", "toolResult", "reasoningContent"];
            super::checks::known(block, &kinds)?;
            if block["text"].as_str().is_some_and(|it| it.trim().is_empty()) {
                return Err("The text field in the ContentBlock is blank".to_owned());
            }
            let is_tool = block.get("toolUse").is_some() || block.get("toolResult").is_some();
            if is_tool && body["toolConfig"]["tools"].is_null() {
                return Err("The toolConfig field must be defined".to_owned());
            }
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

/// Whether the request has the signature of this secret, by Amazon's documents.
fn is_signed(request: &Recorded, secret: &str) -> Result<(), String> {
    let shown = request.header("authorization").ok_or("no authorization")?;
    let rest = shown.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another scheme")?;
    let field = |name: &str| {
        rest.split(", ")
            .find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
            .ok_or(name.to_owned())
    };
    let (credential, names) = (field("Credential")?, field("SignedHeaders")?);
    let scope = credential.split_once('/').ok_or("scope")?.1;
    let pieces: Vec<&str> = scope.split('/').collect();
    if pieces[1..] != ["eu-west-1", "bedrock", "aws4_request"] {
        return Err(format!("the scope is {scope}"));
    }
    if !names.split(';').any(|it| it == "host") {
        return Err(format!("the host is not signed: {names}"));
    }
    let mut canonical = format!("POST\n{}\n\n", request.target.replace('%', "%25"));
    for name in names.split(';') {
        let value = request.header(name).ok_or(format!("no {name}"))?;
        canonical += &format!("{name}:{}\n", value.trim());
    }
    canonical += &format!("\n{names}\n{}", hex(&Sha256::digest(&request.body)));
    let date = request.header("x-amz-date").ok_or("no date")?;
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let sign = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let mut key = format!("AWS4{secret}").into_bytes();
    for piece in pieces {
        key = sign(&key, piece);
    }
    let expected = hex(&sign(&key, &text));
    if field("Signature")? != expected {
        return Err(format!("the signature is not {expected}: {canonical}"));
    }
    Ok(())
}

#[test]
fn a_key_that_signs_is_believed_by_who_checks_it() {
    let stub = Upstream::start(|request: &Recorded| -> Behaviour {
        let asks = Asks { wants_tool: false, tool: String::new() };
        let token = request.header("x-amz-security-token");
        match is_signed(request, "the/secret+planted") {
            Ok(()) if token == Some("session") => {
                let body = whole(&asks).to_string();
                reply(200, body).with("content-type", "application/json")
            }
            other => reply(400, json!({"message": format!("{other:?}")}).to_string()),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let yaml = |region: &str| {
        format!(
            "version: 1\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\nroutes:\n  - {{id: ai, match: {{paths: [/*]}}, public: true, llm: {{models: [m]}}}}\n\
             llm:\n  providers:\n    aws: {{api: bedrock, url: \"{}\"{region}, keys: [{{id: k, secret: \"AKIDPLANTED:the/secret+planted:session\"}}]}}\n  \
             models:\n    m: {{targets: [{{provider: aws, model: \"eu.anthropic.claude-v2:0\"}}]}}\n",
            stub.url()
        )
    };
    let file = folder.path().join("t.yaml");
    std::fs::write(&file, yaml("")).unwrap();
    let exit =
        crate::support::run_tollgate(folder.path(), &["check", "-c", file.to_str().unwrap()]);
    assert!(exit.stderr.contains("`region` is missing"), "{exit:?}");
    let routes = yaml(", region: eu-west-1");
    let routes = routes.split_once("routes:").unwrap().1;
    let gateway = crate::support::Gateway::start(&format!("routes:{routes}"), &[]);
    let request = gateway.request("POST", "/v1/chat/completions");
    let request = request.header("Content-Type", "application/json");
    let response = request.body(question("m").to_string()).send();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["choices"][0]["message"]["content"], TEXT.concat());
    assert_eq!(stub.last().target, "/model/eu.anthropic.claude-v2%3A0/converse");
    assert!(!gateway.said().contains("planted"));
}

#[test]
fn a_key_that_amazon_does_not_know_is_set_aside() {
    let scene = Scene::start();
    let response = scene.chat("bedrock.refused");
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(!response.text().contains("planted"), "{}", response.text());
    let key = [("provider", "bedrock"), ("key", "k")];
    assert_eq!(scene.gateway.metric("tollgate_llm_key_up", &key), 0.0);
}
