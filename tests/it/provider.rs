//! The authorization server of the tests does what the tests of others rely on.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Provider, Request, Visitor};

const SCOPE: &str = "orders:read";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

#[test]
fn tokens_are_issued_introspected_and_revoked() {
    let Some(provider) = Provider::start() else { return };
    let token = provider.token("service", "https://api.test/opaque", SCOPE);
    let ask =
        |client| provider.post("/token/introspection", client, &format!("token={token}")).json();
    let answer = ask("gateway");
    assert_eq!(answer["active"], true, "{answer}");
    assert_eq!(answer["client_id"], "service");
    assert_eq!(answer["aud"], "https://api.test/opaque");
    provider.revoke("service", &token);
    assert_eq!(ask("gateway")["active"], false);
    assert_eq!(provider.count("/token/introspection"), 2);
    for (resource, algorithm, key) in
        [("jwt", "RS256", "first"), ("es256", "ES256", "first-ec"), ("eddsa", "EdDSA", "first-ed")]
    {
        let token = provider.token("service", &format!("https://api.test/{resource}"), SCOPE);
        let (header, claims) = (part(&token, 0), part(&token, 1));
        assert_eq!((&header["alg"], &header["typ"]), (&algorithm.into(), &"at+jwt".into()));
        assert_eq!((&header["kid"], &claims["client_id"]), (&key.into(), &"service".into()));
    }
}

#[test]
fn keys_rotate_and_what_was_issued_stays() {
    let Some(provider) = Provider::start() else { return };
    let opaque = provider.token("service", "https://api.test/opaque", SCOPE);
    let published = || {
        let keys = Request::new(provider.address, "GET", "/jwks").send().json();
        let ids = keys["keys"].as_array().unwrap().iter().map(|it| it["kid"].as_str().unwrap());
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    let signer = || part(&provider.token("service", "https://api.test/a", SCOPE), 0)["kid"].take();
    assert_eq!((published(), signer()), (kids(&["first"]), "first".into()));
    provider.set_keys(&["first", "second"]);
    assert_eq!((published(), signer()), (kids(&["first", "second"]), "first".into()));
    provider.set_keys(&["second"]);
    assert_eq!((published(), signer()), (kids(&["second"]), "second".into()));
    let answer = provider.post("/token/introspection", "gateway", &format!("token={opaque}"));
    assert_eq!(answer.json()["active"], true);
}

fn kids(names: &[&str]) -> Vec<String> {
    names.iter().flat_map(|it| [(*it).into(), format!("{it}-ec"), format!("{it}-ed")]).collect()
}

#[test]
fn it_breaks_on_command_and_comes_back() {
    let Some(provider) = Provider::start() else { return };
    let get = || Request::new(provider.address, "GET", "/jwks").status();
    provider.set_mode("error");
    assert_eq!(get(), 500);
    provider.set_mode("up");
    assert_eq!(get(), 200);
    provider.set_lifetime(7);
    let form = "grant_type=client_credentials&scope=orders:read";
    assert_eq!(provider.post("/token", "service", form).json()["expires_in"], 7);
}

#[test]
fn a_browser_logs_in_by_redirects() {
    let Some(provider) = Provider::start() else { return };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let callback = "http://127.0.0.1:9/callback";
    let url = provider.url(&format!(
        "/auth?response_type=code&client_id=portal&state=s&nonce=n&code_challenge_method=S256\
         &code_challenge={challenge}&redirect_uri={callback}&prompt=consent\
         &scope=openid%20email%20groups%20offline_access"
    ));
    let mut visitor = Visitor::default();
    let back = provider.follow(&mut visitor, &url);
    let query = back.strip_prefix(callback).unwrap().trim_start_matches('?');
    let code = query.split('&').find_map(|it| it.strip_prefix("code=")).unwrap();
    assert!(query.contains("state=s"), "{query}");
    let form =
        format!("grant_type=authorization_code&code={code}&redirect_uri={callback}&code_verifier=");
    let wrong = provider.post("/token", "portal", &format!("{form}{}", VERIFIER.to_uppercase()));
    assert_eq!(wrong.json()["error"], "invalid_grant");
    // A code that was tried with the wrong verifier is still good once.
    let response = provider.post("/token", "portal", &format!("{form}{VERIFIER}"));
    let answer = response.json();
    let claims = part(answer["id_token"].as_str().unwrap(), 1);
    assert_eq!((&claims["sub"], &claims["nonce"]), (&"alice".into(), &"n".into()));
    assert_eq!(claims["email"], "alice@example.com");
    assert!(answer["refresh_token"].is_string(), "{answer}");
    provider.set_login("");
    let back = provider.follow(&mut Visitor::default(), &url);
    assert!(back.contains("error=access_denied"), "{back}");
}
