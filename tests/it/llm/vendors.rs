//! Stubs of the vendors, as strict as their documents: they check what they are asked, answer in their
//! own words, and misbehave as the name of the model says.
use serde_json::{Value, json};

use crate::support::{Behaviour, Recorded, Upstream, reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    OpenAi,
    Mistral,
    Anthropic,
    Gemini,
}

pub const VENDORS: [Vendor; 4] =
    [Vendor::OpenAi, Vendor::Mistral, Vendor::Anthropic, Vendor::Gemini];

impl Vendor {
    pub const fn word(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Mistral => "mistral",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// The key that its stub takes; another is refused.
    pub fn secret(self) -> String {
        format!("sk-{}-planted", self.word())
    }

    pub fn start(self) -> Upstream {
        Upstream::start(move |request| self.answer(request))
    }

    /// What is wrong with a request: the status and why.
    fn check(self, request: &Recorded) -> Result<Value, (u16, String)> {
        let wrong = |why: String| (400, why);
        let (header, value) = match self {
            Self::OpenAi | Self::Mistral => ("authorization", format!("Bearer {}", self.secret())),
            Self::Anthropic => ("x-api-key", self.secret()),
            Self::Gemini => ("x-goog-api-key", self.secret()),
        };
        if request.header(header) != Some(value.as_str()) {
            return Err((401, format!("the key {:?} is wrong", request.header(header))));
        }
        for (name, _) in &request.headers.0 {
            let name = name.to_ascii_lowercase();
            let is_gateways = name.starts_with("x-consumer") || name.starts_with("x-forwarded");
            if is_gateways || name == "cookie" || name == "accept-language" {
                return Err(wrong(format!("the header {name} is nothing for me")));
            }
        }
        if request.header("content-type") != Some("application/json") {
            return Err(wrong("not application/json".to_owned()));
        }
        let body: Value =
            serde_json::from_slice(&request.body).map_err(|why| wrong(why.to_string()))?;
        self.check_body(&body).map_err(wrong)?;
        Ok(body)
    }

    fn check_body(self, body: &Value) -> Result<(), String> {
        let known: &[&str] = match self {
            Self::OpenAi => &[
                "model",
                "messages",
                "tools",
                "tool_choice",
                "parallel_tool_calls",
                "max_tokens",
                "max_completion_tokens",
                "temperature",
                "top_p",
                "stop",
                "seed",
                "stream",
                "stream_options",
                "presence_penalty",
                "frequency_penalty",
                "response_format",
                "reasoning_effort",
                "user",
                "logit_bias",
                "new_parameter",
                "input",
                "n",
            ],
            Self::Mistral => &[
                "model",
                "messages",
                "tools",
                "tool_choice",
                "parallel_tool_calls",
                "max_tokens",
                "temperature",
                "top_p",
                "stop",
                "random_seed",
                "stream",
                "presence_penalty",
                "frequency_penalty",
                "response_format",
            ],
            Self::Anthropic => &[
                "model",
                "messages",
                "max_tokens",
                "system",
                "tools",
                "tool_choice",
                "temperature",
                "top_p",
                "top_k",
                "stop_sequences",
                "stream",
                "thinking",
                "output_config",
                "metadata",
            ],
            Self::Gemini => &[
                "contents",
                "systemInstruction",
                "tools",
                "toolConfig",
                "generationConfig",
                "safetySettings",
            ],
        };
        for key in body.as_object().ok_or("no object")?.keys() {
            if !known.contains(&key.as_str()) {
                return Err(format!("extra_forbidden: {key}"));
            }
        }
        match self {
            Self::OpenAi | Self::Mistral => self.check_messages(body),
            Self::Anthropic => check_anthropic(body),
            Self::Gemini => check_gemini(body),
        }
    }

    fn check_messages(self, body: &Value) -> Result<(), String> {
        let mut open: Vec<String> = Vec::new();
        let Some(messages) = body["messages"].as_array() else {
            return if body.get("input").is_some() {
                Ok(())
            } else {
                Err("no messages".to_owned())
            };
        };
        for message in messages {
            let role = message["role"].as_str().ok_or("no role")?;
            if role == "tool" {
                let id = message["tool_call_id"].as_str().ok_or("no tool_call_id")?;
                let at = open.iter().position(|it| it == id).ok_or(format!("no call {id}"))?;
                open.remove(at);
                if !message["content"].is_string() && !message["content"].is_array() {
                    return Err("a tool's content is text".to_owned());
                }
                continue;
            }
            if !open.is_empty() {
                return Err(format!("the calls {open:?} have no results"));
            }
            if !["system", "developer", "user", "assistant"].contains(&role) {
                return Err(format!("the role {role} is unknown"));
            }
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                let arguments = call["function"]["arguments"].as_str().ok_or("arguments")?;
                serde_json::from_str::<serde_json::Map<_, _>>(arguments)
                    .map_err(|why| why.to_string())?;
                let id = call["id"].as_str().ok_or("no id")?;
                let is_nine = id.len() == 9 && id.bytes().all(|it| it.is_ascii_alphanumeric());
                if self == Self::Mistral && !is_nine {
                    return Err(format!("the id {id} is not of nine letters and digits"));
                }
                open.push(id.to_owned());
            }
        }
        Ok(())
    }

