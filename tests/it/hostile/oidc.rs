//! Logins and sessions (OpenID Connect): cookies that are not ours, answers to logins that nobody began,
//! and ID tokens of a hostile provider. The code that a browser brings is the ID token that the provider
//! gives for it, so each line has its own.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Case, Scene, TRUSTING, hold, none};
use crate::support::{
    Gateway, Request, Response, Upstream, free_address, reply,
    tokens::{Signer, b64, header, now},
    wait_until,
};

pub struct Logins {
    gateway: Gateway,
    upstream: Upstream,
    issuer: Signer,
    provider: Upstream,
    /// `name=value` of a good session.
    session: String,
    /// The same of another authenticator.
    other: String,
}

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  staff: {oidc: {issuer: $PROVIDER, client_id: portal, client_secret: secret, algorithms: [ES256], consumer: {claim: sub, unknown: deny}}}
  guests: {oidc: {issuer: $PROVIDER, client_id: portal, client_secret: secret, algorithms: [ES256], callback: /guests/callback, logout: /guests/logout}}
consumers: {acme: {subjects: [alice]}}
routes:
  - {id: page, match: {paths: [/page]}, auth: [staff], upstream: up}
  - {id: guests, match: {paths: [/guests]}, auth: [guests], upstream: up}
";

fn scene() -> Logins {
    let upstream = Upstream::saying("ok");
    let issuer = Signer::new();
    let address = free_address();
    let url = format!("http://{address}");
    let document = json!({
        "issuer": url, "jwks_uri": format!("{url}/jwks"), "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": format!("{url}/auth"), "response_types_supported": ["code"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    });
    let keys = issuer.jwks();
    let provider = Upstream::start_at(address, move |request| {
        let body = match request.target.as_str() {
            "/jwks" => keys.to_string(),
            "/token" => tokens(&String::from_utf8_lossy(&request.body)),
            _ => document.to_string(),
        };
        reply(200, body).with("Content-Type", "application/json")
    });
    let variables = [("UP", &*upstream.url()), ("PROVIDER", &*url)];
    let gateway = Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables);
    let none = String::new;
    let mut scene = Logins { gateway, upstream, issuer, provider, session: none(), other: none() };
    let page = || navigation(&scene, "/page").send();
    wait_until("the provider is known", || page().status == 302);
    let session = |path: &str, callback: &str| {
        let flow = begin(&scene, path);
        let done = answer(&scene, callback, &flow, &token(&scene, &flow, &[]));
        let mut entered = None;
        wait_until("the keys are known", || {
            let answer = done.send();
            entered = cookie(&answer, |name| !name.contains(".flow") && !name.contains(".hint"));
            entered.is_some() || answer.status != 503
        });
        entered.unwrap()
    };
    let (staff, guests) =
        (session("/page", "/oauth/callback"), session("/guests", "/guests/callback"));
    (scene.session, scene.other) = (staff, guests);
    scene
}

/// What the provider gives for a code: the ID token that it is, or all of what is encoded in it.
fn tokens(form: &str) -> String {
    let code = form.split('&').find_map(|it| it.strip_prefix("code=")).unwrap_or_default();
    match code.strip_prefix("raw.").map(|it| URL_SAFE_NO_PAD.decode(it)) {
        Some(Ok(raw)) => String::from_utf8_lossy(&raw).into_owned(),
        _ => json!({"access_token": "access", "token_type": "Bearer", "expires_in": 600, "id_token": code})
            .to_string(),
    }
}

impl Scene for Logins {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        cookies(self, &self.session)
    }

    fn plain(&self) -> Request {
        self.gateway.get("/page")
    }
}

fn navigation(it: &Logins, path: &str) -> Request {
    it.gateway.get(path).header("Accept", "text/html")
}

/// A script's request with these cookies: it is told 401 and not sent to a login.
fn cookies(it: &Logins, line: &str) -> Request {
    it.gateway.get("/page").header("Cookie", line)
}

fn value(session: &str) -> &str {
    session.split_once('=').unwrap().1
}

/// A login under way in a browser.
struct Flow {
    state: String,
    nonce: String,
    cookie: String,
}

fn cookie(answer: &Response, is_meant: impl Fn(&str) -> bool) -> Option<String> {
    let lines = answer.headers.all("set-cookie").into_iter();
    let mut pairs = lines.map(|it| it.split(';').next().unwrap().to_owned());
    pairs.find(|it| is_meant(it.split('=').next().unwrap()) && !it.ends_with('='))
}

