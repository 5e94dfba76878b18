//! `mcp.servers.*` with an OpenAPI document: which of its operations become tools, and the route that
//! calls of them go through.
use http::HeaderName;

use super::{
    Source, matches,
    words::{listed, size_or, unknown},
};
use crate::{
    config::{
        self,
        raw::{self, Word},
    },
    content::openapi::function::{self, Filter, Function, Problem, Selection},
    diagnostic::{Path, Problems},
    flow::reserved,
    gateway::{matcher::PathPattern, operations::Operations},
    shared::file,
    value::host,
};

/// Bytes of a document.
const DOCUMENT_MAX: u64 = 16 << 20;
/// Bytes of an answer, unless more are asked for: a model is to read it.
const ANSWER: u64 = 1 << 20;
const ANSWER_MAX: u64 = 64 << 20;

/// What concerns the connection or is said by the gateway, and so by no argument.
const OURS: [&str; 22] = [
    "host",
    "authorization",
    "proxy-authorization",
    "cookie",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "via",
    "origin",
    "accept-encoding",
    "user-agent",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
];

/// What is needed of the rest of the configuration.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub source: &'a Source<'a>,
    /// Headers of their own that carry keys or tokens.
    pub secret_headers: &'a [HeaderName],
    /// Of the server.
    pub at: &'a Path,
}

/// Nothing is written that only servers with a document have.
pub(super) fn are_absent(raw: &raw::McpServer, at: &Path, problems: &mut Problems) {
    let others = [
        ("route", raw.route.is_some()),
        ("operations", raw.operations.is_some()),
        ("answer_limit", raw.answer_limit.is_some()),
    ];
    for (key, _) in others.iter().filter(|(_, is_written)| *is_written) {
        problems.add(&at.key(key), format!("`{key}` is for a server with `openapi`"));
    }
}

