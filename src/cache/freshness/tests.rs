use http::HeaderName;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn date(offset: i64) -> String {
    let at = NOW.as_secs().checked_add_signed(offset).unwrap();
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        // `@60` is a date a minute from now.
        let value = value
            .strip_prefix('@')
            .map_or_else(|| (*value).to_owned(), |offset| date(offset.parse().unwrap()));
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(&value).unwrap());
    }
    map
}

fn rule() -> Rule {
    Rule {
        ttl: None,
        query: None,
        per_consumer: false,
        stale_while_revalidate: Duration::from_secs(7),
        stale_if_error: Duration::from_secs(8),
        max_body: 1000,
        store_set_cookie: false,
        tag_header: None,
        fingerprint: [0; 16],
    }
}

fn judged(
    rule: &Rule,
    status: u16,
    lines: &[(&str, &str)],
    is_authorized: bool,
) -> Result<Lifetime, Refusal> {
    let headers = headers(lines);
    let status = StatusCode::from_u16(status).unwrap();
    judge(
        rule,
        &Response { status, headers: &headers, is_authorized, asked: now(), answered: now() },
    )
}

/// Seconds that are left, from the answer on.
fn left(lines: &[(&str, &str)]) -> Result<i64, Refusal> {
    judged(&rule(), 200, lines, false).map(|it| match it.fresh_until.duration_since(now()) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap() + 1,
        Err(stale) => -i64::try_from(stale.duration().as_secs()).unwrap(),
    })
}

#[test]
fn the_lifetime_is_what_the_origin_says() {
    let check = |lines: &[(&str, &str)], expected: Result<i64, Refusal>| {
        assert_eq!(left(lines), expected, "{lines:?}");
    };
    check(&[("cache-control", "max-age=60")], Ok(60));
    check(&[("cache-control", "max-age=60, s-maxage=90")], Ok(90));
    check(&[("cache-control", "s-maxage=0, max-age=60")], Ok(-1));
    check(&[("cache-control", "max-age=60"), ("expires", "@5")], Ok(60));
    check(&[("expires", "@60"), ("date", "@0")], Ok(60));
    check(&[("expires", "@60"), ("date", "@-10")], Ok(60));
    check(&[("expires", "0")], Ok(-1));
    check(&[("expires", "@-5"), ("date", "@0")], Ok(-1));
    check(&[("cache-control", "max-age=60"), ("age", "20")], Ok(40));
    check(&[("cache-control", "max-age=60"), ("date", "@-30")], Ok(30));
    check(&[("cache-control", "max-age=60"), ("date", "@-30"), ("age", "50")], Ok(10));
    check(&[("cache-control", "max-age=60"), ("age", "90")], Ok(-30));
    for old in ["junk", "-1", "1.5", "1;a=b", "", "90, 0", "0, 0", "99999999999999999999"] {
        assert!(left(&[("cache-control", "max-age=60"), ("age", old)]).unwrap() < 0, "{old}");
    }
    assert!(left(&[("cache-control", "max-age=60"), ("age", "0"), ("age", "0")]).unwrap() < 0);
    check(&[("cache-control", "max-age=60, no-cache")], Ok(-1));
    check(&[("cache-control", "no-cache=\"x-a\", max-age=60")], Ok(60));
    check(&[("last-modified", "@-1000"), ("date", "@0")], Ok(100));
    check(&[("last-modified", "@-100000000"), ("date", "@0")], Ok(86_400));
    check(&[], Err(Refusal::NoLifetime));
    check(&[("etag", "\"1\"")], Ok(-1));
}

#[test]
fn what_may_not_be_kept_is_not() {
    let fresh = ("cache-control", "max-age=60");
    let check = |status: u16, lines: &[(&str, &str)], expected: Option<Refusal>| {
        assert_eq!(judged(&rule(), status, lines, false).err(), expected, "{status} {lines:?}");
    };
    check(200, &[fresh], None);
    check(404, &[fresh], None);
    check(500, &[fresh], None);
    check(200, &[("cache-control", "max-age=60, no-store")], Some(Refusal::NoStore));
    check(200, &[("cache-control", "private, max-age=60")], Some(Refusal::Private));
    check(200, &[("cache-control", "private=\"x-a\", max-age=60")], None);
    check(206, &[fresh], Some(Refusal::Status));
    check(304, &[fresh], Some(Refusal::Status));
    check(401, &[fresh], Some(Refusal::Status));
    check(429, &[fresh], Some(Refusal::Status));
    check(599, &[("last-modified", "@-1000")], Some(Refusal::Status));
    check(599, &[("last-modified", "@-1000"), ("cache-control", "public")], None);
    check(200, &[("cache-control", "no-store, must-understand, max-age=60")], None);
    check(299, &[("cache-control", "must-understand, max-age=60")], Some(Refusal::Status));
    check(200, &[fresh, ("vary", "*")], Some(Refusal::Vary));
    check(200, &[fresh, ("vary", "accept")], None);
    check(200, &[fresh, ("set-cookie", "a=b")], Some(Refusal::SetCookie));
    check(
        200,
        &[("cache-control", "max-age=60, private=\"Set-Cookie\""), ("set-cookie", "a")],
        None,
    );
    check(200, &[fresh, ("content-length", "1001")], Some(Refusal::TooLarge));
    check(200, &[fresh, ("x-big", &"a".repeat(70_000))], Some(Refusal::TooLarge));
}

