//! From our own cells to the families that the `prometheus` crate renders. Runs once a scrape.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use prometheus::{
    core::{Collector, Desc},
    proto::{MetricFamily, MetricType},
};

use super::{
    bodies::{self, BodyMetrics},
    cache,
    family::{Family, counter, family, gauge, histogram, number},
    handles::{
        AccessMetrics, AuthMetrics, CacheMetrics, ConsumerMetrics, EndpointMetrics, KeySetMetrics,
        LimitMetrics, MirrorMetrics, QuestionMetrics, ReportMetrics, RouteMetrics, TokenMetrics,
        UpstreamMetrics,
    },
    keep::Keep,
    llm, mcp, mirror, process,
    status::Method,
    tls,
};
use crate::flow::rejection::Code;

/// Everything that is counted by an own cell.
pub struct Cells {
    pub routes: Keep<Arc<str>, RouteMetrics>,
    pub consumers: Keep<Arc<str>, ConsumerMetrics>,
    pub upstreams: Keep<Arc<str>, UpstreamMetrics>,
    /// By upstream and endpoint.
    pub endpoints: Keep<(Arc<str>, Arc<str>), EndpointMetrics>,
    pub authenticators: Keep<Arc<str>, AuthMetrics>,
    /// By authenticator.
    pub key_sets: Keep<Arc<str>, KeySetMetrics>,
    /// By authenticator: those that ask somebody else.
    pub questions: Keep<Arc<str>, QuestionMetrics>,
    /// By upstream: those that are sent one.
    pub tokens: Keep<Arc<str>, TokenMetrics>,
    /// By route.
    pub accesses: Keep<Arc<str>, AccessMetrics>,
    /// By route.
    pub reports: Keep<Arc<str>, ReportMetrics>,
    pub limits: Keep<Arc<str>, LimitMetrics>,
    /// By route.
    pub caches: Keep<Arc<str>, CacheMetrics>,
    /// By route.
    pub bodies: Keep<Arc<str>, BodyMetrics>,
    pub mirrors: Keep<Arc<str>, MirrorMetrics>,
    pub tls: tls::Cells,
    pub llm: llm::Cells,
    pub mcp: mcp::Cells,
    pub rejections: [AtomicU64; Code::ALL.len()],
    pub limit_keys: AtomicU64,
    pub limit_evicted: AtomicU64,
    pub cache: Mutex<cache::CacheReading>,
    /// `None` without a store.
    pub store: Mutex<Option<StoreReading>>,
    pub process: process::Files,
}

/// How the store is at the time of a scrape.
#[derive(Clone, Copy, Debug)]
pub struct StoreReading {
    pub is_up: bool,
    /// Consumers that do not fit beside the file.
    pub left_out: u64,
    /// Rows of the ledger that were written and that were lost, and those that wait.
    pub calls: (u64, u64),
    pub queued: u64,
}

const REQUESTS: Family = Family(
    "tollgate_http_requests_total",
    "Requests that ended, by route, method and status.",
    &["route", "method", "status"],
);
const DURATION: Family = Family(
    "tollgate_http_request_duration_seconds",
    "From the end of the request headers to the end of the response.",
    &["route"],
);
const OVERHEAD: Family = Family(
    "tollgate_overhead_seconds",
    "The gateway's own share of a request's duration.",
    &["route"],
);
const CONSUMER_REQUESTS: Family = Family(
    "tollgate_consumer_requests_total",
    "Requests that ended, by consumer and status.",
    &["consumer", "status"],
);
const UPSTREAM_DURATION: Family = Family(
    "tollgate_upstream_duration_seconds",
    "From the choice of an endpoint to the end of its answer.",
    &["upstream"],
);
const UPSTREAM_RETRIES: Family = Family(
    "tollgate_upstream_retries_total",
    "Attempts after the first, by upstream.",
    &["upstream"],
);
const ENDPOINT_UP: Family = Family(
    "tollgate_upstream_endpoint_up",
    "1 if the endpoint gets requests, 0 if it is unhealthy or ejected.",
    &["upstream", "endpoint"],
);
const AUTH: Family = Family(
    "tollgate_auth_total",
    "Attempts to authenticate, by authenticator and how they ended.",
    &["authenticator", "result", "reason"],
);
const JWKS_AGE: Family = Family(
    "tollgate_jwks_age_seconds",
    "Since the last good fetch of the keys that an authenticator verifies with.",
    &["authenticator"],
);
const JWKS_KEYS: Family = Family(
    "tollgate_jwks_keys",
    "Keys that an authenticator verifies with at present.",
    &["authenticator"],
);
const JWKS_ERRORS: Family = Family(
    "tollgate_jwks_fetch_errors_total",
    "Fetches that brought no good set of keys.",
    &["authenticator"],
);
const QUESTIONS: Family = Family(
    "tollgate_auth_questions_total",
    "Questions to somebody else about a credential, by authenticator and what came of them.",
    &["authenticator", "result"],
);
const TOKENS: Family = Family(
    "tollgate_upstream_token_fetches_total",
    "Access tokens asked for by client credentials, by upstream.",
    &["upstream", "result"],
);
const TOKEN_EXPIRY: Family = Family(
    "tollgate_upstream_token_expiry_timestamp_seconds",
    "When the upstream's access token expires; 0 if there is none or it does not say.",
    &["upstream"],
);
const AUTHORIZE: Family = Family(
    "tollgate_authorize_total",
    "What `ip` and `authorize` of a route decided, by the rule that did.",
    &["route", "result", "rule"],
);
const REPORTED: Family = Family(
    "tollgate_reported_total",
    "Requests that a route with `mode: report` would have refused, by code.",
    &["route", "code"],
);
const LIMIT: Family = Family("tollgate_limit_total", "What each limit said.", &["limit", "result"]);
const LIMIT_KEYS: Family =
    Family("tollgate_limit_keys", "Keys that the limits count at present.", &[]);