fn begin(it: &Logins, path: &str) -> Flow {
    let answer = navigation(it, path).send();
    let location = answer.header("location").unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    let parameter = |name: &str| {
        let query = location.split_once('?').unwrap().1;
        query.split('&').find_map(|it| it.strip_prefix(name)).unwrap().to_owned()
    };
    let cookie = cookie(&answer, |name| name.contains(".flow")).unwrap();
    Flow { state: parameter("state="), nonce: parameter("nonce="), cookie }
}

/// An ID token for this login but for these claims.
fn claims(it: &Logins, flow: &Flow, changes: &[(&str, Value)]) -> String {
    let mut claims = json!({
        "iss": it.provider.url(), "aud": "portal", "sub": "alice", "nonce": flow.nonce,
        "iat": now(), "exp": now() + 600,
    });
    for (name, value) in changes {
        claims[name] = value.clone();
    }
    claims.to_string()
}

fn token(it: &Logins, flow: &Flow, changes: &[(&str, Value)]) -> String {
    it.issuer.mint(&header("ES256", "p256"), &claims(it, flow, changes), "ES256")
}

fn back(it: &Logins, callback: &str, query: &str, cookie: &str) -> Request {
    navigation(it, &format!("{callback}?{query}")).header("Cookie", cookie)
}

/// The browser comes back with this code.
fn answer(it: &Logins, callback: &str, flow: &Flow, code: &str) -> Request {
    back(it, callback, &format!("code={code}&state={}", flow.state), &flow.cookie)
}

fn coded(it: &Logins, code: impl FnOnce(&Flow) -> String) -> Request {
    let flow = begin(it, "/page");
    let code = code(&flow);
    answer(it, "/oauth/callback", &flow, &code)
}

/// A login that ends in a good ID token but for one claim.
fn with(it: &Logins, name: &str, value: Value) -> Request {
    coded(it, |flow| token(it, flow, &[(name, value)]))
}

/// One that ends in this answer of the token endpoint.
fn given(it: &Logins, answer: &str) -> Request {
    coded(it, |_| format!("raw.{}", b64(answer)))
}

/// A callback with this query, made of the state, for a login under way.
fn asked(it: &Logins, query: impl FnOnce(&Flow, String) -> String) -> Request {
    let flow = begin(it, "/page");
    let good = token(it, &flow, &[]);
    let query = query(&flow, good);
    back(it, "/oauth/callback", &query, &flow.cookie)
}

/// A login that comes to nothing.
const fn lost(
    what: &'static str,
    cause: &'static str,
    request: fn(&Logins) -> Request,
) -> Case<Logins> {
    Case { what, request, status: 400, code: "login_failed", cause }
}

