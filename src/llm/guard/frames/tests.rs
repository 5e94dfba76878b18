use proptest::prelude::*;

use super::*;
use crate::llm::{
    api::{Dialect, anthropic::Version},
    chat::{Event, Fold, Part, Reason, Stop},
    guard::{Action, Blocked, events::Events, tests::rule},
    split::Splitter,
    stream::{Decoder, Encoder, Manner},
};

fn guards() -> Guards {
    let cards = rule("cards", r"\b(?:\d[ -]?){4,6}\b", Action::Mask);
    Guards::new(vec![cards, rule("bad", "bad", Action::Block)])
}

fn frames(text: &str) -> Vec<Frame> {
    split(Dialect::OpenAi, text.as_bytes())
}

fn split(dialect: Dialect, bytes: &[u8]) -> Vec<Frame> {
    let mut splitter = Splitter::new(dialect);
    splitter.push(bytes);
    std::iter::from_fn(|| splitter.take().unwrap()).collect()
}

fn guarded(words: Words, frames: &[Frame]) -> Result<(Vec<Frame>, Vec<String>), Stopped> {
    let (guards, mut found) = (guards(), Found::default());
    let (mut stage, mut out) = (Frames::new(words, true), Vec::new());
    for frame in frames {
        stage.push(&guards, frame, &mut found, &mut out)?;
    }
    stage.finish(&guards, &mut found, &mut out)?;
    Ok((out, stage.said()))
}

fn check(words: Words, events: &[Value], expected: &[Value]) {
    let text: String = events.iter().map(|it| format!("data: {it}\n\n")).collect();
    let out = guarded(words, &frames(&text)).unwrap().0;
    let out: Vec<Value> = out.iter().map(|it| serde_json::from_slice(&it.data).unwrap()).collect();
    assert_eq!(out, expected);
}

#[test]
fn what_was_held_back_goes_out_as_the_vendor_would_say_it() {
    let chunk = |delta: Value, finish: Option<&str>| {
        json!({"id": "1", "model": "m", "new": 1, "choices": [
            {"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    check(
        Words::Of(Api::OpenAi),
        &[
            chunk(json!({"content": "a 12"}), None),
            chunk(json!({"content": "3"}), None),
            chunk(json!({}), Some("stop")),
        ],
        &[
            chunk(json!({"content": "a "}), None),
            chunk(json!({"content": ""}), None),
            json!({"id": "1", "model": "m", "choices": [
                {"index": 0, "delta": {"content": "123"}, "finish_reason": null}]}),
            chunk(json!({}), Some("stop")),
        ],
    );
    let delta = |text: &str, number: u64| {
        json!({"type": "response.output_text.delta", "sequence_number": number, "output_index": 1,
            "content_index": 0, "item_id": "i", "delta": text})
    };
    let done = |text: &str, number: u64| {
        json!({"type": "response.output_text.done", "sequence_number": number, "output_index": 1,
            "content_index": 0, "item_id": "i", "text": text})
    };
    check(
        Words::Of(Api::Responses),
        &[
            delta("12", 4),
            delta("34", 5),
            done("1234", 6),
            json!({"type": "x", "sequence_number": 7}),
        ],
        &[
            delta("", 4),
            delta("", 5),
            delta("[cards]", 6),
            done("[cards]", 7),
            json!({"type": "x", "sequence_number": 8}),
        ],
    );
}

#[test]
fn calls_that_are_told_at_the_same_time_stay_apart() {
    let call = |index: u64, text: &str| {
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": index, "function": {"arguments": text}}]}}]})
    };
    let held = |index: u64| call(index, "");
    let made = |index: u64, text: &str| {
        json!({"choices": [{"index": 0, "finish_reason": null, "delta": {"tool_calls": [
            {"index": index, "function": {"arguments": text}}]}}]})
    };
    check(
        Words::Of(Api::OpenAi),
        &[call(0, "{\"a\":12"), call(1, "{}"), call(0, "34}")],
        &[held(0), held(1), made(1, "{}"), held(0), made(0, "{\"a\":\"[cards]\"}")],
    );
}

#[test]
fn what_is_only_reported_goes_out_as_it_comes() {
    let call = |text: &str| {
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "function": {"arguments": text}}]}}]})
    };
    let guards = Guards::new(vec![rule("seen", "1234", Action::Report)]);
    let (mut stage, mut out) = (Frames::new(Words::Of(Api::OpenAi), true), Vec::new());
    let mut found = Found::default();
    let text: String =
        ["{\"a\":12", "34}"].iter().map(|it| format!("data: {}\n\n", call(it))).collect();
    let sent = frames(&text);
    for (index, frame) in sent.iter().enumerate() {
        stage.push(&guards, frame, &mut found, &mut out).unwrap();
        assert_eq!(out, sent[..=index]);
    }
    stage.finish(&guards, &mut found, &mut out).unwrap();
    assert_eq!((out, found.has(0)), (sent, true));
    assert_eq!(stage.said(), ["{\"a\":1234}"]);
}

