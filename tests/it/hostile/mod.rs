//! What attackers send in the place of a credential: each line of these tables goes over the wire to
//! the real binary, gets the answer that it says, and nothing of it reaches the upstream.
mod api_key;
mod basic;
mod external;
mod introspection;
mod jwt;
mod measure;
mod mtls;
mod oidc;
mod signature;
mod timing;

use serde_json::Value;

use crate::support::{Gateway, Request, Upstream, wait_until};

/// One line of a table. `S` is what its credential is made of.
pub struct Case<S: 'static> {
    pub what: &'static str,
    pub request: fn(&S) -> Request,
    pub status: u16,
    pub code: &'static str,
    /// What the log says, or begins with; empty where a head was refused before it was a request.
    pub cause: &'static str,
}

/// A line of a table that is refused with 401 `credential_invalid`.
pub const fn bad<S>(
    what: &'static str,
    cause: &'static str,
    request: fn(&S) -> Request,
) -> Case<S> {
    Case { what, request, status: 401, code: "credential_invalid", cause }
}

/// One that holds nothing which the method takes for a credential.
pub const fn none<S>(what: &'static str, request: fn(&S) -> Request) -> Case<S> {
    Case { what, request, status: 401, code: "credential_required", cause: "" }
}

/// One that is not HTTP.
pub const fn no_http<S>(what: &'static str, request: fn(&S) -> Request) -> Case<S> {
    Case { what, request, status: 400, code: "request_malformed", cause: "" }
}

/// A gateway that believes the tests about where they come from: an address that keeps failing is
/// treated otherwise, so each line comes from one of its own.
pub trait Scene {
    fn gateway(&self) -> &Gateway;
    fn upstream(&self) -> &Upstream;
    /// A request that passes.
    fn good(&self) -> Request;
    /// A request without a credential.
    fn plain(&self) -> Request;
}

/// What a configuration needs for [`Scene`].
pub const TRUSTING: &str = "server: {workers: 2, trusted_proxies: [127.0.0.1/32]}\n";

fn from_its_own_address(request: Request, number: usize) -> Request {
    request.header("X-Forwarded-For", &format!("198.18.{}.{}", number / 250, number % 250 + 1))
}

/// Sends each line and holds its answer, its line in the log, and that the upstream saw nothing.
#[track_caller]
pub fn hold<S: Scene>(scene: &S, cases: &[Case<S>]) {
    let mut wrong = Vec::new();
    let mut ids = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let request = from_its_own_address((case.request)(scene), number);
        let answer = match request.try_send() {
            Ok(answer) => answer,
            Err(why) => {
                wrong.push(format!("{}: {why}", case.what));
                continue;
            }
        };
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default().to_owned();
        if (answer.status, &*code) != (case.status, case.code) {
            let wanted = format!("{} {}", case.status, case.code);
            wrong.push(format!("{}: {} {code} instead of {wanted}", case.what, answer.status));
        }
        // RFC 9110 section 11.6.1.
        if answer.status == 401 && answer.headers.all("www-authenticate").is_empty() {
            wrong.push(format!("{}: 401 without a challenge", case.what));
        }
        if scene.upstream().count() > 0 {
            let seen = String::from_utf8_lossy(&scene.upstream().last().raw).into_owned();
            panic!("{}: the upstream saw {seen}", case.what);
        }
        ids.push((case, problem["request_id"].as_str().unwrap_or_default().to_owned()));
    }
    let log = |id: &str| {
        let lines = scene.gateway().access_log(1);
        lines.into_iter().find(|it| it["request_id"] == id)
    };
    let logged = |(case, id): &&(&Case<S>, String)| !case.cause.is_empty() && !id.is_empty();
    for (case, id) in ids.iter().filter(logged) {
        wait_until("the line is in the log", || log(id).is_some());
        let line = log(id).unwrap_or_default();
        let cause = line["cause"].as_str().unwrap_or_default();
        if !cause.starts_with(case.cause) {
            wrong.push(format!("{}: the log says {cause:?}, not {:?}", case.what, case.cause));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // It was not refused for another reason than the one that the line is about.
    assert_eq!(scene.good().status(), 200, "what is good passes no more");
    assert_eq!(scene.upstream().count(), 1);
    measure::table(scene, cases);
}

#[test]
fn there_are_at_least_120_hostile_lines() {
    let counts = [
        api_key::CASES.len(),
        basic::CASES.len(),
        external::CASES.len(),
        introspection::CASES.len(),
        jwt::CASES.len(),
        mtls::CASES.len(),
        oidc::CASES.len(),
        signature::CASES.len(),
    ];
    assert!(counts.iter().sum::<usize>() >= 120, "{counts:?}");
}
