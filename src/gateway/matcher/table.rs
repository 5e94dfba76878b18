//! Where routes are filed: hosts, and under each its paths. A walk passes the buckets that stand
//! for a host and a path in the order of precedence.
use std::{
    collections::{HashMap, hash_map},
    hash::BuildHasherDefault,
    iter,
};

use ahash::AHasher;
use compact_str::CompactString;
use memchr::{memchr_iter, memrchr};
use regex::{Regex, RegexSet, RegexSetBuilder};

use super::{PathPattern, condition::Entry};
use crate::value::host;

/// Up to here regexes are run one by one, which allocates nothing; beyond, all at once as a set.
const FEW: usize = 8;
/// Most bytes of a compiled set. 10,000 usual patterns fit; beyond, they are run one by one.
const SET_SIZE: usize = 64 << 20;
/// Most bytes of a thread's cache for a set. With the default of 2 MiB the cache of 10,000 patterns
/// is thrown away all the time: 1.7 ms a look-up instead of 0.7 us.
const SET_CACHE: usize = 16 << 20;

/// Without a key of its own, which would be 32 bytes a map to read on each look-up: only operators
/// put names in, so that clients cannot make them collide. A name of up to 24 bytes lies in the map
/// itself: at many routes each place in memory that is read is one that is far.
type Map<T> = HashMap<CompactString, T, BuildHasherDefault<AHasher>>;

/// Looks at buckets, most specific first, until it answers.
pub trait Visitor {
    /// `entries` are equal in host and path, and in the order of precedence.
    fn visit<'m>(&mut self, entries: impl Iterator<Item = &'m Entry> + Clone) -> Option<usize>;
}

/// The routes of one host and one path. Mostly one, which therefore lies in the map itself.
#[derive(Debug)]
struct Bucket {
    first: Entry,
    rest: Vec<Entry>,
}

impl Bucket {
    fn iter(&self) -> impl Iterator<Item = &Entry> + Clone {
        iter::once(&self.first).chain(&self.rest)
    }
}

#[derive(Debug, Default)]
pub struct Hosts {
    exact: Map<Paths>,
    /// By the name after `*.`.
    wildcard: Map<Paths>,
    /// Bit `n`: a wildcard has `n` labels after its star. A host has 127 labels at most.
    wildcard_labels: u128,
    any: Paths,
}

impl Hosts {
    pub fn insert(&mut self, host: &host::Pattern, paths: &[PathPattern], entry: &Entry) {
        let table = match host {
            host::Pattern::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
            host::Pattern::Wildcard(suffix) => {
                self.wildcard_labels |= 1_u128.checked_shl(labels(suffix)).unwrap_or(0);
                self.wildcard.entry(suffix.as_str().into()).or_default()
            }
            host::Pattern::Any => &mut self.any,
        };
        if paths.is_empty() {
            table.wide.get_or_insert_default().pathless.push(entry.clone());
        }
        for path in paths {
            table.insert(path, entry);
        }
    }

    /// To be called once, after the last `insert`.
    pub fn seal(&mut self) {
        let wildcard = self.wildcard.values_mut();
        for table in self.exact.values_mut().chain(wildcard).chain([&mut self.any]) {
            table.seal();
        }
    }

    pub fn visit(
        &self,
        host: Option<&str>,
        path: &str,
        visitor: &mut impl Visitor,
    ) -> Option<usize> {
        let named = host.and_then(|host| {
            let exact = self.exact.get(host).and_then(|it| it.visit(path, visitor));
            exact.or_else(|| self.visit_wildcards(host, path, visitor))
        });
        named.or_else(|| self.any.visit(path, visitor))
    }

    /// From the longest wildcard to the shortest.
    fn visit_wildcards(&self, host: &str, path: &str, visitor: &mut impl Visitor) -> Option<usize> {
        if self.wildcard_labels == 0 {
            return None;
        }
        let (mut rest, mut count) = (host, labels(host));
        while let Some((_, suffix)) = rest.split_once('.') {
            (rest, count) = (suffix, count.saturating_sub(1));
            if self.wildcard_labels.checked_shr(count).unwrap_or(0) & 1 == 1
                && let Some(table) = self.wildcard.get(suffix)
                && let Some(found) = table.visit(path, visitor)
            {
                return Some(found);
            }
        }
        None
    }
}

fn labels(host: &str) -> u32 {
    u32::try_from(memchr_iter(b'.', host.as_bytes()).count() + 1).unwrap_or(u32::MAX)
}

/// Entries come in the order of precedence, and a route may list the same path twice.
fn file(map: &mut Map<Bucket>, path: &str, entry: &Entry) {
    match map.entry(path.into()) {
        hash_map::Entry::Vacant(free) => {
            free.insert(Bucket { first: entry.clone(), rest: Vec::new() });
        }
        hash_map::Entry::Occupied(mut bucket) => {
            let bucket = bucket.get_mut();
            if bucket.rest.last().unwrap_or(&bucket.first).route != entry.route {
                bucket.rest.push(entry.clone());
            }
        }
    }
}

