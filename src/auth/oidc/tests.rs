//! The flow of requests through one authenticator, up to the provider's door: nobody answers there.
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{provider::Metadata, *};
use crate::{
    auth::{
        Subjects,
        claims::Claim,
        jwks::{Algorithm, KeySet, Live, Source as KeySource},
        jwt::Verifier,
    },
    flow::identity::{Consumer, Label},
    shared::{
        http_client::{Client, Url},
        oauth::{self, AuthMethod},
    },
    value::secret::Secret,
};

const UNIX: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.test";
const HTML: (&str, &str) = ("accept", "text/html");

fn now(unix: u64) -> Now {
    Now { monotonic: Duration::from_secs(unix - UNIX + 100), unix: Duration::from_secs(unix) }
}

#[derive(Clone)]
struct Setup {
    name: &'static str,
    client_id: &'static str,
    allows_unknown: bool,
    on_outage: OnOutage,
    /// Whether the provider has said anything yet.
    is_known: bool,
    names_issuer: bool,
    sealer: Arc<Sealer>,
    kept: Arc<Kept>,
}

impl Setup {
    fn new() -> Self {
        Self {
            name: "staff",
            client_id: "portal",
            allows_unknown: true,
            on_outage: OnOutage::Allow,
            is_known: true,
            names_issuer: false,
            sealer: Arc::new(Sealer::random().unwrap()),
            kept: Arc::new(Kept::new().unwrap()),
        }
    }

    fn build(&self) -> Oidc {
        // A port that nothing listens on: port 1 of this machine.
        let url = |path: &str| Url::parse(&format!("http://127.0.0.1:1{path}")).unwrap();
        let http = Client::new().unwrap();
        let metadata = Metadata {
            authorization_endpoint: url("/auth"),
            token_endpoint: url("/token"),
            end_session_endpoint: Some(url("/end")),
            names_issuer: self.names_issuer,
        };
        let provider = Arc::new(Provider::new(ISSUER, &http).unwrap());
        if self.is_known {
            provider.learn(metadata);
        }
        let live = Arc::new(Live::new(KeySource::Discovery(ISSUER.into())));
        let keys = KeySet::remote(live, Duration::from_secs(60));
        let secret = Secret::new("portal-secret".to_owned());
        let method = AuthMethod::ClientSecretBasic;
        let client = oauth::Client::new(self.client_id, secret, method).unwrap();
        let party = Party {
            config: PartyConfig {
                client,
                scope: "openid".to_owned(),
                parameters: vec![("prompt".to_owned(), "login".to_owned())],
                claims: None,
                session: Duration::from_secs(8 * 3600),
            },
            provider,
            http,
            verifier: Verifier::new(ISSUER, &[self.client_id], &[Algorithm::RS256], keys),
        };
        let mut subjects = Subjects::default();
        let acme = Arc::new(Consumer {
            index: 0,
            name: Label::new("acme").unwrap(),
            groups: Box::default(),
            plan: None,
            groups_header: None,
        });
        subjects.insert("alice", &acme);
        Oidc::new(Parts {
            config: Config {
                callback: "/oauth/callback".into(),
                logout: "/oauth/logout".into(),
                post_logout_redirect: Some("/bye".into()),
                cookie: Base::of("staff"),
                on_outage: self.on_outage,
            },
            party: Arc::new(party),
            sealer: self.sealer.clone(),
            mapping: Mapping {
                authenticator: self.name.into(),
                consumer: Claim::new("sub").unwrap(),
                allows_unknown: self.allows_unknown,
                scopes: Claim::new("scope").unwrap(),
                subjects: Arc::new(subjects),
            },
            kept: self.kept.clone(),
        })
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// None of this method's business.
    Nothing,
    /// Let in, under this name.
    Known(String),
    /// A redirect.
    Sent(String),
    /// Another answer.
    Answered(u16),
    Refused(Code, Reason),
    /// The usual refusal of the reason.
    Usual(Reason),
}

/// What a request got, and the `Set-Cookie` lines of its answer.
async fn ask(oidc: &Oidc, request: http::Request<()>, unix: u64) -> (Seen, Vec<String>) {
    let parts = request.into_parts().0;
    let presented = Presented { scheme: "https", host: "p.test", ..Presented::bare(&parts) };
    let mut outcome = oidc.authenticate(&presented, now(unix)).await;
    if matches!(outcome, Ok(None)) {
        outcome = oidc.login(&presented, now(unix)).map_or(Ok(None), Err);
    }
    let lines = |headers: &[(HeaderName, HeaderValue)]| {
        let cookies = headers.iter().filter(|(name, _)| *name == header::SET_COOKIE);
        cookies.map(|(_, value)| value.to_str().unwrap().to_owned()).collect()
    };
    match outcome {
        Ok(None) => (Seen::Nothing, Vec::new()),
        Ok(Some(it)) => {
            (Seen::Known(it.identity.credential.full_id.to_string()), lines(&it.to_client))
        }
        Err(refused) => match refused.stop {
            None => (Seen::Usual(refused.reason), Vec::new()),
            Some(Stop::Refused(it)) => (Seen::Refused(it.code, refused.reason), lines(&it.headers)),
            Some(Stop::Answered(reply)) => {
                let location = reply.headers.iter().find(|(name, _)| *name == header::LOCATION);
                let seen = match location {
                    Some((_, value)) => Seen::Sent(value.to_str().unwrap().to_owned()),
                    None => Seen::Answered(reply.status.as_u16()),
                };
                assert!(reply.headers.iter().any(|(_, value)| value == "no-store"), "{reply:?}");
                (seen, lines(&reply.headers))
            }
        },
    }
}

fn get(target: &str, headers: &[(&str, &str)]) -> http::Request<()> {
    let request = http::Request::get(target).header("host", "p.test");
    headers.iter().fold(request, |it, (name, value)| it.header(*name, *value)).body(()).unwrap()
}

/// Name and value of a line.
fn pair(line: &str) -> &str {
    line.split(';').next().unwrap()
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(it, _)| it == name).map(|(_, value)| value.into_owned())
}

