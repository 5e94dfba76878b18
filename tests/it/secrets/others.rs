//! What the gateway shows to others and they to it: opaque tokens, our own secrets at authorization
//! servers, tokens for upstreams, sessions; while those answer, refuse, repeat what they were sent, and
//! are gone.
use serde_json::json;

use super::{Sinks, Vault};
use crate::support::{
    Behaviour, Gateway, Request, Response, Upstream, free_address, hash_of, reply,
    tokens::{Signer, header, now},
    wait_until,
};

const CONFIG: &str = "
admin: {address: $ADMIN, tokens: [{id: ops, hash: '$TOKEN', role: admin}]}
upstreams:
  up: {endpoints: [{url: $UP}]}
  mine:
    endpoints: [{url: $UP}]
    credentials: {client_credentials: {token_url: $SERVER/token, client_id: me, client_secret: '${env:MINE}'}}
  refused:
    endpoints: [{url: $UP}]
    credentials: {client_credentials: {token_url: $SERVER/echo, client_id: me, client_secret: '${env:MINE}'}}
authenticators:
  token: {introspection: {url: $SERVER/introspect, client_id: me, client_secret: '${env:ASKER}', timeout: 300ms}}
  echo: {introspection: {url: $SERVER/echo, client_id: me, client_secret: '${env:ASKER}', timeout: 300ms}}
  gone: {introspection: {url: 'http://127.0.0.1:1/', client_id: me, client_secret: '${env:ASKER}', timeout: 300ms}}
  verifier: {external: {url: $SERVER/verify, timeout: 300ms}}
  broken: {external: {url: $SERVER/echo, timeout: 300ms}}
  staff: {oidc: {issuer: $SERVER, client_id: portal, client_secret: '${env:PORTAL}', secret: '${env:SEAL}', algorithms: [ES256], consumer: {claim: sub, unknown: deny}}}
consumers: {acme: {subjects: [acme]}}
routes:
  - {id: token, match: {paths: [/token]}, auth: [token], upstream: up}
  - {id: echo, match: {paths: [/echo]}, auth: [echo], upstream: up}
  - {id: gone, match: {paths: [/gone]}, auth: [gone], upstream: up}
  - {id: verifier, match: {paths: [/verifier]}, auth: [verifier], upstream: up}
  - {id: broken, match: {paths: [/broken]}, auth: [broken], upstream: up}
  - {id: page, match: {paths: [/page]}, auth: [staff], upstream: up}
  - {id: mine, match: {paths: [/mine]}, public: true, upstream: mine}
  - {id: refused, match: {paths: [/refused]}, public: true, upstream: refused}
";

/// An authorization server that knows every client and repeats on `/echo` what it was sent, as error
/// pages do. The code of a login is its ID token, with the other tokens behind it.
fn server(signer: &Signer, [access, refresh, mine]: [String; 3]) -> Upstream {
    let address = free_address();
    let url = format!("http://{address}");
    let keys = signer.jwks();
    let document = json!({
        "issuer": url, "jwks_uri": format!("{url}/jwks"), "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": format!("{url}/auth"),
        "end_session_endpoint": format!("{url}/end"),
    });
    Upstream::start_at(address, move |request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let field = |name: &str| form.split('&').find_map(|it| it.strip_prefix(name));
        let body = match (request.target.as_str(), field("code=")) {
            ("/jwks", _) => keys.clone(),
            ("/introspect", _) => json!({"active": true, "client_id": "acme"}),
            ("/token", Some(code)) => json!({"access_token": access, "token_type": "Bearer",
                "expires_in": 600, "refresh_token": refresh, "id_token": code}),
            ("/token", None) => {
                json!({"access_token": mine, "token_type": "Bearer", "expires_in": 600})
            }
            ("/echo", _) => {
                let sent = String::from_utf8_lossy(&request.raw).into_owned();
                return Behaviour::Respond { status: 400, headers: Vec::new(), body: sent.into() };
            }
            _ => document.clone(),
        };
        reply(200, body.to_string()).with("Content-Type", "application/json")
    })
}

fn pair(answer: &Response, part: &str) -> Option<String> {
    let lines = answer.headers.all("set-cookie").into_iter();
    let mut pairs = lines.filter_map(|it| it.split(';').next());
    pairs
        .find(|it| it.split('=').next().unwrap().ends_with(part) && !it.ends_with('='))
        .map(str::to_owned)
}

/// Begins a login and comes back with `code`; the answer to that.
fn log_in(gateway: &Gateway, code: impl Fn(&str) -> String) -> (Request, Response) {
    let page = gateway.get("/page").header("Accept", "text/html").send();
    let location = page.header("location").unwrap().to_owned();
    let parameter = |name: &str| {
        location.split(['?', '&']).find_map(|it| it.strip_prefix(name)).unwrap().to_owned()
    };
    let lines = page.headers.all("set-cookie");
    let flow = lines[0].split(';').next().unwrap();
    let target = format!(
        "/oauth/callback?code={}&state={}",
        code(&parameter("nonce=")),
        parameter("state=")
    );
    let request = gateway.get(&target).header("Accept", "text/html").header("Cookie", flow);
    let answer = request.send();
    (request, answer)
}

