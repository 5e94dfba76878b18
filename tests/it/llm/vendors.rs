//! Stubs of the vendors, as strict as their documents: they check what they are asked, answer in their
//! own words, and misbehave as the name of the model says.
use serde_json::{Value, json};

use super::{bedrock, checks};
use crate::support::{Behaviour, Recorded, Upstream, reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    OpenAi,
    Azure,
    Mistral,
    Anthropic,
    Gemini,
    Ollama,
    Bedrock,
}

pub const VENDORS: [Vendor; 7] = [
    Vendor::OpenAi,
    Vendor::Azure,
    Vendor::Mistral,
    Vendor::Anthropic,
    Vendor::Gemini,
    Vendor::Ollama,
    Vendor::Bedrock,
];

/// Of Azure's API, as the stub wants it.
pub const AZURE: &str = "2024-10-21";

impl Vendor {
    pub const fn word(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Ollama => "ollama",
            Self::Bedrock => "bedrock",
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
            Self::OpenAi | Self::Mistral | Self::Ollama | Self::Bedrock => {
                ("authorization", format!("Bearer {}", self.secret()))
            }
            Self::Azure => ("api-key", self.secret()),
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
        let kind = request.header("content-type").unwrap_or_default();
        if request.target == "/v1/audio/transcriptions" {
            let is_form = kind.starts_with("multipart/form-data; boundary=");
            return if is_form { Ok(Value::Null) } else { Err(wrong(format!("no form: {kind}"))) };
        }
        if kind != "application/json" {
            return Err(wrong("not application/json".to_owned()));
        }
        let body: Value =
            serde_json::from_slice(&request.body).map_err(|why| wrong(why.to_string()))?;
        if self.is_path_right(request) {
            checks::body(self, &body).map_err(wrong)?;
        }
        Ok(body)
    }

    fn model(self, request: &Recorded, body: &Value) -> String {
        let in_path = || {
            let path = request.target.split('?').next().unwrap();
            path.rsplit('/').next().unwrap().rsplit_once(':').unwrap().0.to_owned()
        };
        match self {
            Self::Gemini => in_path(),
            Self::Bedrock => request.target.split('/').nth(2).unwrap_or_default().to_owned(),
            Self::Azure => request.target.split('/').nth(3).unwrap_or_default().to_owned(),
            _ => body["model"].as_str().unwrap_or_default().to_owned(),
        }
    }

    fn is_stream(self, request: &Recorded, body: &Value) -> bool {
        match self {
            Self::Gemini => request.target.contains(":streamGenerateContent?alt=sse"),
            Self::Bedrock => request.target.ends_with("/converse-stream"),
            _ => body["stream"] == true,
        }
    }

