use super::*;

fn line(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.map(|value| value.parse().unwrap())
}

#[track_caller]
fn check(metrics: &Metrics, series: &str, expected: Option<f64>) {
    assert_eq!(line(metrics, series), expected, "{series} in\n{}", metrics.render());
}

fn get() -> Method {
    Method::from(&http::Method::GET)
}

fn ask(route: &RouteMetrics, status: u16) {
    route.record(get(), status, Duration::from_millis(3), Duration::from_micros(30));
}

/// One of everything, so that every family has a series.
fn all() -> (Metrics, Vec<Box<dyn std::any::Any>>) {
    let metrics = Metrics::new().unwrap();
    let (route, upstream) = (metrics.route("r"), metrics.upstream("u"));
    ask(&route, 200);
    upstream.record(Duration::from_millis(2));
    upstream.retried();
    let consumers = metrics.consumers(&["c"], 1);
    consumers[0].record(200);
    let tools = metrics.mcp_server("crm");
    tools.called(&"search".into(), McpOutcome::Answered, Duration::from_millis(1));
    let model = metrics.llm_model("m");
    model.first_token.observe(Duration::from_millis(5));
    model.recall.record(RecallOutcome::Hit);
    consumers[0].llm.of(&"m".into()).record(Tokens { input: 3, ..Tokens::default() });
    let endpoint = metrics.endpoint("u", "http://127.0.0.1:1");
    let (authenticator, limit) = (metrics.authenticator("api_key"), metrics.limit("gold"));
    let key_set = metrics.key_set("corp");
    key_set.set(Some(5), 2, 1);
    let (access, report) = (metrics.access("r"), metrics.report("r"));
    access.record(AccessOutcome::Allowed);
    metrics.config_applied("abc", Duration::from_secs(1_700_000_000));
    metrics.connections("http").inc();
    metrics.set_store(StoreReading { is_up: true, left_out: 0, calls: (0, 0), queued: 0 });
    let bodies = metrics.bodies("r");
    bodies.record(BodyOutcome::Valid);
    bodies.compressed(2, 1);
    let disk = Some(DiskReading::default());
    metrics.set_cache(CacheReading { disk, ..CacheReading::default() });
    let held: Vec<Box<dyn std::any::Any>> = vec![
        Box::new(route),
        Box::new(upstream),
        Box::new(consumers),
        Box::new(endpoint),
        Box::new(authenticator),
        Box::new(limit),
        Box::new(metrics.cache("r")),
        Box::new(metrics.mirror("r")),
        Box::new(key_set),
        Box::new(metrics.questions("partners")),
        Box::new(metrics.token("u")),
        Box::new(access),
        Box::new(report),
        Box::new(bodies),
        Box::new(model),
        Box::new(tools),
        Box::new(metrics.llm_tries("m", "openai")),
        Box::new(metrics.llm_key("openai", "a")),
        Box::new(metrics.guard("cards")),
        Box::new(metrics.tls("https")),
        Box::new(metrics.certificate("https", "tls/www.pem")),
        Box::new(metrics.revocation_list("https", "tls/clients.crl")),
        Box::new(metrics.acme("https")),
    ];
    (metrics, held)
}

#[test]
fn a_request_is_counted_by_route_method_and_status() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.route("orders");
    ask(&route, 200);
    ask(&route, 200);
    ask(&route, 503);
    let requests = "tollgate_http_requests_total";
    let orders =
        |status: &str| format!("{requests}{{route=\"orders\",method=\"GET\",status=\"{status}\"}}");
    check(&metrics, &orders("200"), Some(2.0));
    check(&metrics, &orders("503"), Some(1.0));
    check(&metrics, &orders("404"), None);
    let duration = "tollgate_http_request_duration_seconds";
    check(&metrics, &format!("{duration}_count{{route=\"orders\"}}"), Some(3.0));
    check(&metrics, &format!("{duration}_bucket{{route=\"orders\",le=\"0.0025\"}}"), Some(0.0));
    check(&metrics, &format!("{duration}_bucket{{route=\"orders\",le=\"0.005\"}}"), Some(3.0));
    check(&metrics, &format!("{duration}_bucket{{route=\"orders\",le=\"+Inf\"}}"), Some(3.0));
    check(&metrics, "tollgate_overhead_seconds_sum{route=\"orders\"}", Some(0.00009));
}