/// The paths under one host pattern.
#[derive(Debug, Default)]
struct Paths {
    exact: Map<Bucket>,
    prefixes: Prefixes,
    /// Apart, so that the table of one of many hosts is small.
    wide: Option<Box<Wide>>,
}

#[derive(Debug, Default)]
struct Wide {
    regexes: Regexes,
    /// The routes that give no path.
    pathless: Vec<Entry>,
}

impl Paths {
    fn insert(&mut self, path: &PathPattern, entry: &Entry) {
        match path {
            PathPattern::Exact(path) => {
                file(&mut self.exact, path, entry);
            }
            PathPattern::Prefix(path) => {
                file(&mut self.prefixes.by_path, path, entry);
            }
            PathPattern::Regex(regex) => {
                self.wide.get_or_insert_default().regexes.insert(regex, entry);
            }
        }
    }

    fn seal(&mut self) {
        self.prefixes.seal();
        if let Some(wide) = &mut self.wide {
            wide.regexes.seal();
        }
    }

    fn visit(&self, path: &str, visitor: &mut impl Visitor) -> Option<usize> {
        let exact = self.exact.get(path).and_then(|it| visitor.visit(it.iter()));
        exact
            .or_else(|| self.prefixes.visit(path, visitor))
            .or_else(|| self.wide.as_ref()?.visit(path, visitor))
    }
}

impl Wide {
    fn visit(&self, path: &str, visitor: &mut impl Visitor) -> Option<usize> {
        let found = self.regexes.visit(path, visitor);
        found.or_else(|| visitor.visit(self.pathless.iter()))
    }
}

#[derive(Debug, Default)]
struct Prefixes {
    by_path: Map<Bucket>,
    /// How many segments the prefixes have, each number once, the largest first. Only boundaries at
    /// these are looked up, so a path of a thousand segments costs no more than a short one.
    depths: Vec<usize>,
}

impl Prefixes {
    fn seal(&mut self) {
        self.depths = self.by_path.keys().map(|it| it.matches('/').count()).collect();
        self.depths.sort_unstable_by(|a, b| b.cmp(a));
        self.depths.dedup();
    }

    /// From the longest prefix to the shortest.
    fn visit(&self, path: &str, visitor: &mut impl Visitor) -> Option<usize> {
        let deepest = *self.depths.first()?;
        // What is before the n-th slash (counted from 0) is a prefix of n segments.
        let (mut depth, mut end) =
            memchr_iter(b'/', path.as_bytes()).take(deepest + 1).enumerate().last()?;
        for wanted in &self.depths {
            while depth > *wanted {
                end = memrchr(b'/', path.as_bytes().get(..end)?)?;
                depth -= 1;
            }
            if depth == *wanted
                && let Some(bucket) = self.by_path.get(path.get(..end)?)
                && let Some(found) = visitor.visit(bucket.iter())
            {
                return Some(found);
            }
        }
        None
    }
}

#[derive(Debug, Default)]
struct Regexes {
    /// With the index of the pattern.
    entries: Vec<(Entry, usize)>,
    patterns: Vec<Regex>,
    /// All patterns, when they are many and not too large together.
    set: Option<RegexSet>,
    numbers: HashMap<String, usize>,
}

impl Regexes {
    fn insert(&mut self, regex: &Regex, entry: &Entry) {
        let patterns = &mut self.patterns;
        let number = *self.numbers.entry(regex.as_str().to_owned()).or_insert_with(|| {
            patterns.push(regex.clone());
            patterns.len() - 1
        });
        self.entries.push((entry.clone(), number));
    }

    fn seal(&mut self) {
        self.numbers = HashMap::new();
        if self.patterns.len() > FEW {
            self.set = RegexSetBuilder::new(self.patterns.iter().map(Regex::as_str))
                .size_limit(SET_SIZE)
                .dfa_size_limit(SET_CACHE)
                .build()
                .ok();
        }
    }

    fn visit(&self, path: &str, visitor: &mut impl Visitor) -> Option<usize> {
        let entries = self.entries.iter();
        match &self.set {
            _ if self.entries.is_empty() => None,
            None => visitor.visit(
                entries
                    .filter(|(_, number)| {
                        self.patterns.get(*number).is_some_and(|it| it.is_match(path))
                    })
                    .map(|(entry, _)| entry),
            ),
            // Asked first because it allocates nothing, and most paths match none.
            Some(set) if !set.is_match(path) => None,
            Some(set) => {
                let matched = set.matches(path);
                visitor.visit(
                    entries.filter(|(_, number)| matched.matched(*number)).map(|(entry, _)| entry),
                )
            }
        }
    }
}
