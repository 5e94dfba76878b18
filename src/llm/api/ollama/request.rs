//! A chat that is asked for. What other vendors have beside the conversation stands in `options`.
use serde_json::{Map, Value, json};

use crate::llm::{
    api::{Encoded, Ids, openai, picture, put, say},
    chat::{
        Effort, Format, Media, Message, Part, Request, Role, Tool, ToolCall, ToolChoice, ToolResult,
    },
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// It is no chat.
pub fn decode(body: Value) -> Read<Request> {
    let mut fields = Fields::new(body, At::Root)?;
    let mut dropped = Vec::new();
    let mut request =
        Request { model: fields.needs_text("model")?, wants_usage: true, ..Request::default() };
    let messages =
        fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "is missing"))?;
    let place = At::Key(&At::Root, "messages");
    let mut ids = Ids::default();
    for (index, value) in messages.into_iter().enumerate() {
        let fields = Fields::new(value, At::Item(&place, index))?;
        message(fields, &mut ids, &mut request, &mut dropped)?;
    }
    let place = At::Key(&At::Root, "tools");
    for (index, value) in fields.list("tools")?.into_iter().flatten().enumerate() {
        let fields = Fields::new(value, At::Item(&place, index))?;
        request.tools.push(openai::request::tool(fields, &mut dropped)?);
    }
    request.format = match fields.take("format") {
        None => None,
        Some(Value::String(word)) if word.is_empty() => None,
        Some(Value::String(word)) if word == "json" => Some(Format::Json),
        Some(schema @ Value::Object(_)) => {
            Some(Format::Schema { name: "output".to_owned(), schema, is_strict: None })
        }
        Some(_) => return Err(fields.wrong("format", "must be `json` or a JSON schema")),
    };
    match fields.take("think") {
        None => {}
        // As much as it likes: what every other vendor does if nothing is said.
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => request.thinking_budget = Some(0),
        Some(Value::String(word)) => {
            let why = "must be true, false, low, medium or high";
            let effort = Effort::parse(&word).ok_or_else(|| fields.wrong("think", why))?;
            request.effort = Some(effort);
        }
        Some(_) => return Err(fields.wrong("think", "must be true, false, low, medium or high")),
    }
    if let Some(value) = fields.take("options") {
        let options = Fields::new(value, At::Key(&At::Root, "options"))?;
        decode_options(options, &mut request, &mut dropped)?;
    }
    // It streams unless it is told not to.
    request.is_stream = fields.flag("stream")?.unwrap_or(true);
    fields.rest(&mut dropped);
    request.dropped = dropped;
    Ok(request)
}

fn decode_options(
    mut options: Fields<'_>,
    request: &mut Request,
    dropped: &mut Vec<String>,
) -> Read<()> {
    // -1: as many as it likes.
    let most = options.integer("num_predict")?;
    request.max_tokens = most.and_then(|it| u64::try_from(it).ok());
    request.temperature = options.number("temperature")?;
    request.top_p = options.number("top_p")?;
    request.top_k = options.count("top_k")?;
    request.stop = options.texts("stop")?;
    request.seed = options.integer("seed")?;
    request.presence_penalty = options.number("presence_penalty")?;
    request.frequency_penalty = options.number("frequency_penalty")?;
    options.rest(dropped);
    Ok(())
}

fn message(
    mut fields: Fields<'_>,
    ids: &mut Ids,
    request: &mut Request,
    dropped: &mut Vec<String>,
) -> Read<()> {
    let role = fields.needs_text("role")?;
    let text = fields.text("content")?.filter(|it| !it.is_empty());
    let images = fields.texts("images")?;
    let at = fields.at;
    match role.as_str() {
        "system" => request.system.extend(text),
        "user" => {
            let mut parts: Vec<Part> = text.map(Part::Text).into_iter().collect();
            parts.extend(images.into_iter().map(|it| Part::Image(picture(it))));
            say(&mut request.messages, Role::User, parts);
        }
        "assistant" => {
            // Without a signature nobody takes it back.
            let _ = fields.take("thinking");
            let mut parts: Vec<Part> = text.map(Part::Text).into_iter().collect();
            let place = At::Key(&at, "tool_calls");
            for (index, value) in fields.list("tool_calls")?.into_iter().flatten().enumerate() {
                let call = Fields::new(value, At::Item(&place, index))?;
                parts.push(Part::ToolCall(decode_call(call, ids, dropped)?));
            }
            say(&mut request.messages, Role::Assistant, parts);
        }
        "tool" => {
            let name = fields.text("tool_name")?;
            let name = name.or(fields.text("name")?).unwrap_or_default();
            let id = ids.result(&name, fields.text("tool_call_id")?);
            let parts = vec![Part::Text(text.unwrap_or_default())];
            let result = ToolResult { id, name, parts, is_error: false };
            say(&mut request.messages, Role::User, vec![Part::ToolResult(result)]);
        }
        _ => return Err(fields.wrong("role", "must be one of system, user, assistant, tool")),
    }
    fields.rest(dropped);
    Ok(())
}

