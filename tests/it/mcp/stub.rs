//! Servers of tools, as strict as the specification: each speaks one era and refuses what the other would
//! send, and misbehaves as the name of the tool says.
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use super::{NEW, OLD};
use crate::support::{Behaviour, Gate, Recorded, Upstream, reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Old,
    New,
}

pub struct Stub {
    pub name: &'static str,
    pub upstream: Upstream,
    pub state: Arc<State>,
}

#[derive(Default)]
pub struct State {
    /// The sessions that are known.
    pub sessions: Mutex<Vec<String>>,
    begun: AtomicUsize,
    /// Opened when the client has answered what the tool `ask` asks.
    pub answered: Gate,
    pub answer: Mutex<Value>,
    pub is_down: AtomicBool,
    pub description: Mutex<String>,
    pub calls: AtomicUsize,
}

impl State {
    pub fn forget_sessions(&self) {
        self.sessions.lock().unwrap().clear();
    }
}

pub const TOOLS: [&str; 9] =
    ["echo", "ask", "garbage", "silent", "twice", "html", "cut", "../x", "deep"];

impl Stub {
    pub fn start(name: &'static str, speaks: Speaks) -> Self {
        let state = Arc::new(State::default());
        let own = state.clone();
        let upstream = Upstream::start(move |request| own.answer(name, speaks, request));
        Self { name, upstream, state }
    }

    /// The messages that reached it.
    pub fn heard(&self, method: &str) -> Vec<Value> {
        let all = self.upstream.requests();
        let bodies = all.iter().filter_map(|it| serde_json::from_slice::<Value>(&it.body).ok());
        bodies.filter(|it| it["method"] == method).collect()
    }
}

