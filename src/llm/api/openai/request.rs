//! A chat completion that is asked for.
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::response;
use crate::llm::{
    api::{Dialect, Encoded, media, parts_of, put, say, url},
    chat::{
        Effort, Format, Media, Message, Part, Request, Role, Tool, ToolCall, ToolChoice, ToolResult,
    },
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

pub fn decode(body: Value) -> Read<Request> {
    let mut fields = Fields::new(body, At::Root)?;
    let mut dropped = Vec::new();
    let mut request = Request { model: fields.needs_text("model")?, ..Request::default() };
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
    request.tool_choice = choice(&mut fields)?;
    request.parallel_tools = fields.flag("parallel_tool_calls")?;
    let max_tokens = fields.count("max_tokens")?;
    request.max_tokens = fields.count("max_completion_tokens")?.or(max_tokens);
    request.temperature = fields.number("temperature")?;
    request.top_p = fields.number("top_p")?;
    request.stop = fields.texts("stop")?;
    request.seed = fields.integer("seed")?;
    request.presence_penalty = fields.number("presence_penalty")?;
    request.frequency_penalty = fields.number("frequency_penalty")?;
    request.format = format(&mut fields, &mut dropped)?;
    request.effort =
        fields.text("reasoning_effort")?.map(|word| effort(&word, &fields)).transpose()?;
    request.user = fields.text("user")?;
    request.is_stream = fields.flag("stream")?.unwrap_or(false);
    if let Some(options) = fields.take("stream_options") {
        let place = At::Key(&At::Root, "stream_options");
        let mut options = Fields::new(options, place)?;
        request.wants_usage = options.flag("include_usage")?.unwrap_or(false);
        options.rest(&mut dropped);
    }
    if fields.count("n")?.is_some_and(|n| n > 1) {
        dropped.push("n".to_owned());
    }
    fields.rest(&mut dropped);
    request.dropped = dropped;
    Ok(request)
}

fn effort(word: &str, fields: &Fields<'_>) -> Read<Effort> {
    let why = || "must be one of none, minimal, low, medium, high, xhigh, max";
    Effort::parse(word).ok_or_else(|| fields.wrong("reasoning_effort", why()))
}

fn message(mut fields: Fields<'_>, request: &mut Request, dropped: &mut Vec<String>) -> Read<()> {
    let role = fields.needs_text("role")?;
    let content = fields.take("content");
    let at = fields.at;
    let place = At::Key(&at, "content");
    match role.as_str() {
        "system" | "developer" => {
            for part in parts_of(content, &place, dropped, part)? {
                let Part::Text(text) = part else { return Err(place.wrong("must be text")) };
                request.system.push(text);
            }
        }
        "user" => say(&mut request.messages, Role::User, parts_of(content, &place, dropped, part)?),
        "assistant" => {
            let mut said = thinking(&mut fields)?;
            said.extend(parts_of(content, &place, dropped, part)?);
            said.extend(fields.text("refusal")?.map(Part::Text));
            let place = At::Key(&at, "tool_calls");
            for (index, value) in fields.list("tool_calls")?.into_iter().flatten().enumerate() {
                let fields = Fields::new(value, At::Item(&place, index))?;
                said.push(Part::ToolCall(call(fields, dropped)?));
            }
            say(&mut request.messages, Role::Assistant, said);
        }
        "tool" => {
            let id = fields.needs_text("tool_call_id")?;
            let name = fields.text("name")?.unwrap_or_default();
            let parts = parts_of(content, &place, dropped, part)?;
            let result = ToolResult { id, name, parts, is_error: false };
            say(&mut request.messages, Role::User, vec![Part::ToolResult(result)]);
        }
        "function" => {
            let why = "`function` is not supported; answer `tool_calls` with the role `tool`";
            return Err(fields.wrong("role", why));
        }
        _ => {
            let why = "must be one of developer, system, user, assistant, tool";
            return Err(fields.wrong("role", why));
        }
    }
    fields.rest(dropped);
    Ok(())
}

/// Thinking that we gave out ourselves and that comes back: only with its signature is it of use. Who
/// put a stream together has the text in one field and the signature in the other.
fn thinking(fields: &mut Fields<'_>) -> Read<Vec<Part>> {
    let mut streamed = fields.take("reasoning_content").and_then(|it| match it {
        Value::String(text) => Some(text),
        _ => None,
    });
    let at = fields.at;
    let place = At::Key(&at, "thinking_blocks");
    let blocks: Vec<Value> = fields.list("thinking_blocks")?.unwrap_or_default();
    let mut said = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        let mut block = Fields::new(block, At::Item(&place, index))?;
        if let Some(data) = block.text("data")? {
            said.push(Part::Redacted(data));
            continue;
        }
        let text = block.text("thinking")?.filter(|it| !it.is_empty());
        let text = text.or_else(|| streamed.take()).unwrap_or_default();
        said.push(Part::Thinking { text, signature: block.text("signature")? });
    }
    Ok(said)
}