#[rustfmt::skip]
pub const CASES: &[Case<Logins>] = &[
    // Cookies.
    none("no cookie", |it| it.gateway.get("/page")),
    none("an empty cookie", |it| cookies(it, "tollgate-staff=")),
    none("a cookie without a value", |it| cookies(it, "tollgate-staff")),
    none("a cookie that is a name", |it| cookies(it, "tollgate-staff=alice")),
    none("a cookie of JSON", |it| cookies(it, "tollgate-staff=1.eyJzdWIiOiJhbGljZSJ9")),
    none("a session cut short", |it| cookies(it, &it.session[..it.session.len() - 4])),
    none("a session that goes on", |it| cookies(it, &format!("{}AAAA", it.session))),
    none("one bit off", |it| { let last = if it.session.ends_with('A') { "Q" } else { "A" }; cookies(it, &format!("{}{last}", &it.session[..it.session.len() - 1])) }),
    none("the first bits off", |it| cookies(it, &it.session.replacen("=1.", "=1.A", 1))),
    none("padding", |it| cookies(it, &format!("{}=", it.session))),
    none("percent-encoded", |it| cookies(it, &it.session.replacen("=1.", "=1%2E", 1))),
    none("in quotes", |it| cookies(it, &format!("tollgate-staff=\"{}\"", value(&it.session)))),
    none("two parts of which one came", |it| cookies(it, &it.session.replacen("=1.", "=2.", 1))),
    none("no parts", |it| cookies(it, &it.session.replacen("=1.", "=0.", 1))),
    none("9,999 parts", |it| cookies(it, &it.session.replacen("=1.", "=9999.", 1))),
    none("parts beyond every number", |it| cookies(it, &it.session.replacen("=1.", "=99999999999999999999.", 1))),
    none("the session of another authenticator", |it| cookies(it, &format!("tollgate-staff={}", value(&it.other)))),
    none("under the name of https", |it| cookies(it, &format!("__Host-tollgate-staff={}", value(&it.session)))),
    none("under another case", |it| cookies(it, &format!("Tollgate-Staff={}", value(&it.session)))),
    none("behind a foreign one", |it| cookies(it, &format!("tollgate-staff=x; {}", it.session))),
    none("a login under way as a session", |it| { let flow = begin(it, "/page"); cookies(it, &format!("tollgate-staff=1.{}", value(&flow.cookie))) }),
    none("300 cookies", |it| cookies(it, &(0..300).map(|n| format!("tollgate-staff.flow.{n:016}=x")).collect::<Vec<_>>().join("; "))),
    none("8 KiB of one", |it| cookies(it, &format!("tollgate-staff=1.{}", "A".repeat(8000)))),
    none("as a bearer token", |it| it.gateway.get("/page").header("Authorization", &format!("Bearer {}", value(&it.session)))),
    none("in the query", |it| it.gateway.get(&format!("/page?{}", it.session))),
    // The way back.
    lost("nothing", "malformed", |it| navigation(it, "/oauth/callback")),
    lost("a state alone", "malformed", |it| asked(it, |flow, _| format!("state={}", flow.state))),
    lost("a code alone", "malformed", |it| asked(it, |_, code| format!("code={code}"))),
    lost("two codes", "malformed", |it| asked(it, |flow, code| format!("code={code}&code={code}&state={}", flow.state))),
    lost("two codes, one encoded", "malformed", |it| asked(it, |flow, code| format!("code={code}&co%64e=x&state={}", flow.state))),
    lost("two states", "malformed", |it| asked(it, |flow, code| format!("code={code}&state={0}&state={0}", flow.state))),
    lost("a code and an error", "malformed", |it| asked(it, |flow, code| format!("code={code}&error=x&state={}", flow.state))),
    lost("a code of 5,000 bytes", "malformed", |it| asked(it, |flow, _| format!("code={}&state={}", "c".repeat(5000), flow.state))),
    lost("a state that nobody began", "unknown", |it| asked(it, |_, code| format!("code={code}&state={}", "s".repeat(43)))),
    lost("a state that ends otherwise", "unknown", |it| asked(it, |flow, code| format!("code={code}&state={}x", flow.state))),
    lost("a state cut short", "unknown", |it| asked(it, |flow, code| format!("code={code}&state={}", &flow.state[..20]))),
    lost("a state that is a path", "unknown", |it| asked(it, |_, code| format!("code={code}&state=../../../../etc/passwd"))),
    lost("the state of another login", "unknown", |it| asked(it, |_, code| format!("code={code}&state={}", begin(it, "/page").state))),
    lost("another browser's login", "unknown", |it| { let flow = begin(it, "/page"); back(it, "/oauth/callback", &format!("code={}&state={}", token(it, &flow, &[]), flow.state), "a=b") }),
    lost("another authenticator's login", "unknown", |it| { let flow = begin(it, "/guests"); answer(it, "/oauth/callback", &flow, &token(it, &flow, &[])) }),
    lost("a login whose cookie was changed", "unknown", |it| { let flow = begin(it, "/page"); let cookie = format!("{}x", flow.cookie); back(it, "/oauth/callback", &format!("code={}&state={}", token(it, &flow, &[]), flow.state), &cookie) }),
    lost("a session in place of the login", "unknown", |it| { let flow = begin(it, "/page"); let name = flow.cookie.split('=').next().unwrap(); back(it, "/oauth/callback", &format!("code=x&state={}", flow.state), &format!("{name}={}", value(&it.session))) }),
    lost("an answer of another issuer", "not_for_us", |it| asked(it, |flow, code| format!("code={code}&state={}&iss=https://evil.test", flow.state))),
    lost("a login that was answered", "replayed", |it| { let flow = begin(it, "/page"); let request = answer(it, "/oauth/callback", &flow, &token(it, &flow, &[])); assert_eq!(request.status(), 302); request }),
    lost("the provider says no", "denied", |it| asked(it, |flow, _| format!("error=access_denied&state={}", flow.state))),
    lost("an error that is a line break", "denied", |it| asked(it, |flow, _| format!("error=a%0d%0aSet-Cookie:%20a=b&state={}", flow.state))),
    // What the provider gives.
    lost("no tokens", "malformed", |it| given(it, "{}")),
    lost("no ID token", "malformed", |it| given(it, r#"{"access_token":"a","token_type":"Bearer"}"#)),
    lost("tokens of another type", "malformed", |it| given(it, r#"{"access_token":"a","token_type":"MAC","id_token":"x"}"#)),
    lost("tokens twice", "malformed", |it| given(it, r#"{"access_token":"a","access_token":"b","token_type":"Bearer","id_token":"x"}"#)),
    lost("no JSON", "malformed", |it| given(it, "<html>")),
    lost("an ID token that is none", "malformed", |it| coded(it, |_| "x".to_owned())),
    lost("alg none", "malformed", |it| coded(it, |flow| format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims(it, flow, &[]))))),
    lost("alg none, signed", "algorithm", |it| coded(it, |flow| it.issuer.mint(r#"{"alg":"none","kid":"p256"}"#, &claims(it, flow, &[]), "ES256"))),
    lost("HS256 with the client's secret", "algorithm", |it| coded(it, |flow| { let signed = format!("{}.{}", b64(header("HS256", "p256")), b64(claims(it, flow, &[]))); format!("{signed}.{}", b64(crate::support::tokens::hs256(b"secret", signed.as_bytes()))) })),
    lost("an algorithm that is not allowed", "algorithm", |it| coded(it, |flow| it.issuer.mint(&header("RS256", "rsa"), &claims(it, flow, &[]), "RS256"))),
    lost("another signer", "wrong", |it| coded(it, |flow| Signer::new().mint(&header("ES256", "p256"), &claims(it, flow, &[]), "ES256"))),
    lost("another issuer", "not_for_us", |it| with(it, "iss", json!("https://evil.test"))),
    lost("another audience", "not_for_us", |it| with(it, "aud", json!("other"))),
    lost("several audiences, for nobody in particular", "malformed", |it| with(it, "aud", json!(["portal", "other"]))),
    lost("for another party", "not_for_us", |it| with(it, "azp", json!("other"))),
    lost("expired", "expired", |it| with(it, "exp", json!(now() - 120))),
    lost("issued an hour ago", "expired", |it| with(it, "iat", json!(now() - 3600))),
    lost("issued in the future", "not_yet_valid", |it| with(it, "iat", json!(now() + 3600))),
    lost("no nonce", "malformed", |it| with(it, "nonce", json!(null))),
    lost("the nonce of another login", "replayed", |it| with(it, "nonce", json!(begin(it, "/page").nonce))),
    lost("an empty nonce", "replayed", |it| with(it, "nonce", json!(""))),
    lost("a nonce that is a list", "malformed", |it| coded(it, |flow| token(it, flow, &[("nonce", json!([flow.nonce]))]))),
    lost("no subject", "malformed", |it| with(it, "sub", json!(null))),
    lost("an empty subject", "malformed", |it| with(it, "sub", json!(""))),
    lost("a subject with a line break", "malformed", |it| with(it, "sub", json!("alice\r\nX: y"))),
    lost("another access token", "wrong", |it| with(it, "at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))),
    Case { what: "somebody whom nobody knows", request: |it| with(it, "sub", json!("mallory")), status: 403, code: "access_denied", cause: "unknown" },
    Case { what: "a callback by POST", request: |it| it.gateway.request("POST", "/oauth/callback").body("code=x&state=y"), status: 405, code: "method_not_allowed", cause: "" },
    Case { what: "a logout by another site", request: |it| it.good_logout().header("Sec-Fetch-Site", "cross-site"), status: 403, code: "access_denied", cause: "a logout" },
    Case { what: "a logout by another site's form", request: |it| it.good_logout().header("Origin", "https://evil.test"), status: 403, code: "access_denied", cause: "a logout" },
    Case { what: "a logout by DELETE", request: |it| it.gateway.request("DELETE", "/oauth/logout"), status: 405, code: "method_not_allowed", cause: "" },
];

impl Logins {
    fn good_logout(&self) -> Request {
        self.gateway.request("POST", "/oauth/logout").header("Cookie", &self.session)
    }
}

#[test]
fn logins_of_attackers() {
    hold(&scene(), CASES);
}

/// Where a browser is sent after its login, and what a hostile page can make of that.
#[test]
fn a_login_leads_back_to_this_origin_only() {
    let scene = scene();
    for path in [
        "/page?next=https://evil.test/",
        "/page?a=%0d%0aLocation:%20https://evil.test",
        "/page?//evil.test",
    ] {
        let flow = begin(&scene, path);
        let answer = answer(&scene, "/oauth/callback", &flow, &token(&scene, &flow, &[])).send();
        assert_eq!((answer.status, answer.header("location")), (302, Some(path)), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for foreign in ["evil.test", "127.0.0.1.evil.test", "127.0.0.1:1@evil.test"] {
        let answer = navigation(&scene, "/page").host(foreign).send();
        let location = answer.header("location").unwrap_or_default();
        assert!(!location.contains("evil.test"), "{foreign}: {answer:?}");
    }
}
