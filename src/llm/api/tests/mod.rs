//! What must hold for every vendor alike: what is written is read back the same, whole or as a stream
//! that is cut anywhere.
mod golden;

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{Api, Dialect, anthropic::Version};
use crate::llm::{
    chat::{
        Effort, Event, Fold, Format, Media, Message, Part, Reason, Request, Response, Role, Stop,
        Tool, ToolCall, ToolChoice, ToolResult, Usage,
    },
    sse::Parser,
    stream::{Decoder, Encoder, Manner},
};

const APIS: [Api; 3] = [Api::OpenAi, Api::Anthropic, Api::Gemini];
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

/// Gemini's thoughts are signed in a part of their own, after the text.
fn fold(api: Api, bytes: &[u8], cuts: &[usize]) -> Result<Response, String> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let (mut parser, mut decoder) = (Parser::default(), Decoder::new(api));
    let (mut folded, mut events) = (Fold::default(), Vec::new());
    for piece in cuts.windows(2).map(|it| &bytes[it[0]..it[1]]) {
        parser.push(piece);
        while let Some(frame) = parser.take().unwrap() {
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
        for api in APIS {
            let encoded = api.encode_response(&response, 7);
            prop_assert_eq!(&api.decode_response(encoded).unwrap(), &response, "{:?}", api);
        }
    }

    #[test]
    fn a_stream_is_the_whole_answer_however_it_is_cut(
        response in answer(),
        cuts in vec(0_usize..4000, 0..12),
    ) {
        for api in APIS {
            let bytes = streamed(api, &response);
            prop_assert_eq!(&fold(api, &bytes, &cuts).unwrap(), &response, "{:?}", api);
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_never_looks_whole(response in answer(), at in 0_usize..4000) {
        for api in APIS {
            let bytes = streamed(api, &response);
            let cut = &bytes[..at % bytes.len()];
            // The end of the answer is said before its usage, and that alone may be lost.
            let end = ["finish_reason\":\"", "stop_reason\":\"", "finishReason"];
            let text = String::from_utf8_lossy(cut);
            if !end.iter().any(|it| text.contains(it)) {
                prop_assert!(fold(api, cut, &[]).is_err(), "{:?}: {}", api, text);
            }
        }
    }

    #[test]
    fn no_body_makes_a_decoder_panic(value in json()) {
        for api in APIS {
            let _ = api.decode_request(value.clone());
            let _ = api.decode_response(value.clone());
            let mut events = Vec::new();
            let _ = Decoder::new(api).push(value.clone(), &mut events);
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
    let (mime, base64) = ("image/png".to_owned(), "QUJD".to_owned());
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
    ] {
        let mut expected = conversation();
        expected.wants_usage = dialect.api() != Api::OpenAi;
        let encoded = dialect.encode_request(&conversation(), "m").unwrap();
        let dropped: &[&str] =
            if dialect == Dialect::Mistral { &["reasoning_effort"] } else { &[] };
        assert_eq!(encoded.dropped, dropped, "{dialect:?}");
        if dialect == Dialect::Mistral {
            expected.effort = None;
        }
        if dialect == Dialect::Gemini {
            // It stands in the path.
            expected.model = String::new();
        }
        let read = dialect.api().decode_request(encoded.body).unwrap();
        assert_eq!(read, expected, "{dialect:?}");
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

fn refused(api: Api, body: impl Into<Value>, place: &str) {
    let body = body.into();
    let why = api.decode_request(body.clone()).unwrap_err();
    assert!(why.to_string().starts_with(place), "{why}, not {place}");
}

#[test]
fn what_nobody_would_take_is_refused_with_its_place() {
    let openai = |messages: Value| json!({"model": "m", "messages": messages});
    refused(Api::OpenAi, json!({"messages": []}), "model: is missing");
    refused(Api::OpenAi, openai(json!([])), "messages: there is none");
    refused(Api::OpenAi, openai(json!({})), "messages: must be a list");
    refused(Api::OpenAi, openai(json!([7])), "messages[0]: must be an object");
    refused(Api::OpenAi, openai(json!([{"role": "wizard"}])), "messages[0].role: must be one of");
    refused(Api::OpenAi, openai(json!([{"role": "user", "content": 7}])), "messages[0].content:");
    refused(
        Api::OpenAi,
        openai(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])),
        "messages[0].content[0].image_url.url: is missing",
    );
    let result = json!({"role": "tool", "tool_call_id": "x", "content": "a"});
    refused(Api::OpenAi, openai(json!([result])), "messages: a tool's result answers the call `x`");
    let call = json!({"id": "x", "function": {"name": "f", "arguments": "{"}});
    refused(
        Api::OpenAi,
        openai(json!([{"role": "assistant", "tool_calls": [call]}])),
        "messages[0].tool_calls[0].function.arguments: must be a JSON object",
    );
    let mut hot = openai(json!([{"role": "user", "content": "a"}]));
    hot["temperature"] = json!("hot");
    refused(Api::OpenAi, hot, "temperature: must be a number");
    let anthropic = |messages: Value| json!({"model": "m", "max_tokens": 5, "messages": messages});
    refused(Api::Anthropic, json!({"model": "m", "messages": []}), "max_tokens: is missing");
    refused(
        Api::Anthropic,
        anthropic(json!([{"role": "user"}])),
        "messages[0].content: is missing",
    );
    let orphan = json!([{"type": "tool_result", "tool_use_id": "x"}]);
    refused(
        Api::Anthropic,
        anthropic(json!([{"role": "user", "content": orphan}])),
        "messages: a tool's result answers the call `x`",
    );
    refused(Api::Gemini, json!({}), "contents: is missing");
    refused(
        Api::Gemini,
        json!({"contents": [{"role": "wizard", "parts": []}]}),
        "contents[0].role",
    );
    refused(Api::Gemini, json!({"contents": [{"parts": [{"x": 1}]}]}), "contents[0].parts[0]: ");
    let orphan = json!({"functionResponse": {"name": "f", "response": {}}});
    refused(Api::Gemini, json!({"contents": [{"parts": [orphan]}]}), "messages: a tool's result");
}

fn events(api: Api, chunks: &[Value]) -> Vec<Event> {
    let (mut decoder, mut events) = (Decoder::new(api), Vec::new());
    for chunk in chunks {
        decoder.push(chunk.clone(), &mut events).unwrap();
    }
    events
}

#[test]
fn interleaved_calls_come_out_one_after_the_other() {
    let piece = |calls: Value| json!({"choices": [{"delta": {"tool_calls": calls}}]});
    let begin = |index: u64, name: &str| json!([{"index": index, "id": name, "function": {"name": name, "arguments": ""}}]);
    let more = |index: u64, text: &str| json!([{"index": index, "function": {"arguments": text}}]);
    let folded = |chunks: &[Value]| {
        let mut fold = Fold::default();
        events(Api::OpenAi, chunks).into_iter().for_each(|it| fold.push(it));
        fold.finish().unwrap().parts
    };
    let end = json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]});
    let interleaved = [
        piece(begin(0, "a")),
        piece(begin(1, "b")),
        piece(more(1, "{\"y\":")),
        piece(more(0, "{\"x\":")),
        piece(more(1, "2}")),
        piece(more(0, "1}")),
        end.clone(),
    ];
    let part = |name: &str, arguments: Value| {
        let arguments = arguments.as_object().cloned().unwrap();
        let (id, name) = (name.to_owned(), name.to_owned());
        Part::ToolCall(ToolCall { id, name, arguments, signature: None })
    };
    let expected = [part("a", json!({"x": 1})), part("b", json!({"y": 2}))];
    assert_eq!(folded(&interleaved), expected);
    // In their order nothing is held back.
    let in_order = [
        piece(begin(0, "a")),
        piece(more(0, "{\"x\":")),
        piece(more(0, "1}")),
        piece(begin(1, "b")),
        piece(more(1, "{\"y\":2")),
    ];
    let count = |at: usize| events(Api::OpenAi, &in_order[..at]).len();
    assert_eq!((1..=5).map(count).collect::<Vec<_>>(), [1, 3, 4, 4, 6]);
    assert_eq!(folded(&[piece(begin(0, "a")), end]), [part("a", json!({}))]);
}