fn part(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<Part> {
    let kind = fields.needs_text("type")?;
    let at = fields.at;
    let mut inner = |key: &'static str| {
        let value = fields.take(key).ok_or_else(|| fields.wrong(key, "is missing"))?;
        Ok::<_, Malformed>(value)
    };
    let part = match kind.as_str() {
        "text" => Part::Text(fields.needs_text("text")?),
        "refusal" => Part::Text(fields.needs_text("refusal")?),
        "image_url" => {
            let place = At::Key(&at, "image_url");
            match inner("image_url")? {
                Value::String(url) => Part::Image(media(url)),
                image => {
                    let mut image = Fields::new(image, place)?;
                    let read = Part::Image(media(image.needs_text("url")?));
                    if image.text("detail")?.is_some_and(|it| it != "auto") {
                        dropped.push("messages.content.image_url.detail".to_owned());
                    }
                    read
                }
            }
        }
        "input_audio" => {
            let place = At::Key(&at, "input_audio");
            let mut audio = Fields::new(inner("input_audio")?, place)?;
            Part::Audio { format: audio.needs_text("format")?, data: audio.needs_text("data")? }
        }
        "file" => {
            let place = At::Key(&at, "file");
            let mut file = Fields::new(inner("file")?, place)?;
            if file.has("file_id") {
                let why = "a file that was uploaded to one vendor is not known to another: send `file_data`";
                return Err(file.wrong("file_id", why));
            }
            let name = file.text("filename")?;
            Part::File { name, media: media(file.needs_text("file_data")?) }
        }
        _ => {
            let why = "must be one of text, image_url, input_audio, file, refusal";
            return Err(fields.wrong("type", why));
        }
    };
    fields.rest(dropped);
    Ok(part)
}

fn call(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<ToolCall> {
    let _ = (fields.take("type"), fields.take("index"));
    let id = fields.needs_text("id")?;
    let at = fields.at;
    let place = At::Key(&at, "function");
    let function = fields.take("function").ok_or_else(|| fields.wrong("function", "is missing"))?;
    let mut function = Fields::new(function, place)?;
    let name = function.needs_text("name")?;
    let arguments = response::arguments(&mut function)?;
    let signature = response::signature(&fields.take("extra_content").unwrap_or_default());
    fields.rest(dropped);
    Ok(ToolCall { id, name, arguments, signature })
}

pub(in crate::llm::api) fn tool(mut fields: Fields<'_>, dropped: &mut Vec<String>) -> Read<Tool> {
    if fields.text("type")?.is_some_and(|it| it != "function") {
        return Err(fields.wrong("type", "only tools of the type `function` can be translated"));
    }
    let at = fields.at;
    let place = At::Key(&at, "function");
    let function = fields.take("function").ok_or_else(|| fields.wrong("function", "is missing"))?;
    let mut function = Fields::new(function, place)?;
    let tool = Tool {
        name: function.needs_text("name")?,
        description: function.text("description")?,
        parameters: function.object("parameters")?.map(Value::Object),
        is_strict: function.flag("strict")?,
    };
    function.rest(dropped);
    fields.rest(dropped);
    Ok(tool)
}

fn choice(fields: &mut Fields<'_>) -> Read<Option<ToolChoice>> {
    let wrong = "must be none, auto, required or {type: function, function: {name: …}}";
    let choice = match fields.take("tool_choice") {
        None => return Ok(None),
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" | "any" => ToolChoice::Any,
            _ => return Err(fields.wrong("tool_choice", wrong)),
        },
        Some(value) => match value.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => ToolChoice::Tool(name.to_owned()),
            None => return Err(fields.wrong("tool_choice", wrong)),
        },
    };
    Ok(Some(choice))
}

