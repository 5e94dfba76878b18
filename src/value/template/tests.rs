use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The text for a request with everything, or with nothing that need not be there.
fn filled(template: &str, is_known: bool) -> Option<String> {
    let (mut headers, none) = (HeaderMap::new(), HeaderMap::new());
    for (name, value) in [("x-a", "1"), ("x-a", "2"), ("x-empty", "")] {
        headers.append(name, value.parse().unwrap());
    }
    headers.append("x-latin", http::HeaderValue::from_bytes(b"\xe9").unwrap());
    let claims = json!({
        "sub": "s-1", "level": 3, "admin": true, "roles": ["a", 2, false], "tricky": ["a", "b, admin"],
        "nested": {"list": [{"x": "deep"}]}, "nothing": null, "none": [], "mixed": [["a"]],
    });
    let template = Template::parse(template, "orders").unwrap();
    template.fill(&Values {
        scheme: "https",
        host: "a.test",
        path: "/p/q",
        query: is_known.then_some("x=1&y=a%20b&x=2&%7A=zed&flag"),
        method: "GET",
        headers: if is_known { &headers } else { &none },
        request_id: is_known.then_some("id-1"),
        client: "::ffff:192.0.2.7".parse().unwrap(),
        consumer: is_known.then_some("acme"),
        groups: is_known.then_some("partners, beta"),
        credential: is_known.then_some("2026-q4"),
        claims: claims.as_object().filter(|_| is_known),
    })
}

fn check(template: &str, expected: &str) {
    assert_eq!(filled(template, true).as_deref(), Some(expected), "{template}");
}

fn absent(template: &str) {
    assert_eq!(filled(template, true), None, "{template}");
}

#[test]
fn variables_are_filled_in() {
    check("https://b.test/new{path}", "https://b.test/new/p/q");
    check("{scheme}://{host}{uri}", "https://a.test/p/q?x=1&y=a%20b&x=2&%7A=zed&flag");
    check("/{{x}}?{query}", "/{x}?x=1&y=a%20b&x=2&%7A=zed&flag");
    check("", "");
    check(
        "{request.method} by {consumer.name} ({consumer.groups})",
        "GET by acme (partners, beta)",
    );
    check("{credential.id}/{request.id}/{route.id}/{client.ip}", "2026-q4/id-1/orders/192.0.2.7");
    check("{request.header.X-A}", "1, 2");
    check("[{request.header.x-empty}]", "[]");
    check("{request.query.x}{request.query.y}{request.query.z}", "1a bzed");
    check("[{request.query.flag}]", "[]");
}

#[test]
fn claims_are_text() {
    check("{claims.sub} {claims.level} {claims.admin}", "s-1 3 true");
    check("{claims.roles}", "a, 2, false");
    check("{claims./nested/list/0/x}", "deep");
    check("[{claims.none}]", "[]");
    // Would read as two members.
    absent("{claims.tricky}");
    absent("{claims.nested}");
    absent("{claims.mixed}");
    absent("{claims.nothing}");
    absent("{claims.other}");
}

#[test]
fn without_a_value_there_is_no_text_at_all() {
    absent("a {request.header.x-none} b");
    absent("{request.header.x-latin}");
    absent("{request.query.none}");
    for name in NAMES.iter().take(9).filter(|it| !matches!(**it, "client.ip" | "request.method")) {
        let text = format!("a {{{}}}", name.replace("NAME", "x-a"));
        assert_eq!(filled(&text, false), None, "{text}");
        let text = text.replace('}', "|b c}");
        assert_eq!(filled(&text, false).as_deref(), Some("a b c"), "{text}");
    }
    assert_eq!(filled("{path}?{query}", false).as_deref(), Some("/p/q?"));
    assert_eq!(filled("{uri}", false).as_deref(), Some("/p/q"));
    // A list that breaks off leaves nothing behind.
    check("{claims.mixed|x}", "x");
    check("{consumer.name|x}{claims.other|}", "acme");
}

#[test]
fn nothing_is_left_behind() {
    let template = Template::parse("a{consumer.name}b{request.id}", "r").unwrap();
    let mut out = "kept ".to_owned();
    let values = Values {
        scheme: "http",
        host: "",
        path: "/",
        query: None,
        method: "GET",
        headers: &HeaderMap::new(),
        request_id: None,
        client: "192.0.2.7".parse().unwrap(),
        consumer: Some("acme"),
        groups: None,
        credential: None,
        claims: None,
    };
    assert_eq!(template.fill_into(&mut out, &values), Err(Absent));
    assert_eq!(out, "kept ");
}

#[test]
fn what_is_known_before_is_fixed() {
    let fixed = |text: &str| Template::parse(text, "orders").unwrap().fixed().map(str::to_owned);
    assert_eq!(fixed("a {{{route.id}}}").as_deref(), Some("a {orders}"));
    assert_eq!(fixed("").as_deref(), Some(""));
    assert_eq!(fixed("{host}"), None);
    assert_eq!(Template::parse("x{host}", "r").unwrap().prefix(), "x");
}

#[test]
fn what_is_not_a_template_is_refused_when_parsed() {
    for text in ["{", "}", "{path", "a}b", "{claims.}", "{claims./a~2}", "{request.header.a b}"] {
        let mistake = Template::parse(text, "r").unwrap_err();
        assert!(matches!(mistake, Mistake::Wrong(_)), "{text}: {mistake:?}");
    }
    for name in ["nope", "", "consumer", "request.query.", "claims", "Path", " path", "|x"] {
        let mistake = Template::parse(&format!("{{{name}}}"), "r").unwrap_err();
        let name = name.trim_end_matches("|x").to_owned();
        assert_eq!(mistake, Mistake::Unknown(name));
    }
}

#[test]
fn every_name_is_a_variable() {
    for name in NAMES {
        let text = format!("{{{}}}", name.replace("NAME", "x"));
        assert!(Template::parse(&text, "r").is_ok(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z{}|./~]{0,24}") {
        if let Ok(template) = Template::parse(&text, "r") {
            let _ = template.prefix();
        }
    }

    #[test]
    fn text_without_braces_stays(text in "[^{}]{0,40}") {
        let template = Template::parse(&text, "r").unwrap();
        prop_assert_eq!(template.fixed(), Some(&*text));
    }
}
