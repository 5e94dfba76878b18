//! Why a route wins or loses, said for people, and routes that never win. A linear scan that
//! shares nothing with the tables; a property test holds both to the same answer.
use std::{cmp::Reverse, collections::HashMap, fmt};

use http::{HeaderName, Method};

use super::{PathPattern, Request, Spec, condition};
use crate::value::host;

/// What became of one route for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub route: usize,
    pub verdict: Verdict,
}

/// The first reason, in the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Matched,
    HostDiffers,
    PathDiffers,
    MethodDiffers,
    HeaderDiffers(HeaderName),
    QueryDiffers(String),
    /// It matches too, but route `than` does by `aspect`.
    LessSpecific {
        than: usize,
        aspect: Aspect,
    },
}

/// By what one of two matching routes goes before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    Host,
    Path,
    Method,
    Headers,
    Query,
    Priority,
    Order,
}

/// Routes are told by their numbers; the caller knows their ids.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matched => f.write_str("matched"),
            Self::HostDiffers => f.write_str("host differs"),
            Self::PathDiffers => f.write_str("path differs"),
            Self::MethodDiffers => f.write_str("method differs"),
            Self::HeaderDiffers(name) => write!(f, "header {name} differs"),
            Self::QueryDiffers(name) => write!(f, "query parameter {name} differs"),
            Self::LessSpecific { than, aspect: Aspect::Priority } => {
                write!(f, "lower priority than route {than}")
            }
            Self::LessSpecific { than, aspect: Aspect::Order } => {
                write!(f, "after route {than}, which is as specific")
            }
            Self::LessSpecific { than, aspect } => {
                write!(f, "less specific than route {than} in its {aspect}")
            }
        }
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Path => "path",
            Self::Method => "methods",
            Self::Headers => "headers",
            Self::Query => "query",
            Self::Priority => "priority",
            Self::Order => "place in the file",
        })
    }
}

/// How specifically a pattern matched. Later variants win, then longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    All,
    Regex,
    Under(usize),
    Exact,
}

/// How specific a match is; the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    host: Fit,
    path: Fit,
    method: u8,
    headers: usize,
    query: usize,
    priority: i64,
    order: Reverse<usize>,
}

pub fn explain(specs: &[Spec], request: &Request<'_>) -> Vec<Candidate> {
    let ranks: Vec<_> =
        specs.iter().enumerate().map(|(route, spec)| rank(route, spec, request)).collect();
    let best = ranks.iter().flatten().max().copied();
    let verdict = |rank| match (rank, best) {
        (Err(lost), _) => lost,
        (Ok(rank), Some(best)) if rank != best => {
            Verdict::LessSpecific { than: best.order.0, aspect: first_difference(&best, &rank) }
        }
        (Ok(_), _) => Verdict::Matched,
    };
    let verdicts = ranks.into_iter().map(verdict).enumerate();
    verdicts.map(|(route, verdict)| Candidate { route, verdict }).collect()
}

fn first_difference(best: &Rank, rank: &Rank) -> Aspect {
    [
        (best.host != rank.host, Aspect::Host),
        (best.path != rank.path, Aspect::Path),
        (best.method != rank.method, Aspect::Method),
        (best.headers != rank.headers, Aspect::Headers),
        (best.query != rank.query, Aspect::Query),
        (best.priority != rank.priority, Aspect::Priority),
    ]
    .into_iter()
    .find_map(|(differs, aspect)| differs.then_some(aspect))
    .unwrap_or(Aspect::Order)
}

fn rank(route: usize, spec: &Spec, request: &Request<'_>) -> Result<Rank, Verdict> {
    let any_host = [host::Pattern::Any];
    let hosts = if spec.hosts.is_empty() { &any_host } else { &*spec.hosts };
    let host = hosts.iter().filter_map(|it| host_fit(it, request.host)).max();
    let path = if spec.paths.is_empty() {
        Some(Fit::All)
    } else {
        spec.paths.iter().filter_map(|it| path_fit(it, request.path)).max()
    };
    let rank = Rank {
        host: host.ok_or(Verdict::HostDiffers)?,
        path: path.ok_or(Verdict::PathDiffers)?,
        method: method_fit(&spec.methods, request.method).ok_or(Verdict::MethodDiffers)?,
        headers: spec.headers.len(),
        query: spec.query.len(),
        priority: spec.priority,
        order: Reverse(route),
    };
    let is_header =
        |(name, value): &&(HeaderName, String)| !condition::header_is(request, name, value);
    if let Some((name, _)) = spec.headers.iter().find(is_header) {
        return Err(Verdict::HeaderDiffers(name.clone()));
    }
    if let Some((name, _)) =
        spec.query.iter().find(|(name, value)| !condition::query_is(request, name, value))
    {
        return Err(Verdict::QueryDiffers(name.clone()));
    }
    Ok(rank)
}

fn host_fit(pattern: &host::Pattern, host: Option<&str>) -> Option<Fit> {
    pattern.matches(host).then_some(match pattern {
        host::Pattern::Exact(_) => Fit::Exact,
        host::Pattern::Wildcard(suffix) => Fit::Under(suffix.len()),
        host::Pattern::Any => Fit::All,
    })
}

fn path_fit(pattern: &PathPattern, path: &str) -> Option<Fit> {
    match pattern {
        PathPattern::Exact(exact) => (path == exact).then_some(Fit::Exact),
        PathPattern::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
            .then_some(Fit::Under(prefix.len())),
        PathPattern::Regex(regex) => regex.is_match(path).then_some(Fit::Regex),
    }
}

fn method_fit(methods: &[Method], asked: &Method) -> Option<u8> {
    if methods.is_empty() {
        Some(0)
    } else if methods.contains(asked) {
        Some(2)
    } else {
        (*asked == Method::HEAD && methods.contains(&Method::GET)).then_some(1)
    }
}

pub fn shadowed(specs: &[Spec]) -> Vec<(usize, usize)> {
    let mut seen = HashMap::new();
    let pairs = specs.iter().enumerate().filter_map(|(route, spec)| {
        let first = *seen.entry(asks(spec)).or_insert(route);
        (first != route).then_some((route, first))
    });
    pairs.collect()
}

/// All that a route asks for, so that two which ask for the same are equal.
fn asks(spec: &Spec) -> impl Eq + std::hash::Hash {
    let mut hosts = spec.hosts.clone();
    if hosts.is_empty() {
        hosts.push(host::Pattern::Any);
    }
    (
        sorted(hosts),
        sorted(spec.paths.iter().map(ToString::to_string).collect()),
        sorted(spec.methods.iter().map(ToString::to_string).collect()),
        sorted(
            spec.headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        ),
        sorted(spec.query.clone()),
        spec.priority,
    )
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}
