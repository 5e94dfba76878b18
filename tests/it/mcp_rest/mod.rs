//! Operations of an OpenAPI document as tools: what clients are told of them, what reaches the API, by
//! whose policies, and what comes back.
mod calls;
mod hostile;
mod policies;

use serde_json::{Value, json};

use crate::support::{Gateway, Recorded, Request, Response, Upstream, hash_of, key, reply};

const VERSION: &str = "2026-07-28";

pub const DOCUMENT: &str = r##"
openapi: 3.0.3
info: {title: Orders, version: "1"}
servers: [{url: "https://anywhere.test/api"}]
paths:
  /orders:
    get:
      operationId: listOrders
      summary: List orders
      parameters:
        - {name: "filter[state]", in: query, schema: {type: string}}
        - {name: X-Trace, in: header, schema: {type: string}}
      responses:
        200: {description: "", content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/order"}}}}}
    post:
      operationId: createOrder
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/order"}}}}
      responses:
        201: {description: "", content: {application/json: {schema: {$ref: "#/components/schemas/order"}}}}
  /orders/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: getOrder, responses: {200: {description: ""}}}
    delete: {operationId: deleteOrder, responses: {204: {description: ""}}}
  /orders/{id}/label:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: getLabel, responses: {200: {description: "", content: {image/png: {}}}}}
components:
  schemas:
    order:
      type: object
      required: [id, quantity]
      properties:
        id: {type: string, readOnly: true}
        quantity: {type: integer, minimum: 1}
        note: {type: string, nullable: true}
"##;

/// A gateway whose route `tools` offers the operations of [`DOCUMENT`], through the route `orders`.
pub struct Scene {
    pub gateway: Gateway,
    pub api: Upstream,
    _folder: tempfile::TempDir,
}

impl Scene {
    pub fn start() -> Self {
        Self::with("auth: [api_key]", answer)
    }

    /// `orders` is what the route says besides its path and upstream.
    pub fn with(
        orders: &str,
        answer: impl Fn(&Recorded) -> crate::support::Behaviour + Send + Sync + 'static,
    ) -> Self {
        Self::with_config(orders, "", answer)
    }

    pub fn with_config(
        orders: &str,
        more: &str,
        answer: impl Fn(&Recorded) -> crate::support::Behaviour + Send + Sync + 'static,
    ) -> Self {
        let api = Upstream::start(answer);
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("orders.yaml");
        std::fs::write(&document, DOCUMENT).unwrap();
        let consumer = |name: &str| {
            let hash = hash_of(&key(name));
            format!(
                "  {name}: {{groups: [{name}s], api_keys: [{{id: {name}, hash: \"{hash}\", scopes: [{name}s.all]}}]}}\n"
            )
        };
        let yaml = format!(
            "upstreams:\n  api: {{endpoints: [{{url: {url}}}], timeouts: {{total: 3s}}}}\n\
             consumers:\n{acme}{other}\
             telemetry: {{access_log: {{path: $DIR/access.log}}}}\n\
             routes:\n  - id: tools\n    match: {{paths: [/mcp]}}\n    auth: [api_key]\n    mcp: {{servers: [orders]}}\n  \
             - id: orders\n    match: {{paths: [/api/*]}}\n    rewrite: {{strip_prefix: /api}}\n    upstream: api\n    {orders}\n{more}\
             mcp:\n  servers:\n    orders: {{openapi: {document}, route: orders, operations: {{paths: [\"/orders*\"]}}, timeout: 5s, answer_limit: 64KiB}}\n",
            url = api.url(),
            acme = consumer("acme"),
            other = consumer("other"),
            document = document.display(),
        );
        Self { gateway: Gateway::start(&yaml, &[]), api, _folder: folder }
    }

    pub fn ask(&self, consumer: &str, method: &str, params: Value) -> Request {
        ask(&self.gateway, consumer, method, params)
    }

    /// The result of a call.
    pub fn call(&self, consumer: &str, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        result(&self.ask(consumer, "tools/call", params).send())
    }

    /// What is said of a call that failed.
    pub fn failed(&self, consumer: &str, tool: &str, arguments: Value) -> String {
        let result = self.call(consumer, tool, arguments);
        assert_eq!(result["isError"], true, "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

/// A request in the words of the current version.
pub fn ask(gateway: &Gateway, consumer: &str, method: &str, mut params: Value) -> Request {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let request = gateway
        .request("POST", "/mcp")
        .header("X-API-Key", &key(consumer))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", VERSION)
        .header("Mcp-Method", method);
    let request = match params["name"].as_str() {
        Some(name) => request.header("Mcp-Name", name),
        None => request,
    };
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    request.body(body.to_string())
}

/// The result in an answer, whole or as a stream.
#[track_caller]
pub fn result(response: &Response) -> Value {
    let text = response.text();
    let data = text.lines().filter_map(|it| it.strip_prefix("data: ")).next_back();
    let message: Value = serde_json::from_str(data.unwrap_or(&text)).unwrap_or_else(|why| {
        panic!("{why}: {} {text}", response.status);
    });
    assert!(message["result"].is_object(), "{} {message}", response.status);
    message["result"].clone()
}

/// An API that says what it was asked.
pub fn answer(request: &Recorded) -> crate::support::Behaviour {
    let json = |status: u16, body: Value| {
        reply(status, body.to_string()).with("Content-Type", "application/json")
    };
    let path = request.target.split('?').next().unwrap_or_default();
    match (&*request.method, path) {
        ("GET", "/orders") => json(200, json!([{"id": "1", "quantity": 2}])),
        ("POST", "/orders") => json(201, json!({"id": "7", "quantity": 1, "note": null})),
        ("DELETE", _) => reply(204, ""),
        (_, "/orders/gone") => json(404, json!({"title": "no such order"})),
        (_, "/orders/1/label") => {
            reply(200, b"\x89PNG\xff".to_vec()).with("Content-Type", "image/png")
        }
        _ => json(
            200,
            json!({
                "target": request.target,
                "caller": request.header("x-consumer-username"),
            }),
        ),
    }
}