impl Scene<'_> {
    /// The tools of a server that has a document.
    pub fn operations(&self, raw: &raw::McpServer, problems: &mut Problems) -> Option<Operations> {
        let before = problems.0.len();
        self.is_of_documents(raw, problems);
        let route = self.route(raw, problems);
        let selection = self.selection(raw, problems);
        let at = self.at.key("answer_limit");
        let most = size_or(raw.answer_limit.as_ref(), ANSWER, &at, problems);
        if !(1..=ANSWER_MAX).contains(&most) {
            problems.add(&at, "must be within 1 B to 64 MiB");
        }
        let (route, selection) = (route?, selection?);
        let functions = self.read(raw, &selection, problems)?;
        self.are_matched(route, &functions, problems);
        if problems.0.len() > before {
            return None;
        }
        let id = route.id.as_ref().map_or("", |it| &it.0);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Some(Operations::new(id.into(), asked_host(route), most, functions))
    }

    /// Nothing is written that only servers with a `url` have.
    fn is_of_documents(&self, raw: &raw::McpServer, problems: &mut Problems) {
        let others = [
            ("credentials", raw.credentials.is_some()),
            ("tls", raw.tls.is_some()),
            ("cache", raw.cache.is_some()),
        ];
        if raw.url.is_some() {
            problems.add(self.at, "exactly one is needed: `url` or `openapi`");
        }
        for (key, _) in others.iter().filter(|(_, is_written)| *is_written) {
            let hint = "its route's upstream says how it is reached";
            let message = format!("`{key}` is for a server with `url`");
            problems.add_with_hint(&self.at.key(key), message, hint);
        }
    }

    fn route(&self, raw: &raw::McpServer, problems: &mut Problems) -> Option<&raw::Route> {
        let Some(Word(id)) = &raw.route else {
            let hint = "write the id of the route whose policies calls go through";
            problems.add_with_hint(self.at, "`route` is missing", hint);
            return None;
        };
        let at = self.at.key("route");
        let routes = self.source.raw.routes.as_deref().unwrap_or_default();
        let found = routes.iter().find(|it| it.id.as_ref().is_some_and(|it| it.0 == *id));
        let Some(route) = found else {
            let ids: Vec<&str> = routes.iter().filter_map(|it| Some(&*it.id.as_ref()?.0)).collect();
            unknown(id, "route", &ids, &at, problems);
            return None;
        };
        if route.mcp.is_some() {
            problems.add(&at, "a route of tools cannot be called as a tool");
            return None;
        }
        Some(route)
    }

    fn selection(&self, raw: &raw::McpServer, problems: &mut Problems) -> Option<Selection> {
        let before = problems.0.len();
        let at = self.at.key("operations");
        let hint = "such as `operations: {methods: [GET]}` or `operations: {ids: [listOrders]}`";
        let Some(raw) = &raw.operations else {
            problems.add_with_hint(
                self.at,
                "`operations` is missing: say which become tools",
                hint,
            );
            return None;
        };
        let is_none =
            raw.ids.is_none() && raw.methods.is_none() && raw.tags.is_none() && raw.paths.is_none();
        if is_none {
            let message = "say which become tools: `ids`, `methods`, `tags` or `paths`";
            problems.add_with_hint(&at, message, hint);
            return None;
        }
        let mut words = |words: &Option<Vec<Word>>, key: &str| {
            let words = listed(words.as_deref(), &at.key(key), problems);
            words.unwrap_or_default().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let mut selection = Selection {
            ids: words(&raw.ids, "ids"),
            methods: Vec::new(),
            tags: words(&raw.tags, "tags"),
            paths: words(&raw.paths, "paths"),
            except: words(&raw.except, "except"),
        };
        for (index, word) in words(&raw.methods, "methods").iter().enumerate() {
            let at = at.key("methods").index(index);
            let method = problems.keep(&at, matches::method(word));
            if let Some(method) = &method
                && !function::METHODS.contains(method)
            {
                let known = function::METHODS.map(|it| it.to_string()).join(", ");
                let message = format!("`{method}` cannot be called as a tool");
                problems.add_with_hint(&at, message, format!("there is {known}"));
            }
            selection.methods.extend(method);
        }
        (problems.0.len() == before).then_some(selection)
    }

    fn read(
        &self,
        raw: &raw::McpServer,
        selection: &Selection,
        problems: &mut Problems,
    ) -> Option<Vec<Function>> {
        let Word(name) = raw.openapi.as_ref()?;
        let at = self.at.key("openapi");
        let document = file::read(&self.source.base_dir.join(name), DOCUMENT_MAX)
            .and_then(|text| String::from_utf8(text).map_err(|_| "not UTF-8".to_owned()))
            .and_then(|text| config::document(&text))
            .map_err(|why| format!("{name}: {why}"));
        let document = problems.keep(&at, document)?;
        let is_secret = |header: &str| {
            self.secret_headers.iter().any(|it| reserved::is_alias(header, it.as_str()))
        };
        let is_ours = |header: &str| {
            reserved::claim(header).is_some()
                || OURS.iter().any(|it| reserved::is_alias(header, it))
                || is_secret(header)
        };
        match function::read(document, selection, &is_ours) {
            Ok(functions) => Some(functions),
            Err(found) => {
                for problem in found {
                    self.add(&problem, selection, name, problems);
                }
                None
            }
        }
    }

    fn add(&self, problem: &Problem, selection: &Selection, file: &str, problems: &mut Problems) {
        let (filter, index) = match problem {
            Problem::Document(why) => {
                return problems.add(&self.at.key("openapi"), format!("{file}: {why}"));
            }
            Problem::Unused(filter, index) => (filter, *index),
        };
        let (key, what, words) = match filter {
            Filter::Ids => ("ids", "operation", &selection.ids),
            Filter::Tags => ("tags", "operation with the tag", &selection.tags),
            Filter::Paths => ("paths", "path", &selection.paths),
            Filter::Except => ("except", "operation", &selection.except),
        };
        let word = words.get(index).map_or("", String::as_str).escape_debug();
        let at = self.at.key("operations").key(key).index(index);
        problems.add(&at, format!("{file} has no {what} `{word}`"));
    }

    /// A call that another route would answer, or none, is a mistake that would show only when it is made.
    fn are_matched(&self, route: &raw::Route, functions: &[Function], problems: &mut Problems) {
        // What is wrong with it is said where it stands.
        let spec = matches::spec(route, &Path::root(), &mut Problems::default());
        let at = self.at.key("route");
        if !spec.headers.is_empty() || !spec.query.is_empty() {
            let hint = "a call of a tool has only what its arguments say";
            let message = "a route that matches headers or the query cannot be called as a tool";
            problems.add_with_hint(&at, message, hint);
        }
        let id = route.id.as_ref().map_or("", |it| &it.0);
        for function in functions {
            let Function { name, method, path, .. } = function;
            let takes_method = spec.methods.is_empty() || spec.methods.contains(method);
            let takes_path =
                spec.paths.is_empty() || spec.paths.iter().any(|it| may_match(it, path));
            if !(takes_method && takes_path) {
                let message = format!("route `{id}` does not match {method} {path} (`{name}`)");
                let hint = "the path of a call is that of the document's first server and the \
                            operation's own";
                problems.add_with_hint(&at, message, hint);
            }
        }
    }
}

/// Whether a path that is made of `template` may match.
fn may_match(pattern: &PathPattern, template: &str) -> bool {
    let fits = |ours: &str, theirs: &str| ours == theirs || theirs.contains(['{', '%']);
    let mut theirs = template.split('/');
    match pattern {
        PathPattern::Regex(_) => true,
        PathPattern::Exact(path) => {
            let is_same =
                path.split('/').all(|ours| theirs.next().is_some_and(|it| fits(ours, it)));
            is_same && theirs.next().is_none()
        }
        PathPattern::Prefix(path) => {
            path.split('/').all(|ours| theirs.next().is_some_and(|it| fits(ours, it)))
        }
    }
}

/// The host that calls are for: the first that is one, and none where any will do.
fn asked_host(route: &raw::Route) -> Option<Box<str>> {
    let hosts = route.r#match.as_ref()?.hosts.as_deref()?;
    let host = hosts.iter().find(|it| !it.0.contains('*'))?;
    host::canonical(&host.0).ok().map(|it| it.into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_may_match_what_a_template_makes() {
        let check = |pattern: &str, template: &str, expected: bool| {
            let pattern = PathPattern::parse(pattern).unwrap();
            assert_eq!(may_match(&pattern, template), expected, "{pattern} {template}");
        };
        check("/*", "/a", true);
        check("/a/*", "/a", true);
        check("/a/*", "/a/{id}", true);
        check("/a/*", "/ab", false);
        check("/a/b/*", "/a/{id}", true);
        check("/a/b/*", "/{x}", false);
        check("/a", "/a", true);
        check("/a", "/a/b", false);
        check("/a/b", "/a/{id}", true);
        check("/a/b", "/a/x{id}", true);
        check("~^/v[0-9]+$", "/anything", true);
    }
}
