//! What nobody would take, and what is odd about each vendor: one case each.
use serde_json::{Value, json};

use super::{Api, Dialect, Version, conversation};
use crate::llm::{
    chat::{Event, Fold, Part, Reason, ToolCall},
    stream::Decoder,
};

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

fn events(dialect: Dialect, chunks: &[Value]) -> Vec<Event> {
    let (mut decoder, mut events) = (Decoder::new(dialect), Vec::new());
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
        events(Dialect::OpenAi, chunks).into_iter().for_each(|it| fold.push(it));
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
    let count = |at: usize| events(Dialect::OpenAi, &in_order[..at]).len();
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
    let check = |dialect: Dialect, body: Value, reason: Reason, native: Option<&str>| {
        let stop = dialect.decode_response(body).unwrap().stop;
        assert_eq!((stop.reason, stop.native.as_deref()), (reason, native));
    };
    let openai =
        |word: &str| json!({"choices": [{"finish_reason": word, "message": {"content": "a"}}]});
    check(Dialect::OpenAi, openai("model_length"), Reason::Length, Some("model_length"));
    check(Dialect::OpenAi, openai("content_filter"), Reason::Filter, None);
    let anthropic = |word: &str| json!({"content": [], "stop_reason": word});
    check(Dialect::Anthropic(Version::V2023), anthropic("pause_turn"), Reason::Pause, None);
    let window = "model_context_window_exceeded";
    check(Dialect::Anthropic(Version::V2023), anthropic(window), Reason::Length, Some(window));
    let gemini = |word: &str| json!({"candidates": [{"finishReason": word}]});
    check(Dialect::Gemini, gemini("RECITATION"), Reason::Filter, Some("RECITATION"));
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}});
    check(Dialect::Gemini, blocked, Reason::Filter, Some("SAFETY"));
    assert!(Dialect::Gemini.decode_response(gemini("MALFORMED_FUNCTION_CALL")).is_err());
    let ollama =
        |word: &str| json!({"message": {"content": "a"}, "done": true, "done_reason": word});
    check(Dialect::Ollama, ollama("load"), Reason::End, Some("load"));
    check(Dialect::Ollama, ollama("length"), Reason::Length, None);
    let under_way = json!({"message": {"content": "a"}, "done": false});
    assert!(Dialect::Ollama.decode_response(under_way).is_err());
}

#[test]
fn what_lives_at_openai_is_refused_by_name() {
    let with = |key: &str, value: Value| {
        let mut body = json!({"model": "m", "input": "a"});
        body[key] = value;
        body
    };
    let check = |body: Value, place: &str| refused(Api::Responses, body, place);
    check(with("previous_response_id", json!("resp_1")), "previous_response_id: refers to");
    check(with("conversation", json!({"id": "c"})), "conversation: refers to");
    check(with("prompt", json!({"id": "p"})), "prompt: refers to");
    check(with("background", json!(true)), "background: the provider");
    check(json!({"model": "m"}), "input: is missing");
    check(with("input", json!([])), "messages: there is none");
    check(
        with("input", json!([{"type": "item_reference", "id": "x"}])),
        "input[0].type: this kind",
    );
    let output = json!([{"type": "function_call_output", "call_id": "x", "output": "a"}]);
    check(with("input", output), "messages: a tool's result answers the call `x`");
    let file = json!([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]);
    check(with("input", file), "input[0].content[0].file_id: a file that was uploaded");
    check(with("tool_choice", json!("never")), "tool_choice: must be");
}

#[test]
fn thinking_comes_back_in_a_response_as_it_went_out() {
    let thought = Part::Thinking { text: "t".to_owned(), signature: Some("s".to_owned()) };
    let response = crate::llm::chat::Response {
        parts: vec![thought, Part::Redacted("r".to_owned()), Part::Text("b".to_owned())],
        ..Default::default()
    };
    let output = Api::Responses.encode_response(&response, 7)["output"].clone();
    let mut input = output.as_array().cloned().unwrap();
    input.push(json!({"role": "user", "content": "go on"}));
    let read = Api::Responses.decode_request(json!({"model": "m", "input": input})).unwrap();
    assert_eq!(read.messages[0].parts, response.parts);
    assert!(read.dropped.is_empty(), "{:?}", read.dropped);
}

#[test]
fn ollamas_results_find_their_calls() {
    let call = |name: &str| json!({"function": {"name": name, "arguments": {}}});
    let result = |name: &str| json!({"role": "tool", "tool_name": name, "content": "r"});
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a", "images": ["iVBORw0KGgo="]},
        {"role": "assistant", "content": "", "tool_calls": [call("x"), call("y")]},
        result("y"),
        result("x"),
    ]});
    let read = Api::Ollama.decode_request(body).unwrap();
    let ids: Vec<&str> = read.messages[2]
        .parts
        .iter()
        .filter_map(|it| match it {
            Part::ToolResult(result) => Some(result.id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["call_2", "call_1"]);
    assert!(read.is_stream, "unless it is told not to");
    refused(Api::Ollama, json!({"model": "m", "messages": [result("x")]}), "messages: a tool's");
    let odd = json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "format": 7});
    refused(Api::Ollama, odd, "format: must be");
}
