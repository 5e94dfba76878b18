//! Logging in, being in, logging out.
use super::*;

#[test]
fn a_browser_logs_in_and_the_upstream_hears_who_it_is() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    browser.cookies.insert("theme".into(), ("dark".into(), "/".into()));
    browser.log_in(&gateway, "/a?b=c", |url| fake.answer(url, "alice"));
    let seen = upstream.last();
    assert_eq!(seen.target, "/a?b=c");
    assert_eq!(seen.header("x-credential-identifier"), Some("alice"));
    assert_eq!(seen.header("x-authenticated-scope"), Some("openid email"));
    assert_eq!(seen.header("x-consumer-username"), None);
    assert_eq!(seen.header("cookie"), Some("theme=dark"));
    // Nor do they reach the upstream of a public route.
    assert_eq!(browser.open(&gateway, "/bye").status, 200);
    assert_eq!(upstream.last().header("cookie"), Some("theme=dark"));
    // A script of the page is in as well.
    assert_eq!(browser.fetch(&gateway, "/api").status, 200);
    assert_eq!(browser.values("flow"), [""; 0]);
    fake.assert_content();
    assert_eq!(fake.asked(), 1);
}

#[test]
fn a_subject_is_a_consumer_where_one_has_it() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "consumer: {claim: sub, unknown: deny}");
    let mut browser = Browser::new();
    browser.log_in(&gateway, "/a", |url| fake.answer(url, "carol"));
    let seen = upstream.last();
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!(seen.header("x-consumer-groups"), Some("partners"));
    // Somebody else gets no session, and is not sent round and round.
    let mut browser = Browser::new();
    let back = fake.answer(&browser.sent(&gateway, "/a"), "alice");
    browser.come_back(&gateway, &back).assert_problem(403, "access_denied");
    assert_eq!(browser.cookies.len(), 0, "{browser:?}");
}

#[test]
fn two_tabs_log_in_side_by_side() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    let (one, two) = (browser.sent(&gateway, "/one"), browser.sent(&gateway, "/two"));
    assert_eq!(browser.values("flow").len(), 2);
    for (url, target) in [(two, "/two"), (one, "/one")] {
        let back = fake.answer(&url, "alice");
        let response = browser.come_back(&gateway, &back);
        assert_eq!(response.header("location"), Some(target), "{response:?}");
        assert_eq!(browser.open(&gateway, target).status, 200);
    }
    assert_eq!(browser.values("flow").len(), 0);
    fake.assert_content();
}

#[test]
fn scripts_and_forms_are_refused_and_not_redirected() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let html = "text/html";
    for request in [
        gateway.get("/a"),
        gateway.get("/a").header("Accept", "*/*"),
        gateway.get("/a").header("Accept", "application/json"),
        gateway.get("/a").header("Accept", html).header("Sec-Fetch-Mode", "cors"),
        gateway.get("/a").header("Accept", html).header("X-Requested-With", "XMLHttpRequest"),
        gateway.request("POST", "/a").header("Accept", html).body("a=b"),
    ] {
        let response = request.send();
        response.assert_problem(401, "credential_required");
        assert_eq!(
            response.headers.all("www-authenticate"),
            ["Cookie realm=\"tollgate\"", "Bearer realm=\"tollgate\""]
        );
        assert!(response.headers.all("set-cookie").is_empty());
    }
    // Other credentials of the route work as ever, beside cookies that are no session.
    let request = gateway.get("/a").header("X-API-Key", &key("a"));
    assert_eq!(request.header("Cookie", "tollgate-staff=1.x").status(), 200);
    assert_eq!(upstream.last().header("cookie"), None);
    let wrong = gateway.get("/a").header("Accept", html).header("X-API-Key", "tg_wrong");
    wrong.send().assert_problem(401, "credential_invalid");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn cookies_that_are_no_session_are_a_new_login() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    browser.log_in(&gateway, "/", |url| fake.answer(url, "alice"));
    let good = browser.cookies["tollgate-staff"].0.clone();
    let half = good[..good.len() / 2].to_owned();
    let last =
        format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
    for value in
        ["", "1.", "2.x", "x", "\"\"", "%00", &half, &last, &good[2..], &"1.A".repeat(1000)]
    {
        let mut other = browser.clone();
        other.cookies.get_mut("tollgate-staff").unwrap().0 = value.to_owned();
        assert_eq!(other.open(&gateway, "/").status, 302, "{value}");
        other.fetch(&gateway, "/").assert_problem(401, "credential_required");
    }
    assert_eq!(browser.open(&gateway, "/").status, 200);
}