    fn model(self, request: &Recorded, body: &Value) -> String {
        let in_path = || {
            let path = request.target.split('?').next().unwrap();
            path.rsplit('/').next().unwrap().rsplit_once(':').unwrap().0.to_owned()
        };
        match self {
            Self::Gemini => in_path(),
            _ => body["model"].as_str().unwrap_or_default().to_owned(),
        }
    }

    fn is_stream(self, request: &Recorded, body: &Value) -> bool {
        match self {
            Self::Gemini => request.target.contains(":streamGenerateContent?alt=sse"),
            _ => body["stream"] == true,
        }
    }

    fn is_path_right(self, request: &Recorded) -> bool {
        match self {
            Self::OpenAi | Self::Mistral => request.target == "/v1/chat/completions",
            Self::Anthropic => request.target == "/v1/messages",
            Self::Gemini => request.target.starts_with("/v1beta/models/"),
        }
    }

    fn answer(self, request: &Recorded) -> Behaviour {
        let body = match self.check(request) {
            Ok(body) => body,
            Err((status, why)) => return self.refuse(status, &why),
        };
        if !self.is_path_right(request) {
            return self.pass(request);
        }
        let model = self.model(request, &body);
        let is_stream = self.is_stream(request, &body);
        match model.as_str() {
            "limited" => return self.refuse(429, "too fast").with("retry-after", "7"),
            "overloaded" => return self.refuse(529, "overloaded"),
            "broken" => return self.refuse(500, "a defect"),
            "denied" => return self.refuse(403, "not this model, sk-planted"),
            "refused" if self == Self::Gemini => {
                let details = json!([{"reason": "API_KEY_INVALID"}]);
                let error = json!({"code": 400, "message": "API key sk-planted not valid", "details": details});
                let body = json!({"error": error}).to_string();
                return reply(400, body).with("content-type", "application/json");
            }
            "refused" => return self.refuse(401, "your key sk-planted-in-error is bad"),
            "unknown" => return self.refuse(404, "no such model"),
            "html" => return reply(200, "<html>").with("content-type", "text/html"),
            "no-json" => return reply(200, "{").with("content-type", "application/json"),
            "silent" => return Behaviour::Never,
            _ => {}
        }
        let asks = Asks::read(self, &body);
        if !is_stream {
            let text = self.whole(&asks, model == "no-usage").to_string();
            return reply(200, text).with("content-type", "application/json");
        }
        let mut events = self.events(&asks, &body, model == "no-usage");
        let all = events.len();
        match model.as_str() {
            "cut" | "dies" | "hangs" => events.truncate(all / 2),
            "cut-early" => events.truncate(1),
            "error-early" => {
                events.truncate(1);
                events.push(self.error_event());
            }
            "error-late" => {
                events.truncate(all / 2);
                events.push(self.error_event());
            }
            "lies" => events = vec!["data: {\n\n".to_owned()],
            _ => {}
        }
        let text = events.concat();
        let size = match model.as_str() {
            "bytes" => 1,
            // So that the error does not come with the first content.
            "error-late" => 64,
            _ => 4096,
        };
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in text.as_bytes().chunks(size) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        match model.as_str() {
            "hangs" => Behaviour::RawThenWait(bytes),
            "dies" => Behaviour::RawThenClose(bytes),
            _ => {
                bytes.extend(b"0\r\n\r\n");
                Behaviour::Raw(bytes)
            }
        }
    }