#[test]
fn a_counter_survives_a_reload_and_leaves_with_its_route() {
    let metrics = Metrics::new().unwrap();
    let series = "tollgate_http_request_duration_seconds_count{route=\"a\"}";
    let before = metrics.route("a");
    ask(&before, 200);
    let after = metrics.route("a");
    drop(before);
    metrics.sweep();
    ask(&after, 200);
    check(&metrics, series, Some(2.0));
    drop(after);
    metrics.sweep();
    check(&metrics, series, None);
}

#[test]
fn consumers_beyond_the_bound_share_one_label() {
    let metrics = Metrics::new().unwrap();
    let count = |consumer: &str| {
        line(
            &metrics,
            &format!("tollgate_consumer_requests_total{{consumer=\"{consumer}\",status=\"200\"}}"),
        )
    };
    let first = metrics.consumers(&["b", "c", "d"], 2);
    first.iter().for_each(|consumer| consumer.record(200));
    assert_eq!((count("b"), count("c"), count("d")), (Some(1.0), Some(1.0), None));
    assert_eq!(count("other"), Some(1.0));

    // `a` sorts before them, yet who has a label keeps it.
    let second = metrics.consumers(&["a", "b", "c"], 2);
    drop(first);
    metrics.sweep();
    second.iter().for_each(|consumer| consumer.record(200));
    assert_eq!((count("a"), count("b"), count("c")), (None, Some(2.0), Some(2.0)));
    assert_eq!(count("other"), Some(2.0));

    let none = metrics.consumers(&["a", "b"], 0);
    assert!(Arc::ptr_eq(&none[0], &none[1]));
}

#[test]
fn label_values_are_bounded_whatever_is_sent() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.route("r");
    for status in 0..=u16::MAX {
        for method in ["GET", "PURGE", "X-1", "X-2"] {
            let method = Method::from(&http::Method::from_bytes(method.as_bytes()).unwrap());
            route.record(method, status, Duration::ZERO, Duration::ZERO);
        }
    }
    let text = metrics.render();
    let series = text.lines().filter(|line| line.starts_with("tollgate_http_requests_total{"));
    assert_eq!(series.count(), 2 * (65 + 6), "GET and other, each with every status and class");
    assert!(!text.contains("PURGE"));
}

#[test]
fn the_revision_that_runs_is_the_only_one_shown() {
    let metrics = Metrics::new().unwrap();
    for revision in ["one", "two", "two"] {
        metrics.config_applied(revision, Duration::from_secs(5));
    }
    check(&metrics, "tollgate_config_info{revision=\"one\"}", None);
    check(&metrics, "tollgate_config_info{revision=\"two\"}", Some(1.0));
    check(&metrics, "tollgate_config_last_reload_success_timestamp_seconds", Some(5.0));
}