#[test]
fn a_callback_counts_once_and_for_its_own_browser() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    let mut thief = browser.clone();
    let back = fake.answer(&browser.sent(&gateway, "/a"), "alice");
    // A link with an answer of one's own must not log somebody else in (login CSRF).
    thief.come_back(&gateway, &back).assert_problem(400, "login_failed");
    let copy = browser.clone();
    assert_eq!(browser.come_back(&gateway, &back).status, 302);
    browser.clone().come_back(&gateway, &back).assert_problem(400, "login_failed");
    copy.clone().come_back(&gateway, &back).assert_problem(400, "login_failed");
    assert_eq!(fake.asked(), 1);
}

#[test]
fn each_login_is_a_session_of_its_own() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let who = || upstream.last().header("x-credential-identifier").map(str::to_owned);
    let mut planted = Browser::new();
    planted.log_in(&gateway, "/a", |url| fake.answer(url, "mallory"));
    // A login that began before somebody planted a session ends as the one who logged in.
    let mut browser = Browser::new();
    let back = fake.answer(&browser.sent(&gateway, "/a"), "alice");
    browser.cookies.extend(planted.cookies.clone());
    assert_eq!(browser.come_back(&gateway, &back).status, 302);
    assert_eq!(browser.open(&gateway, "/a").status, 200);
    assert_eq!(who().as_deref(), Some("alice"));
    // And the planted one gains nothing by it.
    assert_eq!(planted.open(&gateway, "/a").status, 200);
    assert_eq!(who().as_deref(), Some("mallory"));
    // Two sessions of one person have nothing to do with each other.
    let mut other = Browser::new();
    other.log_in(&gateway, "/a", |url| fake.answer(url, "alice"));
    let copy = other.clone();
    assert_eq!(other.open(&gateway, "/oauth/logout").status, 302);
    assert_eq!(copy.clone().fetch(&gateway, "/a").status, 401);
    assert_eq!(browser.fetch(&gateway, "/a").status, 200);
}

#[test]
fn the_providers_no_is_told_in_our_words() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    let url = browser.sent(&gateway, "/a");
    let state = url.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let evil = "%3Cscript%3Ealert(1)%3C/script%3E";
    let target =
        format!("/oauth/callback?error=access_denied&error_description={evil}&state={state}");
    let response = browser.open(&gateway, &target);
    response.assert_problem(400, "login_failed");
    assert!(!response.text().contains("script"), "{}", response.text());
    assert_eq!(browser.values("flow").len(), 0);
    let log = gateway.access_log(3);
    let line = log.iter().find(|it| it["path"] == "/oauth/callback").unwrap();
    assert_eq!(line["cause"], "denied: the provider says: access_denied");
    assert_eq!((&line["query"], &line["route"]), (&"…".into(), &"oidc:staff".into()));
}

#[test]
fn a_logout_is_for_good() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    browser.log_in(&gateway, "/a", |url| fake.answer(url, "alice"));
    assert!(!browser.line("/a").contains(".hint"));
    let copy = browser.clone();
    let foreign = gateway.get("/oauth/logout").header("Sec-Fetch-Site", "cross-site");
    browser.send(foreign, "/oauth/logout").assert_problem(403, "access_denied");
    assert_eq!(browser.open(&gateway, "/a").status, 200);
    let posted = gateway.request("POST", "/oauth/logout").header("Sec-Fetch-Site", "same-origin");
    let response = browser.send(posted, "/oauth/logout");
    assert_eq!(response.status, 303, "{response:?}");
    let location = response.header("location").unwrap();
    assert!(location.starts_with(&format!("{}/end?", fake.issuer())), "{location}");
    assert!(location.contains("id_token_hint=ey") && location.contains("%2Fbye"), "{location}");
    assert_eq!(browser.cookies.len(), 0, "{browser:?}");
    assert_eq!(browser.open(&gateway, "/a").status, 302);
    copy.clone().fetch(&gateway, "/a").assert_problem(401, "credential_required");
}

