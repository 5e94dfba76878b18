use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::flow::identity::{Consumer, Credential, Identity, Label, Source};

/// A request and its caller, for the table tests.
struct Case {
    request: http::request::Parts,
    identity: Identity,
}

fn words(words: &[&str]) -> Box<[std::sync::Arc<str>]> {
    words.iter().map(|it| std::sync::Arc::from(*it)).collect()
}

fn identity(claims: Option<Json>) -> Identity {
    let consumer = Consumer {
        index: 0,
        name: Label::new("acme").unwrap(),
        groups: words(&["partners", "eu"]),
        plan: None,
        groups_header: None,
    };
    let claims: Option<Map<String, Json>> = claims.map(|it| it.as_object().unwrap().clone());
    let credential = Credential {
        id: Label::new("key-1").unwrap(),
        full_id: "acme/key-1".into(),
        consumer: Some(consumer.into()),
        expires: None,
        scopes: words(&["orders:read", "orders:write"]),
        scope_header: None,
        claims: claims.map(Into::into),
    };
    Identity { credential: credential.into(), source: Source::Connection }
}

fn case() -> Case {
    let request = http::Request::builder()
        .method("POST")
        .uri("/orders/7?page=2&q=a%20b&twice=1&twice=2&e=&naked")
        .header("x-tenant", "blue")
        .header("x-quote", "a\"b'c\\d")
        .header("x-many", "one")
        .header("x-many", "two")
        .header("x-high", http::HeaderValue::from_bytes(b"caf\xe9\x09\xff").unwrap())
        .body(())
        .unwrap();
    let claims = json!({
        "tier": "gold", "level": 3, "big": u64::MAX, "ratio": 0.5, "admin": true, "none": null,
        "roles": ["a", "b"], "realm": {"roles": ["c"], "depth": {"x": 1}}, "exp": 4_000_000_000_u64,
    });
    Case { request: request.into_parts().0, identity: identity(Some(claims)) }
}

impl Case {
    fn evaluate(&self, when: &When) -> Verdict {
        when.evaluate(&Facts {
            request: &self.request,
            host: "api.example.com",
            scheme: "https",
            client: "192.0.2.7".parse().unwrap(),
            identity: &self.identity,
            authenticator: "corp",
        })
    }
}

#[track_caller]
fn compiled(text: &str) -> When {
    When::compile(text).unwrap_or_else(|mistake| panic!("{text}: {mistake:?}"))
}

#[track_caller]
fn check(text: &str, expected: bool) {
    let expected = if expected { Verdict::True } else { Verdict::False };
    assert_eq!(case().evaluate(&compiled(text)), expected, "{text}");
}

#[track_caller]
fn check_failed(text: &str, expected: &str) {
    assert_eq!(case().evaluate(&compiled(text)), Verdict::Failed(expected.to_owned()), "{text}");
}

/// `^` in `text` marks the place; it is taken out before the text is compiled.
#[track_caller]
fn check_mistake(text: &str, message: &str, hint: Option<&str>) {
    let offset = text.chars().position(|it| it == '^').unwrap();
    let text = text.replacen('^', "", 1);
    let mistake = When::compile(&text).err().unwrap_or_else(|| panic!("{text} is fine"));
    let expected = Mistake { offset, message: message.into(), hint: hint.map(Into::into) };
    assert_eq!(mistake, expected, "{text}");
}

#[test]
fn everything_of_a_request_can_be_asked() {
    check("request.method == 'POST'", true);
    check("request.path == '/orders/7'", true);
    check("request.path.startsWith('/orders/')", true);
    check("request.host == 'api.example.com'", true);
    check("request.scheme == 'https'", true);
    check("request.ip == '192.0.2.7'", true);
    check("request.headers['x-tenant'] == 'blue'", true);
    check("request.headers['X-Tenant'] == 'blue'", true);
    check("request.headers['x-quote'] == 'a\"b\\'c\\\\d'", true);
    check("request.headers['x-many'] == 'one, two'", true);
    check("request.headers['x-high'].startsWith('caf')", true);
    check("'x-tenant' in request.headers", true);
    check("'x-nothing' in request.headers", false);
    check("request.query.page == '2'", true);
    check("request.query.q == 'a b'", true);
    check("request.query.e == '' && request.query.naked == ''", true);
    check("'twice' in request.query", true);
    check("has(request.query.page) && !has(request.query.size)", true);
    check("size(request.query) == 5", true);
    check("request.query.all(name, name != 'debug')", true);
    check("request.headers.exists(name, name == 'x-many')", true);
    check("request.headers.filter(name, name.startsWith('x-')).size() == 4", true);
}

