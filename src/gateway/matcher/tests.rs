//! The rules of precedence one by one, and the matcher against a linear scan.
use std::cmp::Reverse;

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

/// `host path, path METHOD,METHOD Header:value ?name=value !priority`, each part optional.
fn spec(text: &str) -> Spec {
    let mut spec = Spec::default();
    for word in text.split_whitespace() {
        if let Some(priority) = word.strip_prefix('!') {
            spec.priority = priority.parse().unwrap();
        } else if let Some(query) = word.strip_prefix('?') {
            let (name, value) = query.split_once('=').unwrap();
            spec.query.push((name.into(), value.into()));
        } else if word.starts_with(['/', '~']) {
            spec.paths.push(PathPattern::parse(word).unwrap());
        } else if let Some((name, value)) = word.split_once(':') {
            spec.headers.push((name.parse().unwrap(), value.into()));
        } else if word.bytes().all(|it| it.is_ascii_uppercase()) {
            spec.methods.push(word.parse().unwrap());
        } else {
            spec.hosts.push(host::Pattern::parse(word).unwrap());
        }
    }
    spec
}

fn specs(texts: &[&str]) -> Vec<Spec> {
    texts.iter().map(|it| spec(it)).collect()
}

/// `METHOD host path?query Header:value`
fn ask<T>(text: &str, answer: impl FnOnce(&Request<'_>) -> T) -> T {
    let mut words = text.split_whitespace();
    let method: Method = words.next().unwrap().parse().unwrap();
    let host = words.next().filter(|it| *it != "-");
    let (path, query) = crate::value::path::split_target(words.next().unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in words.map(|it| it.split_once(':').unwrap()) {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    answer(&Request { host, path, query, method: &method, headers: &headers })
}

fn find(routes: &[&str], request: &str) -> Outcome {
    ask(request, |it| Matcher::compile(specs(routes)).find(it))
}

/// The route that answers, whatever their order in the file. `""` when none does.
fn check(routes: &[&str], request: &str, expected: &str) {
    let reversed: Vec<_> = routes.iter().rev().copied().collect();
    for routes in [routes, &*reversed] {
        let found = match find(routes, request) {
            Outcome::Found(route) => routes[route],
            Outcome::MethodNotAllowed(_) | Outcome::Unknown => "",
        };
        assert_eq!(found, expected, "{request} among {routes:?}");
    }
}

#[test]
fn a_prefix_covers_whole_segments_and_not_itself() {
    check(&["/orders/*"], "GET a.b /orders/", "/orders/*");
    check(&["/orders/*"], "GET a.b /orders/1/2", "/orders/*");
    check(&["/orders/*"], "GET a.b /orders", "");
    check(&["/orders/*"], "GET a.b /orders2/x", "");
    check(&["/orders", "/orders/*"], "GET a.b /orders", "/orders");
    check(&["/*"], "GET a.b /", "/*");
    check(&["/*"], "OPTIONS a.b *", "");
}

#[test]
fn the_longest_prefix_wins() {
    let routes = ["/*", "/a/*", "/a/b/*", "/a/b/c/d/*"];
    check(&routes, "GET - /a/b/c", "/a/b/*");
    check(&routes, "GET - /a/b/c/d/e/f", "/a/b/c/d/*");
    check(&routes, "GET - /a/b", "/a/*");
    check(&routes, "GET - /b", "/*");
}

#[test]
fn exact_then_prefix_then_regex_then_no_path() {
    check(&["/a/b", "/a/*", "~^/a", "GET"], "GET - /a/b", "/a/b");
    check(&["/*", "~^/a/b$", "GET"], "GET - /a/b", "/*");
    check(&["~^/a/b$", "GET"], "GET - /a/b", "~^/a/b$");
    check(&["~^/a/b$", "GET"], "GET - /a/c", "GET");
}

#[test]
fn the_host_goes_before_the_path() {
    let routes = ["api.a.b", "*.a.b /x", "*.b /x", "/x", "* /y"];
    check(&routes, "GET api.a.b /x", "api.a.b");
    check(&routes, "GET v2.api.a.b /x", "*.a.b /x");
    check(&routes, "GET a.b /x", "*.b /x");
    check(&routes, "GET b /x", "/x");
    check(&routes, "GET - /y", "* /y");
}

#[test]
fn a_host_without_a_matching_route_gives_way_to_a_wider_one() {
    let routes = ["api.a.b /x", "*.a.b /y", "*.b /z", "/w"];
    for (path, expected) in [("/x", 0), ("/y", 1), ("/z", 2), ("/w", 3)] {
        check(&routes, &format!("GET api.a.b {path}"), routes[expected]);
    }
    check(&routes, "GET api.a.b /v", "");
}

#[test]
fn a_shorter_prefix_serves_what_the_longer_one_does_not_take() {
    let routes = ["/a/b/* POST", "/a/* X-A:1", "~^/a ?q=1", "/*"];
    check(&routes, "POST - /a/b/c", routes[0]);
    check(&routes, "GET - /a/b/c X-A:1", routes[1]);
    check(&routes, "GET - /a/b/c", routes[3]);
}

#[test]
fn more_conditions_win_then_priority_then_the_earlier() {
    let routes = ["/a GET", "/a X-A:1", "/a X-A:1 X-B:2 !-1", "/a ?q=1 !1", "/a !2", "/a"];
    check(&routes, "GET - /a?q=1 X-A:1", "/a GET");
    check(&routes, "PUT - /a?q=1 X-A:1 X-B:2", "/a X-A:1 X-B:2 !-1");
    check(&routes, "PUT - /a?q=1 X-A:1", "/a X-A:1");
    check(&routes, "PUT - /a?q=1", "/a ?q=1 !1");
    check(&routes, "PUT - /a", "/a !2");
    assert_eq!(find(&["/a", "/a"], "GET - /a"), Outcome::Found(0));
}

#[test]
fn get_serves_head_unless_a_route_names_it() {
    check(&["/a GET"], "HEAD - /a", "/a GET");
    check(&["/a GET X-A:1", "/a HEAD"], "HEAD - /a X-A:1", "/a HEAD");
    check(&["/a GET", "/a"], "HEAD - /a", "/a GET");
    check(&["/a HEAD"], "GET - /a", "");
}

#[test]
fn headers_and_query_are_equal_in_one_of_their_values() {
    check(&["/a X-A:1"], "GET - /a x-a:0 x-a:1", "/a X-A:1");
    check(&["/a X-A:1"], "GET - /a x-a:1,0", "");
    check(&["/a ?q=x"], "GET - /a?q=y&%71=%78", "/a ?q=x");
    check(&["/a ?q=x"], "GET - /a", "");
}

#[test]
fn a_wrong_method_is_told_what_is_allowed() {
    let routes = ["a.b /x GET", "a.b /x PUT X-A:1", "/x POST GET", "/x/* DELETE"];
    let methods =
        |names: &[&str]| names.iter().map(|it| it.parse().unwrap()).collect::<Vec<Method>>();
    let allowed = |request: &str| match find(&routes, request) {
        Outcome::MethodNotAllowed(methods) => methods,
        other => panic!("{other:?}"),
    };
    assert_eq!(allowed("PATCH a.b /x"), methods(&["GET", "HEAD", "POST"]));
    assert_eq!(allowed("PATCH a.b /x X-A:1"), methods(&["PUT", "GET", "HEAD", "POST"]));
    assert_eq!(allowed("PURGE - /x"), methods(&["POST", "GET", "HEAD"]));
    assert_eq!(find(&routes, "PATCH a.b /y"), Outcome::Unknown);
    check(&["/x PURGE"], "PURGE - /x", "/x PURGE");
}

#[test]
fn many_regexes_of_a_host_answer_as_few_do() {
    let texts: Vec<_> = (0..50).map(|n| format!("~^/r{n}(/|$) !{n}")).collect();
    let mut routes: Vec<_> = texts.iter().map(String::as_str).collect();
    routes.extend(["~^/r4 X-A:1", "~^/r4[0-9] POST"]);
    check(&routes, "GET - /r42/x", "~^/r42(/|$) !42");
    check(&routes, "POST - /r42/x", "~^/r4[0-9] POST");
    check(&routes, "GET - /r42/x X-A:1", "~^/r4 X-A:1");
    check(&routes, "GET - /s", "");
}

#[test]
fn the_loser_is_told_why() {
    let routes = ["a.b /x", "/y", "/x POST", "/x X-A:1", "/x ?q=1", "/x !-1", "/*", "/x", "/x GET"];
    let verdicts = ask("GET c.d /x", |it| Matcher::compile(specs(&routes)).explain(it));
    let shown: Vec<_> = verdicts.iter().map(|it| it.verdict.to_string()).collect();
    assert_eq!(
        shown,
        [
            "host differs",
            "path differs",
            "method differs",
            "header x-a differs",
            "query parameter q differs",
            "less specific than route 8 in its methods",
            "less specific than route 8 in its path",
            "less specific than route 8 in its methods",
            "matched",
        ]
    );
    let verdicts =
        ask("GET - /x", |it| Matcher::compile(specs(&["/x", "/x", "/x !-1"])).explain(it));
    assert_eq!(verdicts[1].verdict.to_string(), "after route 0, which is as specific");
    assert_eq!(verdicts[2].verdict.to_string(), "lower priority than route 0");
}

#[test]
fn a_route_that_can_never_win_is_named() {
    let routes = [
        "a.b c.d /x /y GET POST X-A:1 X-B:2 ?q=1",
        "/x",
        "c.d a.b /y /x POST GET X-B:2 x-a:1 ?q=1 /x",
        "* /x",
        "/x !1",
        "/x GET",
        "/x/*",
        "/x",
    ];
    assert_eq!(Matcher::shadowed(&specs(&routes)), [(2, 0), (3, 1), (7, 1)]);
}

/// The rules read again, as one key a route: the greatest wins.
fn naive(specs: &[Spec], request: &Request<'_>) -> Outcome {
    let keys = specs.iter().enumerate().filter_map(|(route, spec)| {
        let host = spec.hosts.iter().map(|it| host_key(&it.to_string(), request.host));
        let path = spec.paths.iter().map(|it| path_key(&it.to_string(), request.path));
        let host = if spec.hosts.is_empty() { Some((0, 0)) } else { host.max()? };
        let path = if spec.paths.is_empty() { Some((0, 0)) } else { path.max()? };
        let holds = spec
            .headers
            .iter()
            .all(|(name, value)| request.headers.get_all(name).iter().any(|it| it == value))
            && spec.query.iter().all(|(name, value)| {
                let pair = format!("{name}={value}");
                request.query.is_some_and(|it| it.split('&').any(|it| it == pair))
            });
        let rest = (spec.headers.len(), spec.query.len(), spec.priority, Reverse(route));
        holds.then_some((host?, path?, spec, rest))
    });
    let keys: Vec<_> = keys.collect();
    let method = |spec: &Spec| match &*spec.methods {
        [] => Some(0),
        methods if methods.contains(request.method) => Some(2),
        methods => (request.method == Method::HEAD && methods.contains(&Method::GET)).then_some(1),
    };
    let best = keys
        .iter()
        .filter_map(|(host, path, spec, rest)| Some((*host, *path, method(spec)?, *rest)));
    if let Some((.., (.., Reverse(route)))) = best.max() {
        return Outcome::Found(route);
    }
    let mut methods: Vec<_> =
        keys.iter().flat_map(|(_, _, spec, _)| spec.methods.clone()).collect();
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    if methods.is_empty() { Outcome::Unknown } else { Outcome::MethodNotAllowed(methods) }
}

fn host_key(pattern: &str, host: Option<&str>) -> Option<(u8, usize)> {
    match pattern.strip_prefix('*') {
        Some("") => Some((0, 0)),
        Some(dotted) => host?.ends_with(dotted).then_some((1, dotted.len())),
        None => (host? == pattern).then_some((2, 0)),
    }
}

fn path_key(pattern: &str, path: &str) -> Option<(u8, usize)> {
    if let Some(regex) = pattern.strip_prefix('~') {
        return regex::Regex::new(regex).unwrap().is_match(path).then_some((1, 0));
    }
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix).then_some((2, prefix.len())),
        None => (path == pattern).then_some((3, 0)),
    }
}

fn sorted(mut outcome: Outcome) -> Outcome {
    if let Outcome::MethodNotAllowed(methods) = &mut outcome {
        methods.sort_by_key(Method::to_string);
        methods.dedup();
    }
    outcome
}

fn some_of(words: &'static [&'static str], at_most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(words), 0..=at_most).prop_map(|it| it.join(" "))
}

