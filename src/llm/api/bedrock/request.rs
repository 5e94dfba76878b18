//! A conversation that is to go on.
use serde_json::{Value, json};

use crate::llm::{
    api::{Encoded, anthropic::request::tool_id, any_object, put, results_first},
    chat::{Effort, Media, Message, Part, Request, Tool, ToolChoice},
    fields::{At, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// The conversation holds what cannot be said to it.
pub fn encode(request: &Request, model: &str) -> Read<Encoded> {
    let mut dropped = request.dropped.clone();
    let mut messages = Vec::new();
    for message in &request.messages {
        messages.push(encode_message(message)?);
    }
    let mut body = json!({"messages": messages});
    let it = &mut body;
    if !request.system.is_empty() {
        let texts = request.system.iter().map(|text| json!({"text": text})).collect::<Value>();
        put(it, "system", Some(texts));
    }
    put(it, "inferenceConfig", inference(request, &mut dropped));
    put(it, "toolConfig", tools(request));
    put(it, "additionalModelRequestFields", thinking(request, model, &mut dropped));
    for (is_set, name) in [
        (request.tool_choice == Some(ToolChoice::None), "tool_choice"),
        (request.parallel_tools == Some(false), "parallel_tool_calls"),
        (request.tools.iter().any(|it| it.is_strict == Some(true)), "tools.strict"),
        (request.top_k.is_some(), "top_k"),
        (request.seed.is_some(), "seed"),
        (request.presence_penalty.is_some(), "presence_penalty"),
        (request.frequency_penalty.is_some(), "frequency_penalty"),
        (request.format.is_some(), "response_format"),
        (request.user.is_some(), "user"),
    ] {
        if is_set {
            dropped.push(name.to_owned());
        }
    }
    Ok(Encoded { body, dropped })
}

fn inference(request: &Request, dropped: &mut Vec<String>) -> Option<Value> {
    let mut config = json!({});
    let it = &mut config;
    put(it, "maxTokens", request.max_tokens);
    // OpenAI's scale ends at 2: what is hotter than hot is said to be less so.
    if request.temperature.is_some_and(|it| it > 1.0) {
        dropped.push("temperature".to_owned());
    }
    put(it, "temperature", request.temperature.map(|it| it.min(1.0)));
    put(it, "topP", request.top_p);
    let stop: Vec<&String> = request.stop.iter().filter(|it| !it.trim().is_empty()).collect();
    if stop.len() < request.stop.len() {
        dropped.push("stop".to_owned());
    }
    put(it, "stopSequences", (!stop.is_empty()).then(|| json!(stop)));
    config.as_object().is_some_and(|it| !it.is_empty()).then_some(config)
}

/// Only Anthropic's models are known to take a budget, in their own words.
fn thinking(request: &Request, model: &str, dropped: &mut Vec<String>) -> Option<Value> {
    let budget = request.thinking_budget.filter(|it| *it > 0);
    match budget {
        Some(budget) if model.contains("anthropic.") => {
            let budget = budget.max(1024);
            return Some(json!({"thinking": {"type": "enabled", "budget_tokens": budget}}));
        }
        Some(_) => dropped.push("thinking".to_owned()),
        None => {}
    }
    if request.effort.is_some_and(|it| it != Effort::None) {
        dropped.push("reasoning_effort".to_owned());
    }
    None
}

fn tools(request: &Request) -> Option<Value> {
    if request.tools.is_empty() {
        return None;
    }
    let mut config = json!({"tools": request.tools.iter().map(encode_tool).collect::<Value>()});
    let choice = match request.tool_choice.as_ref() {
        None | Some(ToolChoice::None) => None,
        Some(ToolChoice::Auto) => Some(json!({"auto": {}})),
        Some(ToolChoice::Any) => Some(json!({"any": {}})),
        Some(ToolChoice::Tool(name)) => Some(json!({"tool": {"name": name}})),
    };
    put(&mut config, "toolChoice", choice);
    Some(config)
}

fn encode_tool(tool: &Tool) -> Value {
    let schema = tool.parameters.clone().unwrap_or_else(any_object);
    let mut spec = json!({"name": tool.name, "inputSchema": {"json": schema}});
    put(&mut spec, "description", tool.description.clone().filter(|it| !it.is_empty()));
    json!({"toolSpec": spec})
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
    let wrong = |why: &str| Err(At::Key(&At::Root, "messages").wrong(why));
    let value = match part {
        // A text that says nothing is refused.
        Part::Text(text) if text.trim().is_empty() => return Ok(None),
        Part::Text(text) => json!({"text": text}),
        Part::Image(Media::Data { mime, base64 }) => {
            let format = mime.strip_prefix("image/").unwrap_or(mime);
            json!({"image": {"format": format, "source": {"bytes": base64}}})
        }
        Part::File { name, media: Media::Data { mime, base64 } } => {
            let name = name.as_deref().map_or_else(|| "file".to_owned(), file_name);
            let source = json!({"bytes": base64});
            json!({"document": {"format": file_format(mime), "name": name, "source": source}})
        }
        Part::Image(Media::Url(_)) | Part::File { .. } => {
            return wrong("the provider of this model takes no files by URL: send their data");
        }
        Part::Audio { .. } => return wrong("the provider of this model takes no audio"),
        // Without its signature it is refused.
        Part::Thinking { signature: None, .. } => return Ok(None),
        Part::Thinking { text, signature } => {
            json!({"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}})
        }
        Part::Redacted(data) => json!({"reasoningContent": {"redactedContent": data}}),
        Part::ToolCall(call) => json!({"toolUse": {
            "toolUseId": tool_id(&call.id), "name": call.name, "input": call.arguments,
        }}),
        Part::ToolResult(result) => {
            let mut content = Vec::new();
            for part in &result.parts {
                content.extend(encode_part(part)?);
            }
            let mut value = json!({"toolUseId": tool_id(&result.id), "content": content});
            put(&mut value, "status", result.is_error.then_some("error"));
            json!({"toolResult": value})
        }
    };
    Ok(Some(value))
}

/// Letters, digits and little else, in one line.
fn file_name(name: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || "-()[]".contains(c) { c } else { ' ' };
    let name: String = name.chars().take(200).map(fine).collect();
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file_format(mime: &str) -> &str {
    match mime {
        "text/plain" => "txt",
        "text/markdown" => "md",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        other => other.rsplit('/').next().unwrap_or(other),
    }
}
