//! What clients send: good, bad, broken, in the wrong place, to routes that work and to routes that
//! fail, over one gateway.
use super::{Sinks, Vault};
use crate::support::{
    Behaviour, Gateway, Request, Upstream, basic_header, hash_of, password_hash, reply, wait_until,
};

const CONFIG: &str = "
admin: {address: $ADMIN, tokens: [{id: ops, hash: '$TOKEN', role: admin}]}
upstreams:
  up: {endpoints: [{url: $UP}]}
  down: {endpoints: [{url: 'http://127.0.0.1:1'}], retry: {attempts: 1, on: [connect]}}
  slow: {endpoints: [{url: $SLOW}], timeouts: {read: 100ms}, retry: {attempts: 1, on: [timeout]}}
authenticators:
  query: {api_key: {header: none, bearer: false, query: access}}
consumers:
  acme:
    api_keys: [{id: now, hash: '$KEY'}, {id: old, hash: '$OLD', expires: 2020-01-01T00:00:00Z}]
    basic: [{username: acme, password_hash: '$PASSWORD'}]
routes:
  - {id: any, match: {paths: [/any]}, auth: [api_key, basic], upstream: up}
  - {id: query, match: {paths: [/query]}, auth: [query], upstream: up}
  - {id: down, match: {paths: [/down]}, auth: [api_key, basic, query], upstream: down}
  - {id: slow, match: {paths: [/slow]}, auth: [api_key, basic, query], upstream: slow}
  - {id: small, match: {paths: [/small], methods: [POST]}, auth: [api_key, basic], body_limit: 10B, upstream: up}
  - {id: limited, match: {paths: [/limited]}, auth: [api_key, basic], rate_limits: [{requests: 1, per: 1h}], upstream: up}
  - {id: passed, match: {paths: [/passed]}, auth: [api_key, basic], pass_credentials: true, upstream: up}
";

/// A gateway, the secrets that are good at it, and the upstreams behind it.
struct Scene {
    vault: Vault,
    key: String,
    old: String,
    password: String,
    token: String,
    gateway: Gateway,
    up: Upstream,
    _slow: Upstream,
}

fn scene() -> Scene {
    let mut vault = Vault::default();
    let key = vault.make("tg_live_", "a good key");
    let old = vault.make("tg_", "an expired key");
    let password = vault.make("", "a good password");
    let token = vault.make("", "an admin token");
    let up = Upstream::start(|_| reply(200, "ok"));
    let slow = Upstream::start(|_| Behaviour::Never);
    let gateway = Gateway::start(
        CONFIG,
        &[
            ("UP", &up.url()),
            ("SLOW", &slow.url()),
            ("KEY", &hash_of(&key)),
            ("OLD", &hash_of(&old)),
            ("PASSWORD", &password_hash(&password)),
            ("TOKEN", &hash_of(&token)),
        ],
    );
    Scene { vault, key, old, password, token, gateway, up, _slow: slow }
}

/// One secret in every shape that a client may give it by mistake or on purpose.
fn shapes(secret: &str) -> Vec<String> {
    vec![
        secret.to_owned(),
        secret[..secret.len() - 4].to_owned(),
        format!("{secret}!"),
        format!("{secret},{secret}"),
        format!("\"{secret}\""),
        format!("' OR '{secret}'='{secret}"),
        format!("%s%n{secret}"),
        format!("{secret}\u{e9}"),
        secret.repeat(20),
    ]
}

/// Requests that carry `secret` as a key, a password, a token, a cookie, or nothing that is known.
fn carrying(gateway: &Gateway, path: &str, secret: &str) -> Vec<Request> {
    let get = || gateway.get(path);
    let mut requests = Vec::new();
    for shape in shapes(secret) {
        requests.extend([
            get().header("X-API-Key", &shape),
            get().header("Authorization", &format!("Bearer {shape}")),
            get().header("Authorization", &format!("Bearer tg_{shape}")),
            get().header("Authorization", &format!("Digest response=\"{shape}\"")),
            get().header("Authorization", &shape),
            get().header("Authorization", &format!("Basic {shape}")),
            get().header("Authorization", &basic_header("acme", &shape)),
            get().header("Authorization", &basic_header(&shape, "x")),
            get().header("X-API-Key", &shape).header("X-API-Key", &shape),
            get().header("Authorization", &shape).header("Authorization", &shape),
        ]);
    }
    requests
}

