//! A message that is asked for.
use serde_json::{Value, json};

use super::Version;
use crate::llm::{
    api::{Encoded, any_object, parts_of, put, results_first, say},
    chat::{
        Effort, Format, Media, Message, Part, Request, Role, Tool, ToolCall, ToolChoice, ToolResult,
    },
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// Every model takes so many, and one has to be said: for clients that say none.
pub const MAX_TOKENS: u64 = 4096;
/// The least that it takes for thinking.
const LEAST_BUDGET: u64 = 1024;

pub fn decode(body: Value) -> Read<Request> {
    let mut fields = Fields::new(body, At::Root)?;
    let mut dropped = Vec::new();
    let mut request = Request {
        model: fields.needs_text("model")?,
        max_tokens: fields.count("max_tokens")?,
        wants_usage: true,
        ..Request::default()
    };
    if request.max_tokens.is_none() {
        return Err(fields.wrong("max_tokens", "is missing"));
    }
    let place = At::Key(&At::Root, "system");
    for part in parts_of(fields.take("system"), &place, &mut dropped, block)? {
        let Part::Text(text) = part else { return Err(place.wrong("must be text")) };
        request.system.push(text);
    }
    let messages =
        fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "is missing"))?;
    let place = At::Key(&At::Root, "messages");
    for (index, value) in messages.into_iter().enumerate() {
        message(Fields::new(value, At::Item(&place, index))?, &mut request, &mut dropped)?;
    }
    let place = At::Key(&At::Root, "tools");
    for (index, value) in fields.list("tools")?.into_iter().flatten().enumerate() {
        let read = tool(Fields::new(value, At::Item(&place, index))?, &mut dropped)?;
        request.tools.push(read);
    }
    choice(&mut fields, &mut request, &mut dropped)?;
    request.temperature = fields.number("temperature")?;
    request.top_p = fields.number("top_p")?;
    request.top_k = fields.count("top_k")?;
    request.stop = fields.texts("stop_sequences")?;
    request.is_stream = fields.flag("stream")?.unwrap_or(false);
    thinking(&mut fields, &mut request, &mut dropped)?;
    if let Some(metadata) = fields.take("metadata") {
        let mut metadata = Fields::new(metadata, At::Key(&At::Root, "metadata"))?;
        request.user = metadata.text("user_id")?;
        metadata.rest(&mut dropped);
    }
    fields.rest(&mut dropped);
    request.dropped = dropped;
    Ok(request)
}

fn thinking(fields: &mut Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    if let Some(value) = fields.take("thinking") {
        let mut thinking = Fields::new(value, At::Key(&At::Root, "thinking"))?;
        let budget = thinking.count("budget_tokens")?;
        request.thinking_budget = match thinking.needs_text("type")?.as_str() {
            "disabled" => Some(0),
            "enabled" => budget,
            // As much as it likes: what every other vendor does if nothing is said.
            _ => None,
        };
        thinking.rest(dropped);
    }
    let Some(value) = fields.take("output_config") else { return Ok(()) };
    let place = At::Key(&At::Root, "output_config");
    let mut config = Fields::new(value, place)?;
    if let Some(word) = config.text("effort")? {
        let effort = Effort::parse(&word);
        let why = "must be one of low, medium, high, xhigh, max";
        request.effort = Some(effort.ok_or_else(|| config.wrong("effort", why))?);
    }
    if let Some(format) = config.take("format") {
        let mut format = Fields::new(format, At::Key(&place, "format"))?;
        if format.needs_text("type")? != "json_schema" {
            return Err(format.wrong("type", "must be json_schema"));
        }
        let schema = format.object("schema")?.map(Value::Object);
        let schema = schema.ok_or_else(|| format.wrong("schema", "is missing"))?;
        request.format =
            Some(Format::Schema { name: "output".to_owned(), schema, is_strict: None });
        format.rest(dropped);
    }
    config.rest(dropped);
    Ok(())
}

fn message(mut fields: Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let role = fields.needs_text("role")?;
    let at = fields.at;
    let place = At::Key(&at, "content");
    if !fields.has("content") {
        return Err(fields.wrong("content", "is missing"));
    }
    let parts = parts_of(fields.take("content"), &place, dropped, block)?;
    match role.as_str() {
        "user" => say(&mut request.messages, Role::User, parts),
        "assistant" => say(&mut request.messages, Role::Assistant, parts),
        "system" => {
            for part in parts {
                let Part::Text(text) = part else { return Err(place.wrong("must be text")) };
                request.system.push(text);
            }
        }
        _ => return Err(fields.wrong("role", "must be user or assistant")),
    }
    fields.rest(dropped);
    Ok(())
}

