//! Content that is asked for. The model stands in the path.
use serde_json::{Value, json};

use super::schema;
use crate::llm::{
    api::{Encoded, Ids, put, say},
    chat::{
        Effort, Format, Media, Message, Part, Request, Role, Tool, ToolCall, ToolChoice, ToolResult,
    },
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// A field under either of its names.
fn either(fields: &mut Fields<'_>, camel: &str, snake: &str) -> Option<Value> {
    fields.take(camel).or_else(|| fields.take(snake))
}

pub fn decode(body: Value) -> Read<Request> {
    let mut fields = Fields::new(body, At::Root)?;
    let mut reader = Reader::default();
    let mut request = Request { wants_usage: true, ..Request::default() };
    if let Some(value) = either(&mut fields, "systemInstruction", "system_instruction") {
        let place = At::Key(&At::Root, "systemInstruction");
        let (_, parts) = reader.content(value, place)?;
        for part in parts {
            let Part::Text(text) = part else { return Err(place.wrong("must be text")) };
            request.system.push(text);
        }
    }
    let contents =
        fields.list("contents")?.ok_or_else(|| fields.wrong("contents", "is missing"))?;
    let place = At::Key(&At::Root, "contents");
    for (index, value) in contents.into_iter().enumerate() {
        let (role, parts) = reader.content(value, At::Item(&place, index))?;
        say(&mut request.messages, role, parts);
    }
    let mut dropped = reader.dropped;
    let place = At::Key(&At::Root, "tools");
    for (index, value) in fields.list("tools")?.into_iter().flatten().enumerate() {
        tools(Fields::new(value, At::Item(&place, index))?, &mut request.tools, &mut dropped)?;
    }
    if let Some(value) = either(&mut fields, "toolConfig", "tool_config") {
        choice(value, &mut request, &mut dropped)?;
    }
    if let Some(value) = either(&mut fields, "generationConfig", "generation_config") {
        let place = At::Key(&At::Root, "generationConfig");
        config(Fields::new(value, place)?, &mut request, &mut dropped)?;
    }
    fields.rest(&mut dropped);
    request.dropped = dropped;
    Ok(request)
}

#[derive(Default)]
struct Reader {
    ids: Ids,
    dropped: Vec<String>,
}

impl Reader {
    fn content(&mut self, value: Value, at: At<'_>) -> Read<(Role, Vec<Part>)> {
        let value = match value {
            Value::String(text) => json!({"parts": [{"text": text}]}),
            value => value,
        };
        let mut fields = Fields::new(value, at)?;
        let role = match fields.text("role")?.as_deref() {
            None | Some("user" | "function" | "system") => Role::User,
            Some("model") => Role::Assistant,
            Some(_) => return Err(fields.wrong("role", "must be user or model")),
        };
        let list = fields.list("parts")?.ok_or_else(|| fields.wrong("parts", "is missing"))?;
        let place = At::Key(&at, "parts");
        let mut parts = Vec::new();
        for (index, value) in list.into_iter().enumerate() {
            parts.push(self.part(Fields::new(value, At::Item(&place, index))?)?);
        }
        fields.rest(&mut self.dropped);
        Ok((role, parts))
    }

    fn part(&mut self, mut fields: Fields<'_>) -> Read<Part> {
        let at = fields.at;
        let is_thought = fields.flag("thought")?.unwrap_or(false);
        let signature = either(&mut fields, "thoughtSignature", "thought_signature");
        let signature = signature.as_ref().and_then(Value::as_str).map(str::to_owned);
        let part = if let Some(text) = fields.text("text")? {
            if is_thought { Part::Thinking { text, signature } } else { Part::Text(text) }
        } else if let Some(value) = either(&mut fields, "inlineData", "inline_data") {
            let mut data = Fields::new(value, At::Key(&at, "inlineData"))?;
            let mime = mime(&mut data)?.ok_or_else(|| data.wrong("mimeType", "is missing"))?;
            inline(mime, data.needs_text("data")?)
        } else if let Some(value) = either(&mut fields, "fileData", "file_data") {
            let mut data = Fields::new(value, At::Key(&at, "fileData"))?;
            let uri = either(&mut data, "fileUri", "file_uri");
            let uri = uri.as_ref().and_then(Value::as_str).map(str::to_owned);
            let media = Media::Url(uri.ok_or_else(|| data.wrong("fileUri", "is missing"))?);
            let is_image = mime(&mut data)?.is_none_or(|it| it.starts_with("image/"));
            if is_image { Part::Image(media) } else { Part::File { name: None, media } }
        } else if let Some(value) = either(&mut fields, "functionCall", "function_call") {
            let call = Fields::new(value, At::Key(&at, "functionCall"))?;
            Part::ToolCall(self.call(call, signature)?)
        } else if let Some(value) = either(&mut fields, "functionResponse", "function_response") {
            let result = Fields::new(value, At::Key(&at, "functionResponse"))?;
            Part::ToolResult(self.result(result)?)
        } else {
            let why = "this kind of part cannot be translated: use text, inlineData, fileData, functionCall, functionResponse";
            return Err(at.wrong(why));
        };
        fields.rest(&mut self.dropped);
        Ok(part)
    }

    fn call(&mut self, mut fields: Fields<'_>, signature: Option<String>) -> Read<ToolCall> {
        let name = fields.needs_text("name")?;
        let arguments = fields.object("args")?.unwrap_or_default();
        let id = self.ids.call(&name, fields.text("id")?);
        fields.rest(&mut self.dropped);
        Ok(ToolCall { id, name, arguments, signature })
    }

    fn result(&mut self, mut fields: Fields<'_>) -> Read<ToolResult> {
        let name = fields.needs_text("name")?;
        let id = self.ids.result(&name, fields.text("id")?);
        let mut response = fields.object("response")?.unwrap_or_default();
        let single = if response.len() == 1 { response.iter().next() } else { None };
        let (text, is_error) = match single {
            Some((key, Value::String(text))) if key == "result" || key == "output" => {
                (text.clone(), false)
            }
            Some((key, Value::String(text))) if key == "error" => (text.clone(), true),
            _ => (Value::Object(std::mem::take(&mut response)).to_string(), false),
        };
        fields.rest(&mut self.dropped);
        Ok(ToolResult { id, name, parts: vec![Part::Text(text)], is_error })
    }
}

fn mime(fields: &mut Fields<'_>) -> Read<Option<String>> {
    match either(fields, "mimeType", "mime_type") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(fields.wrong("mimeType", "must be a string")),
    }
}