const LIMIT_EVICTED: Family = Family(
    "tollgate_limit_evicted_total",
    "Keys that were forgotten to make room before their time.",
    &[],
);
const REJECTIONS: Family =
    Family("tollgate_rejections_total", "Requests that the gateway refused, by code.", &["code"]);

const STORE_UP: Family =
    Family("tollgate_store_up", "1 if the store answers; no series without a store.", &[]);
const STORE_LEFT_OUT: Family = Family(
    "tollgate_store_consumers_left_out",
    "Consumers of the store that do not fit beside the file and do not run.",
    &[],
);

const FAMILIES: &[&Family] = &[
    &REQUESTS,
    &DURATION,
    &OVERHEAD,
    &CONSUMER_REQUESTS,
    &UPSTREAM_DURATION,
    &UPSTREAM_RETRIES,
    &ENDPOINT_UP,
    &AUTH,
    &JWKS_AGE,
    &JWKS_KEYS,
    &JWKS_ERRORS,
    &QUESTIONS,
    &TOKENS,
    &TOKEN_EXPIRY,
    &AUTHORIZE,
    &REPORTED,
    &LIMIT,
    &LIMIT_KEYS,
    &LIMIT_EVICTED,
    &REJECTIONS,
    &mirror::FAMILY,
    &STORE_UP,
    &STORE_LEFT_OUT,
];

impl Cells {
    pub fn new() -> Self {
        Self {
            routes: Keep::new(),
            consumers: Keep::new(),
            upstreams: Keep::new(),
            endpoints: Keep::new(),
            authenticators: Keep::new(),
            key_sets: Keep::new(),
            questions: Keep::new(),
            tokens: Keep::new(),
            accesses: Keep::new(),
            reports: Keep::new(),
            limits: Keep::new(),
            caches: Keep::new(),
            bodies: Keep::new(),
            mirrors: Keep::new(),
            tls: tls::Cells::new(),
            llm: llm::Cells::new(),
            mcp: mcp::Cells::new(),
            rejections: [const { AtomicU64::new(0) }; Code::ALL.len()],
            limit_keys: AtomicU64::new(0),
            limit_evicted: AtomicU64::new(0),
            cache: Mutex::default(),
            store: Mutex::new(None),
            process: process::Files::open(),
        }
    }

    pub fn sweep(&self) {
        self.routes.sweep();
        self.consumers.sweep();
        self.upstreams.sweep();
        self.endpoints.sweep();
        self.authenticators.sweep();
        self.key_sets.sweep();
        self.questions.sweep();
        self.tokens.sweep();
        self.accesses.sweep();
        self.reports.sweep();
        self.limits.sweep();
        self.caches.sweep();
        self.bodies.sweep();
        self.mirrors.sweep();
        self.tls.sweep();
        self.llm.sweep(&self.consumers.all());
        self.mcp.sweep();
    }

