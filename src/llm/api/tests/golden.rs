//! Each pair of a client's API and a provider's, to be read: what becomes of a request, of an answer and
//! of a stream. `UPDATE_GOLDEN=1 cargo test --lib golden` writes the files anew.
use std::{fmt::Write, fs, path::PathBuf};

use serde_json::Value;

use super::{APIS, Api, Dialect, MANNER, Version, conversation, streamed};
use crate::llm::{
    chat::{Object, Part, Reason, Response, Stop, ToolCall, Usage},
    sse::Parser,
    stream::{Decoder, Encoder},
};

const DIALECTS: [(&str, Dialect); 5] = [
    ("openai", Dialect::OpenAi),
    ("mistral", Dialect::Mistral),
    ("anthropic", Dialect::Anthropic(Version::V2023)),
    ("anthropic-2026", Dialect::Anthropic(Version::V2026)),
    ("gemini", Dialect::Gemini),
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
    let dialect = DIALECTS.iter().find(|(word, _)| *word == api.word()).unwrap().1;
    let mut body = dialect.encode_request(&conversation(), "m").unwrap().body;
    if api == Api::Gemini {
        // Nothing in it names the model.
        body["safetySettings"] = Value::Array(vec![Value::from("kept by no other")]);
    }
    body
}

fn shown(api: Api, dialect: Dialect) -> String {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let request = api.decode_request(asked(api)).unwrap();
    let sent = dialect.encode_request(&request, "the-vendors-model").unwrap();
    let said = dialect.api().encode_response(&answer(), 7);
    let answered = api.encode_response(&dialect.api().decode_response(said).unwrap(), 7);
    let (mut parser, mut decoder) = (Parser::default(), Decoder::new(dialect.api()));
    parser.push(&streamed(dialect.api(), &answer()));
    let (mut encoder, mut events, mut out) = (Encoder::new(api, MANNER), Vec::new(), Vec::new());
    while let Some(frame) = parser.take().unwrap() {
        decoder.read(&frame, &mut events).unwrap();
        events.drain(..).for_each(|it| encoder.push(it, &mut out));
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
        for (word, dialect) in DIALECTS.into_iter().filter(|(_, it)| it.api() != api) {
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