/// A browser that was sent to the provider: where to, and its cookie.
async fn begin(oidc: &Oidc, target: &str) -> (String, String) {
    let (seen, lines) = ask(oidc, get(target, &[HTML]), UNIX).await;
    let Seen::Sent(url) = seen else { panic!("{seen:?}") };
    (url, pair(&lines[0]).to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "it reads as what it is: claims")]
fn session(claims: Value) -> Session {
    Session {
        id: [7; 16],
        generation: 0,
        expires: UNIX + 600,
        tokens_end: UNIX + 600,
        renew_at: u64::MAX,
        refresh_token: None,
        scope: "openid".to_owned(),
        claims: claims.as_object().unwrap().clone(),
    }
}

fn cookies(oidc: &Oidc, session: &Session) -> String {
    let sealed = session.seal(&oidc.sealer, &oidc.context).unwrap();
    let jar = Jar { base: &oidc.config.cookie, is_secure: true };
    let lines = jar.split(&HeaderMap::new(), &sealed, Seconds(60)).unwrap();
    lines.iter().map(|it| pair(it.to_str().unwrap())).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_person_is_sent_to_the_provider_with_all_that_it_needs() {
    let oidc = Setup::new().build();
    let (url, cookie) = begin(&oidc, "/a?b=c").await;
    assert!(url.starts_with("http://127.0.0.1:1/auth?"), "{url}");
    let check = |name: &str, expected: &str| {
        assert_eq!(parameter(&url, name).as_deref(), Some(expected), "{url}");
    };
    check("response_type", "code");
    check("client_id", "portal");
    check("scope", "openid");
    check("redirect_uri", "https://p.test/oauth/callback");
    check("code_challenge_method", "S256");
    check("prompt", "login");
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(parameter(&url, name).unwrap().len(), 43, "{url}");
    }
    let state = parameter(&url, "state").unwrap();
    assert!(cookie.starts_with(&format!("__Host-tollgate-staff.flow.{}=", &state[..16])));
}