    fn routes(&self) -> [MetricFamily; 3] {
        let (mut requests, mut durations, mut overheads) = (vec![], vec![], vec![]);
        for (route, metrics) in self.routes.all() {
            let duration = histogram(&DURATION, &[&route], &metrics.duration);
            if duration.get_histogram().get_sample_count() == 0 {
                // Of 10,000 routes most are quiet, and 30 lines each are not free.
                continue;
            }
            durations.push(duration);
            overheads.push(histogram(&OVERHEAD, &[&route], &metrics.overhead));
            for (index, statuses) in metrics.methods.iter().enumerate() {
                let seen = statuses.get().into_iter().flat_map(|statuses| statuses.seen());
                requests.extend(seen.map(|(status, count)| {
                    counter(&REQUESTS, &[&route, Method::label(index), &status], number(count))
                }));
            }
        }
        [
            family(&REQUESTS, MetricType::COUNTER, requests),
            family(&DURATION, MetricType::HISTOGRAM, durations),
            family(&OVERHEAD, MetricType::HISTOGRAM, overheads),
        ]
    }

    fn consumers(&self) -> MetricFamily {
        let consumers = self.consumers.all();
        let metrics = consumers.iter().flat_map(|(consumer, metrics)| {
            let seen = metrics.statuses.get().into_iter().flat_map(|statuses| statuses.seen());
            seen.map(|(status, count)| {
                counter(&CONSUMER_REQUESTS, &[consumer, &status], number(count))
            })
        });
        family(&CONSUMER_REQUESTS, MetricType::COUNTER, metrics.collect())
    }

    fn upstreams(&self) -> [MetricFamily; 3] {
        let upstreams = self.upstreams.all();
        let durations = upstreams
            .iter()
            .map(|(name, upstream)| histogram(&UPSTREAM_DURATION, &[name], &upstream.duration));
        let retries = upstreams.iter().map(|(name, upstream)| {
            counter(&UPSTREAM_RETRIES, &[name], number(upstream.retries.load(Relaxed)))
        });
        let ups = self.endpoints.all().into_iter().map(|((upstream, endpoint), metrics)| {
            gauge(&ENDPOINT_UP, &[&upstream, &endpoint], metrics.is_up.load(Relaxed).into())
        });
        [
            family(&UPSTREAM_DURATION, MetricType::HISTOGRAM, durations.collect()),
            family(&UPSTREAM_RETRIES, MetricType::COUNTER, retries.collect()),
            family(&ENDPOINT_UP, MetricType::GAUGE, ups.collect()),
        ]
    }

    fn decisions(&self) -> [MetricFamily; 5] {
        let mut auth = vec![];
        for (name, metrics) in self.authenticators.all() {
            auth.extend(metrics.counts().map(|(labels, count)| {
                counter(&AUTH, &[&[&*name], labels].concat(), number(count))
            }));
        }
        let mut limit = vec![];
        for (name, metrics) in self.limits.all() {
            limit.extend(metrics.counts().map(|(labels, count)| {
                counter(&LIMIT, &[&[&*name], labels].concat(), number(count))
            }));
        }
        let rejections = (Code::ALL.iter().zip(&self.rejections))
            .map(|(code, count)| counter(&REJECTIONS, &[code.word()], number(count.load(Relaxed))));
        let keys = gauge(&LIMIT_KEYS, &[], number(self.limit_keys.load(Relaxed)));
        let evicted = counter(&LIMIT_EVICTED, &[], number(self.limit_evicted.load(Relaxed)));
        [
            family(&AUTH, MetricType::COUNTER, auth),
            family(&LIMIT, MetricType::COUNTER, limit),
            family(&REJECTIONS, MetricType::COUNTER, rejections.collect()),
            family(&LIMIT_KEYS, MetricType::GAUGE, vec![keys]),
            family(&LIMIT_EVICTED, MetricType::COUNTER, vec![evicted]),
        ]
    }

    fn key_sets(&self) -> [MetricFamily; 3] {
        let (mut ages, mut keys, mut errors) = (vec![], vec![], vec![]);
        for (name, metrics) in self.key_sets.all() {
            let age = metrics.age.load(Relaxed);
            if age != KeySetMetrics::NONE {
                ages.push(gauge(&JWKS_AGE, &[&name], number(age)));
            }
            keys.push(gauge(&JWKS_KEYS, &[&name], number(metrics.keys.load(Relaxed))));
            errors.push(counter(&JWKS_ERRORS, &[&name], number(metrics.errors.load(Relaxed))));
        }
        [
            family(&JWKS_AGE, MetricType::GAUGE, ages),
            family(&JWKS_KEYS, MetricType::GAUGE, keys),
            family(&JWKS_ERRORS, MetricType::COUNTER, errors),
        ]
    }