fn said(id: &Value, result: Value) -> Behaviour {
    json_reply(200, json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn failed(status: u16, id: &Value, code: i64, message: &str) -> Behaviour {
    let error = json!({"code": code, "message": message});
    json_reply(status, json!({"jsonrpc": "2.0", "id": id, "error": error}))
}

fn json_reply(status: u16, body: Value) -> Behaviour {
    reply(status, body.to_string()).with("Content-Type", "application/json")
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

impl State {
    fn answer(&self, name: &str, speaks: Speaks, request: &Recorded) -> Behaviour {
        if self.is_down.load(SeqCst) {
            return Behaviour::RawThenClose(Vec::new());
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        for header in ["authorization", "cookie", "x-consumer-username", "x-forwarded-for"] {
            if request.header(header).is_some_and(|it| it != "Bearer planted") {
                return failed(400, &body["id"], -32_600, &format!("{header} is nothing for me"));
            }
        }
        match speaks {
            Speaks::Old => self.old(name, request, &body),
            Speaks::New => self.answer_newest(name, request, &body),
        }
    }

    fn old(&self, name: &str, request: &Recorded, body: &Value) -> Behaviour {
        let id = &body["id"];
        if body["method"] == "initialize" {
            let session = format!("{name}-{}", self.begun.fetch_add(1, SeqCst));
            self.sessions.lock().unwrap().push(session.clone());
            let result = json!({"protocolVersion": OLD, "serverInfo": {"name": name, "version": "1"},
                "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {"subscribe": true}, "completions": {}},
                "instructions": format!("{name} is old")});
            return said(id, result).with("Mcp-Session-Id", &session);
        }
        let Some(session) = request.header("mcp-session-id") else {
            return failed(400, &Value::Null, -32_000, "Bad Request: no session");
        };
        if !self.sessions.lock().unwrap().iter().any(|it| it == session) {
            return failed(404, &Value::Null, -32_001, "Session not found");
        }
        if request.header("mcp-protocol-version") != Some(OLD) {
            return failed(400, id, -32_600, "the version is wrong");
        }
        if request.header("mcp-method").is_some()
            || body["params"]["_meta"].get("io.modelcontextprotocol/protocolVersion").is_some()
        {
            return failed(400, id, -32_600, "what is this?");
        }
        if request.method == "DELETE" {
            self.sessions.lock().unwrap().retain(|it| it != session);
            return reply(200, "");
        }
        if request.method == "GET" {
            return reply(405, "");
        }
        if body.get("method").is_none() {
            *self.answer.lock().unwrap() = body["result"].clone();
            self.answered.open();
            return reply(202, "");
        }
        if id.is_null() {
            return reply(202, "");
        }
        self.common(name, body, false)
    }

    fn answer_newest(&self, name: &str, request: &Recorded, body: &Value) -> Behaviour {
        let (id, method) = (&body["id"], body["method"].as_str().unwrap_or_default());
        if request.method != "POST" {
            return reply(405, "");
        }
        let said_meta = &body["params"]["_meta"];
        if said_meta["io.modelcontextprotocol/protocolVersion"] != NEW
            || said_meta.get("io.modelcontextprotocol/clientCapabilities").is_none()
        {
            return failed(400, id, -32_602, "no version");
        }
        let expected = [("mcp-protocol-version", NEW), ("mcp-method", method)];
        if expected.iter().any(|(header, value)| request.header(header) != Some(value)) {
            return failed(400, id, -32_020, "headers and body differ");
        }
        let named = match method {
            "tools/call" | "prompts/get" => body["params"]["name"].as_str(),
            "resources/read" => body["params"]["uri"].as_str(),
            _ => None,
        };
        if named != request.header("mcp-name") {
            return failed(400, id, -32_020, "the name differs");
        }
        match method {
            "server/discover" => {
                let result = json!({"resultType": "complete", "supportedVersions": [NEW], "ttlMs": 0, "cacheScope": "public",
                    "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {}, "completions": {}}});
                said(id, result)
            }
            "initialize" => failed(404, id, -32_601, "Method not found"),
            _ => self.common(name, body, true),
        }
    }

    fn common(&self, name: &str, body: &Value, is_new: bool) -> Behaviour {
        let (id, params) = (&body["id"], &body["params"]);
        let listed = |member: &str, all: Value| {
            let mut result = json!({member: all});
            if is_new {
                result["ttlMs"] = json!(60_000);
                result["cacheScope"] = json!("public");
                result["resultType"] = json!("complete");
            }
            said(id, result)
        };
        let uri = |it: &str| format!("{name}://{it}");
        match body["method"].as_str().unwrap_or_default() {
            "tools/list" => {
                let description = self.description.lock().unwrap().clone();
                // One page a tool.
                let at: usize = params["cursor"].as_str().map_or(0, |it| it.parse().unwrap());
                let tool = json!({"name": TOOLS[at], "description": description, "inputSchema": {"type": "object"}});
                let mut result = json!({"tools": [tool]});
                if at + 1 < TOOLS.len() {
                    result["nextCursor"] = json!((at + 1).to_string());
                }
                if is_new {
                    result["ttlMs"] = json!(60_000);
                    result["cacheScope"] = json!("public");
                }
                said(id, result)
            }
            "prompts/list" => listed("prompts", json!([{"name": "greet", "description": "d"}])),
            "resources/list" => listed("resources", json!([{"uri": uri("one"), "name": "one"}])),
            "resources/templates/list" => {
                listed("resourceTemplates", json!([{"uriTemplate": uri("{id}"), "name": "all"}]))
            }
            "prompts/get" => said(
                id,
                json!({"messages": [{"role": "user", "content": {"type": "text", "text": name}}]}),
            ),
            "resources/read" if params["uri"] == uri("one") => {
                said(id, json!({"contents": [{"uri": uri("one"), "text": name}]}))
            }
            "resources/read" => {
                failed(200, id, if is_new { -32_602 } else { -32_002 }, "Resource not found")
            }
            "completion/complete" => {
                let about =
                    params["ref"]["name"].as_str().or_else(|| params["ref"]["uri"].as_str());
                said(id, json!({"completion": {"values": [about]}}))
            }
            "resources/subscribe" => said(id, json!({})),
            "tools/call" => self.call(name, body, is_new),
            other => failed(if is_new { 404 } else { 200 }, id, -32_601, other),
        }
    }

    fn call(&self, name: &str, body: &Value, is_new: bool) -> Behaviour {
        self.calls.fetch_add(1, SeqCst);
        let (id, params) = (&body["id"], &body["params"]);
        let text = |it: String| json!({"content": [{"type": "text", "text": it}]});
        match params["name"].as_str().unwrap_or_default() {
            "echo" => said(id, text(format!("{name} {}", params["arguments"]))),
            "ask" if is_new => match params["inputResponses"]["who"].get("content") {
                Some(content) => {
                    said(id, text(format!("{name} {} {}", content["name"], params["requestState"])))
                }
                None => said(
                    id,
                    json!({"resultType": "input_required", "requestState": "of-the-server",
                    "inputRequests": {"who": {"method": "elicitation/create", "params": {"message": "Who?"}}}}),
                ),
            },
            "ask" => {
                let question = json!({"jsonrpc": "2.0", "id": 77, "method": "elicitation/create", "params": {"message": "Who?"}});
                let first = Behaviour::Raw(format!("{EVENTS}{}", event(&question)).into_bytes());
                let last = json!({"jsonrpc": "2.0", "id": id, "result": text(format!("{name} was answered"))});
                let last = Behaviour::RawThenClose(event(&last).into_bytes());
                Behaviour::Then(Box::new(first), Box::new(last.after(&self.answered)))
            }
            "garbage" => json_reply(200, json!("no message")),
            "silent" => Behaviour::Never,
            "twice" => {
                let other = json!({"jsonrpc": "2.0", "id": "not-yours", "result": text("stolen".to_owned())});
                let own = json!({"jsonrpc": "2.0", "id": id, "result": text("first".to_owned())});
                let again =
                    json!({"jsonrpc": "2.0", "id": id, "result": text("second".to_owned())});
                let all = format!("{EVENTS}{}{}{}", event(&other), event(&own), event(&again));
                Behaviour::RawThenClose(all.into_bytes())
            }
            "html" => reply(200, "<p>").with("Content-Type", "text/html"),
            "cut" => Behaviour::RawThenClose(format!("{EVENTS}data: {{\"jsonrpc\"").into_bytes()),
            "deep" => {
                let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
                let body = format!(
                    "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":{deep}}}}}"
                );
                reply(200, body).with("Content-Type", "application/json")
            }
            other => said(id, text(format!("{name} has {other}"))),
        }
    }
}
