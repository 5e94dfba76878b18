//! Sessions whose tokens end before they do.
use std::thread;

use super::*;
use crate::support::wait_until;

/// A browser that is in, with tokens that want to be renewed within a second or two.
#[track_caller]
fn short_lived(gateway: &Gateway, fake: &Fake, lifetime: u64) -> Browser {
    fake.script(Script { lifetime: Some(lifetime), ..Script::default() });
    let mut browser = Browser::new();
    browser.log_in(gateway, "/", |url| fake.answer(url, "alice"));
    browser
}

#[test]
fn tabs_share_one_renewal() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = short_lived(&gateway, &fake, 6);
    let old = browser.clone();
    fake.script(Script::default());
    wait_until("a renewal", || {
        assert_eq!(browser.fetch(&gateway, "/").status, 200);
        browser.cookies["tollgate-staff"] != old.cookies["tollgate-staff"]
    });
    assert_eq!(fake.asked(), 2);
    // Seven more, that were on their way with the old cookie.
    let answers: Vec<_> = thread::scope(|scope| {
        let tabs: Vec<_> =
            (0..7).map(|_| scope.spawn(|| old.clone().fetch(&gateway, "/"))).collect();
        tabs.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for response in answers {
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("cache-control"), Some("private"));
        assert_eq!(response.headers.all("set-cookie").len(), 1);
    }
    assert_eq!(fake.asked(), 2);
    fake.assert_content();
    // With the new one nothing is due.
    let response = browser.fetch(&gateway, "/");
    assert!(response.headers.all("set-cookie").is_empty(), "{response:?}");
    assert_eq!(upstream.last().header("x-credential-identifier"), Some("alice"));
}

#[test]
fn a_renewal_that_is_refused_ends_the_session_with_its_tokens() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = short_lived(&gateway, &fake, 2);
    fake.script(Script { refuses_refresh: true, ..Script::default() });
    wait_until("the end of the tokens", || browser.fetch(&gateway, "/").status == 401);
    assert_eq!(browser.open(&gateway, "/").status, 302);
    assert_eq!(fake.asked(), 2);
}

/// Whoever was logged out at the provider makes their own address fail: that is no outage.
#[test]
fn a_session_that_was_revoked_ends_at_an_address_that_keeps_failing_too() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "on_outage: allow");
    let mut revoked = short_lived(&gateway, &fake, 1);
    let mut neighbour = short_lived(&gateway, &fake, 1);
    let until = fake::unix() + 2;
    wait_until("the tokens end", || fake::unix() > until);
    let fail = || {
        let mut connection = gateway.connect();
        let missing = gateway.get("/");
        (0..60).for_each(|_| assert_eq!(connection.send(&missing).unwrap().status, 401));
    };
    fail();
    // A neighbour whose login is good is renewed all the same.
    fake.script(Script::default());
    assert_eq!(neighbour.fetch(&gateway, "/").status, 200);
    fake.script(Script { refuses_refresh: true, ..Script::default() });
    fail();
    let asked = fake.asked();
    assert_eq!(revoked.fetch(&gateway, "/").status, 401);
    assert_eq!(revoked.fetch(&gateway, "/").status, 401);
    assert_eq!(fake.asked(), asked + 1, "one question for one session");
    assert_eq!(neighbour.fetch(&gateway, "/").status, 200);
}

#[test]
fn a_renewal_of_somebody_else_ends_the_session() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = short_lived(&gateway, &fake, 2);
    fake.script(Script { claims: [("sub", "mallory".into())].into(), ..Script::default() });
    wait_until("the end of the session", || browser.fetch(&gateway, "/").status == 401);
    assert!(
        upstream.requests().iter().all(|it| it.header("x-credential-identifier") == Some("alice"))
    );
}

#[test]
fn a_session_goes_on_while_the_provider_is_down() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = short_lived(&gateway, &fake, 2);
    let old = browser.cookies["tollgate-staff"].clone();
    fake.script(Script { instead: Some((503, "")), ..Script::default() });
    let asked = fake.asked();
    wait_until("a renewal is tried", || {
        assert_eq!(browser.fetch(&gateway, "/").status, 200);
        fake.asked() > asked
    });
    for _ in 0..20 {
        assert_eq!(browser.fetch(&gateway, "/").status, 200);
    }
    // It is left alone for a while, by every session.
    assert_eq!(fake.asked(), asked + 1);
    assert_eq!(browser.cookies["tollgate-staff"], old);
    // A login begins with what is known, and cannot end.
    let mut other = Browser::new();
    let back = fake.answer(&other.sent(&gateway, "/"), "bob");
    let response = other.come_back(&gateway, &back);
    response.assert_problem(503, "authenticator_unavailable");
    assert!(response.header("retry-after").is_some());
}

#[test]
fn an_outage_ends_sessions_where_that_is_asked_for() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "on_outage: deny");
    let mut browser = short_lived(&gateway, &fake, 2);
    fake.script(Script { instead: Some((503, "")), ..Script::default() });
    wait_until("the end of the tokens", || browser.fetch(&gateway, "/").status == 503);
    browser.open(&gateway, "/").assert_problem(503, "authenticator_unavailable");
}

#[test]
fn without_a_refresh_token_a_session_lasts_as_long_as_it_says() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let answer = [("refresh_token", serde_json::Value::Null)].into();
    fake.script(Script { lifetime: Some(1), answer, ..Script::default() });
    let mut browser = Browser::new();
    let until = fake::unix() + 2;
    browser.log_in(&gateway, "/", |url| fake.answer(url, "alice"));
    wait_until("the end of the tokens", || fake::unix() > until);
    assert_eq!(browser.fetch(&gateway, "/").status, 200);
    assert_eq!(fake.asked(), 1);
}