#[test]
fn thinking_comes_back_with_its_text_however_it_was_put_together() {
    let check = |message: Value| {
        let user = json!({"role": "user", "content": "a"});
        let body = json!({"model": "m", "messages": [user, message, user]});
        let thought = Part::Thinking { text: "t".to_owned(), signature: Some("s".to_owned()) };
        let read = Api::OpenAi.decode_request(body).unwrap();
        assert_eq!(read.messages[1].parts, [thought, Part::Text("b".to_owned())]);
        assert!(read.dropped.is_empty());
    };
    let block = |text: &str| json!([{"type": "thinking", "thinking": text, "signature": "s"}]);
    let (role, said) = ("assistant", "b");
    check(
        json!({"role": role, "content": said, "reasoning_content": "t", "thinking_blocks": block("t")}),
    );
    check(
        json!({"role": role, "content": said, "reasoning_content": "t", "thinking_blocks": block("")}),
    );
}

#[test]
fn the_limit_of_tokens_has_the_word_that_is_known_there() {
    let check = |dialect: Dialect, word: &str| {
        let body = dialect.encode_request(&conversation(), "m").unwrap().body;
        let known: Vec<&String> =
            body.as_object().unwrap().keys().filter(|it| it.starts_with("max_")).collect();
        assert_eq!(known, [word], "{dialect:?}");
    };
    check(Dialect::OpenAi, "max_completion_tokens");
    check(Dialect::Compatible, "max_tokens");
    check(Dialect::Mistral, "max_tokens");
}

#[test]
fn native_reasons_are_kept() {
    let check = |api: Api, body: Value, reason: Reason, native: Option<&str>| {
        let stop = api.decode_response(body).unwrap().stop;
        assert_eq!((stop.reason, stop.native.as_deref()), (reason, native));
    };
    let openai =
        |word: &str| json!({"choices": [{"finish_reason": word, "message": {"content": "a"}}]});
    check(Api::OpenAi, openai("model_length"), Reason::Length, Some("model_length"));
    check(Api::OpenAi, openai("content_filter"), Reason::Filter, None);
    let anthropic = |word: &str| json!({"content": [], "stop_reason": word});
    check(Api::Anthropic, anthropic("pause_turn"), Reason::Pause, None);
    let window = "model_context_window_exceeded";
    check(Api::Anthropic, anthropic(window), Reason::Length, Some(window));
    let gemini = |word: &str| json!({"candidates": [{"finishReason": word}]});
    check(Api::Gemini, gemini("RECITATION"), Reason::Filter, Some("RECITATION"));
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}});
    check(Api::Gemini, blocked, Reason::Filter, Some("SAFETY"));
    assert!(Api::Gemini.decode_response(gemini("MALFORMED_FUNCTION_CALL")).is_err());
}
