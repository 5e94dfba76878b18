//! What the stubs find wrong with a request: as strict as the vendors' documents.
use serde_json::Value;

use super::{bedrock, vendors::Vendor};

/// # Errors
/// It says something else than these words.
pub fn known(body: &Value, words: &[&str]) -> Result<(), String> {
    for key in body.as_object().ok_or("no object")?.keys() {
        if !words.contains(&key.as_str()) {
            return Err(format!("extra_forbidden: {key}"));
        }
    }
    Ok(())
}

/// How many texts are to be vectors.
pub fn embed(vendor: Vendor, end: &str, body: &Value) -> Result<usize, String> {
    let words: &[&str] = match (vendor, end) {
        (Vendor::Gemini, "embedContent") => {
            &["model", "content", "taskType", "outputDimensionality"]
        }
        (Vendor::Gemini, _) => &["requests"],
        (Vendor::Ollama, _) => {
            &["model", "input", "dimensions", "truncate", "options", "keep_alive"]
        }
        (Vendor::Mistral, _) => &["model", "input", "output_dimension", "encoding_format"],
        (Vendor::Anthropic | Vendor::Bedrock, _) => return Err("no such thing".to_owned()),
        _ => &["model", "input", "dimensions", "encoding_format", "user"],
    };
    known(body, words)?;
    if vendor != Vendor::Gemini {
        return Ok(body["input"].as_array().map_or(1, Vec::len));
    }
    if end == "embedContent" {
        return Ok(1);
    }
    let requests = body["requests"].as_array().ok_or("requests")?;
    for request in requests {
        if request["model"] != "models/m" || !request["content"]["parts"][0]["text"].is_string() {
            return Err(format!("not a request: {request}"));
        }
    }
    Ok(requests.len())
}

/// What is wrong with a conversation.
pub fn body(vendor: Vendor, body: &Value) -> Result<(), String> {
    let words: &[&str] = match vendor {
        Vendor::OpenAi | Vendor::Azure => &[
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
            "n",
        ],
        Vendor::Mistral => &[
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
        Vendor::Anthropic => &[
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
        Vendor::Bedrock => {
            &["messages", "system", "inferenceConfig", "toolConfig", "additionalModelRequestFields"]
        }
        Vendor::Ollama => {
            &["model", "messages", "tools", "format", "think", "options", "stream", "keep_alive"]
        }
        Vendor::Gemini => &[
            "contents",
            "systemInstruction",
            "tools",
            "toolConfig",
            "generationConfig",
            "safetySettings",
        ],
    };
    known(body, words)?;
    match vendor {
        Vendor::OpenAi | Vendor::Azure | Vendor::Mistral => messages(vendor, body),
        Vendor::Anthropic => anthropic(body),
        Vendor::Gemini => gemini(body),
        Vendor::Ollama => ollama(body),
        Vendor::Bedrock => bedrock::check(body),
    }
}

fn messages(vendor: Vendor, body: &Value) -> Result<(), String> {
    let mut open: Vec<String> = Vec::new();
    for message in body["messages"].as_array().ok_or("no messages")? {
        // An unknown field of a message is refused; what the vendor itself sends is not.
        let own: &[&str] = match vendor {
            Vendor::Mistral => &["prefix"],
            _ => &["refusal", "annotations", "audio", "function_call"],
        };
        known(
            message,
            &[&["role", "content", "name", "tool_calls", "tool_call_id"], own].concat(),
        )?;
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
            if vendor == Vendor::Mistral && !is_nine {
                return Err(format!("the id {id} is not of nine letters and digits"));
            }
            open.push(id.to_owned());
        }
    }
    Ok(())
}

fn anthropic(body: &Value) -> Result<(), String> {
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

fn gemini(body: &Value) -> Result<(), String> {
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

fn ollama(body: &Value) -> Result<(), String> {
    let mut called: Vec<&str> = Vec::new();
    for message in body["messages"].as_array().ok_or("no messages")? {
        known(message, &["role", "content", "images", "tool_calls", "tool_name", "thinking"])?;
        if !message["content"].is_string() && !message["content"].is_null() {
            return Err("json: cannot unmarshal into Go struct field Message.content".to_owned());
        }
        match message["role"].as_str().ok_or("no role")? {
            "tool" => {
                let name = message["tool_name"].as_str().ok_or("no tool_name")?;
                called.iter().find(|it| **it == name).ok_or(format!("no call of {name}"))?;
            }
            "system" | "user" | "assistant" => {}
            role => return Err(format!("the role {role} is unknown")),
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            if !call["function"]["arguments"].is_object() {
                return Err("arguments are an object".to_owned());
            }
            called.push(call["function"]["name"].as_str().ok_or("no name")?);
        }
    }
    let options = [
        "num_predict",
        "num_ctx",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
    ];
    if body["options"].is_object() { known(&body["options"], &options) } else { Ok(()) }
}