#[test]
fn everything_of_a_caller_can_be_asked() {
    check("identity.consumer == 'acme'", true);
    check("identity.credential == 'key-1'", true);
    check("identity.authenticator == 'corp'", true);
    check("'partners' in identity.groups", true);
    check("'nobody' in identity.groups", false);
    check("'orders:write' in identity.scopes", true);
    check("identity.groups == ['partners', 'eu']", true);
    check("identity.groups[1] == 'eu' && identity.groups.size() == 2", true);
    check("identity.groups.exists(it, it.startsWith('par'))", true);
    check("identity.claims.tier == 'gold'", true);
    check("identity.claims.tier in ['gold', 'silver']", true);
    check("identity.claims.level >= 3 && identity.claims.level < 3.5", true);
    check("identity.claims.big > 1", true);
    check("identity.claims.ratio == 0.5", true);
    check("identity.claims.admin", true);
    check("identity.claims.none == null", true);
    check("'b' in identity.claims.roles", true);
    check("identity.claims.realm.roles.exists(it, it == 'c')", true);
    check("identity.claims['realm']['depth']['x'] == 1", true);
    check("has(identity.claims.realm.depth) && !has(identity.claims.realm.width)", true);
    check("identity.claims.?country.orValue('nowhere') == 'nowhere'", true);
    check("identity.claims[?'tier'].hasValue()", true);
    check("identity.claims.realm.roles == ['c']", true);
    check("type(identity.claims.level) == int", true);
    check("string(identity.claims.level) == '3'", true);
    check("size(identity.claims) == 9", true);
    check("identity.claims.all(name, name != 'root')", true);
    check("request.path == '/orders/' + string(identity.claims.level + 4)", true);
    check("request.method == 'GET' || 'orders:write' in identity.scopes", true);
    check("request.method == 'GET' ? true : identity.consumer == 'acme'", true);
}