#[test]
fn text_before_a_call_stays_before_it() {
    let event = |parts: Value| json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}}]});
    let call = json!({"functionCall": {"name": "n", "args": {"n": 12345}}});
    let masked = json!({"functionCall": {"name": "n", "args": {"n": "[cards]"}}});
    check(
        Words::Of(Api::Gemini),
        &[event(json!([{"text": "1"}])), event(json!([{"text": "2"}, call]))],
        &[event(json!([{"text": ""}])), event(json!([{"text": "12"}, masked]))],
    );
}

#[test]
fn a_block_is_found_across_events_and_what_was_said_is_told() {
    let chunk = |text: &str| {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
    };
    let text = chunk("ba") + &chunk("d");
    let stopped = guarded(Words::Of(Api::OpenAi), &frames(&text)).unwrap_err();
    assert_eq!(stopped, Stopped::Blocked(Blocked(1)));
    let text = chunk("ba") + &chunk(" 1234 x") + "data: [DONE]\n\n";
    let (out, said) = guarded(Words::Of(Api::OpenAi), &frames(&text)).unwrap();
    assert_eq!(
        (out.last().unwrap().data.as_slice(), said),
        (&b"[DONE]"[..], vec!["ba [cards]x".to_owned()])
    );
}

fn event() -> impl Strategy<Value = Event> {
    let text = "(12 ?34|b?ad|[a1 ]){1,4}";
    prop_oneof![
        text.prop_map(Event::Text),
        text.prop_map(Event::Text),
        text.prop_map(Event::Thinking),
    ]
}

fn fold(events: Vec<Event>) -> Vec<Part> {
    let mut fold = Fold::default();
    events.into_iter().for_each(|it| fold.push(it));
    fold.finish().unwrap().parts
}

proptest! {
    #[test]
    fn a_stream_that_passes_is_guarded_as_one_that_is_translated(
        events in proptest::collection::vec(event(), 0..8),
        arguments in proptest::option::of("(12 ?34|b?ad|[a1 ]){1,4}"),
        cut in 1_usize..9,
        dialect in prop_oneof![
            Just(Dialect::OpenAi),
            Just(Dialect::Anthropic(Version::V2023)),
            Just(Dialect::Gemini),
            Just(Dialect::Ollama),
        ],
    ) {
        let api = match dialect {
            Dialect::Anthropic(_) => Api::Anthropic,
            Dialect::Gemini => Api::Gemini,
            Dialect::Ollama => Api::Ollama,
            _ => Api::OpenAi,
        };
        let mut all = vec![Event::Start { id: "1".into(), model: "m".into() }];
        all.extend(events);
        if let Some(text) = arguments {
            all.push(Event::ToolCall { id: "t".into(), name: "n".into(), signature: None });
            let json = json!({"t": text, "n": [12345, 7]}).to_string();
            let cut = cut.min(json.len());
            all.push(Event::Arguments(json[..cut].to_owned()));
            all.push(Event::Arguments(json[cut..].to_owned()));
        }
        all.push(Event::Stop(Stop { reason: Reason::End, ..Stop::default() }));
        let (guards, mut found) = (guards(), Found::default());
        let (mut stage, mut out) = (Events::default(), Vec::new());
        let outcome = all.iter().try_for_each(|it| stage.push(&guards, it.clone(), &mut found, &mut out));
        let expected = outcome.map(|()| fold(out));

        let manner = Manner { created: 0, wants_usage: false, is_list: false };
        let (mut encoder, mut bytes) = (Encoder::new(api, manner), Vec::new());
        all.into_iter().for_each(|it| encoder.push(it, &mut bytes));
        encoder.finish(&mut bytes);
        let passed = guarded(Words::Of(api), &split(dialect, &bytes));
        let passed = passed.map(|(frames, _)| {
            let (mut decoder, mut events) = (Decoder::new(dialect), Vec::new());
            frames.iter().for_each(|it| decoder.read(it, &mut events).unwrap());
            fold(events)
        });
        let texts = |parts: Vec<Part>| -> Vec<(u8, String)> {
            let mut all: Vec<(u8, String)> = Vec::new();
            for part in parts {
                let (kind, text) = match part {
                    Part::Text(it) => (0, it),
                    Part::Thinking { text, .. } => (1, text),
                    Part::ToolCall(it) => (2, Value::Object(it.arguments).to_string()),
                    _ => continue,
                };
                match all.last_mut().filter(|it| it.0 == kind && kind < 2) {
                    Some(last) => last.1 += &text,
                    None => all.push((kind, text)),
                }
            }
            all.retain(|it| !it.1.is_empty());
            all
        };
        prop_assert_eq!(passed.map(texts), expected.map(texts));
    }
}
