//! Expressions and requests that are made to hurt.
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Deep, long and broken texts: each is refused or compiled, quickly, and none exhausts the stack.
#[test]
fn hostile_expressions_are_refused_in_time() {
    let deep = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let mut texts = vec![
        "1".repeat(2048),
        "(".repeat(2048),
        ")".repeat(2048),
        "[".repeat(2048),
        "{".repeat(2048),
        "!".repeat(2047) + "1",
        "-".repeat(2047) + "1",
        "'".repeat(2047),
        "\"".repeat(2047),
        "`".repeat(2047),
        "?".repeat(2047),
        "a?".repeat(1000) + "b",
        "true?".repeat(400) + "1",
        "a.".repeat(1023) + "b",
        "a[".repeat(1000),
        "a(".repeat(1000),
        "1+".repeat(1023) + "1",
        "true&&".repeat(341) + "1",
        "true||".repeat(341) + "1",
        "1<".repeat(1023) + "1",
        "x.map(y,".repeat(200),
        "has(".repeat(500),
        "b'\\xff'".to_owned(),
        "'\\u{110000}'".to_owned(),
        "'\\ud800'".to_owned(),
        "'\\777'".to_owned(),
        "\u{0}".to_owned(),
        "\u{202e}true".to_owned(),
        "é".repeat(1024),
        "😀".repeat(512),
        "99999999999999999999".to_owned(),
        "-9223372036854775808 == 0 - 9223372036854775808".to_owned(),
        "0x".to_owned(),
        "1e999 > 1.0".to_owned(),
        "1u".to_owned() + &"0".repeat(300),
        "a.b.c{d: 1}".to_owned(),
        "{1: 2, 1: 3} == {}".to_owned(),
        "'a' in".to_owned(),
        "has(1)".to_owned(),
        "has(a.b.c())".to_owned(),
        "[].map(1, 2)".to_owned(),
        "[1].exists(x.y, true)".to_owned(),
        "[1].all(@result, true)".to_owned(),
        "@result".to_owned(),
        "@not_strictly_false(true)".to_owned(),
        "__result__".to_owned(),
        "// comment".to_owned(),
        "true // comment".to_owned(),
        "true\n\n&&\ttrue".to_owned(),
        "true;true".to_owned(),
        "/*".to_owned(),
        "r'\\' == ''".to_owned(),
        "'''a''' == \"\"\"a\"\"\"".to_owned(),
        "\\".to_owned(),
        "$x".to_owned(),
        "#".to_owned(),
    ];
    for times in [10, 40, 100, 1000] {
        texts.push(deep("(", "true", ")", times));
        texts.push(deep("[", "1", "]", times) + " == []");
        texts.push(deep("{'a':", "1", "}", times.min(300)) + " == {}");
        texts.push(deep("!(", "true", ")", times.min(600)));
        texts.push(deep("size(", "'a'", ")", times.min(300)) + " == 1");
    }
    for text in texts {
        let begun = Instant::now();
        match When::compile(&text) {
            Ok(when) => drop(case().evaluate(&when)),
            Err(it) => assert_ne!(it.message, "the expression cannot be understood", "{text}"),
        }
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "{took:?} for {}",
            text.chars().take(60).collect::<String>()
        );
    }
}

#[test]
fn hostile_requests_deny_or_pass_and_never_more() {
    let when = compiled(
        "request.query.all(it, it != 'evil') && request.headers.all(it, size(it) < 100) \
         && identity.claims.all(it, it != 'evil')",
    );
    let mut case = case();
    let check = |case: &Case, expected: &Verdict| assert_eq!(&case.evaluate(&when), expected);
    check(&case, &Verdict::True);
    let query = (0..1025).map(|it| it.to_string()).collect::<Vec<_>>().join("&");
    case.request.uri = format!("/?{query}").parse().unwrap();
    check(&case, &Verdict::Failed("a value is of the wrong type".to_owned()));
    case.request.uri = format!("/?{}", "&".repeat(8000)).parse().unwrap();
    check(&case, &Verdict::True);
    case.request.uri = "/?evil&%65vil=%00%ff%&+=+".parse().unwrap();
    check(&case, &Verdict::False);

    let claim =
        |claim: Json| Case { identity: identity(Some(json!({ "x": claim }))), ..self::case() };
    let large = Verdict::Failed("a claim is too large".to_owned());
    let uses = compiled("identity.claims.x != 1");
    let evaluate = |it: Json| claim(it).evaluate(&uses);
    assert_eq!(evaluate(json!(vec![1; 1023])), Verdict::True);
    assert_eq!(evaluate(json!(vec![1; 1024])), large);
    assert_eq!(evaluate(json!(vec![vec![1; 600]; 2])), large);
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(evaluate(deep), large);
    assert_eq!(evaluate(json!("'; drop table\u{0}\r\n")), Verdict::True);
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_a_mistake_within_it(text in "\\PC{0,40}") {
        if let Err(mistake) = When::compile(&text) {
            prop_assert!(mistake.offset <= text.chars().count(), "{:?}", mistake);
        }
    }

    #[test]
    fn pieces_of_the_language_compile_and_evaluate_or_are_mistakes(
        pieces in proptest::collection::vec(prop_oneof![
            Just("request.path"), Just("identity.claims"), Just("identity.groups"), Just(".x"),
            Just("=="), Just("!="), Just("<"), Just("&&"), Just("||"), Just("!"), Just("("), Just(")"),
            Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just(":"), Just("?"), Just(".?"),
            Just("'a'"), Just("1"), Just("1u"), Just("-1"), Just("1.5"), Just("null"), Just("true"),
            Just(".all(i,"), Just(".map(i,"), Just("i"), Just("has("), Just("size("), Just("int("),
            Just("string("), Just("dyn("), Just("+"), Just("-"), Just("*"), Just("/"), Just("%"),
            Just("in"), Just(".contains("), Just(".matches("), Just("b'x'"), Just("9223372036854775807"),
        ], 0..14),
    ) {
        let text = pieces.join(" ");
        match When::compile(&text) {
            Ok(when) => prop_assert_ne!(
                case().evaluate(&when),
                Verdict::Failed("the evaluation broke off".to_owned()),
                "{}", text
            ),
            Err(mistake) => prop_assert!(
                mistake.offset <= text.chars().count()
                    && mistake.message != "the expression cannot be understood",
                "{}: {:?}", text, mistake
            ),
        }
    }
}
