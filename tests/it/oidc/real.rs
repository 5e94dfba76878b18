//! The same against a real authorization server.
use super::*;
use crate::support::{Provider, Request, Visitor, wait_until};

const REAL: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  staff:
    oidc: {issuer: $ISSUER, client_id: portal, client_secret: portal-secret, scopes: [openid, email, groups, offline_access],
           parameters: {prompt: consent}, post_logout_redirect: /bye}
routes:
  - {id: app, match: {paths: [/*]}, auth: [staff], upstream: up}
  - {id: bye, match: {paths: [/bye]}, public: true, respond: {status: 200, body: bye}}
";

#[track_caller]
fn real(provider: &Provider, upstream: &Upstream) -> Gateway {
    let variables = [("UP", upstream.url()), ("ISSUER", provider.issuer())];
    let gateway =
        Gateway::start(REAL, &variables.each_ref().map(|(name, it)| (*name, it.as_str())));
    wait_for_provider(&gateway, "/");
    gateway
}

#[test]
fn two_tabs_log_in_at_a_real_provider_and_out_again() {
    let Some(provider) = Provider::start() else { return };
    let upstream = Upstream::saying("ok");
    let gateway = real(&provider, &upstream);
    let (mut browser, mut visitor) = (Browser::new(), Visitor::default());
    let (one, two) = (browser.sent(&gateway, "/one"), browser.sent(&gateway, "/two?a=b"));
    for (url, target) in [(one, "/one"), (two, "/two?a=b")] {
        let back = provider.follow(&mut visitor, &url);
        let response = browser.come_back(&gateway, &back);
        assert_eq!(response.header("location"), Some(target), "{response:?}");
        assert_eq!(browser.open(&gateway, target).status, 200);
        assert_eq!(upstream.last().header("x-credential-identifier"), Some("alice"));
    }
    let scope = upstream.last().header("x-authenticated-scope").unwrap().to_owned();
    assert!(scope.split(' ').any(|it| it == "offline_access"), "{scope}");

    let response = browser.open(&gateway, "/oauth/logout");
    let url = response.header("location").unwrap();
    let target = url.strip_prefix(&provider.issuer()).unwrap();
    let ask = |method: &str, target: &str, visitor: &Visitor, form: &str| {
        Request::new(provider.address, method, target)
            .header("Cookie", &visitor.cookies())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
    };
    let page = ask("GET", target, &visitor, "");
    assert_eq!(page.status, 200, "{page:?}");
    visitor.keep(&page);
    let text = page.text();
    let xsrf = text.split("name=\"xsrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("xsrf={xsrf}&logout=yes");
    let done = ask("POST", "/session/end/confirm", &visitor, &form);
    let location = done.header("location").unwrap_or_else(|| panic!("{done:?}"));
    assert_eq!(location, format!("http://{}/bye", gateway.address));
    visitor.keep(&done);
    assert_eq!(browser.open(&gateway, "/bye").status, 200);
    assert_eq!(browser.open(&gateway, "/one").status, 302);
}

#[test]
fn tokens_of_a_real_provider_are_renewed() {
    let Some(provider) = Provider::start() else { return };
    provider.set_lifetime(6);
    let upstream = Upstream::saying("ok");
    let gateway = real(&provider, &upstream);
    let (mut browser, mut visitor) = (Browser::new(), Visitor::default());
    browser.log_in(&gateway, "/", |url| provider.follow(&mut visitor, url));
    let old = browser.cookies["tollgate-staff"].clone();
    // Keys may rotate under it.
    provider.set_keys(&["first", "second"]);
    for _ in 0..2 {
        let asked = provider.count("/token");
        wait_until("a renewal", || {
            assert_eq!(browser.fetch(&gateway, "/").status, 200);
            provider.count("/token") > asked
        });
    }
    assert_ne!(browser.cookies["tollgate-staff"], old);
    assert_eq!(upstream.last().header("x-credential-identifier"), Some("alice"));
}

#[test]
fn a_session_outlives_a_real_provider() {
    let Some(provider) = Provider::start() else { return };
    provider.set_lifetime(6);
    let upstream = Upstream::saying("ok");
    let gateway = real(&provider, &upstream);
    let (mut browser, mut visitor) = (Browser::new(), Visitor::default());
    browser.log_in(&gateway, "/", |url| provider.follow(&mut visitor, url));
    for mode in ["error", "up"] {
        provider.set_mode(mode);
        let asked = provider.count("/token");
        if mode == "error" {
            wait_until("a renewal is tried", || {
                assert_eq!(browser.fetch(&gateway, "/").status, 200);
                provider.count("/token") > asked
            });
        }
        assert_eq!(browser.fetch(&gateway, "/").status, 200);
    }
    drop(provider);
    assert_eq!(browser.fetch(&gateway, "/").status, 200);
    assert_eq!(browser.open(&gateway, "/").status, 200);
}

#[test]
fn a_real_providers_no_is_a_problem() {
    let Some(provider) = Provider::start() else { return };
    provider.set_login("");
    let upstream = Upstream::saying("ok");
    let gateway = real(&provider, &upstream);
    let (mut browser, mut visitor) = (Browser::new(), Visitor::default());
    let back = provider.follow(&mut visitor, &browser.sent(&gateway, "/"));
    assert!(back.contains("error=access_denied") && back.contains("iss="), "{back}");
    browser.come_back(&gateway, &back).assert_problem(400, "login_failed");
}