#[test]
fn what_was_asked_with_a_credential_is_for_others_only_if_it_says_so() {
    let check = |control: &str, is_kept: bool| {
        let judged = judged(&rule(), 200, &[("cache-control", control)], true);
        assert_eq!(judged.is_ok(), is_kept, "{control}");
    };
    check("max-age=60", false);
    check("max-age=60, public", true);
    check("max-age=60, must-revalidate", true);
    check("s-maxage=60", true);
    let own = Rule { per_consumer: true, ..rule() };
    assert!(judged(&own, 200, &[("cache-control", "max-age=60")], true).is_ok());
    assert!(judged(&own, 200, &[("cache-control", "private, max-age=60")], true).is_err());
}

#[test]
fn the_rule_speaks_where_the_origin_is_silent() {
    let ruled = Rule { ttl: Some(Duration::from_secs(30)), ..rule() };
    let check = |lines: &[(&str, &str)], expected: u64| {
        let lifetime = judged(&ruled, 200, lines, false).unwrap();
        let left = lifetime.fresh_until.duration_since(now()).unwrap_or_default();
        assert_eq!(left.as_secs(), expected - 1, "{lines:?}");
    };
    check(&[], 30);
    check(&[("cache-control", "max-age=5")], 5);
    check(&[("last-modified", "@-100000")], 30);
    assert_eq!(judged(&ruled, 500, &[], false).err(), Some(Refusal::Status));
}

#[test]
fn stale_ones_are_served_as_the_origin_or_the_rule_says() {
    let check = |control: &str, expected: (u64, u64)| {
        let it = judged(&rule(), 200, &[("cache-control", control)], false).unwrap();
        let stale = (it.stale_while_revalidate.as_secs(), it.stale_if_error.as_secs());
        assert_eq!(stale, expected, "{control}");
    };
    check("max-age=1", (7, 8));
    check("max-age=1, stale-while-revalidate=3, stale-if-error=4", (3, 4));
    check("max-age=1, must-revalidate, stale-if-error=4", (0, 0));
    check("max-age=1, proxy-revalidate", (0, 0));
    check("s-maxage=1", (0, 0));
    check("no-cache", (0, 0));
}

#[test]
fn a_request_may_ask_for_more_or_less_than_fresh() {
    let check = |control: &str, stored: &str, age: u64, lifetime: i64, expected: Use| {
        let request = control::Request::read(&headers(&[("cache-control", control)]));
        let response = headers(&[("cache-control", stored)]);
        let fresh_until = NOW.as_secs().checked_add_signed(lifetime).unwrap();
        let stored = Stored {
            headers: &response,
            epoch: now() - Duration::from_secs(age),
            fresh_until: SystemTime::UNIX_EPOCH + Duration::from_secs(fresh_until),
        };
        assert_eq!(choose(&request, &stored, now()), expected, "{control}");
    };
    check("x", "", 10, 50, Use::Fresh);
    check("x", "", 10, -5, Use::Ask);
    check("no-cache", "", 10, 50, Use::Insist);
    check("max-age=10", "", 10, 50, Use::Fresh);
    check("max-age=9", "", 10, 50, Use::Insist);
    check("max-age=0", "", 1, 50, Use::Insist);
    check("min-fresh=50", "", 10, 50, Use::Fresh);
    check("min-fresh=51", "", 10, 50, Use::Insist);
    check("max-stale=5", "", 10, -5, Use::Stale);
    check("max-stale=4", "", 10, -5, Use::Ask);
    check("max-stale", "", 10, -500, Use::Stale);
    check("max-stale", "must-revalidate", 10, -500, Use::Ask);
    check("max-stale", "s-maxage=1", 10, -500, Use::Ask);
}
