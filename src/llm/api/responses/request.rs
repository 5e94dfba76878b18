//! A response that is asked for: the conversation as items.
use serde_json::Value;

use super::response::SEALED;
use crate::llm::{
    api::{media, openai::response::arguments, parts_of, say},
    chat::{Effort, Format, Media, Part, Request, Role, Tool, ToolCall, ToolChoice, ToolResult},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// What refers to something that OpenAI keeps.
const STATEFUL: [&str; 3] = ["previous_response_id", "conversation", "prompt"];

/// # Errors
/// It is no such request, or one that OpenAI alone can answer.
pub fn decode(body: Value) -> Read<Request> {
    let mut fields = Fields::new(body, At::Root)?;
    let mut dropped = Vec::new();
    let mut request =
        Request { model: fields.needs_text("model")?, wants_usage: true, ..Request::default() };
    for key in STATEFUL {
        if fields.has(key) {
            let why = "refers to what OpenAI keeps, and the provider of this model does not have it: send the whole conversation as `input`";
            return Err(fields.wrong(key, why));
        }
    }
    if fields.flag("background")?.unwrap_or(false) {
        let why = "the provider of this model answers at once or not at all";
        return Err(fields.wrong("background", why));
    }
    request.system.extend(fields.text("instructions")?);
    input(&mut fields, &mut request, &mut dropped)?;
    let place = At::Key(&At::Root, "tools");
    for (index, value) in fields.list("tools")?.into_iter().flatten().enumerate() {
        let fields = Fields::new(value, At::Item(&place, index))?;
        request.tools.extend(tool(fields, &mut dropped)?);
    }
    choice(&mut fields, &mut request, &mut dropped)?;
    request.parallel_tools = fields.flag("parallel_tool_calls")?;
    request.max_tokens = fields.count("max_output_tokens")?;
    request.temperature = fields.number("temperature")?;
    request.top_p = fields.number("top_p")?;
    request.user = fields.text("user")?;
    request.is_stream = fields.flag("stream")?.unwrap_or(false);
    reasoning(&mut fields, &mut request, &mut dropped)?;
    text(&mut fields, &mut request, &mut dropped)?;
    settle(&mut fields, &mut dropped)?;
    fields.rest(&mut dropped);
    request.dropped = dropped;
    Ok(request)
}

/// What is as it should be already unless the client says otherwise.
fn settle(fields: &mut Fields<'_>, dropped: &mut Vec<String>) -> Read<()> {
    // Thinking comes sealed whether or not it is asked for.
    let include = fields.texts("include")?;
    if include.iter().any(|it| it != "reasoning.encrypted_content") {
        dropped.push("include".to_owned());
    }
    if fields.text("truncation")?.is_some_and(|it| it != "disabled") {
        dropped.push("truncation".to_owned());
    }
    // Obfuscation is for OpenAI's own connections.
    let _ = fields.take("stream_options");
    Ok(())
}

fn input(fields: &mut Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let place = At::Key(&At::Root, "input");
    let items = match fields.take("input") {
        None => return Err(fields.wrong("input", "is missing")),
        Some(Value::String(text)) => {
            say(&mut request.messages, Role::User, vec![Part::Text(text)]);
            return Ok(());
        }
        Some(Value::Array(items)) => items,
        Some(_) => return Err(place.wrong("must be a string or a list of items")),
    };
    for (index, value) in items.into_iter().enumerate() {
        item(Fields::new(value, At::Item(&place, index))?, request, dropped)?;
    }
    Ok(())
}

fn item(mut fields: Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    // What they were called and how they ended says nothing to anybody else.
    let _ = (fields.take("id"), fields.take("status"));
    let kind = fields.text("type")?.unwrap_or_else(|| "message".to_owned());
    let at = fields.at;
    match kind.as_str() {
        "message" => message(&mut fields, request, dropped)?,
        "function_call" => {
            let id = fields.needs_text("call_id")?;
            let name = fields.needs_text("name")?;
            let arguments = arguments(&mut fields)?;
            let call = ToolCall { id, name, arguments, signature: None };
            say(&mut request.messages, Role::Assistant, vec![Part::ToolCall(call)]);
        }
        "function_call_output" => {
            let id = fields.needs_text("call_id")?;
            let place = At::Key(&at, "output");
            let parts = parts_of(fields.take("output"), &place, dropped, part)?;
            let result = ToolResult { id, name: String::new(), parts, is_error: false };
            say(&mut request.messages, Role::User, vec![Part::ToolResult(result)]);
        }
        "reasoning" => thought(&mut fields, request)?,
        _ => {
            let why = "this kind of item cannot be translated: use message, function_call, function_call_output, reasoning";
            return Err(fields.wrong("type", why));
        }
    }
    fields.rest(dropped);
    Ok(())
}

/// Ours come back with what we sealed; OpenAI's own mean nothing to others.
fn thought(fields: &mut Fields<'_>, request: &mut Request) -> Read<()> {
    let mut text = String::new();
    for key in ["content", "summary"] {
        for piece in fields.list(key)?.into_iter().flatten() {
            if let Some(more) =
                piece.get("text").and_then(Value::as_str).filter(|_| text.is_empty())
            {
                text.push_str(more);
            }
        }
    }
    let part = match fields.text("encrypted_content")? {
        None => return Ok(()),
        Some(sealed) => match sealed.strip_suffix(SEALED) {
            Some(data) => Part::Redacted(data.to_owned()),
            None => Part::Thinking { text, signature: Some(sealed) },
        },
    };
    say(&mut request.messages, Role::Assistant, vec![part]);
    Ok(())
}

fn message(fields: &mut Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let role = fields.needs_text("role")?;
    let at = fields.at;
    let place = At::Key(&at, "content");
    if !fields.has("content") {
        return Err(fields.wrong("content", "is missing"));
    }
    let parts = parts_of(fields.take("content"), &place, dropped, part)?;
    match role.as_str() {
        "user" => say(&mut request.messages, Role::User, parts),
        "assistant" => say(&mut request.messages, Role::Assistant, parts),
        "system" | "developer" => {
            for part in parts {
                let Part::Text(text) = part else { return Err(place.wrong("must be text")) };
                request.system.push(text);
            }
        }
        _ => {
            let why = "must be one of user, assistant, system, developer";
            return Err(fields.wrong("role", why));
        }
    }
    Ok(())
}

fn part(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<Part> {
    let kind = fields.needs_text("type")?;
    if fields.has("file_id") {
        let why = "a file that was uploaded to one vendor is not known to another: send its data";
        return Err(fields.wrong("file_id", why));
    }
    let part = match kind.as_str() {
        "input_text" | "output_text" => {
            // What was found on the way is no part of what was said.
            let _ = (fields.take("annotations"), fields.take("logprobs"));
            Part::Text(fields.needs_text("text")?)
        }
        "refusal" => Part::Text(fields.needs_text("refusal")?),
        "input_image" => {
            if fields.text("detail")?.is_some_and(|it| it != "auto") {
                dropped.push("input.content.detail".to_owned());
            }
            Part::Image(media(fields.needs_text("image_url")?))
        }
        "input_file" => {
            let name = fields.text("filename")?;
            let media = match fields.text("file_url")? {
                Some(url) => Media::Url(url),
                None => media(fields.needs_text("file_data")?),
            };
            Part::File { name, media }
        }
        "input_audio" => {
            let at = fields.at;
            let audio = fields.take("input_audio").unwrap_or_default();
            let mut audio = Fields::new(audio, At::Key(&at, "input_audio"))?;
            Part::Audio { format: audio.needs_text("format")?, data: audio.needs_text("data")? }
        }
        _ => {
            let why = "must be one of input_text, input_image, input_file, input_audio, output_text, refusal";
            return Err(fields.wrong("type", why));
        }
    };
    fields.rest(dropped);
    Ok(part)
}

/// One that the client runs; what OpenAI runs itself is named as dropped.
fn tool(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<Option<Tool>> {
    let kind = fields.needs_text("type")?;
    if kind != "function" {
        let mut word: String = kind.chars().take(64).collect();
        word.retain(|it| it.is_ascii_alphanumeric() || it == '_');
        let name = format!("tools.{word}");
        if !dropped.contains(&name) {
            dropped.push(name);
        }
        return Ok(None);
    }
    let tool = Tool {
        name: fields.needs_text("name")?,
        description: fields.text("description")?,
        parameters: fields.object("parameters")?.map(Value::Object),
        is_strict: fields.flag("strict")?,
    };
    fields.rest(dropped);
    Ok(Some(tool))
}

fn choice(fields: &mut Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let wrong = "must be none, auto, required or {type: function, name: …}";
    request.tool_choice = Some(match fields.take("tool_choice") {
        None => return Ok(()),
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Any,
            _ => return Err(fields.wrong("tool_choice", wrong)),
        },
        Some(value) => {
            let mut choice = Fields::new(value, At::Key(&At::Root, "tool_choice"))?;
            match choice.needs_text("type")?.as_str() {
                "function" => ToolChoice::Tool(choice.needs_text("name")?),
                // Whichever of its own tools it is: nobody else has it.
                _ => {
                    dropped.push("tool_choice".to_owned());
                    return Ok(());
                }
            }
        }
    });
    if request.tools.is_empty() {
        request.tool_choice = None;
    }
    Ok(())
}

fn reasoning(
    fields: &mut Fields<'_>,
    request: &mut Request,
    dropped: &mut Vec<String>,
) -> Read<()> {
    let Some(value) = fields.take("reasoning") else { return Ok(()) };
    let mut reasoning = Fields::new(value, At::Key(&At::Root, "reasoning"))?;
    if let Some(word) = reasoning.text("effort")? {
        let why = "must be one of none, minimal, low, medium, high, xhigh, max";
        request.effort = Some(Effort::parse(&word).ok_or_else(|| reasoning.wrong("effort", why))?);
    }
    // What is thought is given out wherever there is any.
    let _ = (reasoning.take("summary"), reasoning.take("generate_summary"));
    reasoning.rest(dropped);
    Ok(())
}

fn text(fields: &mut Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let Some(value) = fields.take("text") else { return Ok(()) };
    let place = At::Key(&At::Root, "text");
    let mut text = Fields::new(value, place)?;
    if let Some(value) = text.take("format") {
        let mut format = Fields::new(value, At::Key(&place, "format"))?;
        request.format = match format.needs_text("type")?.as_str() {
            "text" => None,
            "json_object" => Some(Format::Json),
            "json_schema" => {
                let schema = format.object("schema")?.map(Value::Object);
                Some(Format::Schema {
                    name: format.needs_text("name")?,
                    schema: schema.ok_or_else(|| format.wrong("schema", "is missing"))?,
                    is_strict: format.flag("strict")?,
                })
            }
            _ => return Err(format.wrong("type", "must be text, json_object or json_schema")),
        };
        format.rest(dropped);
    }
    if text.text("verbosity")?.is_some_and(|it| it != "medium") {
        dropped.push("text.verbosity".to_owned());
    }
    text.rest(dropped);
    Ok(())
}