#[test]
fn a_session_is_good_on_other_nodes_and_after_a_restart() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let one = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    browser.log_in(&one, "/", |url| fake.answer(url, "alice"));
    drop(one);
    let two = gateway(&upstream, &fake, "");
    assert_eq!(browser.open(&two, "/").status, 200);
    // With another secret it is not, unless that one is named as the previous one.
    let changed = "secret: 'another secret of the tests, long enough for it'";
    let config = CONFIG.replace("secret: '$SEALING'", changed);
    let three = start(&config, &upstream, &fake, "");
    assert_eq!(browser.fetch(&three, "/").status, 401);
    let four = start(&config, &upstream, &fake, &format!("previous_secret: '{SEALING}'"));
    assert_eq!(browser.fetch(&four, "/").status, 200);
}

#[test]
fn without_a_secret_a_session_outlives_reloads() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let config = CONFIG.replace("      secret: '$SEALING'\n", "");
    let gateway = start(&config, &upstream, &fake, "");
    wait_for_provider(&gateway, "/");
    let mut browser = Browser::new();
    browser.log_in(&gateway, "/", |url| fake.answer(url, "alice"));
    gateway.reload_with(&config.replace("id: bye,", "id: goodbye,"));
    assert_eq!(browser.fetch(&gateway, "/").status, 200);
    // What is known of the provider is still known: the login needs no wait.
    assert_eq!(Browser::new().open(&gateway, "/").status, 302);
}

#[test]
fn a_session_is_its_authenticators_own() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let second = "
  admin:
    oidc: {issuer: $ISSUER, client_id: portal, client_secret: '$SECRET', secret: '$SEALING', cookie: tollgate-staff,
           callback: /admin/callback, logout: /admin/logout}
consumers:";
    let config = CONFIG.replace("\nconsumers:", second).replace(
        "\nroutes:",
        "\nroutes:\n  - {id: admin, match: {paths: [/admin/*]}, auth: [admin], upstream: up}",
    );
    let gateway = start(&config, &upstream, &fake, "");
    wait_for_provider(&gateway, "/");
    let mut browser = Browser::new();
    browser.log_in(&gateway, "/", |url| fake.answer(url, "alice"));
    assert_eq!(browser.fetch(&gateway, "/a").status, 200);
    browser.fetch(&gateway, "/admin/a").assert_problem(401, "credential_required");
}

#[test]
fn behind_a_proxy_that_ends_tls_cookies_are_secure() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let trusting = format!("server: {{workers: 2, trusted_proxies: [127.0.0.0/8]}}{CONFIG}");
    let gateway = start(&trusting, &upstream, &fake, "");
    wait_for_provider(&gateway, "/");
    let mut browser = Browser::by_https("portal.test");
    let url = browser.sent(&gateway, "/a");
    assert!(url.contains("redirect_uri=https%3A%2F%2Fportal.test%2Foauth%2Fcallback"), "{url}");
    let back = fake.answer(&url, "alice");
    assert_eq!(browser.come_back(&gateway, &back).status, 302);
    let names: Vec<&String> = browser.cookies.keys().collect();
    assert_eq!(names, ["__Host-tollgate-staff", "__Secure-tollgate-staff.hint"]);
    assert_eq!(browser.open(&gateway, "/a").status, 200);
    // In the clear there is no login, and whoever is not trusted cannot say otherwise.
    let plain = gateway.get("/a").host("portal.test").header("Accept", "text/html").send();
    plain.assert_problem(401, "credential_required");
    let gateway = super::gateway(&upstream, &fake, "");
    let mut browser = Browser::by_https("portal.test");
    browser.open(&gateway, "/a").assert_problem(401, "credential_required");
}

