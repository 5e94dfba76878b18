//! Each pair of a client's API and a provider's, to be read: what becomes of a request, of an answer and
//! of a stream. `UPDATE_GOLDEN=1 cargo test --lib golden` writes the files anew.
use std::{fmt::Write, fs, path::PathBuf};

use serde_json::Value;

use super::{APIS, Api, Azure, Dialect, MANNER, OWN, Version, bedrock, conversation, streamed};
use crate::llm::{
    chat::{Event, Object, Part, Reason, Response, Stop, ToolCall, Usage},
    seal::Tag,
    split::Splitter,
    stream::{Decoder, Encoder},
};

const DIALECTS: [(&str, Dialect); 9] = [
    ("openai", Dialect::OpenAi),
    ("mistral", Dialect::Mistral),
    ("anthropic", Dialect::Anthropic(Version::V2023)),
    ("anthropic-2026", Dialect::Anthropic(Version::V2026)),
    ("gemini", Dialect::Gemini),
    ("compatible", Dialect::Compatible),
    ("azure", Dialect::Azure(Azure::Deployments)),
    ("ollama", Dialect::Ollama),
    ("bedrock", Dialect::Bedrock),
];

fn answer() -> Response {
    let arguments =
        |city: &str| -> Object { [("city".to_owned(), Value::from(city))].into_iter().collect() };
    let call = |id: &str, city: &str| {
        let (id, name, arguments) = (id.to_owned(), "weather".to_owned(), arguments(city));
        Part::ToolCall(ToolCall { id, name, arguments, signature: None })
    };
    Response {
        id: "id-1".to_owned(),
        model: "the-vendors-model".to_owned(),
        parts: vec![
            Part::Thinking { text: "two cities".to_owned(), signature: Some("c2ln".to_owned()) },
            Part::Text("I look.".to_owned()),
            call("call_1", "Zürich"),
            call("call_2", "Bern"),
        ],
        stop: Stop { reason: Reason::Tools, native: None, sequence: None },
        usage: Some(Usage { input: 30, cached: 10, cache_write: 0, output: 20, reasoning: 5 }),
    }
}

/// What a client sends that speaks `api`: a conversation with all that it can say.
fn asked(api: Api) -> Value {
    if api == Api::Responses {
        return serde_json::from_str(include_str!("responses.json")).unwrap();
    }
    let (_, dialect) = OWN.iter().find(|(it, _)| *it == api).unwrap();
    let mut body = dialect.encode_request(&conversation(), "m").unwrap().body;
    if api == Api::Gemini {
        // Nothing in it names the model.
        body["safetySettings"] = Value::Array(vec![Value::from("kept by no other")]);
    }
    body
}

/// Ids that were drawn, for vendors that have none: the same each time.
fn number(parts: &mut [Part]) {
    let calls = parts.iter_mut().filter_map(|it| match it {
        Part::ToolCall(call) => Some(call),
        _ => None,
    });
    for (index, call) in calls.enumerate() {
        call.id = format!("call_{}", index + 1);
    }
}

fn shown(api: Api, dialect: Dialect) -> String {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let mut request = api.decode_request(asked(api)).unwrap();
    Tag::new("nobody's").unmark(&mut request);
    let sent = dialect.encode_request(&request, "the-vendors-model").unwrap();
    let vendor = OWN.iter().find(|(it, _)| dialect.speaks(*it)).map(|(it, _)| *it);
    let said =
        vendor.map_or_else(|| bedrock::said(&answer()), |it| it.encode_response(&answer(), 7));
    let mut answered = dialect.decode_response(said).unwrap();
    number(&mut answered.parts);
    answered.id = "id-1".to_owned();
    let answered = api.encode_response(&answered, 7);
    let (mut splitter, mut decoder) = (Splitter::new(dialect), Decoder::new(dialect));
    let bytes = vendor.map_or_else(|| bedrock::streamed(&answer()), |it| streamed(it, &answer()));
    splitter.push(&bytes);
    let (mut encoder, mut events, mut out) = (Encoder::new(api, MANNER), Vec::new(), Vec::new());
    let mut calls = 0;
    while let Some(frame) = splitter.take().unwrap() {
        decoder.read(&frame, &mut events).unwrap();
        for mut event in events.drain(..) {
            match &mut event {
                Event::ToolCall { id, .. } => {
                    calls += 1;
                    *id = format!("call_{calls}");
                }
                Event::Start { id, .. } => *id = "id-1".to_owned(),
                _ => {}
            }
            encoder.push(event, &mut out);
        }
    }
    decoder.finish().unwrap();
    encoder.finish(&mut out);
    let mut text = String::new();
    write!(
        text,
        "--- request\n{}\n--- dropped\n{}\n--- response\n{}\n--- stream\n{}",
        pretty(&sent.body),
        sent.dropped.join(", "),
        pretty(&answered),
        String::from_utf8(out).unwrap(),
    )
    .unwrap();
    text
}

#[test]
fn every_pair_is_as_written() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llm");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for api in APIS {
        for (word, dialect) in DIALECTS.into_iter().filter(|(_, it)| !it.speaks(api)) {
            let text = shown(api, dialect);
            let file = folder.join(format!("{}-to-{word}.txt", api.word()));
            if update {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&file, &text).unwrap();
            } else if fs::read_to_string(&file).unwrap_or_default() != text {
                different.push(format!("{}:\n{text}", file.display()));
            }
        }
    }
    assert!(different.is_empty(), "UPDATE_GOLDEN=1 writes these:\n{}", different.join("\n"));
}
