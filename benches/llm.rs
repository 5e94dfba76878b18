//! What translation costs: a request, an answer and an event of a stream, from one vendor's words into
//! another's, and a body that passes with another model's name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use tollgate::llm::{
    Api, Dialect,
    api::{anthropic::Version, openai::passing},
    outline::Outline,
    split::Splitter,
    stream::{Decoder, Encoder, Manner},
};

/// A conversation of so many turns, with a tool.
fn asked(turns: usize) -> Value {
    let mut messages = vec![json!({"role": "system", "content": "You are a helpful assistant."})];
    for turn in 0..turns {
        let text = format!("question {turn}: {}", "what do you make of this? ".repeat(20));
        messages.push(json!({"role": "user", "content": text}));
        messages.push(json!({"role": "assistant", "content": "an answer ".repeat(60)}));
    }
    messages.push(json!({"role": "user", "content": "and now?"}));
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": schema}});
    json!({"model": "m", "messages": messages, "tools": [tool], "max_tokens": 100})
}

const DIALECTS: [(&str, Dialect); 3] = [
    ("anthropic", Dialect::Anthropic(Version::V2023)),
    ("gemini", Dialect::Gemini),
    ("ollama", Dialect::Ollama),
];

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for turns in [1, 50] {
        let body = asked(turns).to_string();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("passes/{turns}"), |b| {
            b.iter(|| {
                let outline = Outline::read(black_box(body.as_bytes())).unwrap();
                passing::patch(&outline, "other", Dialect::OpenAi).unwrap()
            });
        });
        for (name, dialect) in DIALECTS {
            group.bench_function(format!("openai to {name}/{turns}"), |b| {
                b.iter(|| {
                    let value = serde_json::from_slice(black_box(body.as_bytes())).unwrap();
                    let request = Api::OpenAi.decode_request(value).unwrap();
                    let encoded = dialect.encode_request(&request, "other").unwrap();
                    serde_json::to_vec(&encoded.body).unwrap()
                });
            });
        }
    }
    group.finish();
}

fn answers(c: &mut Criterion) {
    let said = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "own",
        "content": [{"type": "text", "text": "an answer ".repeat(200)}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 400},
    })
    .to_string();
    c.bench_function("answer/anthropic to openai", |b| {
        b.iter(|| {
            let value = serde_json::from_slice(black_box(said.as_bytes())).unwrap();
            let dialect = Dialect::Anthropic(Version::V2023);
            let response = dialect.decode_response(value).unwrap();
            serde_json::to_vec(&Api::OpenAi.encode_response(&response, 7)).unwrap()
        });
    });
}

fn events(c: &mut Criterion) {
    const COUNT: u64 = 1_000;
    let event = |kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let usage = json!({"input_tokens": 10, "output_tokens": 1});
    let mut stream =
        event("message_start", json!({"message": {"id": "1", "model": "own", "usage": usage}}));
    let block = json!({"index": 0, "content_block": {"type": "text", "text": ""}});
    stream += &event("content_block_start", block);
    let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": " word"}});
    stream += &event("content_block_delta", delta).repeat(1_000);
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Elements(COUNT));
    let dialect = Dialect::Anthropic(Version::V2023);
    for api in [Api::OpenAi, Api::Responses, Api::Gemini] {
        group.bench_function(format!("anthropic to {}", api.word()), |b| {
            b.iter(|| {
                let manner = Manner { created: 7, wants_usage: true, is_list: false };
                let (mut splitter, mut decoder) = (Splitter::new(dialect), Decoder::new(dialect));
                let mut encoder = Encoder::new(api, manner);
                let (mut events, mut out) = (Vec::new(), Vec::new());
                splitter.push(black_box(stream.as_bytes()));
                while let Some(frame) = splitter.take().unwrap() {
                    decoder.read(&frame, &mut events).unwrap();
                    events.drain(..).for_each(|it| encoder.push(it, &mut out));
                }
                out
            });
        });
    }
    group.finish();
}

criterion_group!(benches, requests, answers, events);
criterion_main!(benches);