    /// What is passed on: embeddings, responses, counting.
    fn pass(self, request: &Recorded) -> Behaviour {
        let body = match request.target.as_str() {
            "/v1/embeddings" => json!({
                "object": "list", "data": [{"embedding": [0.25], "index": 0}],
                "usage": {"prompt_tokens": 5, "total_tokens": 5},
            }),
            "/v1/responses" => json!({
                "id": "resp_1", "object": "response", "status": "completed", "output": [],
                "error": null,
                "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
            }),
            "/v1/messages/count_tokens" => json!({"input_tokens": 42}),
            _ => return self.refuse(404, "no such path"),
        };
        reply(200, body.to_string()).with("content-type", "application/json")
    }

    fn refuse(self, status: u16, why: &str) -> Behaviour {
        let kind = if status == 529 { "overloaded_error" } else { "api_error" };
        let body = match self {
            Self::OpenAi => {
                json!({"error": {"message": why, "type": "t", "param": null, "code": "c"}})
            }
            Self::Mistral => json!({"object": "error", "message": why, "type": "t"}),
            Self::Anthropic => json!({"type": "error", "error": {"type": kind, "message": why}}),
            Self::Gemini => json!({"error": {"code": status, "message": why, "status": "S"}}),
        };
        reply(status, body.to_string()).with("content-type", "application/json")
    }

    fn error_event(self) -> String {
        let data = match self {
            Self::OpenAi | Self::Mistral => {
                json!({"error": {"message": "gone", "type": "server_error"}})
            }
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "gone"}})
            }
            Self::Gemini => {
                json!({"error": {"code": 503, "message": "gone", "status": "UNAVAILABLE"}})
            }
        };
        let name = if self == Self::Anthropic { "event: error\n" } else { "" };
        format!("{name}data: {data}\n\n")
    }
}

fn check_anthropic(body: &Value) -> Result<(), String> {
    if body["messages"].is_null() {
        return Err("no messages".to_owned());
    }
    if body.get("max_tokens").is_none_or(|it| it.as_u64().is_none()) {
        return Err("max_tokens: field required".to_owned());
    }
    let none = Vec::new();
    let (mut last, mut open) = ("", Vec::new());
    for message in body["messages"].as_array().ok_or("messages")? {
        let role = message["role"].as_str().ok_or("role")?;
        if role == last || !["user", "assistant"].contains(&role) {
            return Err(format!("the role {role} follows {last}"));
        }
        last = role;
        let blocks = message["content"].as_array().unwrap_or(&none);
        let mut results: Vec<&str> = Vec::new();
        let mut has_other = false;
        for block in blocks {
            match block["type"].as_str().ok_or("type")? {
                "tool_result" if has_other => return Err("results come first".to_owned()),
                "tool_result" => results.push(block["tool_use_id"].as_str().ok_or("id")?),
                _ => has_other = true,
            }
        }
        if results != open {
            return Err(format!("results {results:?} for the calls {open:?}"));
        }
        open = blocks
            .iter()
            .filter(|it| it["type"] == "tool_use")
            .filter_map(|it| it["id"].as_str())
            .collect();
    }
    Ok(())
}

fn check_gemini(body: &Value) -> Result<(), String> {
    for content in body["contents"].as_array().ok_or("contents")? {
        let role = content["role"].as_str().unwrap_or("user");
        if !["user", "model"].contains(&role) {
            return Err(format!("the role {role} is unknown"));
        }
        for part in content["parts"].as_array().ok_or("parts")? {
            if part["functionResponse"].is_object()
                && !part["functionResponse"]["response"].is_object()
            {
                return Err("a response is an object".to_owned());
            }
            if part["functionCall"].is_object() && !part["functionCall"]["args"].is_object() {
                return Err("args are an object".to_owned());
            }
        }
    }
    Ok(())
}

/// What the stub makes of a request.
pub struct Asks {
    /// A tool is offered and has no result yet.
    pub wants_tool: bool,
}

impl Asks {
    fn read(vendor: Vendor, body: &Value) -> Self {
        let text = body.to_string();
        let has_tools = body["tools"].is_array();
        let has_result = match vendor {
            Vendor::OpenAi | Vendor::Mistral => text.contains("\"role\":\"tool\""),
            Vendor::Anthropic => text.contains("tool_result"),
            Vendor::Gemini => text.contains("functionResponse"),
        };
        Self { wants_tool: has_tools && !has_result }
    }
}
