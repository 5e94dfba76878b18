//! Logins of browsers, against a provider that lies on demand and against a real one.
mod browser;
mod fake;
mod lies;
mod login;
mod real;
mod renewal;

use self::{
    browser::{Browser, wait_for_provider},
    fake::{Fake, SECRET, Script},
};
use crate::support::{Gateway, Upstream, hash_of, key};

/// Of the sessions; the same for each gateway of a test.
const SEALING: &str = "a sealing secret of the tests, of more than 32 characters";

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  staff:
    oidc:
      issuer: $ISSUER
      client_id: portal
      client_secret: '$SECRET'
      scopes: [openid, email]
      secret: '$SEALING'
      post_logout_redirect: /bye
      $MORE
consumers:
  acme: {groups: [partners], subjects: [carol], api_keys: [{id: a, hash: '$HASH'}]}
routes:
  - {id: app, match: {paths: [/*]}, auth: [staff, api_key], upstream: up}
  - {id: bye, match: {paths: [/bye]}, public: true, upstream: up}
";

/// A gateway whose `staff` log in at `fake`; `more` are further keys of the authenticator.
#[track_caller]
fn gateway(upstream: &Upstream, fake: &Fake, more: &str) -> Gateway {
    let gateway = start(CONFIG, upstream, fake, more);
    wait_for_provider(&gateway, "/");
    gateway
}

#[track_caller]
fn start(config: &str, upstream: &Upstream, fake: &Fake, more: &str) -> Gateway {
    let (up, issuer, hash) = (upstream.url(), fake.issuer(), hash_of(&key("a")));
    let variables = [
        ("UP", up.as_str()),
        ("ISSUER", &issuer),
        ("SECRET", SECRET),
        ("SEALING", SEALING),
        ("HASH", &hash),
        ("MORE", more),
    ];
    Gateway::start(config, &variables)
}
