//! Conversations that every vendor can be told are read back as they were written.
use proptest::{collection::vec, option, prelude::*};
use serde_json::json;

use super::{
    APIS, Api, Azure, Dialect, Effort, Format, Message, Part, Request, Role, Tool, ToolCall,
    ToolChoice, ToolResult, Version, arguments, picture, text,
};

/// A turn of the user's, and what the assistant makes of it: some text and some calls, with results.
fn turn(number: usize) -> impl Strategy<Value = Vec<Message>> {
    let call = ("[a-z]{1,6}", arguments(), text());
    (text(), any::<bool>(), option::of(text()), vec(call, 0..3)).prop_map(
        move |(said, has_picture, answer, calls)| {
            let mut parts = vec![Part::Text(said)];
            parts.extend(has_picture.then(picture));
            let user = Message { role: Role::User, parts };
            let mut parts: Vec<Part> = answer.map(Part::Text).into_iter().collect();
            if parts.is_empty() && calls.is_empty() {
                parts.push(Part::Text("well".to_owned()));
            }
            let mut results = Vec::new();
            for (index, (name, arguments, result)) in calls.into_iter().enumerate() {
                let id = format!("call{number:02}{index:03}");
                let (call, answered) = (id.clone(), name.clone());
                parts.push(Part::ToolCall(ToolCall { id, name, arguments, signature: None }));
                // What reads as JSON may be told as JSON.
                let parts = vec![Part::Text(format!("it is {result}"))];
                let result = ToolResult { id: call, name: answered, parts, is_error: false };
                results.push(Part::ToolResult(result));
            }
            let mut all = vec![user, Message { role: Role::Assistant, parts }];
            if !results.is_empty() {
                all.push(Message { role: Role::User, parts: results });
                let parts = vec![Part::Text("I see".to_owned())];
                all.push(Message { role: Role::Assistant, parts });
            }
            all
        },
    )
}

fn tool() -> impl Strategy<Value = Tool> {
    ("[a-z]{1,6}", option::of(text())).prop_map(|(name, description)| Tool {
        name,
        description,
        parameters: Some(json!({"type": "object", "properties": {"a": {"type": "string"}}})),
        is_strict: None,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let choice = prop_oneof![
        Just(ToolChoice::Auto),
        Just(ToolChoice::None),
        Just(ToolChoice::Any),
        Just(ToolChoice::Tool("look".to_owned())),
    ];
    let effort = prop_oneof![Just(Effort::Low), Just(Effort::Medium), Just(Effort::High)];
    let turns = (turn(0), turn(1), text());
    let tools = (vec(tool(), 1..3), option::of(choice), option::of(effort), any::<bool>());
    let numbers = (1_u64..100_000, option::of(0_u8..=4), option::of(0_u8..=4));
    (turns, tools, numbers, vec(text(), 0..3), vec("[a-z]{1,4}", 0..3)).prop_map(
        |(
            (first, second, last),
            (tools, tool_choice, effort, is_schema),
            numbers,
            system,
            stop,
        )| {
            let (max_tokens, temperature, top_p) = numbers;
            let quarter = |it: u8| f64::from(it) / 4.0;
            let mut messages: Vec<Message> = first.into_iter().chain(second).collect();
            messages.push(Message { role: Role::User, parts: vec![Part::Text(last)] });
            let schema = json!({"type": "object"});
            let format = Format::Schema { name: "output".to_owned(), schema, is_strict: None };
            Request {
                model: "m".to_owned(),
                system,
                messages,
                tools,
                tool_choice,
                max_tokens: Some(max_tokens),
                temperature: temperature.map(quarter),
                top_p: top_p.map(quarter),
                stop,
                format: is_schema.then_some(format),
                effort,
                ..Request::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn a_conversation_is_read_back_as_it_was_written(request in request()) {
        for dialect in [
            Dialect::OpenAi,
            Dialect::Compatible,
            Dialect::Azure(Azure::Deployments),
            Dialect::Anthropic(Version::V2023),
            Dialect::Gemini,
        ] {
            let api = APIS.into_iter().find(|it| dialect.speaks(*it)).unwrap();
            let encoded = dialect.encode_request(&request, "m").unwrap();
            prop_assert!(encoded.dropped.is_empty(), "{:?}: {:?}", dialect, encoded.dropped);
            let mut expected = request.clone();
            expected.wants_usage = api != Api::OpenAi;
            if dialect == Dialect::Gemini {
                // It stands in the path.
                expected.model = String::new();
            }
            prop_assert_eq!(api.decode_request(encoded.body).unwrap(), expected, "{:?}", dialect);
        }
    }
}