#[test]
fn every_outcome_and_code_has_its_series_from_the_start() {
    let (metrics, _held) = all();
    metrics.authenticator("api_key").record(AuthOutcome::Busy);
    metrics.limit("gold").record(LimitOutcome::Refused);
    metrics.rejected(Code::UpstreamTimeout);
    metrics.endpoint("u", "http://127.0.0.1:1").set_up(false);
    metrics.set_limit_keys(7, 3);
    metrics.access("r").record(AccessOutcome::Scopes);
    metrics.report("r").record(Code::AccessDenied);
    // Never reported, and so not among the series.
    metrics.report("r").record(Code::RouteUnknown);
    let rule = |rule: &str| format!("tollgate_authorize_total{{route=\"r\",{rule}}}");
    check(&metrics, &rule("result=\"allowed\",rule=\"all\""), Some(1.0));
    check(&metrics, &rule("result=\"denied\",rule=\"scopes\""), Some(1.0));
    check(&metrics, &rule("result=\"denied\",rule=\"when_error\""), Some(0.0));
    let reported = |code: &str| format!("tollgate_reported_total{{route=\"r\",code=\"{code}\"}}");
    check(&metrics, &reported("access_denied"), Some(1.0));
    check(&metrics, &reported("rate_limited"), Some(0.0));
    check(&metrics, &reported("route_unknown"), None);
    let busy = "tollgate_auth_total{authenticator=\"api_key\",result=\"error\",reason=\"busy\"}";
    check(&metrics, busy, Some(1.0));
    check(&metrics, "tollgate_limit_total{limit=\"gold\",result=\"allowed\"}", Some(0.0));
    check(&metrics, "tollgate_limit_total{limit=\"gold\",result=\"refused\"}", Some(1.0));
    check(&metrics, "tollgate_rejections_total{code=\"upstream_timeout\"}", Some(1.0));
    check(&metrics, "tollgate_rejections_total{code=\"rate_limited\"}", Some(0.0));
    let up = "tollgate_upstream_endpoint_up{upstream=\"u\",endpoint=\"http://127.0.0.1:1\"}";
    check(&metrics, up, Some(0.0));
    check(&metrics, "tollgate_jwks_age_seconds{authenticator=\"corp\"}", Some(5.0));
    check(&metrics, "tollgate_jwks_keys{authenticator=\"corp\"}", Some(2.0));
    check(&metrics, "tollgate_jwks_fetch_errors_total{authenticator=\"corp\"}", Some(1.0));
    metrics.key_set("corp").set(None, 0, 2);
    check(&metrics, "tollgate_jwks_age_seconds{authenticator=\"corp\"}", None);
    check(&metrics, "tollgate_limit_keys", Some(7.0));
    check(&metrics, "tollgate_limit_evicted_total", Some(3.0));
    check(&metrics, "tollgate_config_reloads_total{result=\"failure\"}", Some(0.0));
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new().unwrap();
    ask(&metrics.route("a\"b\\c\nd"), 200);
    let text = metrics.render();
    assert!(text.contains(r#"{route="a\"b\\c\nd",method="GET",status="200"}"#), "{text}");
}

/// `docs/metrics.md` names in the first column of its table what `render` gives, and nothing else.
#[test]
fn the_documentation_lists_every_metric() {
    let (metrics, _held) = all();
    let text = metrics.render();
    let rendered: BTreeSet<String> = (text.lines())
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    let documented: BTreeSet<String> = (include_str!("../../../docs/metrics.md").lines())
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| {
            let name = name.split('{').next()?;
            Some(format!("{name} {}", rest.split(' ').next()?))
        })
        .collect();
    assert_eq!(documented, rendered);
}

/// The labels that the documentation shows are those of the series.
#[test]
fn the_documentation_lists_the_labels() {
    let (metrics, _held) = all();
    let text = metrics.render();
    for line in include_str!("../../../docs/metrics.md").lines() {
        let Some((shown, _)) = line.strip_prefix("| `").and_then(|rest| rest.split_once('`'))
        else {
            continue;
        };
        let Some((name, labels)) = shown.trim_end_matches('}').split_once('{') else { continue };
        let series = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('{') || rest.starts_with("_count{"))
        });
        let (_, pairs) = series.unwrap_or_else(|| panic!("no {name}")).split_once('{').unwrap();
        let (pairs, _) = pairs.rsplit_once('}').unwrap();
        let names: Vec<&str> =
            pairs.split("\",").map(|pair| pair.split_once('=').unwrap().0).collect();
        assert_eq!(names.join(","), labels, "{name}");
    }
}