fn inline(mime: String, base64: String) -> Part {
    if let Some(format) = mime.strip_prefix("audio/") {
        return Part::Audio { format: format.to_owned(), data: base64 };
    }
    let is_image = mime.starts_with("image/");
    let media = Media::Data { mime, base64 };
    if is_image { Part::Image(media) } else { Part::File { name: None, media } }
}

fn tools(mut fields: Fields<'_>, tools: &mut Vec<Tool>, dropped: &mut Vec<String>) -> Read<()> {
    let at = fields.at;
    let declared = either(&mut fields, "functionDeclarations", "function_declarations");
    let Some(Value::Array(list)) = declared else {
        return Err(at.wrong("only functionDeclarations can be translated"));
    };
    let place = At::Key(&at, "functionDeclarations");
    for (index, value) in list.into_iter().enumerate() {
        let mut one = Fields::new(value, At::Item(&place, index))?;
        let standard = either(&mut one, "parametersJsonSchema", "parameters_json_schema");
        let google = one.take("parameters").map(schema::from_google);
        tools.push(Tool {
            name: one.needs_text("name")?,
            description: one.text("description")?,
            parameters: standard.or(google),
            is_strict: None,
        });
        one.rest(dropped);
    }
    fields.rest(dropped);
    Ok(())
}

fn choice(value: Value, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let place = At::Key(&At::Root, "toolConfig");
    let mut config = Fields::new(value, place)?;
    let Some(value) = either(&mut config, "functionCallingConfig", "function_calling_config")
    else {
        config.rest(dropped);
        return Ok(());
    };
    let mut calling = Fields::new(value, At::Key(&place, "functionCallingConfig"))?;
    let allowed = either(&mut calling, "allowedFunctionNames", "allowed_function_names");
    let allowed = allowed.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    request.tool_choice = match calling.text("mode")?.as_deref() {
        None | Some("MODE_UNSPECIFIED" | "AUTO" | "VALIDATED") => Some(ToolChoice::Auto),
        Some("NONE") => Some(ToolChoice::None),
        Some("ANY") => match allowed.as_slice() {
            [Value::String(name)] => Some(ToolChoice::Tool(name.clone())),
            many => {
                if !many.is_empty() {
                    let name = "toolConfig.functionCallingConfig.allowedFunctionNames";
                    dropped.push(name.to_owned());
                }
                Some(ToolChoice::Any)
            }
        },
        Some(_) => return Err(calling.wrong("mode", "must be AUTO, ANY, NONE or VALIDATED")),
    };
    calling.rest(dropped);
    config.rest(dropped);
    Ok(())
}