fn decode_call(mut fields: Fields<'_>, ids: &mut Ids, dropped: &mut Vec<String>) -> Read<ToolCall> {
    let _ = fields.take("type");
    let own = fields.text("id")?;
    let at = fields.at;
    let value = fields.take("function").ok_or_else(|| fields.wrong("function", "is missing"))?;
    let mut function = Fields::new(value, At::Key(&at, "function"))?;
    let _ = function.take("index");
    let name = function.needs_text("name")?;
    let arguments = function.object("arguments")?.unwrap_or_default();
    let id = ids.call(&name, own);
    function.rest(dropped);
    fields.rest(dropped);
    Ok(ToolCall { id, name, arguments, signature: None })
}

/// # Errors
/// The conversation holds what cannot be said to it.
pub fn encode(request: &Request, model: &str) -> Read<Encoded> {
    let mut dropped = request.dropped.clone();
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system.join("\n\n")}));
    }
    for message in &request.messages {
        encode_message(message, &mut messages)?;
    }
    let mut body = json!({"model": model, "messages": messages});
    let it = &mut body;
    // It knows no other way to forbid its tools than not to name them.
    if !request.tools.is_empty() && request.tool_choice != Some(ToolChoice::None) {
        put(it, "tools", Some(request.tools.iter().map(encode_tool).collect::<Value>()));
    }
    for (is_set, name) in [
        (matches!(request.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_))), "tool_choice"),
        (request.parallel_tools == Some(false), "parallel_tool_calls"),
        (request.tools.iter().any(|it| it.is_strict == Some(true)), "tools.strict"),
        (request.user.is_some(), "user"),
    ] {
        if is_set {
            dropped.push(name.to_owned());
        }
    }
    put(
        it,
        "format",
        request.format.as_ref().map(|format| match format {
            Format::Json => json!("json"),
            Format::Schema { schema, .. } => schema.clone(),
        }),
    );
    put(it, "think", encode_thinking(request));
    let options = encode_options(request);
    put(it, "options", (!options.is_empty()).then_some(options));
    put(it, "stream", Some(request.is_stream));
    Ok(Encoded { body, dropped })
}

/// Models that cannot be told how hard take a level as yes.
fn encode_thinking(request: &Request) -> Option<Value> {
    match (request.thinking_budget, request.effort) {
        (Some(0), _) | (None, Some(Effort::None)) => Some(json!(false)),
        (_, Some(Effort::Minimal | Effort::Low)) => Some(json!("low")),
        (_, Some(Effort::Medium)) => Some(json!("medium")),
        (_, Some(Effort::High | Effort::XHigh | Effort::Max)) => Some(json!("high")),
        (Some(_), Some(Effort::None) | None) => Some(json!(true)),
        (None, None) => None,
    }
}

fn encode_options(request: &Request) -> Map<String, Value> {
    let mut options = json!({});
    let it = &mut options;
    put(it, "num_predict", request.max_tokens);
    put(it, "temperature", request.temperature);
    put(it, "top_p", request.top_p);
    put(it, "top_k", request.top_k);
    put(it, "stop", (!request.stop.is_empty()).then(|| json!(request.stop)));
    put(it, "seed", request.seed);
    put(it, "presence_penalty", request.presence_penalty);
    put(it, "frequency_penalty", request.frequency_penalty);
    match options {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn encode_message(message: &Message, out: &mut Vec<Value>) -> Read<()> {
    let (mut text, mut images, mut calls) = (String::new(), Vec::new(), Vec::new());
    for part in &message.parts {
        match part {
            Part::Text(more) => {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(more);
            }
            Part::ToolCall(call) => calls.push(encode_call(call)),
            Part::ToolResult(result) => {
                let mut said = String::new();
                for part in &result.parts {
                    match part {
                        Part::Text(more) => said.push_str(more),
                        // A tool's result is text here: pictures in it are shown by the user.
                        part => images.push(encode_image(part)?),
                    }
                }
                let name = &result.name;
                out.push(json!({"role": "tool", "tool_name": name, "content": said}));
            }
            // It belongs to who thought it.
            Part::Thinking { .. } | Part::Redacted(_) => {}
            part => images.push(encode_image(part)?),
        }
    }
    if text.is_empty() && images.is_empty() && calls.is_empty() {
        return Ok(());
    }
    let role = message.role.word();
    let mut value = json!({"role": role, "content": text});
    put(&mut value, "images", (!images.is_empty()).then_some(images));
    put(&mut value, "tool_calls", (!calls.is_empty()).then_some(calls));
    out.push(value);
    Ok(())
}

fn encode_image(part: &Part) -> Read<Value> {
    let why = match part {
        Part::Image(Media::Data { base64, .. }) => return Ok(json!(base64)),
        Part::Image(Media::Url(_)) => {
            "an image by URL cannot be sent to the provider of this model: send its data"
        }
        _ => "the provider of this model takes text and images only",
    };
    Err(At::Key(&At::Root, "messages").wrong(why))
}

pub(super) fn encode_call(call: &ToolCall) -> Value {
    json!({"function": {"name": call.name, "arguments": call.arguments}})
}

fn encode_tool(tool: &Tool) -> Value {
    let mut function = json!({"name": tool.name});
    put(&mut function, "description", tool.description.clone());
    put(&mut function, "parameters", tool.parameters.clone());
    json!({"type": "function", "function": function})
}
