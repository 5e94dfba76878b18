//! Keys and the forms of their signatures: one for each, and none of another algorithm.
use super::*;

/// A key of one algorithm is never used for another (CVE-2015-9235 and its many children).
#[test]
fn a_public_key_is_no_shared_secret() {
    let pair = pair(Algorithm::Ed25519);
    let method = with(config(), known(&[("own", &pair)]));
    let der =
        STANDARD.decode(pair.pem.lines().filter(|it| !it.starts_with('-')).collect::<String>());
    let der = der.unwrap();
    for secret in [pair.pem.clone().into_bytes(), der.clone(), der[der.len() - 32..].to_vec()] {
        let forged = Draft::new().with_key("own", &Private::Hmac(secret));
        assert_eq!(forged.clone().sign().reason(&method), Err(Reason::Wrong));
        assert_eq!(
            forged.also(";alg=\"hmac-sha256\"").sign().reason(&method),
            Err(Reason::Algorithm)
        );
    }
}

#[test]
fn a_signature_of_ecdsa_is_two_numbers_of_their_length() {
    let pair = pair(Algorithm::EcdsaP256Sha256);
    let method = with(config(), known(&[("own", &pair)]));
    let draft = Draft::new().with_key("own", &pair.private);
    let good = pair.private.sign(draft.base().as_bytes());
    assert_eq!(draft.clone().send(&good).reason(&method), Ok(true));
    let Private::P256(pkcs8) = &pair.private else { panic!() };
    let random = SystemRandom::new();
    let asn1 = &sig::ECDSA_P256_SHA256_ASN1_SIGNING;
    let der = sig::EcdsaKeyPair::from_pkcs8(asn1, pkcs8, &random).unwrap();
    let der = der.sign(&random, draft.base().as_bytes()).unwrap().as_ref().to_vec();
    let (r, s) = good.split_at(32);
    let zero = [0; 32];
    // The order of the group, to which s = 0 is equal.
    let order = b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    for bad in [
        der,
        [r, &zero].concat(),
        [&zero, s].concat(),
        [zero, zero].concat(),
        [r, order].concat(),
        [order.as_slice(), s].concat(),
        [s, r].concat(),
        [&good[..], &[0]].concat(),
        good[..63].to_vec(),
        [&[0], &good[..]].concat(),
        vec![0xff; 64],
    ] {
        assert_eq!(draft.clone().send(&bad).reason(&method), Err(Reason::Wrong), "{bad:?}");
    }
}

#[test]
fn a_signature_of_ed25519_has_one_form() {
    let pair = pair(Algorithm::Ed25519);
    let method = with(config(), known(&[("own", &pair)]));
    let draft = Draft::new().with_key("own", &pair.private);
    let good = pair.private.sign(draft.base().as_bytes());
    assert_eq!(draft.clone().send(&good).reason(&method), Ok(true));
    // S and the order of the group more: the same to a verifier that does not look (RFC 8032, 5.1.7).
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0_u16;
    let mut larger = good.clone();
    for (byte, order) in larger[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    let (r, s) = good.split_at(32);
    let identity = [&[1], &[0; 31][..]].concat();
    for bad in [
        larger,
        [r, &[0; 32]].concat(),
        [&identity, &[0; 32][..]].concat(),
        [s, r].concat(),
        good[..63].to_vec(),
        [&good[..], &[0]].concat(),
        vec![0; 64],
    ] {
        assert_eq!(draft.clone().send(&bad).reason(&method), Err(Reason::Wrong), "{bad:?}");
    }
}

#[test]
fn keys_that_are_none_are_told_apart() {
    let ed25519 = pair(Algorithm::Ed25519).pem;
    let p256 = pair(Algorithm::EcdsaP256Sha256).pem;
    let p384 = pair(Algorithm::EcdsaP384Sha384).pem;
    let private = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let check = |pem: &str, algorithm, expected: &str| {
        let made = Key::public(pem.as_bytes(), algorithm, credential("acme", "k", None));
        let said = made.map(|_| ()).unwrap_err();
        assert!(said.contains(expected), "{said}");
    };
    check("", Algorithm::Ed25519, "no public key in PEM");
    check("-----BEGIN PUBLIC KEY-----\n", Algorithm::Ed25519, "no public key in PEM");
    check(&private, Algorithm::Ed25519, "private key");
    check(&ed25519, Algorithm::EcdsaP256Sha256, "not one for ecdsa-p256-sha256");
    check(&p256, Algorithm::Ed25519, "not one for ed25519");
    check(&p256, Algorithm::EcdsaP384Sha384, "not one for ecdsa-p384-sha384");
    check(&p384, Algorithm::EcdsaP256Sha256, "not one for ecdsa-p256-sha256");
    check(&ed25519, Algorithm::RsaPssSha512, "not one for rsa-pss-sha512");
    check(&ed25519, Algorithm::HmacSha256, "not a public key");
    check(&ed25519.replace("MCow", "MCo!"), Algorithm::Ed25519, "no public key in PEM");
    let short = Key::shared(&[7; 31], credential("acme", "k", None));
    assert!(short.unwrap_err().contains("32 bytes"));
    let key = Key::shared(SECRET.as_bytes(), credential("acme", "k", None)).unwrap();
    assert!(!format!("{key:?}").contains("share"), "{key:?}");
}

#[test]
fn for_an_address_that_floods_no_public_key_is_used() {
    let pair = pair(Algorithm::EcdsaP384Sha384);
    let method = with(config(), known(&[("own", &pair)]));
    let flooding = |signed: Signed| {
        let presented = Presented {
            is_flooding: true,
            scheme: signed.scheme,
            has_body: signed.has_body,
            ..Presented::bare(&signed.parts)
        };
        let now = Duration::from_secs(NOW);
        let verdict = method.authenticate(&presented, Now { monotonic: now, unix: now });
        verdict.map(|it| it.is_some()).map_err(|it| it.reason)
    };
    let own = Draft::new().with_key("own", &pair.private).sign();
    assert_eq!(own.reason(&method), Ok(true));
    assert_eq!(flooding(own), Err(Reason::Busy));
    // A shared secret costs as little as any refusal, and what is refused before is refused as before.
    assert_eq!(flooding(Draft::new().sign()), Ok(true));
    assert_eq!(flooding(Draft::new().sign().without("signature")), Err(Reason::Malformed));
}
