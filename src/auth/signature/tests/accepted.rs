//! What is accepted: every component, every algorithm, and the choice among several signatures.
use super::*;

#[track_caller]
fn check(draft: Draft) {
    let method = with(config(), known(&[]));
    let accepted = draft.sign().assert_accepted(&method);
    assert_eq!(&*accepted.identity.credential.full_id, "acme/k1");
    assert_eq!(accepted.identity.source, Source::Signature);
    assert!(accepted.body.is_some());
}

#[test]
fn every_component() {
    check(Draft::new());
    for component in ["@authority", "@scheme", "@request-target", "@path", "@query", "host"] {
        let mut draft = Draft::new();
        draft.components.push(format!("\"{component}\""));
        check(draft);
    }
    let query_param = "\"@query-param\";name=\"a\"";
    check(Draft::new().cover(query_param, "b%20c"));
    let lines = |draft: Draft| draft.header("x-a", "b=1;x,  c=(1 2)").header("x-a", "  d ");
    check(lines(Draft::new()).cover("\"x-a\"", "b=1;x,  c=(1 2), d"));
    check(lines(Draft::new()).cover("\"x-a\";bs", ":Yj0xO3gsICBjPSgxIDIp:, :ZA==:"));
    check(lines(Draft::new()).cover("\"x-a\";key=\"b\"", "1;x"));
    check(lines(Draft::new()).cover("\"x-a\";key=\"c\"", "(1 2)"));
    check(lines(Draft::new()).cover("\"x-a\";key=\"d\"", "?1"));
    check(Draft::new().header("x-empty", "").cover("\"x-empty\"", ""));
    check(Draft::new().header("x-a", "\u{e4}").cover("\"x-a\";bs", ":w6Q=:"));
    let all = "x-a".to_owned();
    check(Draft::new().header(&all, "1").cover("\"x-a\"", "1").cover("\"x-a\";bs", ":MQ==:"));
}

#[test]
fn the_authority_is_in_lower_case_and_without_the_schemes_own_port() {
    for (scheme, host, authority) in [
        ("https", "A.test:443", "a.test"),
        ("https", "a.test:80", "a.test:80"),
        ("http", "a.test:80", "a.test"),
        ("http", "[2001:DB8::1]:8080", "[2001:db8::1]:8080"),
        ("http", "a.test.", "a.test."),
    ] {
        let draft = Draft { scheme, host: host.to_owned(), ..Draft::new() };
        let mut draft = draft.cover("\"@authority\"", authority);
        let uri = format!("{scheme}://{authority}/orders?id=7&a=b%20c");
        draft.values.push(("\"@target-uri\"".to_owned(), uri));
        check(draft);
    }
}

/// In HTTP/2 the authority stands beside the target.
#[test]
fn the_authority_of_http_2_is_taken() {
    let signed = Draft::new().sign().edit(|parts| {
        parts.headers.remove("host");
        parts.uri = "https://API.example.com:8443/orders?id=7&a=b%20c".parse().unwrap();
    });
    signed.assert_accepted(&with(config(), known(&[])));
}

/// The signature is over what was sent, and what is authorised is made of that: both hold, or neither.
#[test]
fn a_target_that_is_made_canonical_is_signed_as_it_was_sent() {
    for (raw, canonical) in [
        ("/public/../orders?x=%2e", "/orders?x=%2e"),
        ("/%6frders", "/orders"),
        ("//orders/./", "/orders/"),
        ("/a%2fb", "/a%2Fb"),
    ] {
        let mut draft = Draft::new().target(raw, canonical);
        draft.components.extend(["\"@path\"".to_owned(), "\"@request-target\"".to_owned()]);
        check(draft);
    }
}

#[test]
fn every_algorithm_with_and_without_alg() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256Sha256, Algorithm::EcdsaP384Sha384] {
        let pair = pair(algorithm);
        let method = with(config(), known(&[("own", &pair)]));
        let draft = Draft::new().with_key("own", &pair.private);
        let accepted = draft.clone().sign().assert_accepted(&method);
        assert_eq!(&*accepted.identity.credential.full_id, "acme/own");
        let alg = format!(";alg=\"{}\"", algorithm.name());
        draft.also(&alg).sign().assert_accepted(&method);
    }
    check(Draft::new().also(";alg=\"hmac-sha256\""));
}

#[test]
fn times_within_the_window() {
    let at = |created: u64| Draft::new().params(&format!(";created={created};keyid=\"k1\""));
    check(at(NOW));
    check(at(NOW + 5));
    check(at(NOW - 65));
    check(Draft::new().also(&format!(";expires={}", NOW + 1)));
    check(Draft::new().also(&format!(";expires={}", NOW - 4)));
}

