//! What is made of an API's answers.
use proptest::prelude::*;

use super::{Piece, function};

#[test]
fn answers_are_what_the_api_said() {
    let check = |name: &str, status: u16, kind: Option<&str>, body: &[u8], expected: &str| {
        let answer = function(name).answer(status, kind, body);
        assert_eq!(format!("{answer:?}"), expected, "{status} {kind:?}");
    };
    let json = Some("application/json");
    check(
        "createOrder",
        201,
        json,
        b"{ \"id\": \"7\", \"quantity\": 1 }",
        r#"Answer { pieces: [Text("{ \"id\": \"7\", \"quantity\": 1 }")], structured: Some("{\"id\":\"7\",\"quantity\":1}"), is_error: false }"#,
    );
    check(
        "listOrders",
        200,
        json,
        b"[]",
        r#"Answer { pieces: [Text("[]")], structured: Some("{\"result\":[]}"), is_error: false }"#,
    );
    check(
        "putFile",
        200,
        json,
        b"{}",
        r#"Answer { pieces: [Text("{}")], structured: None, is_error: false }"#,
    );
    check("putFile", 204, None, b"", "Answer { pieces: [], structured: None, is_error: false }");
    check(
        "putFile",
        200,
        Some("image/png"),
        b"\xff",
        r#"Answer { pieces: [Image { media_type: "image/png", data: "/w==" }], structured: None, is_error: false }"#,
    );
    check(
        "putFile",
        200,
        Some("text/plain"),
        b"\xff",
        r#"Answer { pieces: [Blob { media_type: "text/plain", data: "/w==" }], structured: None, is_error: false }"#,
    );
    check(
        "createOrder",
        404,
        Some("application/problem+json"),
        b"{\"title\":\"no\"}",
        r#"Answer { pieces: [Text("The API answered with status 404 (Not Found):\n{\"title\":\"no\"}")], structured: None, is_error: true }"#,
    );
    check(
        "createOrder",
        302,
        Some("image/png"),
        b"x",
        r#"Answer { pieces: [Text("The API answered with status 302 (Found).")], structured: None, is_error: true }"#,
    );
}

#[test]
fn an_answer_that_is_not_what_was_promised_is_an_error() {
    let json = Some("application/json");
    let broken: [(&[u8], Option<&str>, &str); 5] = [
        (b"{\"id\":\"7\"}", json, "`required` at `/quantity`"),
        (b"[]", json, "`type` at ``"),
        (b"{", json, "it is not JSON"),
        (b"{\"id\":\"7\",\"quantity\":1,\"quantity\":2}", json, "stands twice"),
        (b"{\"id\":\"7\",\"quantity\":1}", Some("text/plain"), "it is not JSON"),
    ];
    for (body, kind, why) in broken {
        let answer = function("createOrder").answer(200, kind, body);
        let said = format!("{:?}", answer.pieces);
        assert!(answer.is_error && answer.structured.is_none() && said.contains(why), "{said}");
    }
    let long = function("createOrder").answer(500, Some("text/plain"), "é".repeat(5000).as_bytes());
    let Piece::Text(text) = &long.pieces[0] else { panic!() };
    assert!(text.len() < 4300 && text.ends_with("é…"), "{}", text.len());
}

proptest! {
    #[test]
    fn nothing_in_an_answer_panics(status in 0_u16..1000, body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let answer = function("createOrder").answer(status, Some("application/json"), &body);
        prop_assert!(answer.is_error || answer.structured.is_some());
    }
}
