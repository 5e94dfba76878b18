//! A prompt's OpenAPI document, made of what it takes and answers.
use serde_json::{Map, Value, json};

use super::Prompt;

/// The document for a prompt that is asked at these paths.
#[must_use]
pub fn document(prompt: &Prompt, paths: &[&str]) -> Value {
    let output = match &prompt.output {
        Some(output) => output.checked.schema.clone(),
        None => json!({"type": "string"}),
    };
    let usage = json!({
        "type": ["object", "null"],
        "properties": {"input_tokens": {"type": "integer"}, "output_tokens": {"type": "integer"}},
    });
    let answer = json!({
        "type": "object",
        "required": ["output", "usage"],
        "properties": {"output": output, "usage": usage},
    });
    let problem = |why: &str| {
        let schema = json!({"type": "object", "properties": {
            "title": {"type": "string"}, "status": {"type": "integer"}, "code": {"type": "string"},
            "detail": {"type": "string"}, "pointer": {"type": "string"},
        }});
        json!({"description": why, "content": {"application/problem+json": {"schema": schema}}})
    };
    let events = "Pieces as `event: text` with `{text}`, then `event: done` with the whole answer, or `event: error`.";
    let post = json!({
        "operationId": &*prompt.name,
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": prompt.input.schema}},
        },
        "responses": {
            "200": {
                "description": "The answer; a stream for who accepts text/event-stream.",
                "content": {
                    "application/json": {"schema": answer},
                    "text/event-stream": {"schema": {"type": "string", "description": events}},
                },
            },
            "422": problem("The input is not what is expected; `pointer` says where."),
            "default": problem("Anything else that went wrong."),
        },
    });
    let paths: Map<String, Value> =
        paths.iter().map(|it| ((*it).to_owned(), json!({"post": post}))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {"title": &*prompt.name, "version": "1"},
        "paths": paths,
    })
}