#[test]
fn parameters_may_come_in_any_order_and_spaces_do_not_count() {
    check(Draft::new().params(&format!(";keyid=\"k1\";created={CREATED}")));
    check(Draft::new().also(";tag=\"a \\\"quoted\\\" one\";nonce=\"0123456789\""));
    let spaced = Draft::new().sign().input(|it| it.replace("(\"", "(  \"").replace(";k", "; k"));
    spaced.assert_accepted(&with(config(), known(&[])));
}

#[test]
fn a_request_without_a_body_need_not_cover_a_digest() {
    let method = with(config(), known(&[]));
    let bare = Draft::covering(&["\"@method\"", "\"@target-uri\""]).without("content-digest");
    let bare = Draft { has_body: false, ..bare };
    assert!(bare.clone().sign().assert_accepted(&method).body.is_none());
    // One that covers it has its digest checked: it is that of nothing.
    let mut covering = bare.header("content-digest", digest(b""));
    covering.components.push("\"content-digest\"".to_owned());
    assert!(covering.sign().assert_accepted(&method).body.is_some());
}

#[test]
fn the_label_or_the_tag_says_which_signature_is_ours() {
    let wanting = |label: Option<&str>, tag: Option<&str>| {
        let wanted = Wanted { label: label.map(Into::into), tag: tag.map(Into::into) };
        with(Config { wanted, ..config() }, known(&[]))
    };
    let tagged = Draft::new().also(";tag=\"gate\"").sign();
    // What stands beside it is of a kind that would be refused if it were ours.
    let beside = tagged.clone().fields(|input, signature| {
        (
            format!("other=(\"@status\" \"date\";req);x=1, {input}"),
            format!("{signature}, other=:AA==:"),
        )
    });
    for method in [
        wanting(Some("sig1"), None),
        wanting(None, Some("gate")),
        wanting(Some("sig1"), Some("gate")),
    ] {
        tagged.assert_accepted(&method);
        beside.assert_accepted(&method);
    }
    let none = Ok(false);
    assert_eq!(tagged.reason(&wanting(Some("sig2"), None)), none);
    assert_eq!(tagged.reason(&wanting(None, Some("door"))), none);
    assert_eq!(tagged.reason(&wanting(Some("sig1"), Some("door"))), none);
    assert_eq!(beside.reason(&wanting(Some("other"), None)), Err(Reason::Malformed));
    let twice =
        beside.input(|it| it.replace("other=(\"@status\" \"date\";req);x=1", "b=();tag=\"gate\""));
    assert_eq!(twice.reason(&wanting(None, Some("gate"))), Err(Reason::Duplicate));
}

#[test]
fn a_request_without_a_signature_is_somebody_elses() {
    let signed = Draft::new().sign().without("signature").without("signature-input");
    assert_eq!(signed.reason(&with(config(), known(&[]))), Ok(false));
}

#[test]
fn a_nonce_is_good_once_for_each_key() {
    let method = with(Config { require_nonce: true, ..config() }, known(&[]));
    let signed = |nonce: &str| Draft::new().also(&format!(";nonce=\"{nonce}\"")).sign();
    signed("0123456789").assert_accepted(&method);
    assert_eq!(signed("0123456789").reason(&method), Err(Reason::Replayed));
    signed("0123456780").assert_accepted(&method);
    let umbrella = Draft::new().with_key("k2", &Private::Hmac(SECRET.to_uppercase().into()));
    umbrella.also(";nonce=\"0123456789\"").sign().assert_accepted(&method);
    // A signature that is wrong uses up nothing.
    let wrong = signed("abcdefghij").edit(|parts| parts.method = http::Method::PUT);
    assert_eq!(wrong.reason(&method), Err(Reason::Wrong));
    signed("abcdefghij").assert_accepted(&method);
    // Neither does one that only asks.
    let asking = signed("klmnopqrst");
    for _ in 0..2 {
        let presented = Presented {
            purpose: Purpose::Explain,
            scheme: asking.scheme,
            has_body: true,
            ..Presented::bare(&asking.parts)
        };
        let now = Duration::from_secs(NOW);
        assert!(method.authenticate(&presented, Now { monotonic: now, unix: now }).is_ok());
    }
    asking.assert_accepted(&method);
}

#[test]
fn a_client_is_told_what_to_sign() {
    let method = with(config(), known(&[]));
    let expected = r#"sig1=("@method" "@target-uri" "content-digest");created;keyid"#;
    assert_eq!(method.accept_signature().unwrap(), expected);
    let wanted = Wanted { label: Some("gw".into()), tag: Some("a\"b".into()) };
    let method = with(Config { wanted, components: Box::default(), ..config() }, known(&[]));
    assert_eq!(method.accept_signature().unwrap(), r#"gw=();created;keyid;tag="a\"b""#);
}