fn config(mut fields: Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    request.temperature = fields.number("temperature")?;
    let mut field = |camel: &'static str, snake: &str| {
        if let Some(value) = fields.take(snake) {
            return Some((camel, value));
        }
        fields.take(camel).map(|value| (camel, value))
    };
    let named: Vec<(&str, Value)> = [
        field("topP", "top_p"),
        field("topK", "top_k"),
        field("candidateCount", "candidate_count"),
        field("maxOutputTokens", "max_output_tokens"),
        field("stopSequences", "stop_sequences"),
        field("presencePenalty", "presence_penalty"),
        field("frequencyPenalty", "frequency_penalty"),
        field("responseMimeType", "response_mime_type"),
        field("responseSchema", "response_schema"),
        field("responseJsonSchema", "response_json_schema"),
        field("thinkingConfig", "thinking_config"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let map = named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut known = Fields::new(Value::Object(map), fields.at)?;
    request.top_p = known.number("topP")?;
    request.top_k = known.count("topK")?;
    request.max_tokens = known.count("maxOutputTokens")?;
    request.stop = known.texts("stopSequences")?;
    request.seed = fields.integer("seed")?;
    request.presence_penalty = known.number("presencePenalty")?;
    request.frequency_penalty = known.number("frequencyPenalty")?;
    if known.count("candidateCount")?.is_some_and(|n| n > 1) {
        dropped.push("generationConfig.candidateCount".to_owned());
    }
    let google = known.take("responseSchema").map(schema::from_google);
    let schema = known.take("responseJsonSchema").or(google);
    let mime = known.text("responseMimeType")?;
    request.format = match (schema, mime.as_deref()) {
        (Some(schema), _) => {
            Some(Format::Schema { name: "output".to_owned(), schema, is_strict: None })
        }
        (None, Some("application/json")) => Some(Format::Json),
        (None, None | Some("text/plain")) => None,
        (None, Some(_)) => {
            return Err(known.wrong("responseMimeType", "must be application/json or text/plain"));
        }
    };
    if let Some(value) = known.take("thinkingConfig") {
        let mut thinking = Fields::new(value, At::Key(&fields.at, "thinkingConfig"))?;
        // -1: as much as it likes.
        let budget = either(&mut thinking, "thinkingBudget", "thinking_budget");
        request.thinking_budget = budget.as_ref().and_then(Value::as_u64);
        let level = either(&mut thinking, "thinkingLevel", "thinking_level");
        request.effort = level.as_ref().and_then(Value::as_str).and_then(Effort::parse);
        // Thoughts are given out wherever there are any.
        let _ = either(&mut thinking, "includeThoughts", "include_thoughts");
        thinking.rest(dropped);
    }
    fields.rest(dropped);
    Ok(())
}

/// # Errors
/// The conversation holds what cannot be said to it.
pub fn encode(request: &Request) -> Read<Encoded> {
    let mut dropped = request.dropped.clone();
    let mut contents = Vec::new();
    for message in &request.messages {
        contents.push(encode_message(message)?);
    }
    let mut body = json!({"contents": contents});
    let it = &mut body;
    if !request.system.is_empty() {
        let parts = request.system.iter().map(|text| json!({"text": text})).collect::<Value>();
        put(it, "systemInstruction", Some(json!({"parts": parts})));
    }
    if !request.tools.is_empty() {
        let declared = request.tools.iter().map(encode_tool).collect::<Value>();
        put(it, "tools", Some(json!([{"functionDeclarations": declared}])));
        if request.tools.iter().any(|it| it.is_strict == Some(true)) {
            dropped.push("tools.strict".to_owned());
        }
    }
    put(
        it,
        "toolConfig",
        request.tool_choice.as_ref().map(|choice| {
            let calling = match choice {
                ToolChoice::Auto => json!({"mode": "AUTO"}),
                ToolChoice::None => json!({"mode": "NONE"}),
                ToolChoice::Any => json!({"mode": "ANY"}),
                ToolChoice::Tool(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
            };
            json!({"functionCallingConfig": calling})
        }),
    );
    for (is_set, name) in [
        (request.parallel_tools == Some(false), "parallel_tool_calls"),
        (request.user.is_some(), "user"),
    ] {
        if is_set {
            dropped.push(name.to_owned());
        }
    }
    let config = encode_config(request);
    put(
        it,
        "generationConfig",
        config.as_object().is_some_and(|it| !it.is_empty()).then_some(config),
    );
    Ok(Encoded { body, dropped })
}

fn encode_config(request: &Request) -> Value {
    let mut config = json!({});
    let it = &mut config;
    put(it, "temperature", request.temperature);
    put(it, "topP", request.top_p);
    put(it, "topK", request.top_k);
    put(it, "maxOutputTokens", request.max_tokens);
    put(it, "stopSequences", (!request.stop.is_empty()).then(|| json!(request.stop)));
    put(it, "seed", request.seed);
    put(it, "presencePenalty", request.presence_penalty);
    put(it, "frequencyPenalty", request.frequency_penalty);
    if let Some(format) = &request.format {
        put(it, "responseMimeType", Some("application/json"));
        if let Format::Schema { schema, .. } = format {
            put(it, "responseJsonSchema", Some(schema.clone()));
        }
    }
    let thinking = match (request.thinking_budget, request.effort) {
        (Some(budget), _) => json!({"thinkingBudget": budget, "includeThoughts": budget > 0}),
        (None, Some(Effort::None)) => json!({"thinkingBudget": 0}),
        (None, Some(effort)) => {
            let word = if effort == Effort::Max { Effort::XHigh } else { effort }.word();
            json!({"thinkingLevel": word.to_ascii_uppercase(), "includeThoughts": true})
        }
        (None, None) => return config,
    };
    put(it, "thinkingConfig", Some(thinking));
    config
}

fn encode_message(message: &Message) -> Read<Value> {
    let mut parts = Vec::new();
    for part in &message.parts {
        encode_part(part, &mut parts)?;
    }
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "model",
    };
    Ok(json!({"role": role, "parts": parts}))
}

fn encode_part(part: &Part, out: &mut Vec<Value>) -> Read<()> {
    let value = match part {
        Part::Text(text) => json!({"text": text}),
        Part::Image(Media::Data { mime, base64 })
        | Part::File { media: Media::Data { mime, base64 }, .. } => {
            json!({"inlineData": {"mimeType": mime, "data": base64}})
        }
        // A URL says no type; the vendor looks for itself.
        Part::Image(Media::Url(url)) => json!({"fileData": {"fileUri": url}}),
        Part::File { media: Media::Url(url), .. } => {
            json!({"fileData": {"fileUri": url, "mimeType": "application/pdf"}})
        }
        Part::Audio { format, data } => {
            json!({"inlineData": {"mimeType": format!("audio/{format}"), "data": data}})
        }
        Part::Thinking { text, signature } => {
            let mut value = json!({"text": text, "thought": true});
            put(&mut value, "thoughtSignature", signature.clone());
            value
        }
        Part::Redacted(_) => return Ok(()),
        Part::ToolCall(call) => encode_call(call),
        Part::ToolResult(result) => {
            let mut text = String::new();
            let mut others = Vec::new();
            for part in &result.parts {
                match part {
                    Part::Text(more) => text.push_str(more),
                    part => encode_part(part, &mut others)?,
                }
            }
            let response = match serde_json::from_str::<Value>(&text) {
                Ok(Value::Object(map)) if !result.is_error => Value::Object(map),
                _ if result.is_error => json!({"error": text}),
                _ => json!({"result": text}),
            };
            out.push(json!({"functionResponse": {
                "id": result.id, "name": result.name, "response": response,
            }}));
            // Pictures that a tool gave stand beside its result.
            out.extend(others);
            return Ok(());
        }
    };
    out.push(value);
    Ok(())
}

pub(super) fn encode_call(call: &ToolCall) -> Value {
    let call_value = json!({"id": call.id, "name": call.name, "args": call.arguments});
    let mut value = json!({"functionCall": call_value});
    put(&mut value, "thoughtSignature", call.signature.clone());
    value
}

fn encode_tool(tool: &Tool) -> Value {
    let mut value = json!({"name": tool.name});
    put(&mut value, "description", tool.description.clone());
    put(&mut value, "parametersJsonSchema", tool.parameters.clone());
    value
}
