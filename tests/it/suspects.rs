//! Addresses that keep failing: what is begun for them no more, that nobody gets in by it, and that their
//! neighbours go on.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use serde_json::json;

use crate::support::{
    Behaviour, Gateway, Issuer, Request, Signature, Signer, Upstream, reply, wait_until,
};

const ATTACKER: &str = "198.18.0.1";
const ELSEWHERE: &str = "198.18.0.2";

/// Failures on end, over one connection.
fn fail(gateway: &Gateway, bad: &Request, times: usize) {
    let mut connection = gateway.connect();
    for _ in 0..times {
        let status = connection.send(bad).unwrap().status;
        assert!(matches!(status, 401 | 429 | 503), "{status}");
    }
}

const INTROSPECTED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  soon: {introspection: {url: $ASKED, client_id: a, client_secret: b, consumer: {unknown: allow},
                         cache: 1ms, negative_cache: 1ms, on_outage: stale, stale: 1h}}
  kept: {introspection: {url: $ASKED, client_id: a, client_secret: b, consumer: {unknown: allow}, cache: 1h}}
routes:
  - {id: soon, match: {paths: [/soon]}, auth: [soon], upstream: up}
  - {id: kept, match: {paths: [/kept]}, auth: [kept], upstream: up}
";

/// Whose token was revoked makes their own address fail, so that nobody is asked for it any more.
#[test]
fn a_revoked_token_does_not_go_on_at_an_address_that_keeps_failing() {
    let upstream = Upstream::saying("ok");
    let is_revoked = Arc::new(AtomicBool::new(false));
    let revoked = is_revoked.clone();
    let answer = |is_active: bool| -> Behaviour {
        let body = json!({"active": is_active, "client_id": "somebody"}).to_string();
        reply(200, body).with("Content-Type", "application/json")
    };
    let server = Upstream::start(move |_| answer(!revoked.load(Ordering::Relaxed)));
    let variables = [("UP", &*upstream.url()), ("ASKED", &*server.url())];
    let gateway = Gateway::start(INTROSPECTED, &variables);
    let with = |path: &str, token: &str| {
        gateway.get(path).header("Authorization", &format!("Bearer {token}"))
    };
    let malformed = with("/soon", "a,b");
    for _ in 0..3 {
        assert_eq!(with("/soon", "mallory").status(), 200);
    }
    assert_eq!(with("/kept", "neighbour").status(), 200);
    // Old answers of three others, which the attempts must not reach either.
    let others = ["one", "two", "three"];
    others.iter().for_each(|token| assert_eq!(with("/soon", token).status(), 200));
    is_revoked.store(true, Ordering::Relaxed);
    wait_until("the address is one that keeps failing", || {
        fail(&gateway, &malformed, 40);
        let statuses: Vec<u16> =
            ["mallory"].iter().chain(&others).map(|it| with("/soon", it).status()).collect();
        assert!(statuses.iter().all(|it| matches!(it, 401 | 503)), "{statuses:?}");
        // What is fresh is good for a neighbour all the while.
        assert_eq!(with("/kept", "neighbour").status(), 200);
        statuses.contains(&503)
    });
    wait_until("it is over", || with("/soon", "mallory").status() == 401);
}

const SIGNED: &str = "
server: {workers: 2, trusted_proxies: [127.0.0.1/32], limits: {auth_failures: $MOST}}
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  corp: {jwt: {issuer: '$ISSUER', audiences: [orders], algorithms: [ES256], jwks_url: '$ISSUER/jwks.json'}}
  signed: {signature: {components: ['@method', '@path']}}
consumers:
  acme:
    subjects: [acme-client]
    signature_keys:
      - {id: public, algorithm: ecdsa-p256-sha256, public_key_file: $DIR/p256.pem}
      - {id: shared, algorithm: hmac-sha256, secret: 'what acme and the gateway both know, and nobody else'}
routes:
  - {id: tokens, match: {paths: [/tokens]}, auth: [corp], upstream: up}
  - {id: signed, match: {paths: [/signed]}, auth: [signed], upstream: up}
";

struct Scene {
    issuer: Issuer,
    upstream: Upstream,
    gateway: Gateway,
    signer: Signer,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(most: &str) -> Self {
        let (issuer, upstream) = (Issuer::start(&["a", "b"]), Upstream::saying("ok"));
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        std::fs::write(folder.path().join("p256.pem"), pair.public_key_pem()).unwrap();
        let yaml = SIGNED.replace("$DIR", folder.path().to_str().unwrap());
        let variables = [("ISSUER", &*issuer.name()), ("UP", &upstream.url()), ("MOST", most)];
        let gateway = Gateway::start(&yaml, &variables);
        let signer = Signer::P256(pair.serialize_der());
        Self { issuer, upstream, gateway, signer, _folder: folder }
    }