#[test]
fn patterns_are_linear_and_made_once() {
    check("request.path.matches('^/orders/[0-9]+$')", true);
    check("matches(request.path, '^/users/')", false);
    check("!request.path.matches('^/users/') && request.host.matches('example')", true);
    check("identity.groups.exists(it, it.matches('^part'))", true);
    let long = "a".repeat(30_000);
    let mut case = case();
    case.request.headers.insert("x-tenant", format!("{long}b").parse().unwrap());
    let begun = Instant::now();
    let when = compiled("request.headers['x-tenant'].matches('^(a+)+$')");
    assert_eq!(case.evaluate(&when), Verdict::False);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn what_is_missing_or_of_another_type_denies() {
    check_failed("identity.claims.country == 'de'", "there is no `country`");
    check_failed("identity.claims.country != 'de'", "there is no `country`");
    check_failed("!(identity.claims.country == 'de')", "there is no `country`");
    check_failed("identity.claims.realm.depth.y == 1", "there is no `y`");
    check_failed("request.headers['x-nothing'] == ''", "there is no `x-nothing`");
    check_failed("request.headers[request.headers['x-tenant']] == ''", "a key is not there");
    check_failed("request.query.twice == '1'", "a parameter is repeated");
    check_failed("request.query.twice != '3'", "a parameter is repeated");
    check_failed("identity.claims.tier", "it is not a bool");
    check_failed(
        "identity.claims.tier > 3",
        "found no matching overload for '_>_' applied to '(string, int)'",
    );
    check_failed("identity.claims.tier + 1 == 2", "`add` does not take such values");
    check_failed(
        "identity.claims.tier.x == 1",
        "found no matching overload for '_._' applied to '(string, string)'",
    );
    check_failed("int(request.headers['x-tenant']) == 1", "`int` failed");
    check_failed("identity.groups[7] == 'x'", "an index is beyond the end");
    check_failed("1 / (identity.claims.level - 3) == 1", "a division by zero");
    check_failed("1 % (identity.claims.level - 3) == 1", "a division by zero");
    check_failed("identity.claims.big + 1u > 0u", "a number is too large");
    check_failed(
        "identity.claims.admin && identity.claims.tier",
        "found no matching overload for '_&&_' applied to '(bool, string)'",
    );
    check("identity.claims.tier == 3", false);
    check("has(identity.claims.country) && identity.claims.country == 'de'", false);
}

#[test]
fn what_a_client_sent_is_not_in_the_reason() {
    let mut case = case();
    let secret = "hunter2";
    case.request.headers.insert("x-tenant", secret.parse().unwrap());
    for text in [
        "int(request.headers['x-tenant']) == 1",
        "bool(request.headers['x-tenant'])",
        "double(request.headers['x-tenant']) > 1.0",
        "request.query[request.headers['x-tenant']] == ''",
        "identity.claims[request.headers['x-tenant']] == ''",
        "identity.claims.level + dyn(request.headers['x-tenant']) == 1",
        "identity.claims.level > dyn(request.headers['x-tenant'])",
        "dyn(request.headers['x-tenant'])[0] == 1",
        "dyn(request.headers['x-tenant']).all(it, it == 1)",
        "identity.claims.realm[dyn(request.headers['x-tenant'])] == 1",
        "{dyn([request.headers['x-tenant']]): 1} == {}",
        "dyn(request.headers['x-tenant']) ? true : false",
        "dyn(request.headers['x-tenant'])",
        "-dyn(request.headers['x-tenant']) == 1",
    ] {
        match case.evaluate(&compiled(text)) {
            Verdict::Failed(why) => assert!(!why.contains(secret), "{text}: {why}"),
            verdict => panic!("{text}: {verdict:?}"),
        }
    }
}

#[test]
fn a_caller_without_claims_has_none() {
    let case = Case { identity: identity(None), ..case() };
    assert_eq!(case.evaluate(&compiled("size(identity.claims) == 0")), Verdict::True);
    assert_eq!(case.evaluate(&compiled("has(identity.claims.tier)")), Verdict::False);
    let failed = Verdict::Failed("there is no `tier`".to_owned());
    assert_eq!(case.evaluate(&compiled("identity.claims.tier == 'gold'")), failed);
}

#[test]
fn unknown_names_are_mistakes() {
    let of_request = "there is request.method, request.path, request.host, request.scheme, \
                      request.query, request.headers, request.ip";
    check_mistake(
        "^requst.method == 'GET'",
        "unknown variable `requst`",
        Some("did you mean `request`?"),
    );
    check_mistake(
        "^claims.tier == 'a'",
        "unknown variable `claims`",
        Some("there is `request`, `identity`"),
    );
    check_mistake(
        ".^request.method == 'GET'",
        "unknown variable `.request`",
        Some("did you mean `request`?"),
    );
    check_mistake(
        "request.^metod == 'GET'",
        "`request` has no `metod`",
        Some("did you mean `method`?"),
    );
    check_mistake(
        "true && identity.^user == 'a'",
        "`identity` has no `user`",
        Some("there is `consumer`, `groups`, `scopes`, `credential`, `claims`, `authenticator`"),
    );
    check_mistake("^request == 'GET'", "`request` is no value by itself", Some(of_request));
    check_mistake(
        "^request['method'] == 'GET'",
        "`request` is no value by itself",
        Some(of_request),
    );
    check_mistake(
        "request.path.^startswith('/a')",
        "unknown function `startswith`",
        Some("did you mean `startsWith`?"),
    );
    check_mistake(
        "^optional.none() == 1",
        "unknown variable `optional`",
        Some("there is `request`, `identity`"),
    );
    check_mistake(
        "request.method == 'é' && ^nam == 1",
        "unknown variable `nam`",
        Some("there is `request`, `identity`"),
    );
    check_mistake(
        "identity.groups.exists(group, ^gruop == 'a')",
        "unknown variable `gruop`",
        Some("did you mean `group`?"),
    );
    check_mistake(
        "request.path.^timestamp()",
        "unknown function `timestamp`",
        Some(
            "there is `all`, `bool`, `bytes`, `contains`, `double`, `dyn`, `endsWith`, `exists`, \
              `exists_one`, `filter`, `has`, `hasValue`, `int`, `map`, `matches`, `or`, `orValue`, \
              `size`, `startsWith`, `string`, `type`, `uint`, `value`",
        ),
    );
}

#[test]
fn types_that_cannot_go_together_are_mistakes() {
    check_mistake(
        "^request.method",
        "the expression gives a string; it must say true or false",
        None,
    );
    check_mistake("^1", "the expression gives an int; it must say true or false", None);
    check_mistake("request.method ^== 1", "a string never equals an int", None);
    check_mistake(
        "identity.groups ^== 'a'",
        "a list never equals a string",
        Some("write `\"one\" in list`"),
    );
    check_mistake(
        "'a' ^in request.path",
        "`in` needs a list or a map, not a string",
        Some("write `text.contains(part)`"),
    );
    check_mistake("1 ^in identity.groups", "an int is never in a list with a string in it", None);
    check_mistake("request.method ^&& true", "`&&` needs true or false, not a string", None);
    check_mistake("^!request.path", "`!` needs true or false, not a string", None);
    check_mistake("request.path ^> 1", "`>` does not take a string and an int", None);
    check_mistake("request.path ^+ 1 == 'a'", "`+` does not take a string and an int", None);
    check_mistake("request.path^.size == 1", "a string has no `size`", None);
    check_mistake("request.path^[0] == 'a'", "a string has no index that is an int", None);
    check_mistake("identity.groups^['a'] == 'a'", "a list has no index that is a string", None);
    check_mistake("has^(request.method)", "`request.method` is always there", None);
    check_mistake(
        "request.path.^contains(1)",
        "`contains` does not take a string, an int like this",
        Some("write `text.contains(\"part\")`"),
    );
    check_mistake(
        "identity.claims.?tier ^== 'a'",
        "an optional never equals a string",
        Some("write `optional.orValue(value)`"),
    );
    check_mistake("request.path.all^(it, it == 'a')", "a string has no items to go through", None);
    check_mistake(
        "identity.groups.^exists(it)",
        "`exists` is not written like this",
        Some("write `list.exists(item, condition)`"),
    );
    check_mistake("has(^request)", "not an expression: invalid argument to has() macro", None);
}

#[test]
fn what_could_take_long_is_a_mistake() {
    let nested = "identity.groups.all(a, identity.scopes.all^(b, a != b))";
    check_mistake(nested, "a loop within a loop is not allowed: it could take very long", None);
    check_mistake(
        "request.path.^matches(request.query)",
        "`matches` does not take a string, a map like this",
        Some("write `text.matches(\"pattern\")`"),
    );
    check_mistake(
        "request.path.matches(request^.host)",
        "a pattern must be written out: one made from a request could take very long",
        None,
    );
    check_mistake("request.path.matches(^'(')", "not a regular expression: unclosed group", None);
    let large = format!("request.path.matches(^'{}')", r"(\\w{100}){100}");
    assert!(When::compile(&large.replace('^', "")).is_err());
    check_mistake(
        "identity.groups.all^(request, request == 'a')",
        "`request` is taken: name the items otherwise",
        None,
    );
}

#[test]
fn what_is_no_expression_is_a_mistake() {
    check_mistake("^", "the expression is empty", None);
    check_mistake("^  \n ", "the expression is empty", None);
    check_mistake("request.method ==^", "not an expression: mismatched input the end", None);
    check_mistake("request.method ^= 'GET'", "`=` means nothing here", Some("write `==`"));
    check_mistake(
        "request.method == 'é' ^and true",
        "not an expression: mismatched input 'and'",
        None,
    );
    check_mistake("request.method == ^'GET", "`'GET` means nothing here", None);
    check_mistake(
        "request.method == 'GET' ^and true",
        "not an expression: mismatched input 'and'",
        None,
    );
    check_mistake("^let.x == 1", "not an expression: reserved identifier: let", None);
    check_mistake("true ? ^: false", "not an expression: extraneous input ':'", None);
}

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
    check_mistake(
        &format!("^{}", "a".repeat(2049)),
        "the expression is longer than 2048 bytes",
        None,
    );
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