fn format(fields: &mut Fields<'_>, dropped: &mut Vec<String>) -> Read<Option<Format>> {
    let Some(value) = fields.take("response_format") else { return Ok(None) };
    let place = At::Key(&At::Root, "response_format");
    let mut format = Fields::new(value, place)?;
    let read = match format.needs_text("type")?.as_str() {
        "text" => None,
        "json_object" => Some(Format::Json),
        "json_schema" => {
            let inner = format.take("json_schema");
            let inner = inner.ok_or_else(|| format.wrong("json_schema", "is missing"))?;
            let mut inner = Fields::new(inner, At::Key(&place, "json_schema"))?;
            let schema = inner.object("schema")?.map(Value::Object);
            let read = Format::Schema {
                name: inner.needs_text("name")?,
                schema: schema.ok_or_else(|| inner.wrong("schema", "is missing"))?,
                is_strict: inner.flag("strict")?,
            };
            inner.rest(dropped);
            Some(read)
        }
        _ => return Err(format.wrong("type", "must be text, json_object or json_schema")),
    };
    Ok(read)
}

/// # Errors
/// The conversation holds what cannot be said to it.
pub fn encode(request: &Request, model: &str, dialect: Dialect) -> Read<Encoded> {
    let is_mistral = dialect == Dialect::Mistral;
    let mut dropped = request.dropped.clone();
    let mut drop_if = |is_set: bool, name: &str| {
        if is_set {
            dropped.push(name.to_owned());
        }
    };
    let mut messages = Vec::new();
    if let Some(content) = text_content(&request.system) {
        messages.push(json!({"role": "system", "content": content}));
    }
    for message in &request.messages {
        encode_message(message, is_mistral, &mut messages)?;
    }
    let mut body = json!({"model": model, "messages": messages});
    let it = &mut body;
    if !request.tools.is_empty() {
        put(it, "tools", Some(request.tools.iter().map(encode_tool).collect::<Value>()));
    }
    put(
        it,
        "tool_choice",
        request.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::None => json!("none"),
            ToolChoice::Auto => json!("auto"),
            ToolChoice::Any => json!(if is_mistral { "any" } else { "required" }),
            ToolChoice::Tool(name) => json!({"type": "function", "function": {"name": name}}),
        }),
    );
    put(it, "parallel_tool_calls", request.parallel_tools);
    // OpenAI's newer models refuse the older word, and servers that are like it may ignore the newer.
    let max_tokens =
        if dialect.is_openai_itself() { "max_completion_tokens" } else { "max_tokens" };
    put(it, max_tokens, request.max_tokens);
    put(it, "temperature", request.temperature);
    put(it, "top_p", request.top_p);
    drop_if(request.top_k.is_some(), "top_k");
    if !request.stop.is_empty() {
        put(it, "stop", Some(json!(request.stop)));
    }
    put(it, if is_mistral { "random_seed" } else { "seed" }, request.seed);
    put(it, "presence_penalty", request.presence_penalty);
    put(it, "frequency_penalty", request.frequency_penalty);
    put(it, "response_format", request.format.as_ref().map(encode_format));
    let effort = request.effort.or(request.thinking_budget.map(Effort::of_budget));
    if is_mistral {
        drop_if(effort.is_some(), "reasoning_effort");
        drop_if(request.user.is_some(), "user");
    } else {
        put(it, "reasoning_effort", effort.map(Effort::word));
        put(it, "user", request.user.clone());
    }
    if request.is_stream {
        put(it, "stream", Some(true));
        // Asked for always: what was used is counted, and hidden from who did not ask.
        put(it, "stream_options", (!is_mistral).then(|| json!({"include_usage": true})));
    }
    Ok(Encoded { body, dropped })
}

/// Several texts stay apart, in one message: some models take one system message and no more.
fn text_content(texts: &[String]) -> Option<Value> {
    match texts {
        [] => None,
        [one] => Some(json!(one)),
        many => Some(many.iter().map(|text| json!({"type": "text", "text": text})).collect()),
    }
}