#[test]
fn a_login_has_its_own_paths_where_its_routes_are() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let config = CONFIG.replace(
        "{paths: [/*]}, auth",
        "{hosts: [portal.localhost, localhost], paths: [/app/*]}, auth",
    );
    let gateway = start(&config, &upstream, &fake, "");
    let status = |host: &str, target: &str| {
        gateway.get(target).host(host).header("Accept", "text/html").send().status
    };
    crate::support::wait_until("logins", || status("localhost", "/app/a") == 302);
    assert_eq!(status("localhost", "/oauth/callback"), 400);
    assert_eq!(status("localhost", "/oauth/callback/x"), 404);
    assert_eq!(status("other.test", "/oauth/callback"), 404);
    assert_eq!(status("other.test", "/app/a"), 404);
    let mut browser = Browser { host: Some("localhost".to_owned()), ..Browser::new() };
    browser.log_in(&gateway, "/app/a", |url| fake.answer(url, "alice"));
}

#[test]
fn a_route_that_only_reports_sends_nobody_away() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let reporting = "mode: report, upstream: up}\n  - {id: b";
    let config = CONFIG.replace("upstream: up}\n  - {id: b", reporting);
    let gateway = start(&config, &upstream, &fake, "");
    let mut browser = Browser::new();
    let is_known = || {
        // Its own paths are no question of the mode.
        let logout = gateway.get("/oauth/logout").send();
        logout.header("location").is_some_and(|it| it.starts_with(&fake.issuer()))
    };
    crate::support::wait_until("the gateway knows the provider", is_known);
    assert_eq!(browser.open(&gateway, "/a").status, 200);
    assert_eq!(browser.cookies.len(), 0, "{browser:?}");
    let missing = [("route", "app"), ("code", "credential_required")];
    crate::support::wait_until("the report is counted", || {
        gateway.metric("tollgate_reported_total", &missing) == 1.0
    });
}

#[test]
fn large_claims_are_split_over_cookies_or_refused() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let groups = |count: usize| {
        let groups: Vec<String> = (0..count).map(|it| format!("group-{it:05}")).collect();
        fake.script(Script { claims: [("groups", groups.into())].into(), ..Script::default() });
    };
    groups(500);
    let mut browser = Browser::new();
    browser.log_in(&gateway, "/", |url| fake.answer(url, "alice"));
    assert_eq!(browser.values("tollgate-staff").len(), 3, "{:?}", browser.cookies.keys());
    assert_eq!(upstream.last().header("cookie"), None);
    groups(1);
    // Parts of the larger one are taken back.
    let mut other = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
    other.cookies.get_mut("tollgate-staff").unwrap().0.truncate(9);
    other.log_in(&gateway, "/", |url| fake.answer(url, "alice"));
    assert_eq!(other.values("tollgate-staff").len(), 2, "{:?}", other.cookies.keys());
    // Still an ID token that is read, of 16 KiB at most.
    groups(790);
    let mut browser = Browser::new();
    let back = fake.answer(&browser.sent(&gateway, "/a"), "alice");
    browser.come_back(&gateway, &back).assert_problem(400, "login_failed");
    let said = || gateway.access_log(1).iter().any(|it| it.to_string().contains("fewer `claims`"));
    crate::support::wait_until("the log says why", said);
}

#[test]
fn nothing_secret_is_written_down() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let mut browser = Browser::new();
    let url = browser.sent(&gateway, "/a");
    let flow: Vec<String> = browser.values("flow").iter().map(|it| (*it).to_owned()).collect();
    let back = fake.answer(&url, "alice");
    browser.come_back(&gateway, &back);
    browser.come_back(&gateway, &back);
    browser.open(&gateway, "/a");
    let mut secrets = fake.secrets();
    assert!(secrets.len() >= 4, "{secrets:?}");
    secrets.extend(flow);
    secrets.extend(browser.cookies.values().map(|(value, _)| value.clone()));
    secrets.extend([SECRET.to_owned(), SEALING.to_owned()]);
    let log = gateway.access_log(5);
    let lines: String = log.iter().map(|it| format!("{it}\n")).collect();
    let sinks = [lines, gateway.said(), gateway.metrics(), gateway.status().to_string()];
    for sink in sinks {
        for secret in &secrets {
            assert!(!sink.contains(secret), "{secret} in {sink}");
        }
    }
}