#[tokio::test]
async fn a_script_is_not() {
    let oidc = Setup::new().build();
    let seen = ask(&oidc, get("/a", &[("accept", "application/json")]), UNIX).await.0;
    assert_eq!(seen, Seen::Nothing);
}

#[tokio::test]
async fn nobody_is_sent_to_a_provider_that_is_not_known() {
    let oidc = Setup { is_known: false, ..Setup::new() }.build();
    let seen = ask(&oidc, get("/a", &[HTML]), UNIX).await.0;
    assert_eq!(seen, Seen::Refused(Code::AuthenticatorUnavailable, Reason::Unavailable));
}

#[tokio::test]
async fn a_session_lets_in_while_the_provider_is_away() {
    let oidc = Setup { is_known: false, ..Setup::new() }.build();
    let check = async |claims: Value, unix, expected: Seen| {
        let line = cookies(&oidc, &session(claims));
        let (seen, lines) = ask(&oidc, get("/a", &[("cookie", &line)]), unix).await;
        assert_eq!(seen, expected);
        assert!(lines.is_empty());
    };
    check(json!({"sub": "alice"}), UNIX, Seen::Known("acme/alice".into())).await;
    check(json!({"sub": "bob"}), UNIX, Seen::Known("staff/bob".into())).await;
    check(json!({"sub": "alice"}), UNIX + 600, Seen::Nothing).await;
}

#[tokio::test]
async fn nobody_is_in_a_loop_of_logins() {
    let oidc = Setup { allows_unknown: false, ..Setup::new() }.build();
    for (claims, reason) in
        [(json!({"sub": "bob"}), Reason::Unknown), (json!({"sub": "a\nb"}), Reason::Malformed)]
    {
        let line = cookies(&oidc, &session(claims));
        let seen = ask(&oidc, get("/a", &[HTML, ("cookie", &line)]), UNIX).await.0;
        assert_eq!(seen, Seen::Refused(Code::AccessDenied, reason));
    }
}

#[tokio::test]
async fn cookies_that_are_not_ours_are_a_new_login() {
    let setup = Setup::new();
    let oidc = setup.build();
    let good = cookies(&oidc, &session(json!({"sub": "alice"})));
    let other_name = Setup { name: "admin", ..setup.clone() }.build();
    let other_client = Setup { client_id: "other", ..setup.clone() }.build();
    let other_secret = Setup::new().build();
    let big = cookies(&oidc, &session(json!({"sub": "alice", "x": "y".repeat(9000)})));
    let parts: Vec<&str> = big.split("; ").collect();
    assert!(parts.len() >= 3, "{}", parts.len());
    let seen = ask(&oidc, get("/a", &[HTML, ("cookie", &big)]), UNIX).await.0;
    assert_eq!(seen, Seen::Known("acme/alice".into()));
    for line in [
        cookies(&other_name, &session(json!({"sub": "alice"}))),
        cookies(&other_client, &session(json!({"sub": "alice"}))),
        cookies(&other_secret, &session(json!({"sub": "alice"}))),
        good[..good.len() - 1].to_owned(),
        good.replace("=1.", "=2."),
        good.replace("=1.", "=9."),
        good.replace("=1.", "="),
        good.replace("__Host-", ""),
        good.replace("__Host-", "__Secure-"),
        "__Host-tollgate-staff=".to_owned(),
        "__Host-tollgate-staff=1.".to_owned(),
        format!("__Host-tollgate-staff=1.{}", "A".repeat(3000)),
        "__Host-tollgate-staff=1.\u{7f}".replace('\u{7f}', "%00"),
        parts[1..].join("; "),
        parts[..parts.len() - 1].join("; "),
        big.replace("staff.2", "staff.x")
            .replace("staff.3", "staff.2")
            .replace("staff.x", "staff.3"),
    ] {
        let seen = ask(&oidc, get("/a", &[HTML, ("cookie", &line)]), UNIX).await.0;
        assert!(matches!(seen, Seen::Sent(_)), "{line}: {seen:?}");
        let seen = ask(&oidc, get("/a", &[("cookie", &line)]), UNIX).await.0;
        assert_eq!(seen, Seen::Nothing, "{line}");
    }
}