/// Heads that are no HTTP, with a secret in the part that is wrong.
fn broken(secret: &str) -> Vec<String> {
    let head = |line: &str| format!("GET /any HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
    vec![
        head(&format!("X-API-Key : {secret}")),
        head(&format!("X-API-Key {secret}")),
        head(secret),
        head(&format!("Authorization: Bearer\r\n {secret}")),
        head(&format!("Authorization: Bearer {secret}\0")),
        head(&format!("X-API-Key: {secret}\r\nTransfer-Encoding: {secret}")),
        head(&format!("X-API-Key: {secret}\r\nContent-Length: {secret}")),
        head(&format!("X-API-Key: {}", secret.repeat(2000))),
        format!("GET /query?access={secret}%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /query?access={secret}#x HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /query?access={secret} HTTP/9.9\r\nHost: a\r\n\r\n"),
        format!("GET /query?access={} HTTP/1.1\r\nHost: a\r\n\r\n", secret.repeat(300)),
        format!("GET /query?access={secret} HTTP/1.1\r\n\r\n"),
    ]
}

impl Scene {
    /// Sends all of it; what clients see of it.
    fn play(&mut self) -> Sinks {
        let unknown = self.vault.make("tg_", "nobody's key");
        let wrong = self.vault.make("", "a wrong password");
        let gateway = &self.gateway;
        let good = basic_header("acme", &self.password);
        // First what is good: an address that keeps failing has no password verified.
        let mut requests = vec![
            gateway.get("/any").header("Authorization", &good),
            gateway.get("/down").header("Authorization", &good),
            gateway.get("/limited").header("Authorization", &good),
            gateway.get("/limited").header("X-API-Key", &self.key),
        ];
        for secret in [&self.key, &self.old, &self.password, &unknown, &wrong] {
            requests.extend(carrying(gateway, "/any", secret));
            for path in ["/nowhere", "/down", "/slow", "/limited"] {
                requests.push(gateway.get(path).header("X-API-Key", secret));
                let basic = basic_header("acme", secret);
                requests.push(gateway.get(path).header("Authorization", &basic));
            }
            let post = || gateway.request("POST", "/small").body("longer than ten");
            requests.push(post().header("X-API-Key", secret));
            requests.push(post().chunked().header("X-API-Key", secret));
            requests.push(gateway.request("PUT", "/small").header("X-API-Key", secret));
            for target in [
                format!("/query?access={secret}"),
                format!("/query?a=1&acc%65ss={secret}&b=2"),
                format!("/query?access={secret}&access={secret}"),
                format!("/query?access={secret}%00"),
                format!("/down?access={secret}"),
                format!("/slow?access={secret}"),
            ] {
                requests.push(gateway.get(&target));
                // What a client says of its own accord goes to the upstream, but not into the log.
                let referer = format!("http://{}{target}", gateway.address);
                requests.push(gateway.get("/nowhere").header("Referer", &referer));
            }
        }
        let mut sinks = Sinks(Vec::new());
        for request in &requests {
            if let Ok(answer) = request.try_send() {
                sinks.answer(&format!("answer to {request:?}"), &answer);
            }
        }
        for secret in [&self.key, &unknown] {
            for head in broken(secret) {
                let mut connection = gateway.connect();
                let _ = connection.write(head.as_bytes());
                if let Ok(answer) = connection.read_response("GET") {
                    sinks.answer(&format!("answer to {head:?}"), &answer);
                }
            }
        }
        sinks
    }
}

#[test]
fn nothing_that_a_client_proves_itself_by_shows_anywhere() {
    let mut scene = scene();
    let mut sinks = scene.play();
    let gateway = &scene.gateway;
    wait_until("the log is written", || gateway.access_log(1).len() >= sinks.0.len());
    sinks.0.extend(Sinks::of(gateway, &scene.token).0);
    sinks.upstream(&scene.up);
    sinks.assert_has(&["upstream /any", "upstream /query", "access.log", "stderr", "/status"]);
    sinks.assert_none_of(&scene.vault);
    for status in [200, 400, 401, 404, 405, 413, 429, 431, 502, 504] {
        let is_seen = sinks.0.iter().any(|it| it.1.starts_with(format!("{status} ").as_bytes()));
        assert!(is_seen, "nothing was answered with {status}");
    }
    // The search itself, on the one route that shows a credential on purpose.
    let seen = |request: Request| {
        assert_eq!(request.status(), 200);
        scene.vault.found(&scene.up.last().raw).join(", ")
    };
    let passed = || gateway.get("/passed");
    assert_eq!(seen(passed().header("X-API-Key", &scene.key)), "a good key");
    let basic = basic_header("acme", &scene.password);
    assert_eq!(seen(passed().header("Authorization", &basic)), "a good password");
}

#[test]
fn explain_and_the_admin_listener_keep_what_they_are_asked_with() {
    let mut scene = scene();
    let gateway = &scene.gateway;
    let wrong = scene.vault.make("", "a wrong token");
    let config = gateway.config_file().display().to_string();
    let admin = gateway.admin.to_string();
    let mut sinks = Sinks(Vec::new());
    let url = |rest: &str| format!("http://a{rest}");
    for secret in [&scene.key, &scene.old, &scene.password, &wrong] {
        let (key, bearer) =
            (format!("X-API-Key: {secret}"), format!("Authorization: Bearer {secret}"));
        let basic = format!("Authorization: {}", basic_header("acme", secret));
        for (target, header) in [
            ("/any".to_owned(), &key),
            ("/any".to_owned(), &bearer),
            ("/any".to_owned(), &basic),
            (format!("/query?access={secret}"), &key),
            (format!("/query?access={secret}%00&access={secret}"), &key),
        ] {
            for way in
                [&["-c", &config][..], &["--live", "--admin", &admin, "--token", &scene.token]]
            {
                for form in [&[][..], &["--json"]] {
                    let url = url(&target);
                    let question = ["explain", "GET", &url, "-H", header];
                    sinks.command(gateway, &[&question[..], way, form].concat());
                }
            }
        }
    }
    // The verb repeats its own arguments nowhere, so the name of a sink is not searched.
    for token in [&scene.token, &wrong, &format!("{wrong}\u{e9}"), &wrong.repeat(100)] {
        for authorization in [format!("Bearer {token}"), format!("Basic {token}"), token.clone()] {
            for (method, path) in [("GET", "/status"), ("POST", "/api/reload"), ("GET", "/nothing")]
            {
                let asked = gateway.admin(method, path).header("Authorization", &authorization);
                let target = format!("{path}?token={token}");
                for asked in [asked, gateway.admin(method, &target)] {
                    if let Ok(answer) = asked.try_send() {
                        sinks.answer(&format!("{method} {path}"), &answer);
                    }
                }
            }
        }
        for verb in ["reload", "status"] {
            sinks.command(gateway, &[verb, "--admin", &admin, "--token", token]);
        }
    }
    sinks.0.extend(Sinks::of(gateway, &scene.token).0);
    sinks.assert_none_of(&scene.vault);
    let said = |text: &str| sinks.0.iter().any(|it| String::from_utf8_lossy(&it.1).contains(text));
    assert!(
        said("acme") && said("expired") && said("401"),
        "{:?}",
        sinks.0.first().map(|it| &it.1)
    );
}
