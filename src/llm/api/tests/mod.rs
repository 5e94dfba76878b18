//! What must hold for every vendor alike: what is written is read back the same, whole or as a stream
//! that is cut anywhere.
mod bedrock;
mod cases;
mod golden;
mod requests;

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{Api, Azure, Dialect, anthropic::Version};
use crate::llm::{
    chat::{
        Effort, Fold, Format, Media, Message, Part, Reason, Request, Response, Role, Stop, Tool,
        ToolCall, ToolChoice, ToolResult, Usage,
    },
    split::Splitter,
    stream::{Decoder, Encoder, Manner},
};

/// Who speaks which API itself; nobody is asked in that of responses.
const OWN: [(Api, Dialect); 4] = [
    (Api::OpenAi, Dialect::OpenAi),
    (Api::Anthropic, Dialect::Anthropic(Version::V2023)),
    (Api::Gemini, Dialect::Gemini),
    (Api::Ollama, Dialect::Ollama),
];
const APIS: [Api; 5] = [Api::OpenAi, Api::Responses, Api::Anthropic, Api::Gemini, Api::Ollama];
const MANNER: Manner = Manner { created: 7, wants_usage: true, is_list: false };

fn text() -> impl Strategy<Value = String> {
    "[a-zé\"\\\\\n\u{1f600}{}:]{1,8}"
}

fn arguments() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let value = prop_oneof![
        any::<i32>().prop_map(Value::from),
        text().prop_map(Value::from),
        vec(text(), 0..3).prop_map(Value::from),
        Just(json!({"a": {"b": [1, "}"]}})),
    ];
    proptest::collection::btree_map("[a-c]{1,2}", value, 0..3)
        .prop_map(|it| it.into_iter().collect())
}

fn call() -> impl Strategy<Value = ToolCall> {
    ("[a-z]{1,6}", arguments()).prop_map(|(name, arguments)| ToolCall {
        id: String::new(),
        name,
        arguments,
        signature: None,
    })
}

/// Answers that every API can say.
fn answer() -> impl Strategy<Value = Response> {
    let usage = (0_u64..1000, 0_u64..1000, 0_u64..50, 0_u64..50).prop_map(
        |(fresh, out, cached, thought)| Usage {
            input: fresh + cached,
            cached,
            cache_write: 0,
            output: out + thought,
            reasoning: thought,
        },
    );
    let reason = prop_oneof![Just(Reason::End), Just(Reason::Length), Just(Reason::Filter)];
    let thought = proptest::option::of((text(), text()));
    (thought, proptest::option::of(text()), vec(call(), 0..4), reason, usage).prop_map(
        |(thought, said, calls, reason, usage)| {
            let mut parts = Vec::new();
            if let Some((text, signature)) = thought {
                parts.push(Part::Thinking { text, signature: Some(signature) });
            }
            parts.extend(said.map(Part::Text));
            let has_calls = !calls.is_empty();
            parts.extend(calls.into_iter().enumerate().map(|(index, call)| {
                Part::ToolCall(ToolCall { id: format!("call_{index}"), ..call })
            }));
            let reason = if has_calls { Reason::Tools } else { reason };
            let stop = Stop { reason, native: None, sequence: None };
            let (id, model) = ("id".to_owned(), "m".to_owned());
            Response { id, model, parts, stop, usage: Some(usage) }
        },
    )
}

/// What this API has words for, of an answer that every other has words for; and ids, which it may make
/// anew, by their number.
fn sayable(api: Api, mut response: Response) -> Response {
    if api != Api::Ollama {
        return response;
    }
    response.id = String::new();
    for (index, part) in response.parts.iter_mut().enumerate() {
        match part {
            Part::Thinking { signature, .. } => *signature = None,
            Part::ToolCall(call) => call.id = index.to_string(),
            _ => {}
        }
    }
    if response.stop.reason == Reason::Filter {
        response.stop.reason = Reason::End;
    }
    if let Some(usage) = &mut response.usage {
        (usage.cached, usage.reasoning) = (0, 0);
    }
    response
}

/// Gemini's thoughts are signed in a part of their own, after the text.
fn fold(dialect: Dialect, bytes: &[u8], cuts: &[usize]) -> Result<Response, String> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let (mut splitter, mut decoder) = (Splitter::new(dialect), Decoder::new(dialect));
    let (mut folded, mut events) = (Fold::default(), Vec::new());
    for piece in cuts.windows(2).map(|it| &bytes[it[0]..it[1]]) {
        splitter.push(piece);
        while let Some(frame) = splitter.take().map_err(|why| why.message)? {
            decoder.read(&frame, &mut events).map_err(|why| why.message)?;
            events.drain(..).for_each(|it| folded.push(it));
        }
    }
    decoder.finish().map_err(|why| why.message)?;
    folded.finish().ok_or_else(|| "no end".to_owned())
}