/// Words from small alphabets, so that routes collide often.
fn any_spec() -> impl Strategy<Value = Spec> {
    let path = prop_oneof![
        "(/[ab]){1,4}/?",
        "(/[ab]){0,4}/\\*",
        prop::sample::select(vec!["~^/a", "~b", "~^/[ab]/b$", "~/$", "/"]).prop_map(str::to_owned),
    ];
    let parts = (
        some_of(&["a.b", "b", "a.a.b", "*.b", "*.a.b", "*.a", "*"], 3),
        prop::collection::vec(path, 0..4).prop_map(|it| it.join(" ")),
        some_of(&["GET", "HEAD", "POST", "PURGE"], 2),
        prop::sample::subsequence(vec!["X-A:1", "X-B:1", "?q=1", "?r=1", "!1"], 0..3),
    );
    parts.prop_map(|(hosts, paths, methods, rest)| {
        spec(&format!("{hosts} {paths} {methods} {}", rest.join(" ")))
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let parts = (
        prop::sample::select(vec!["GET", "HEAD", "POST", "PURGE", "PROPFIND"]),
        prop::sample::select(vec!["-", "b", "a.b", "a.a.b", "b.a.b", "b.b", "a", "c"]),
        "(/[ab]){0,6}/?",
        prop::sample::subsequence(vec!["q=1", "r=1", "q=2"], 0..3),
        prop::sample::subsequence(vec!["x-a:0", "x-a:1", "x-b:1"], 0..=3),
    );
    parts.prop_map(|(method, host, path, query, headers)| {
        let path = if path.is_empty() { "/" } else { &path };
        format!("{method} {host} {path}?{} {}", query.join("&"), headers.join(" "))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn finds_what_a_linear_scan_finds(
        specs in prop::collection::vec(any_spec(), 0..40),
        requests in prop::collection::vec(any_request(), 1..20),
    ) {
        let matcher = Matcher::compile(specs.clone());
        for request in requests {
            ask(&request, |it| {
                let found = matcher.find(it);
                prop_assert_eq!(sorted(found.clone()), sorted(naive(&specs, it)), "{}", request);
                let winner = matcher.explain(it).into_iter().find_map(|it| {
                    (it.verdict == Verdict::Matched).then_some(Outcome::Found(it.route))
                });
                prop_assert_eq!(winner, Some(found).filter(|it| matches!(it, Outcome::Found(_))));
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_shadowed_route_never_wins(
        specs in prop::collection::vec(any_spec(), 0..40),
        requests in prop::collection::vec(any_request(), 1..20),
    ) {
        let doubled: Vec<_> = specs.iter().chain(&specs).cloned().collect();
        let shadowed = Matcher::shadowed(&doubled);
        prop_assert!((specs.len()..doubled.len()).all(|it| shadowed.iter().any(|(i, _)| *i == it)));
        let matcher = Matcher::compile(doubled);
        for request in requests {
            let found = ask(&request, |it| matcher.find(it));
            prop_assert!(shadowed.iter().all(|(route, _)| found != Outcome::Found(*route)));
        }
    }
}