#[test]
fn what_others_are_shown_is_shown_to_nobody_else() {
    let mut vault = Vault::default();
    let [asker, mine, portal, seal] = ["asks", "upstream's", "login's", "seals"]
        .map(|it| vault.make("", &format!("the secret that {it}")) + "-long-enough-for-each");
    let [access, refresh] = ["an access token", "a refresh token"].map(|it| vault.make("", it));
    let own = Vault::default().make("", "our own access token");
    let admin = vault.make("", "an admin token");
    let opaque = vault.make("", "an opaque token");
    let signer = Signer::new();
    let server = server(&signer, [access, refresh, own.clone()]);
    let upstream = Upstream::saying("ok");
    let (up, url, token) = (upstream.url(), server.url(), hash_of(&admin));
    let before = format!("export ASKER={asker} MINE={mine} PORTAL={portal} SEAL={seal};");
    let variables = [("UP", &*up), ("SERVER", &*url), ("TOKEN", &*token)];
    let gateway = Gateway::start_under(&before, CONFIG, &variables).unwrap();
    let mut sinks = Sinks(Vec::new());
    let mut answers = 0;
    let mut tell = |sinks: &mut Sinks, what: &str, answer: &Response| {
        answers += 1;
        sinks.answer(&format!("{what} {}", answer.status), answer);
    };
    for path in ["/token", "/echo", "/gone", "/verifier"] {
        for shape in [opaque.clone(), format!("{opaque}!"), format!("{opaque} {opaque}")] {
            let bearer = format!("Bearer {shape}");
            tell(&mut sinks, path, &gateway.get(path).header("Authorization", &bearer).send());
        }
    }
    // The page of a verifier that is broken is not for the client.
    let cookie = format!("private={opaque}");
    tell(&mut sinks, "/broken", &gateway.get("/broken").header("Cookie", &cookie).send());
    wait_until("our own token is there", || gateway.get("/mine").status() == 200);
    // The one place for it is its upstream.
    let shown = upstream.last().header("authorization").map(str::to_owned);
    assert_eq!(shown, Some(format!("Bearer {own}")));
    vault.keep("our own access token", &own);
    tell(&mut sinks, "/refused", &gateway.get("/refused").send());

    wait_until("the provider is known", || {
        gateway.get("/page").header("Accept", "text/html").status() == 302
    });
    let id_token = |nonce: &str, subject: &str| {
        let claims = json!({"iss": url, "aud": "portal", "sub": subject, "nonce": nonce,
            "iat": now(), "exp": now() + 600});
        signer.mint(&header("ES256", "p256"), &claims.to_string(), "ES256")
    };
    for subject in ["acme", "mallory", "acme\n"] {
        let (request, answer) = log_in(&gateway, |nonce| id_token(nonce, subject));
        let code = format!("{request:?}");
        let code = code.split("code=").nth(1).unwrap().split('&').next().unwrap();
        vault.keep("a code", code.rsplit('.').next().unwrap());
        // The session goes to this browser, so its answer is not searched; a refusal is.
        match pair(&answer, "staff") {
            Some(session) => {
                vault.keep("a session", session.split_once('.').unwrap().1);
                let page = gateway.get("/page").header("Cookie", &session).send();
                assert_eq!(page.status, 200, "{page:?}");
                for session in [&session[..session.len() - 5], &format!("{session}x")] {
                    tell(
                        &mut sinks,
                        "/page",
                        &gateway.get("/page").header("Cookie", session).send(),
                    );
                }
            }
            None => tell(&mut sinks, "callback", &answer),
        }
        tell(&mut sinks, "callback again", &request.send());
    }
    let bearer = format!("Bearer {admin}");
    let reload = || gateway.admin("POST", "/api/reload").header("Authorization", &bearer).send();
    for (right, wrong) in [
        ("client_id: me, client_secret: '${env:ASKER}'", "client_id: '${env:ASKER}\\n'"),
        ("issuer: $SERVER", "issuer: '${env:SEAL}'"),
        ("algorithms: [ES256]", "algorithms: ['${env:PORTAL}']"),
        ("secret: '${env:SEAL}'", "secret: '${env:SEAL}', cookie: '${env:SEAL} '"),
        ("token_url: $SERVER/token", "token_url: '${env:MINE}'"),
    ] {
        assert!(CONFIG.contains(right), "{right}");
        gateway.rewrite_config(&CONFIG.replacen(right, wrong, 1));
        let answer = reload();
        assert_eq!(answer.status, 422, "{wrong}: {}", answer.text());
        sinks.answer("reload", &answer);
        sinks.0.extend(Sinks::of(&gateway, &admin).0);
    }
    wait_until("the log is written", || gateway.access_log(1).len() >= answers);
    sinks.0.extend(Sinks::of(&gateway, &admin).0);
    for request in upstream.requests().into_iter().filter(|it| it.target != "/mine") {
        sinks.0.push((format!("upstream {}", request.target), request.raw));
    }
    // A verifier has no credential of its own to take out, and passes the request on as it is.
    sinks.0.retain(|(name, _)| name != "upstream /verifier");
    sinks.assert_has(&["/token 200", "/echo 503", "/gone 503", "/refused 50", "/page 401"]);
    sinks.assert_has(&["callback 4", "callback again 400", "/verifier 200", "upstream /page"]);
    sinks.assert_none_of(&vault);
}
