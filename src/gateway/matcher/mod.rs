//! Which route serves a request. Compiled once, immutable, and flat: hosts, exact paths and
//! prefixes are hash look-ups, so that their number does not matter. Not the normalisation of hosts
//! and paths (`value`), nor what a route does.
mod condition;
mod explain;
mod pattern;
mod table;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, Method};

use self::{
    condition::{Asked, Entry},
    table::{Hosts, Visitor},
};
pub use self::{
    explain::{Aspect, Candidate, Verdict},
    pattern::PathPattern,
};
use crate::value::host;

/// What a route asks of a request. All parts must hold; an empty part asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub hosts: Vec<host::Pattern>,
    pub paths: Vec<PathPattern>,
    /// `GET` also serves `HEAD` (RFC 9110 section 9.3.2), unless another route names `HEAD`.
    pub methods: Vec<Method>,
    /// One of the lines of the header is this value, byte for byte.
    pub headers: Vec<(HeaderName, String)>,
    /// One of the parameters of this name has this value, after percent-decoding and `+` as space.
    pub query: Vec<(String, String)>,
    pub priority: i64,
}

/// The parts of a request that routes look at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As `value::host::canonical` gives it; `None` when the request has none (HTTP/1.0).
    pub host: Option<&'a str>,
    /// As `value::path::canonicalise` gives it.
    pub path: &'a str,
    /// As sent, without `?`.
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The number of the route: its index in what was compiled.
    Found(usize),
    /// No route, but with one of these methods there would be one: 405, and these are `Allow`.
    MethodNotAllowed(Vec<Method>),
    /// 404.
    Unknown,
}

/// All routes of a snapshot.
///
/// The most specific route wins, compared in this order:
/// 1. host: exact, then the longest wildcard, then any;
/// 2. path: exact, then the longest prefix (`/*` is the shortest), then a regex, then a route that
///    gives no path;
/// 3. method: a route that names it, then one that takes `HEAD` because it names `GET`, then one
///    that names none;
/// 4. more header conditions, then more query conditions;
/// 5. the higher priority, then the earlier in the file.
///
/// A route that loses on what it asks further gives way to the next one, on wider hosts too: it
/// does not hide them.
#[derive(Debug)]
pub struct Matcher {
    hosts: Hosts,
    specs: Vec<Spec>,
}

impl Matcher {
    /// Route `i` is `specs[i]` from here on.
    pub fn compile(specs: Vec<Spec>) -> Self {
        let mut order: Vec<_> = specs.iter().enumerate().collect();
        // Entries are filed in the order of precedence, so that every bucket is in it.
        order.sort_by_key(|(route, spec)| {
            (
                spec.methods.is_empty(),
                Reverse((spec.headers.len(), spec.query.len(), spec.priority)),
                *route,
            )
        });
        let mut hosts = Hosts::default();
        for (route, spec) in order {
            let entry = Entry::new(route, spec);
            let any = [host::Pattern::Any];
            for host in if spec.hosts.is_empty() { &any } else { &*spec.hosts } {
                hosts.insert(host, &spec.paths, &entry);
            }
        }
        hosts.seal();
        Self { hosts, specs }
    }

    /// The route that serves `request`. Allocates nothing when it finds one, but for a small set of
    /// flags where a host has many regexes.
    ///
    /// Routes that differ only in methods, headers or query are tried one after the other.
    pub fn find(&self, request: &Request<'_>) -> Outcome {
        let mut pick = Pick { request, asked: Asked::from(request.method) };
        if let Some(route) = self.hosts.visit(request.host, request.path, &mut pick) {
            return Outcome::Found(route);
        }
        let mut allowed = Allowed { request, methods: Vec::new() };
        self.hosts.visit(request.host, request.path, &mut allowed);
        if allowed.methods.is_empty() {
            Outcome::Unknown
        } else {
            Outcome::MethodNotAllowed(allowed.methods)
        }
    }

    /// What became of each route for `request`, in the order of the file. Slow: for people.
    pub fn explain(&self, request: &Request<'_>) -> Vec<Candidate> {
        explain::explain(&self.specs, request)
    }

    /// Pairs `(i, j)` where route `i` can never win because `j`, earlier in the file, asks for the
    /// same with the same priority. The order in which things are listed does not matter.
    pub fn shadowed(specs: &[Spec]) -> Vec<(usize, usize)> {
        explain::shadowed(specs)
    }
}

struct Pick<'r> {
    request: &'r Request<'r>,
    asked: Asked<'r>,
}

impl Visitor for Pick<'_> {
    fn visit<'m>(&mut self, mut entries: impl Iterator<Item = &'m Entry> + Clone) -> Option<usize> {
        let named = if self.asked.is_head() {
            entries.clone().find(|it| it.names_head() && it.holds(self.request))
        } else {
            None
        };
        named
            .or_else(|| entries.find(|it| it.accepts(self.asked) && it.holds(self.request)))
            .map(|it| it.route)
    }
}

/// Collects the methods of the routes that match in all else.
struct Allowed<'r> {
    request: &'r Request<'r>,
    methods: Vec<Method>,
}

impl Visitor for Allowed<'_> {
    fn visit<'m>(&mut self, entries: impl Iterator<Item = &'m Entry> + Clone) -> Option<usize> {
        for entry in entries.filter(|it| it.holds(self.request)) {
            for method in entry.allow() {
                if !self.methods.contains(method) {
                    self.methods.push(method.clone());
                }
            }
        }
        None
    }
}