    fn is_path_right(self, request: &Recorded) -> bool {
        match self {
            Self::OpenAi | Self::Mistral => request.target == "/v1/chat/completions",
            Self::Azure => {
                request.target.starts_with("/openai/deployments/")
                    && request.target.ends_with(&format!("/chat/completions?api-version={AZURE}"))
            }
            Self::Ollama => request.target == "/api/chat",
            Self::Bedrock => request.target.contains("/converse"),
            Self::Anthropic => request.target == "/v1/messages",
            Self::Gemini => {
                request.target.contains(":generateContent")
                    || request.target.contains(":streamGenerateContent")
            }
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
            "refused" if self == Self::Bedrock => {
                let said = "UnrecognizedClientException:http://internal.amazon.com/";
                return self.refuse(403, "sk-planted is invalid").with("x-amzn-errortype", said);
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
            "lies" if self == Self::Ollama => events = vec![b"{\n".to_vec()],
            "lies" if self == Self::Bedrock => events = vec![vec![0; 64]],
            "lies" => events = vec![b"data: {\n\n".to_vec()],
            _ => {}
        }
        let text = events.concat();
        let size = match model.as_str() {
            "bytes" => 1,
            // So that the error does not come with the first content.
            "error-late" => 8,
            _ => 4096,
        };
        let kind = match self {
            Self::Ollama => "application/x-ndjson",
            Self::Bedrock => "application/vnd.amazon.eventstream",
            _ => "text/event-stream; charset=utf-8",
        };
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for chunk in text.chunks(size) {
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

    /// What is no chat: embeddings, responses, counting, voices.
    fn pass(self, request: &Recorded) -> Behaviour {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let path = request.target.split('?').next().unwrap_or_default();
        let end = path.rsplit(['/', ':']).next().unwrap_or_default();
        let answer = match end {
            "embeddings" | "embed" | "batchEmbedContents" | "embedContent" => {
                match checks::embed(self, end, &body) {
                    Ok(texts) => self.vectors(end, texts),
                    Err(why) => return self.refuse(400, &why),
                }
            }
            "responses" if body["stream"] == true => {
                let said = json!({"type": "response.output_text.delta", "delta": "a"});
                let last = json!({"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}});
                let text = format!("data: {said}\n\ndata: {last}\n\n");
                return reply(200, text).with("content-type", "text/event-stream");
            }
            "responses" => json!({
                "id": "resp_1", "object": "response", "status": "completed", "output": [],
                "error": null,
                "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
            }),
            "count_tokens" => match checks::known(
                &body,
                &[
                    "model",
                    "messages",
                    "system",
                    "tools",
                    "tool_choice",
                    "thinking",
                    "output_config",
                ],
            ) {
                Ok(()) => json!({"input_tokens": 42}),
                Err(why) => return self.refuse(400, &why),
            },
            "countTokens" => match checks::known(&body, &["contents", "generateContentRequest"]) {
                Ok(()) => json!({"totalTokens": 42}),
                Err(why) => return self.refuse(400, &why),
            },
            "speech" => return reply(200, [0_u8, 255, 1]).with("content-type", "audio/mpeg"),
            "transcriptions" => {
                json!({"text": "hello", "usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 2, "total_tokens": 11}})
            }
            "generations" => {
                json!({"created": 1, "data": [{"b64_json": "QUJD"}], "usage": {"input_tokens": 9, "output_tokens": 200, "total_tokens": 209}})
            }
            _ => return self.refuse(404, "no such path"),
        };
        reply(200, answer.to_string()).with("content-type", "application/json")
    }

    /// The number of each text as its vector.
    fn vectors(self, end: &str, texts: usize) -> Value {
        let vector = |it: usize| json!([it, 0.25]);
        let all = || (0..texts).map(vector);
        match self {
            Self::Gemini if end == "embedContent" => json!({"embedding": {"values": vector(0)}}),
            Self::Gemini => {
                json!({"embeddings": all().map(|it| json!({"values": it})).collect::<Value>()})
            }
            Self::Ollama => {
                json!({"model": "m", "embeddings": all().collect::<Value>(), "prompt_eval_count": 5})
            }
            _ => {
                let one = |(index, it): (usize, Value)| json!({"object": "embedding", "embedding": it, "index": index});
                json!({
                    "object": "list", "data": all().enumerate().map(one).collect::<Value>(),
                    "usage": {"prompt_tokens": 5, "total_tokens": 5},
                })
            }
        }
    }

    fn refuse(self, status: u16, why: &str) -> Behaviour {
        let kind = if status == 529 { "overloaded_error" } else { "api_error" };
        let body = match self {
            Self::OpenAi | Self::Azure => {
                json!({"error": {"message": why, "type": "t", "param": null, "code": "c"}})
            }
            Self::Ollama => json!({"error": why}),
            Self::Bedrock => json!({"message": why}),
            Self::Mistral => json!({"object": "error", "message": why, "type": "t"}),
            Self::Anthropic => json!({"type": "error", "error": {"type": kind, "message": why}}),
            Self::Gemini => json!({"error": {"code": status, "message": why, "status": "S"}}),
        };
        reply(status, body.to_string()).with("content-type", "application/json")
    }

    fn error_event(self) -> Vec<u8> {
        let data = match self {
            Self::OpenAi | Self::Azure | Self::Mistral => {
                json!({"error": {"message": "gone", "type": "server_error"}})
            }
            Self::Ollama => return b"{\"error\":\"gone\"}\n".to_vec(),
            Self::Bedrock => {
                let said = json!({"message": "gone"});
                return bedrock::frame(":exception-type", "serviceUnavailableException", &said);
            }
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "gone"}})
            }
            Self::Gemini => {
                json!({"error": {"code": 503, "message": "gone", "status": "UNAVAILABLE"}})
            }
        };
        let name = if self == Self::Anthropic { "event: error\n" } else { "" };
        format!("{name}data: {data}\n\n").into_bytes()
    }
}

/// What the stub makes of a request.
pub struct Asks {
    /// A tool is offered and has no result yet.
    pub wants_tool: bool,
    /// The first that is offered.
    pub tool: String,
}

impl Asks {
    fn read(vendor: Vendor, body: &Value) -> Self {
        let text = body.to_string();
        let tools =
            if vendor == Vendor::Bedrock { &body["toolConfig"]["tools"] } else { &body["tools"] };
        let has_tools = tools.as_array().is_some_and(|it| !it.is_empty());
        let has_result = match vendor {
            Vendor::Anthropic => text.contains("tool_result"),
            Vendor::Gemini => text.contains("functionResponse"),
            Vendor::Bedrock => text.contains("toolResult"),
            _ => text.contains("\"role\":\"tool\""),
        };
        let name = [
            "/tools/0/function/name",
            "/tools/0/name",
            "/tools/0/functionDeclarations/0/name",
            "/toolConfig/tools/0/toolSpec/name",
        ]
        .into_iter()
        .find_map(|it| body.pointer(it)?.as_str());
        let tool = name.unwrap_or("weather").to_owned();
        Self { wants_tool: has_tools && !has_result, tool }
    }
}
