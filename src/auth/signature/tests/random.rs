//! Random requests: what is signed verifies, what was changed does not, and nothing panics.
use proptest::prelude::*;

use super::{field::choose, *};

/// Text that is often nearly one of the two fields.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("sig1="),
        Just("("),
        Just(")"),
        Just("\"@method\""),
        Just("\"date\""),
        Just(" "),
        Just(";created=1"),
        Just(";keyid=\"k1\""),
        Just(";bs"),
        Just(";key=\"a\""),
        Just(", "),
        Just(":AA==:"),
        Just("\"@query-param\""),
        Just(";name=\"a\""),
        Just(";"),
        Just("="),
        Just("\""),
        Just("\\"),
        Just("?1"),
        Just("@1"),
        Just("1.5"),
        Just("%\"a\""),
        Just("b"),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

fn drafts() -> impl Strategy<Value = Draft> {
    let method = prop_oneof![Just("GET"), Just("POST"), Just("DELETE"), Just("X-OWN")];
    let scheme = prop_oneof![Just("http"), Just("https")];
    let host = "[a-zA-Z0-9]{1,8}(\\.[a-z]{2,4})?(:[1-9][0-9]{2,3})?";
    let target = "(/[a-zA-Z0-9._~!$'()*+,;:@%-]{0,6}){1,3}(\\?[a-z0-9=&+*~.-]{0,20})?";
    let header = ("x-[a-z]{1,5}", "[!-~]([ -~]{0,20}[!-~])?");
    let nonce = proptest::option::of("[ -!#-\\[\\]-~]{8,20}");
    let headers = proptest::collection::btree_map(header.0, header.1, 0..5);
    (method, scheme, host, target, headers, nonce, 0..60_u64).prop_map(
        |(method, scheme, host, target, headers, nonce, age)| {
            let port = if scheme == "https" { ":443" } else { ":80" };
            let host = host.strip_suffix(port).unwrap_or(&host).to_owned();
            let mut draft = Draft { method, scheme, host, ..Draft::new() }.target(&target, &target);
            for component in ["@authority", "@path", "@query", "@request-target", "@scheme"] {
                draft.components.push(format!("\"{component}\""));
            }
            for (name, value) in headers {
                draft = draft.header(&name, value.clone()).cover(&format!("\"{name}\""), &value);
            }
            draft = draft.params(&format!(";created={};keyid=\"k1\"", NOW - age));
            nonce.into_iter().fold(draft, |it, nonce| it.also(&format!(";nonce=\"{nonce}\"")))
        },
    )
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_what_was_changed_does_not(
        draft in drafts(),
        at in any::<proptest::sample::Index>(),
        byte in 0x20..0x7f_u8,
        is_input in any::<bool>(),
    ) {
        let method = with(config(), known(&[]));
        let signed = draft.sign();
        prop_assert_eq!(signed.reason(&method), Ok(true));
        // A nonce that was seen would hide that the change was not.
        let method = with(config(), known(&[]));
        let name = if is_input { "signature-input" } else { "signature" };
        let mut value = signed.get(name).into_bytes();
        let at = at.index(value.len());
        let was = std::mem::replace(&mut value[at], byte);
        if was != byte {
            let mut changed = signed.clone();
            changed.set(name, &String::from_utf8(value).unwrap());
            let reason = changed.reason(&method);
            prop_assert!(reason.is_err(), "{:?}", changed.parts.headers);
        }
    }

    #[test]
    fn asymmetric_keys_verify_what_they_signed(draft in drafts()) {
        thread_local! {
            static PAIRS: [Pair; 2] = [pair(Algorithm::Ed25519), pair(Algorithm::EcdsaP256Sha256)];
        }
        PAIRS.with(|pairs| {
            for own in pairs {
                let method = with(config(), known(&[("own", own)]));
                let signed = draft.clone().with_key("own", &own.private).sign();
                prop_assert_eq!(signed.reason(&method), Ok(true));
                let mut other = signed;
                other.parts.method = http::Method::PATCH;
                prop_assert_eq!(other.reason(&method), Err(Reason::Wrong));
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_field_panics(
        input in prop_oneof![nearly(), "[ -~]{0,80}"],
        signature in prop_oneof![nearly(), Just("sig1=:AA==:".to_owned())],
        raw in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let tag = Wanted { tag: Some("a".into()), ..Wanted::default() };
        for wanted in [Wanted::default(), tag] {
            let _ = choose(input.as_bytes(), signature.as_bytes(), &wanted);
            let _ = choose(&raw, signature.as_bytes(), &wanted);
            let _ = choose(input.as_bytes(), &raw, &wanted);
        }
        if let Ok(Some((input, _))) = choose(input.as_bytes(), signature.as_bytes(), &Wanted::default()) {
            // What is written anew reads as the same.
            let mut params = format!("{}=", input.label.as_str());
            input.write_params(&mut params);
            let again = choose(params.as_bytes(), signature.as_bytes(), &Wanted::default());
            let (again, _) = again.unwrap().unwrap();
            let mut twice = format!("{}=", again.label.as_str());
            again.write_params(&mut twice);
            prop_assert_eq!(&params, &twice);
        }
    }

    #[test]
    fn no_component_of_a_configuration_panics(text in "[ -~]{0,40}|\\PC{0,10}") {
        if let Ok(component) = Component::parse(&text) {
            prop_assert_eq!(Component::parse(&component.to_string()), Ok(component));
        }
    }
}