#[tokio::test]
async fn a_callback_that_answers_no_login_is_refused() {
    let setup = Setup { names_issuer: true, ..Setup::new() };
    let oidc = setup.build();
    let (url, cookie) = begin(&oidc, "/a").await;
    let (_, other) = begin(&oidc, "/b").await;
    let state = parameter(&url, "state").unwrap();
    let check = async |query: &str, cookie: &str, unix, reason| {
        let target = format!("/oauth/callback{query}");
        let seen = ask(&oidc, get(&target, &[HTML, ("cookie", cookie)]), unix).await.0;
        assert_eq!(seen, Seen::Refused(Code::LoginFailed, reason), "{query}");
    };
    let good = format!("?code=c&state={state}&iss={ISSUER}");
    check("", &cookie, UNIX, Reason::Malformed).await;
    check("?", &cookie, UNIX, Reason::Malformed).await;
    check("?code=c", &cookie, UNIX, Reason::Malformed).await;
    check(&format!("{good}&code=d"), &cookie, UNIX, Reason::Malformed).await;
    check(&good, "", UNIX, Reason::Unknown).await;
    check(&good, &other, UNIX, Reason::Unknown).await;
    check(&good, &cookie[..cookie.len() - 2], UNIX, Reason::Unknown).await;
    check(&good, &cookie, UNIX + 600, Reason::Unknown).await;
    check("?code=c&state=x", &cookie, UNIX, Reason::Unknown).await;
    check(&format!("?code=c&state={state}"), &cookie, UNIX, Reason::NotForUs).await;
    let evil = format!("?code=c&state={state}&iss=https://evil.test");
    check(&evil, &cookie, UNIX, Reason::NotForUs).await;
    let denied = format!("?error=access_denied&state={state}&iss={ISSUER}");
    check(&denied, &cookie, UNIX, Reason::Denied).await;
    // It was answered, if only with a no.
    check(&good, &cookie, UNIX, Reason::Replayed).await;
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_its_login_forgotten() {
    let oidc = Setup::new().build();
    let (url, cookie) = begin(&oidc, "/a").await;
    let state = parameter(&url, "state").unwrap();
    let target = format!("/oauth/callback?code=c&state={state}");
    let request = || get(&target, &[HTML, ("cookie", &cookie)]);
    let (seen, lines) = ask(&oidc, request(), UNIX).await;
    assert_eq!(seen, Seen::Refused(Code::AuthenticatorUnavailable, Reason::Unavailable));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("__Host-tollgate-staff.flow.") && lines[0].contains("=; "));
    let (seen, _) = ask(&oidc, request(), UNIX).await;
    assert_eq!(seen, Seen::Refused(Code::LoginFailed, Reason::Replayed));
}

#[tokio::test]
async fn the_login_itself_takes_its_own_methods_only() {
    let oidc = Setup::new().build();
    for (method, target, expected) in [
        (Method::POST, "/oauth/callback", Code::MethodNotAllowed),
        (Method::HEAD, "/oauth/callback", Code::MethodNotAllowed),
        (Method::DELETE, "/oauth/logout", Code::MethodNotAllowed),
    ] {
        let mut request = get(target, &[]);
        *request.method_mut() = method;
        let seen = ask(&oidc, request, UNIX).await.0;
        assert_eq!(seen, Seen::Refused(expected, Reason::Malformed), "{target}");
    }
}