    fn token(&self, client: &str, token: &str) -> Request {
        let request = self.gateway.get("/tokens").header("X-Forwarded-For", client);
        request.header("Authorization", &format!("Bearer {token}"))
    }

    /// A token of another key than it says.
    fn forged(&self) -> Request {
        let claims = self.issuer.claims(json!({}));
        self.token(ATTACKER, &self.issuer.sign("b", &json!({"alg": "ES256", "kid": "a"}), &claims))
    }

    /// Signed anew each time, for this path.
    fn signed(&self, client: &str, keyid: &str, path: &str, signer: &Signer) -> Request {
        let signature = Signature::by(keyid).cover("@method", "GET").cover("@path", path);
        signature.on(self.gateway.get("/signed").header("X-Forwarded-For", client), signer)
    }

    fn count(&self, authenticator: &str, reason: &str) -> usize {
        let labels = [("authenticator", authenticator), ("reason", reason)];
        self.gateway.metric("tollgate_auth_total", &labels) as usize
    }

    /// Sends `bad` so often, and holds that few of them were looked at.
    #[track_caller]
    fn check_few_are_verified(
        &self,
        authenticator: &str,
        bad: &Request,
        most: usize,
        times: usize,
    ) {
        let began = Instant::now();
        fail(&self.gateway, bad, times);
        let seconds = began.elapsed().as_secs() as usize + 1;
        let (wrong, busy) =
            (|| self.count(authenticator, "wrong"), || self.count(authenticator, "busy"));
        wait_until("all are counted", || wrong() + busy() == times);
        // The estimate of a second may forget a part of the one before.
        let bound = 2 * most * (seconds + 1);
        assert!(wrong() <= bound, "{} of {times} were verified in {seconds} s", wrong());
    }
}

#[test]
fn a_flood_of_forged_tokens_is_not_verified() {
    let it = Scene::new("5");
    let known = it.token(ATTACKER, &it.issuer.token("a"));
    assert_eq!(known.status(), 200);
    it.check_few_are_verified("corp", &it.forged(), 5, 400);
    let turned_away = AtomicUsize::new(0);
    wait_until("a good token that nobody knows yet is not verified", || {
        fail(&it.gateway, &it.forged(), 20);
        // What is known is known, also behind this address, and another address is another.
        assert_eq!(known.status(), 200);
        assert_eq!(it.token(ELSEWHERE, &it.issuer.token("a")).status(), 200);
        let response = it.token(ATTACKER, &it.issuer.token("a")).send();
        if matches!(response.status, 429 | 503) {
            assert_eq!(response.header("retry-after"), Some("1"));
            turned_away.fetch_add(1, Ordering::Relaxed);
        }
        turned_away.load(Ordering::Relaxed) > 0
    });
    wait_until("it is over", || it.token(ATTACKER, &it.issuer.token("a")).status() == 200);
}

#[test]
fn a_flood_of_forged_signatures_is_not_verified() {
    let it = Scene::new("5");
    let good = |client: &str| it.signed(client, "public", "/signed", &it.signer).status();
    assert_eq!(good(ATTACKER), 200);
    let forged = it.signed(ATTACKER, "public", "/other", &it.signer);
    it.check_few_are_verified("signed", &forged, 5, 400);
    let shared = Signer::Hmac("what acme and the gateway both know, and nobody else".to_owned());
    wait_until("a good signature is not verified", || {
        fail(&it.gateway, &it.signed(ATTACKER, "public", "/other", &it.signer), 20);
        assert_eq!(good(ELSEWHERE), 200);
        // A shared secret costs as little as any refusal.
        assert_eq!(it.signed(ATTACKER, "shared", "/signed", &shared).status(), 200);
        matches!(good(ATTACKER), 429 | 503)
    });
    wait_until("it is over", || good(ATTACKER) == 200);
}

/// What costs nothing to refuse keeps no neighbour from being verified.
#[test]
fn cheap_failures_do_not_keep_signatures_from_being_verified() {
    let it = Scene::new("0");
    let missing = it.gateway.get("/tokens").header("X-Forwarded-For", ATTACKER);
    let unknown =
        it.issuer.sign("a", &json!({"alg": "ES256", "kid": "c"}), &it.issuer.claims(json!({})));
    for bad in [missing, it.token(ATTACKER, &unknown)] {
        fail(&it.gateway, &bad, 500);
        assert_eq!(it.token(ATTACKER, &it.issuer.token("a")).status(), 200);
        assert_eq!(it.signed(ATTACKER, "public", "/signed", &it.signer).status(), 200);
    }
}

/// The bound on signatures holds where `auth_failures` asks for none, or for a high one.
#[test]
fn there_is_a_bound_on_signatures_by_default() {
    let it = Scene::new("0");
    it.check_few_are_verified("corp", &it.forged(), 100, 2_000);
    assert_eq!(it.token(ELSEWHERE, &it.issuer.token("a")).status(), 200);
    assert_eq!(it.upstream.count(), 1);
}