fn block(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<Part> {
    let kind = fields.needs_text("type")?;
    let at = fields.at;
    let part = match kind.as_str() {
        "text" => Part::Text(fields.needs_text("text")?),
        "image" => Part::Image(source(&mut fields)?),
        "document" => {
            let name = fields.text("title")?;
            Part::File { name, media: source(&mut fields)? }
        }
        "thinking" => Part::Thinking {
            text: fields.needs_text("thinking")?,
            signature: fields.text("signature")?.filter(|it| !it.is_empty()),
        },
        "redacted_thinking" => Part::Redacted(fields.needs_text("data")?),
        "tool_use" => Part::ToolCall(ToolCall {
            id: fields.needs_text("id")?,
            name: fields.needs_text("name")?,
            arguments: fields.object("input")?.unwrap_or_default(),
            signature: None,
        }),
        "tool_result" => {
            let id = fields.needs_text("tool_use_id")?;
            let is_error = fields.flag("is_error")?.unwrap_or(false);
            let place = At::Key(&at, "content");
            let parts = parts_of(fields.take("content"), &place, dropped, block)?;
            let is_plain =
                |it: &Part| matches!(it, Part::Text(_) | Part::Image(_) | Part::File { .. });
            if !parts.iter().all(is_plain) {
                return Err(place.wrong("must be text, images and documents"));
            }
            Part::ToolResult(ToolResult { id, name: String::new(), parts, is_error })
        }
        _ => {
            let why = "this kind of block cannot be translated: use text, image, document, thinking, tool_use, tool_result";
            return Err(fields.wrong("type", why));
        }
    };
    fields.rest(dropped);
    Ok(part)
}

fn source(fields: &mut Fields<'_>) -> Read<Media> {
    let at = fields.at;
    let value = fields.take("source").ok_or_else(|| fields.wrong("source", "is missing"))?;
    let mut source = Fields::new(value, At::Key(&at, "source"))?;
    match source.needs_text("type")?.as_str() {
        "base64" => Ok(Media::Data {
            mime: source.needs_text("media_type")?,
            base64: source.needs_text("data")?,
        }),
        "url" => Ok(Media::Url(source.needs_text("url")?)),
        _ => Err(source.wrong("type", "must be base64 or url to be translated")),
    }
}

fn tool(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<Tool> {
    if fields.text("type")?.is_some_and(|it| it != "custom") {
        return Err(fields.wrong("type", "a tool that Anthropic runs cannot be translated"));
    }
    let tool = Tool {
        name: fields.needs_text("name")?,
        description: fields.text("description")?,
        parameters: fields.object("input_schema")?.map(Value::Object),
        is_strict: fields.flag("strict")?,
    };
    fields.rest(dropped);
    Ok(tool)
}

fn choice(fields: &mut Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let Some(value) = fields.take("tool_choice") else { return Ok(()) };
    let mut choice = Fields::new(value, At::Key(&At::Root, "tool_choice"))?;
    request.tool_choice = Some(match choice.needs_text("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Any,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Tool(choice.needs_text("name")?),
        _ => return Err(choice.wrong("type", "must be auto, any, tool or none")),
    });
    request.parallel_tools = choice.flag("disable_parallel_tool_use")?.map(|it| !it);
    choice.rest(dropped);
    Ok(())
}

/// # Errors
/// The conversation holds what cannot be said to it.
pub fn encode(request: &Request, model: &str, version: Version) -> Read<Encoded> {
    let mut dropped = request.dropped.clone();
    let mut messages = Vec::new();
    for message in &request.messages {
        messages.push(encode_message(message)?);
    }
    let mut body = json!({
        "model": model,
        "max_tokens": request.max_tokens.unwrap_or(MAX_TOKENS),
        "messages": messages,
    });
    let it = &mut body;
    put(
        it,
        "system",
        match request.system.as_slice() {
            [] => None,
            [one] => Some(json!(one)),
            many => Some(many.iter().map(|text| json!({"type": "text", "text": text})).collect()),
        },
    );
    if !request.tools.is_empty() {
        put(it, "tools", Some(request.tools.iter().map(encode_tool).collect::<Value>()));
    }
    put(it, "tool_choice", encode_choice(request));
    sampling(request, version, it, &mut dropped);
    let stop: Vec<&String> = request.stop.iter().filter(|it| !it.trim().is_empty()).collect();
    put(it, "stop_sequences", (!stop.is_empty()).then(|| json!(stop)));
    for (is_set, name) in [
        (stop.len() < request.stop.len(), "stop"),
        (request.seed.is_some(), "seed"),
        (request.presence_penalty.is_some(), "presence_penalty"),
        (request.frequency_penalty.is_some(), "frequency_penalty"),
        (request.format == Some(Format::Json), "response_format"),
    ] {
        if is_set {
            dropped.push(name.to_owned());
        }
    }
    encode_thinking(request, it);
    put(it, "metadata", request.user.as_ref().map(|user| json!({"user_id": user})));
    put(it, "stream", request.is_stream.then_some(true));
    Ok(Encoded { body, dropped })
}

fn sampling(request: &Request, version: Version, body: &mut Value, dropped: &mut Vec<String>) {
    let mut drop_if = |is_lost: bool, name: &str| {
        if is_lost {
            dropped.push(name.to_owned());
        }
    };
    if version == Version::V2026 {
        drop_if(request.temperature.is_some(), "temperature");
        drop_if(request.top_p.is_some(), "top_p");
        drop_if(request.top_k.is_some(), "top_k");
        return;
    }
    // OpenAI's scale ends at 2: what is hotter than hot is said to be less so.
    drop_if(request.temperature.is_some_and(|it| it > 1.0), "temperature");
    put(body, "temperature", request.temperature.map(|it| it.min(1.0)));
    put(body, "top_p", request.top_p);
    put(body, "top_k", request.top_k);
}

fn encode_thinking(request: &Request, body: &mut Value) {
    let thinking = match (request.thinking_budget, request.effort) {
        (Some(0), _) | (None, Some(Effort::None)) => Some(json!({"type": "disabled"})),
        (Some(budget), _) => {
            Some(json!({"type": "enabled", "budget_tokens": budget.max(LEAST_BUDGET)}))
        }
        (None, _) => None,
    };
    put(body, "thinking", thinking);
    let effort = match request.effort {
        None | Some(Effort::None) => None,
        Some(Effort::Minimal) => Some(Effort::Low),
        some => some,
    };
    let mut config = json!({});
    put(&mut config, "effort", effort.map(Effort::word));
    if let Some(Format::Schema { schema, .. }) = &request.format {
        put(&mut config, "format", Some(json!({"type": "json_schema", "schema": schema})));
    }
    put(
        body,
        "output_config",
        config.as_object().is_some_and(|it| !it.is_empty()).then_some(config),
    );
}

fn encode_message(message: &Message) -> Read<Value> {
    let mut content = Vec::new();
    for part in results_first(&message.parts) {
        content.extend(encode_part(part)?);
    }
    let role = message.role.word();
    Ok(json!({"role": role, "content": content}))
}

fn encode_part(part: &Part) -> Read<Option<Value>> {
    let value = match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(image) => json!({"type": "image", "source": encode_source(image)}),
        Part::File { name, media } => {
            let mut value = json!({"type": "document", "source": encode_source(media)});
            put(&mut value, "title", name.clone());
            value
        }
        // Without its signature it is refused.
        Part::Thinking { signature: None, .. } => return Ok(None),
        Part::Thinking { text, signature } => {
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
        Part::Redacted(data) => json!({"type": "redacted_thinking", "data": data}),
        Part::ToolCall(call) => json!({
            "type": "tool_use",
            "id": tool_id(&call.id),
            "name": call.name,
            "input": call.arguments,
        }),
        Part::ToolResult(result) => {
            let mut content = Vec::new();
            for part in &result.parts {
                content.extend(encode_part(part)?);
            }
            let mut value = json!({"type": "tool_result", "tool_use_id": tool_id(&result.id)});
            put(&mut value, "content", (!content.is_empty()).then_some(content));
            put(&mut value, "is_error", result.is_error.then_some(true));
            value
        }
        Part::Audio { .. } => {
            let why = "the provider of this model takes no audio";
            return Err(At::Key(&At::Root, "messages").wrong(why));
        }
    };
    Ok(Some(value))
}

fn encode_source(media: &Media) -> Value {
    match media {
        Media::Url(url) => json!({"type": "url", "url": url}),
        Media::Data { mime, base64 } => {
            json!({"type": "base64", "media_type": mime, "data": base64})
        }
    }
}

/// Letters, digits, `_` and `-`: ids of other vendors have more.
pub(in crate::llm::api) fn tool_id(id: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    id.chars().map(fine).collect()
}

fn encode_tool(tool: &Tool) -> Value {
    let parameters = tool.parameters.clone().unwrap_or_else(any_object);
    let mut value = json!({"name": tool.name, "input_schema": parameters});
    put(&mut value, "description", tool.description.clone());
    put(&mut value, "strict", tool.is_strict);
    value
}

fn encode_choice(request: &Request) -> Option<Value> {
    let is_serial = request.parallel_tools == Some(false) && !request.tools.is_empty();
    let choice = request.tool_choice.as_ref().or(is_serial.then_some(&ToolChoice::Auto))?;
    let mut value = match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Any => json!({"type": "any"}),
        ToolChoice::Tool(name) => json!({"type": "tool", "name": name}),
    };
    put(&mut value, "disable_parallel_tool_use", is_serial.then_some(true));
    Some(value)
}