fn streamed(api: Api, response: &Response) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(api, MANNER), Vec::new());
    response.clone().events().into_iter().for_each(|it| encoder.push(it, &mut bytes));
    encoder.finish(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn an_answer_is_read_back_as_it_was_written(response in answer()) {
        for (api, dialect) in OWN {
            let encoded = api.encode_response(&response, 7);
            let read = sayable(api, dialect.decode_response(encoded).unwrap());
            prop_assert_eq!(&read, &sayable(api, response.clone()), "{:?}", api);
        }
    }

    #[test]
    fn a_stream_is_the_whole_answer_however_it_is_cut(
        response in answer(),
        cuts in vec(0_usize..4000, 0..12),
    ) {
        for (api, dialect) in OWN {
            let bytes = streamed(api, &response);
            let read = sayable(api, fold(dialect, &bytes, &cuts).unwrap());
            prop_assert_eq!(&read, &sayable(api, response.clone()), "{:?}", api);
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_never_looks_whole(response in answer(), at in 0_usize..4000) {
        for (api, dialect) in OWN {
            let bytes = streamed(api, &response);
            let cut = &bytes[..at % bytes.len()];
            // The end of the answer is said before its usage, and that alone may be lost.
            let end = ["finish_reason\":\"", "stop_reason\":\"", "finishReason", "done\":true"];
            let text = String::from_utf8_lossy(cut);
            if !end.iter().any(|it| text.contains(it)) {
                prop_assert!(fold(dialect, cut, &[]).is_err(), "{:?}: {}", api, text);
            }
        }
    }

    #[test]
    fn the_stream_of_a_response_ends_with_the_whole_of_it(response in answer()) {
        let text = String::from_utf8(streamed(Api::Responses, &response)).unwrap();
        let data = text.lines().filter_map(|it| it.strip_prefix("data: "));
        let all: Vec<Value> = data.map(|it| serde_json::from_str(it).unwrap()).collect();
        for (index, event) in all.iter().enumerate() {
            prop_assert_eq!(event["sequence_number"].as_u64(), Some(index as u64));
        }
        prop_assert_eq!(&all.last().unwrap()["response"], &Api::Responses.encode_response(&response, 7));
    }

    #[test]
    fn no_body_makes_a_decoder_panic(value in json()) {
        for api in APIS {
            let _ = api.decode_request(value.clone());
        }
        for (_, dialect) in OWN {
            let _ = dialect.decode_response(value.clone());
            let mut events = Vec::new();
            let _ = Decoder::new(dialect).push(value.clone(), &mut events);
        }
    }

    #[test]
    fn no_bytes_make_a_stream_panic(bytes in vec(any::<u8>(), 0..200), cuts in vec(0_usize..200, 0..4)) {
        for (_, dialect) in OWN {
            let _ = fold(dialect, &bytes, &cuts);
        }
    }
}

/// JSON out of the words that the APIs know, put together wrongly.
fn json() -> impl Strategy<Value = Value> {
    let words = prop_oneof![
        Just("role"),
        Just("content"),
        Just("parts"),
        Just("messages"),
        Just("contents"),
        Just("model"),
        Just("type"),
        Just("text"),
        Just("tool_calls"),
        Just("function"),
        Just("delta"),
        Just("choices"),
        Just("candidates"),
        Just("index"),
        Just("usage"),
        Just("content_block_delta"),
        Just("user"),
        Just("assistant"),
        Just("tool_result"),
        Just("functionCall"),
        Just("max_tokens"),
        Just("message"),
        Just("name"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((words.clone(), inner), 0..6).prop_map(|it| {
                it.into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

fn picture() -> Part {
    let (mime, base64) = ("image/png".to_owned(), "iVBORw0K".to_owned());
    Part::Image(Media::Data { mime, base64 })
}

/// A conversation with everything in it that every API can say.
fn conversation() -> Request {
    let said = |role, parts| Message { role, parts };
    let call = |id: &str, arguments: Value| {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let (id, name) = (id.to_owned(), "look".to_owned());
        Part::ToolCall(ToolCall { id, name, arguments, signature: None })
    };
    let result = |id: &str, text: &str| {
        let parts = vec![Part::Text(text.to_owned())];
        let (id, name) = (id.to_owned(), "look".to_owned());
        Part::ToolResult(ToolResult { id, name, parts, is_error: false })
    };
    Request {
        model: "m".to_owned(),
        system: vec!["be brief".to_owned(), "and kind".to_owned()],
        messages: vec![
            said(Role::User, vec![Part::Text("what is this?".to_owned()), picture()]),
            said(
                Role::Assistant,
                vec![
                    Part::Text("I look.".to_owned()),
                    call("abcdefgh1", json!({"a": [1, {"b": "c"}]})),
                    call("abcdefgh2", json!({})),
                ],
            ),
            said(
                Role::User,
                vec![result("abcdefgh1", "a \"cat\""), result("abcdefgh2", r#"{"n":1}"#)],
            ),
        ],
        tools: vec![Tool {
            name: "look".to_owned(),
            description: Some("looks".to_owned()),
            parameters: Some(json!({"type": "object", "properties": {"a": {"type": "array"}}})),
            is_strict: None,
        }],
        tool_choice: Some(ToolChoice::Tool("look".to_owned())),
        max_tokens: Some(100),
        temperature: Some(0.5),
        top_p: Some(0.9),
        stop: vec!["END".to_owned()],
        format: Some(Format::Schema {
            name: "output".to_owned(),
            schema: json!({"type": "object"}),
            is_strict: None,
        }),
        effort: Some(Effort::High),
        ..Request::default()
    }
}

#[test]
fn a_request_is_read_back_as_it_was_written() {
    for dialect in [
        Dialect::OpenAi,
        Dialect::Anthropic(Version::V2023),
        Dialect::Gemini,
        Dialect::Mistral,
        Dialect::Compatible,
        Dialect::Azure(Azure::V1),
        Dialect::Ollama,
    ] {
        let mut expected = conversation();
        let api = APIS.into_iter().find(|it| dialect.speaks(*it)).unwrap();
        expected.wants_usage = api != Api::OpenAi;
        let encoded = dialect.encode_request(&conversation(), "m").unwrap();
        let dropped: &[&str] = match dialect {
            Dialect::Mistral => &["reasoning_effort"],
            Dialect::Ollama => &["tool_choice"],
            _ => &[],
        };
        assert_eq!(encoded.dropped, dropped, "{dialect:?}");
        if dialect == Dialect::Mistral {
            expected.effort = None;
        }
        if dialect == Dialect::Gemini {
            // It stands in the path.
            expected.model = String::new();
        }
        if dialect == Dialect::Ollama {
            as_ollama_says(&mut expected);
        }
        let read = api.decode_request(encoded.body).unwrap();
        assert_eq!(read, expected, "{dialect:?}");
    }
}

/// One text above the conversation, calls without ids, and no word for a tool that must be called.
fn as_ollama_says(request: &mut Request) {
    request.system = vec![request.system.join("\n\n")];
    request.tool_choice = None;
    let ids = [("abcdefgh1", "call_1"), ("abcdefgh2", "call_2")];
    for part in request.messages.iter_mut().flat_map(|it| &mut it.parts) {
        if let Part::ToolCall(ToolCall { id, .. }) | Part::ToolResult(ToolResult { id, .. }) = part
        {
            let (_, new) = ids.iter().find(|(old, _)| old == id).unwrap();
            *id = (*new).to_owned();
        }
    }
}

#[test]
fn what_a_provider_cannot_be_told_is_named() {
    let request = Request {
        model: "m".to_owned(),
        messages: conversation().messages,
        top_k: Some(4),
        seed: Some(1),
        temperature: Some(1.5),
        presence_penalty: Some(0.1),
        frequency_penalty: Some(0.1),
        user: Some("u".to_owned()),
        parallel_tools: Some(false),
        format: Some(Format::Json),
        stop: vec![" ".to_owned()],
        dropped: vec!["logit_bias".to_owned()],
        ..Request::default()
    };
    let check = |dialect: Dialect, expected: &[&str]| {
        let mut dropped = dialect.encode_request(&request, "m").unwrap().dropped;
        dropped.sort_unstable();
        assert_eq!(dropped, expected, "{dialect:?}");
    };
    check(Dialect::OpenAi, &["logit_bias", "top_k"]);
    check(Dialect::Mistral, &["logit_bias", "top_k", "user"]);
    check(Dialect::Gemini, &["logit_bias", "parallel_tool_calls", "user"]);
    check(Dialect::Ollama, &["logit_bias", "parallel_tool_calls", "user"]);
    let both = [
        "frequency_penalty",
        "logit_bias",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
    ];
    check(Dialect::Anthropic(Version::V2023), &both);
    let later = [
        "frequency_penalty",
        "logit_bias",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "top_k",
    ];
    check(Dialect::Anthropic(Version::V2026), &later);
}
