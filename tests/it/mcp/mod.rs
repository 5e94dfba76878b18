//! Routes of tools: servers of both eras behind one endpoint, for clients of both; who may use what; and
//! what happens when clients and servers misbehave.
mod access;
mod bridging;
mod eras;
mod federation;
mod hostile;
mod stub;

use serde_json::{Value, json};

use self::stub::Stub;
use crate::support::{Gateway, Request, Response, hash_of, key};

pub const NEW: &str = "2026-07-28";
pub const OLD: &str = "2025-11-25";

/// A gateway before some servers. Each has a route of its own, `/NAME`, whose tools keep their names; `/all`
/// has them all, and `/keyed` for consumers alone.
pub struct Scene {
    pub gateway: Gateway,
    pub stubs: Vec<Stub>,
}

impl Scene {
    #[track_caller]
    pub fn start(stubs: Vec<Stub>) -> Self {
        Self::with(stubs, "", "")
    }

    /// With further words for each server, and further lines for `mcp`.
    #[track_caller]
    pub fn with(stubs: Vec<Stub>, each: &str, more: &str) -> Self {
        let yaml = yaml(&stubs, each, more);
        Self { gateway: Gateway::start(&yaml, &[]), stubs }
    }

    pub fn post(&self, path: &str, body: &Value) -> Request {
        let request = self.gateway.request("POST", path);
        request
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
            .body(body.to_string())
    }

    /// A request of the newer version, with the headers that it needs.
    pub fn modern(&self, path: &str, method: &str, params: Value) -> Request {
        let mut request = self
            .post(path, &asked(1, method, meta(params.clone(), json!({}))))
            .header("MCP-Protocol-Version", NEW)
            .header("Mcp-Method", method);
        let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str);
        if let (Some(name), false) = (name, method.starts_with("completion")) {
            request = request.header("Mcp-Name", name);
        }
        request
    }

    /// A session of an older version: its id.
    #[track_caller]
    pub fn initialize(&self, path: &str, can: Value) -> String {
        let response = self.post(path, &initialize(OLD, can)).send();
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.json()["result"]["protocolVersion"], OLD);
        response.header("mcp-session-id").unwrap().to_owned()
    }

    /// A request in a session.
    pub fn legacy(
        &self,
        path: &str,
        session: &str,
        id: i64,
        method: &str,
        params: Value,
    ) -> Request {
        self.post(path, &asked(id, method, params))
            .header("MCP-Protocol-Version", OLD)
            .header("Mcp-Session-Id", session)
    }

    pub fn stub(&self, name: &str) -> &Stub {
        self.stubs.iter().find(|it| it.name == name).unwrap()
    }
}

pub fn yaml(stubs: &[Stub], each: &str, more: &str) -> String {
    let names: Vec<&str> = stubs.iter().map(|it| it.name).collect();
    let names = names.join(", ");
    let (mut servers, mut routes) = (String::new(), String::new());
    for Stub { name, upstream, .. } in stubs {
        servers += &format!("    {name}: {{url: \"{}/mcp\", timeout: 2s{each}}}\n", upstream.url());
        routes += &format!(
            "  - {{id: {name}, match: {{paths: [/{name}]}}, public: true, mcp: {{servers: [{name}], prefix: false}}}}\n"
        );
    }
    format!(
        "authenticators:\n  api_key: {{api_key: {{}}}}\n\
         consumers:\n  acme: {{groups: [partners], api_keys: [{{id: one, hash: \"{}\"}}]}}\n  \
         other: {{api_keys: [{{id: two, hash: \"{}\"}}]}}\n\
         mcp:\n  servers:\n{servers}{more}\
         routes:\n{routes}  - {{id: all, match: {{paths: [/all]}}, public: true, body_limit: 64KiB, mcp: {{servers: [{names}]}}}}\n  \
         - {{id: keyed, match: {{paths: [/keyed]}}, auth: [api_key], mcp: {{servers: [{names}]}}}}\n",
        hash_of(&key("one")),
        hash_of(&key("two")),
    )
}

pub fn asked(id: i64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub fn initialize(version: &str, can: Value) -> Value {
    let params = json!({"protocolVersion": version, "capabilities": can,
        "clientInfo": {"name": "test", "version": "1"}});
    asked(1, "initialize", params)
}

/// With what each request of the newer version says.
pub fn meta(mut params: Value, can: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": NEW,
        "io.modelcontextprotocol/clientCapabilities": can,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    params
}

/// The messages of an answer, whole or as a stream.
pub fn messages(response: &Response) -> Vec<Value> {
    if response.header("content-type") != Some("text/event-stream") {
        return vec![response.json()];
    }
    let text = response.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|it| !it.is_empty()).map(|it| serde_json::from_str(it).unwrap()).collect()
}

pub fn result(response: &Response) -> Value {
    let mut all = messages(response);
    let last = all.pop().unwrap();
    assert!(last.get("result").is_some(), "{last}");
    last["result"].clone()
}

/// The names that a list has.
pub fn names(response: &Response, member: &str, key: &str) -> Vec<String> {
    let result = result(response);
    let all = result[member].as_array().unwrap_or_else(|| panic!("{result}"));
    all.iter().map(|it| it[key].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
pub fn assert_error(response: &Response, status: u16, code: i64, said: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let error = messages(response).pop().unwrap()["error"].clone();
    assert_eq!(error["code"], code, "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(said), "{message}");
}
