//! The vectors of RFC 9421 appendix B.2. B.2.4 is of a response, so its key and its base are checked.
use super::*;

const DIGEST: &str = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
const SHARED: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
";
const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
";
const RSA_PSS: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----
";

fn keys() -> Keys {
    let mut keys = Keys::default();
    let of = |id| credential("rfc", id, None);
    let secret = STANDARD.decode(SHARED).unwrap();
    keys.insert("test-shared-secret", Key::shared(&secret, of("hmac")).unwrap());
    for (id, pem, algorithm) in [
        ("test-key-ed25519", ED25519, Algorithm::Ed25519),
        ("test-key-ecc-p256", P256, Algorithm::EcdsaP256Sha256),
        ("test-key-rsa-pss", RSA_PSS, Algorithm::RsaPssSha512),
    ] {
        keys.insert(id, Key::public(pem.as_bytes(), algorithm, of(id)).unwrap());
    }
    keys
}

/// `test-request` of the RFC with these two fields, by a method that asks for nothing of its own.
fn verdict(input: &str, signature: &str) -> Result<bool, Reason> {
    let mut signed = Draft::covering(&[]);
    signed.host = "example.com".into();
    let signed = signed.target("/foo?param=Value&Pet=dog", "/foo?param=Value&Pet=dog");
    let mut signed = signed.without("content-digest").send(&[]);
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-digest", DIGEST),
        ("content-length", "18"),
        ("signature-input", input),
        ("signature", signature),
    ] {
        signed.set(name, value);
    }
    let config = Config { components: Box::default(), ..config() };
    signed.reason(&with(config, keys()))
}

#[track_caller]
fn check(input: &str, signature: &str) {
    assert_eq!(verdict(input, signature), Ok(true), "{input}");
    // The same signature for something else.
    let other = input.replace("created=1618884473", "created=1618884474");
    assert_eq!(verdict(&other, signature), Err(Reason::Wrong), "{other}");
}

#[test]
fn b_2_1_a_minimal_signature_with_rsa_pss() {
    check(
        r#"sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd""#,
        "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:",
    );
}

#[test]
fn b_2_2_selected_components_with_rsa_pss() {
    check(
        r#"sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
        "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
    );
}

#[test]
fn b_2_3_full_coverage_with_rsa_pss() {
    check(
        r#"sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#,
        "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
    );
}

#[test]
fn b_2_4_ecdsa_p256() {
    let base = "\"@status\": 200
\"content-type\": application/json
\"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:
\"content-length\": 23
\"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"";
    let signature =
        "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==";
    let signature = STANDARD.decode(signature).unwrap();
    let keys = keys();
    let key = keys.find("test-key-ecc-p256").unwrap();
    assert!(key.verifies(base.as_bytes(), &signature));
    assert!(!key.verifies(base.replace("200", "201").as_bytes(), &signature));
}

#[test]
fn b_2_5_hmac_sha256() {
    check(
        r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
        "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
    );
}

#[test]
fn b_2_6_ed25519() {
    check(
        r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
    );
}

/// The examples of section 2.2.8, whose values are encoded anew.
#[test]
fn query_parameters_are_encoded_as_the_rfc_does() {
    let check = |target: &str, name: &str, value: &str| {
        let component = format!("\"@query-param\";name=\"{name}\"");
        let draft = Draft::new().target(target, target).cover(&component, value);
        draft.sign().assert_accepted(&with(config(), super::known(&[])));
    };
    let target = "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something";
    check(target, "var", "this%20is%20a%20big%0Amultiline%20value");
    check(target, "bar", "with%20plus%20whitespace");
    check(target, "fa%C3%A7ade%22%3A%20", "something");
    check("/path?param=value&foo=bar&baz=batman&qux=", "qux", "");
    check("/path?param=value&foo=bar&baz=batman&qux", "qux", "");
    check("/?a=~!'()*", "a", "%7E%21%27%28%29*");
    check("/?a=%", "a", "%25");
}