#[tokio::test]
async fn a_logout_ends_the_session_everywhere_in_this_process() {
    let oidc = Setup::new().build();
    let line = cookies(&oidc, &session(json!({"sub": "alice"})));
    let foreign = get("/oauth/logout", &[("cookie", &line), ("sec-fetch-site", "cross-site")]);
    let seen = ask(&oidc, foreign, UNIX).await.0;
    assert_eq!(seen, Seen::Refused(Code::AccessDenied, Reason::Denied));
    let seen = ask(&oidc, get("/a", &[("cookie", &line)]), UNIX).await.0;
    assert_eq!(seen, Seen::Known("acme/alice".into()));
    let jar = Jar { base: &oidc.config.cookie, is_secure: true };
    let hint = oidc.keep_hint(jar, "the.id.token").unwrap();
    let line = format!("{line}; {}", pair(hint.to_str().unwrap()));
    let (seen, lines) = ask(&oidc, get("/oauth/logout", &[("cookie", &line)]), UNIX).await;
    let Seen::Sent(url) = seen else { panic!("{seen:?}") };
    assert!(url.starts_with("http://127.0.0.1:1/end?"), "{url}");
    assert_eq!(parameter(&url, "id_token_hint").as_deref(), Some("the.id.token"));
    assert_eq!(parameter(&url, "client_id").as_deref(), Some("portal"));
    let back_to = parameter(&url, "post_logout_redirect_uri");
    assert_eq!(back_to.as_deref(), Some("https://p.test/bye"));
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|it| it.contains("=; ") && it.contains("Max-Age=0")), "{lines:?}");
    // The cookie of a browser that did not do as it was told, or of a thief.
    let seen = ask(&oidc, get("/a", &[("cookie", &line)]), UNIX).await.0;
    assert_eq!(seen, Seen::Nothing);
}

#[tokio::test]
async fn an_outage_is_a_decision_once_the_tokens_have_ended() {
    let check = async |on_outage, unix: u64, expected: Seen| {
        let oidc = Setup { on_outage, ..Setup::new() }.build();
        let due = Session {
            renew_at: UNIX + 100,
            tokens_end: UNIX + 200,
            refresh_token: Some(Secret::new("r".to_owned())),
            ..session(json!({"sub": "alice"}))
        };
        let line = cookies(&oidc, &due);
        let seen = ask(&oidc, get("/a", &[HTML, ("cookie", &line)]), unix).await.0;
        assert_eq!(seen, expected, "{on_outage:?} {unix}");
    };
    let known = || Seen::Known("acme/alice".into());
    check(OnOutage::Allow, UNIX + 100, known()).await;
    check(OnOutage::Allow, UNIX + 200, known()).await;
    check(OnOutage::Deny, UNIX + 100, known()).await;
    check(OnOutage::Deny, UNIX + 200, Seen::Usual(Reason::Unavailable)).await;
}

#[tokio::test]
async fn a_login_is_not_begun_in_the_clear() {
    let oidc = Setup::new().build();
    let parts = get("/a", &[HTML]).into_parts().0;
    let presented = Presented { scheme: "http", host: "p.test", ..Presented::bare(&parts) };
    let refused = oidc.login(&presented, now(UNIX)).unwrap();
    let Some(Stop::Refused(rejection)) = refused.stop else { panic!() };
    assert_eq!(rejection.code, Code::CredentialRequired);
    let presented = Presented { scheme: "http", host: "localhost", ..Presented::bare(&parts) };
    let refused = oidc.login(&presented, now(UNIX)).unwrap();
    let Some(Stop::Answered(reply)) = refused.stop else { panic!() };
    let line = reply.headers.iter().find(|(name, _)| *name == header::SET_COOKIE).unwrap();
    let line = line.1.to_str().unwrap();
    assert!(line.starts_with("tollgate-staff.flow.") && !line.contains("Secure"), "{line}");
}