    fn third_parties(&self) -> [MetricFamily; 3] {
        let mut questions = vec![];
        for (name, metrics) in self.questions.all() {
            questions.extend(metrics.counts().map(|(labels, count)| {
                counter(&QUESTIONS, &[&[&*name], labels].concat(), number(count))
            }));
        }
        let (mut fetches, mut expiries) = (vec![], vec![]);
        for (name, metrics) in self.tokens.all() {
            fetches.extend(metrics.fetches.counts().map(|(labels, count)| {
                counter(&TOKENS, &[&[&*name], labels].concat(), number(count))
            }));
            expiries.push(gauge(&TOKEN_EXPIRY, &[&name], number(metrics.expires.load(Relaxed))));
        }
        [
            family(&QUESTIONS, MetricType::COUNTER, questions),
            family(&TOKENS, MetricType::COUNTER, fetches),
            family(&TOKEN_EXPIRY, MetricType::GAUGE, expiries),
        ]
    }

    fn access(&self) -> [MetricFamily; 2] {
        let mut access = vec![];
        for (route, metrics) in self.accesses.all() {
            // As with all that is counted by route: nothing before its first request.
            if metrics.counts().any(|(_, count)| count > 0) {
                access.extend(metrics.counts().map(|(labels, count)| {
                    counter(&AUTHORIZE, &[&[&*route], labels].concat(), number(count))
                }));
            }
        }
        let mut reported = vec![];
        for (route, metrics) in self.reports.all() {
            let counts = metrics.counts();
            reported.extend(
                counts.map(|(code, count)| counter(&REPORTED, &[&route, code], number(count))),
            );
        }
        [
            family(&AUTHORIZE, MetricType::COUNTER, access),
            family(&REPORTED, MetricType::COUNTER, reported),
        ]
    }

    fn store(&self) -> Vec<MetricFamily> {
        let Some(reading) = *self.store.lock() else { return Vec::new() };
        let StoreReading { is_up, left_out, .. } = reading;
        let up = gauge(&STORE_UP, &[], is_up.into());
        let left_out = gauge(&STORE_LEFT_OUT, &[], number(left_out));
        let mut families = vec![
            family(&STORE_UP, MetricType::GAUGE, vec![up]),
            family(&STORE_LEFT_OUT, MetricType::GAUGE, vec![left_out]),
        ];
        families.extend(llm::ledger(&reading));
        families
    }

    fn process(&self) -> Vec<MetricFamily> {
        let values = process::FAMILIES.iter().zip(self.process.read());
        let families = values.filter_map(|((described, kind), value)| {
            let metric = match kind {
                MetricType::COUNTER => counter(described, &[], value?),
                _ => gauge(described, &[], value?),
            };
            Some(family(described, *kind, vec![metric]))
        });
        families.collect()
    }
}

/// What the registry holds: the cells, and the descriptions that it checks for duplicates.
pub struct Exposition {
    cells: Arc<Cells>,
    descriptions: Vec<Desc>,
}

impl Exposition {
    /// # Errors
    /// A name or a label that Prometheus does not allow: a mistake of ours that any test finds.
    pub fn new(cells: Arc<Cells>) -> prometheus::Result<Self> {
        let process = process::FAMILIES.iter().map(|(family, _)| family);
        let descriptions = FAMILIES
            .iter()
            .chain(cache::FAMILIES)
            .chain(&tls::FAMILIES)
            .chain(&bodies::FAMILIES)
            .chain(&llm::FAMILIES)
            .chain(&mcp::FAMILIES)
            .copied()
            .chain(process)
            .map(|Family(name, help, labels)| {
                let labels = labels.iter().map(ToString::to_string).collect();
                Desc::new((*name).to_owned(), (*help).to_owned(), labels, HashMap::new())
            });
        Ok(Self { cells, descriptions: descriptions.collect::<prometheus::Result<_>>()? })
    }
}

impl Collector for Exposition {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.cells.process();
        families.extend(self.cells.routes());
        families.push(self.cells.consumers());
        families.extend(self.cells.upstreams());
        families.extend(self.cells.key_sets());
        families.extend(self.cells.decisions());
        families.extend(cache::collect(&self.cells.caches, &self.cells.cache.lock()));
        families.push(mirror::collect(&self.cells.mirrors));
        families.extend(self.cells.third_parties());
        families.extend(self.cells.access());
        families.extend(bodies::collect(&self.cells.bodies));
        families.extend(self.cells.tls.collect());
        families.extend(self.cells.llm.collect(&self.cells.consumers.all()));
        families.extend(self.cells.mcp.collect());
        families.extend(self.cells.store());
        families
    }
}