fn encode_message(message: &Message, is_mistral: bool, out: &mut Vec<Value>) -> Read<()> {
    let (mut content, mut calls, mut pictures) = (Vec::new(), Vec::new(), Vec::new());
    for part in &message.parts {
        match part {
            Part::ToolResult(result) => {
                let texts = result.parts.iter().filter_map(|it| match it {
                    Part::Text(text) => Some(text.clone()),
                    _ => None,
                });
                let texts: Vec<String> = texts.collect();
                let other = result.parts.iter().filter(|it| !matches!(it, Part::Text(_)));
                for part in other {
                    pictures.push(encode_part(part)?);
                }
                let mut value = json!({
                    "role": "tool",
                    "tool_call_id": tool_id(&result.id, is_mistral),
                    "content": text_content(&texts).unwrap_or_else(|| json!("")),
                });
                put(&mut value, "name", is_mistral.then(|| result.name.clone()));
                out.push(value);
            }
            Part::ToolCall(call) => calls.push(encode_call(call, is_mistral)),
            // It belongs to who thought it.
            Part::Thinking { .. } | Part::Redacted(_) => {}
            part => content.push(encode_part(part)?),
        }
    }
    // A tool's result is text here: pictures in it are shown by the user.
    pictures.extend(content);
    let role = message.role.word();
    let content = match pictures.as_slice() {
        [] => Value::Null,
        [one] if one["type"] == "text" => one["text"].clone(),
        _ => Value::Array(pictures),
    };
    if calls.is_empty() && content.is_null() {
        return Ok(());
    }
    let mut value = json!({"role": role, "content": content});
    put(&mut value, "tool_calls", (!calls.is_empty()).then_some(calls));
    out.push(value);
    Ok(())
}

fn encode_part(part: &Part) -> Read<Value> {
    let value = match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(image) => json!({"type": "image_url", "image_url": {"url": url(image)}}),
        Part::Audio { format, data } => {
            json!({"type": "input_audio", "input_audio": {"format": format, "data": data}})
        }
        Part::File { name, media: media @ Media::Data { .. } } => {
            let name = name.as_deref().unwrap_or("file");
            json!({"type": "file", "file": {"filename": name, "file_data": url(media)}})
        }
        Part::File { media: Media::Url(_), .. } => {
            let why =
                "a document by URL cannot be sent to the provider of this model: send its data";
            return Err(At::Key(&At::Root, "messages").wrong(why));
        }
        Part::Thinking { .. } | Part::Redacted(_) | Part::ToolCall(_) | Part::ToolResult(_) => {
            return Err(At::Key(&At::Root, "messages").wrong("a part is out of its place"));
        }
    };
    Ok(value)
}

fn encode_call(call: &ToolCall, is_mistral: bool) -> Value {
    json!({
        "id": tool_id(&call.id, is_mistral),
        "type": "function",
        "function": {
            "name": call.name,
            "arguments": Value::Object(call.arguments.clone()).to_string(),
        },
    })
}

/// Mistral's are nine letters and digits: any other becomes such a one, the same each time.
fn tool_id(id: &str, is_mistral: bool) -> String {
    const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let is_fine = id.len() == 9 && id.bytes().all(|it| it.is_ascii_alphanumeric());
    if !is_mistral || is_fine {
        return id.to_owned();
    }
    let hash: [u8; 32] = Sha256::digest(id.as_bytes()).into();
    let digit = |it: &u8| DIGITS.get(usize::from(*it) % DIGITS.len()).copied().unwrap_or(b'0');
    hash.iter().take(9).map(|it| char::from(digit(it))).collect()
}

fn encode_tool(tool: &Tool) -> Value {
    let mut function = json!({"name": tool.name});
    put(&mut function, "description", tool.description.clone());
    put(&mut function, "parameters", tool.parameters.clone());
    put(&mut function, "strict", tool.is_strict);
    json!({"type": "function", "function": function})
}

fn encode_format(format: &Format) -> Value {
    match format {
        Format::Json => json!({"type": "json_object"}),
        Format::Schema { name, schema, is_strict } => {
            let mut inner = json!({"name": name, "schema": schema});
            put(&mut inner, "strict", *is_strict);
            json!({"type": "json_schema", "json_schema": inner})
        }
    }
}
