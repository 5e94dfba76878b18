//! `rewrite`, `request_headers`, `request_query` and `response_headers` of a route. What only the gateway
//! may say, and what would carry a credential where none belongs, is refused here.
use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderName, HeaderValue, header};

use super::{
    access::brings_claims,
    words::{listed, template},
};
use crate::{
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems, mask},
    flow::{identity::Source, reserved},
    policy::{
        authenticate::{Authenticate, Place},
        transform::{
            Transform,
            headers::{Headers, Text},
            query::{Pair, Query},
            rewrite::{Mistake, Replace, Rewrite},
        },
    },
    value::{
        host,
        path::{self, Rules},
        template::{Template, Variable},
    },
};

/// The framing and the connection, on either side.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The names that are set for an upstream and whose values nobody else is to see, by what they are called.
fn secret_names<'a>(
    raw: &'a raw::Config,
    edits: impl Fn(&'a raw::Route) -> Option<&'a raw::Edits>,
) -> impl Iterator<Item = &'a str> {
    let edits = raw.routes.iter().flatten().filter_map(edits);
    let names = edits.flat_map(|it| it.set.iter().chain(&it.add).flat_map(Map::keys));
    let is_secret = |it: &&str| mask::is_secret(it) || it.to_ascii_lowercase().ends_with("key");
    names.map(String::as_str).filter(is_secret)
}

/// The headers that routes show their upstreams as credentials.
pub(super) fn secret_headers(raw: &raw::Config) -> impl Iterator<Item = HeaderName> {
    let names = secret_names(raw, |it| it.request_headers.as_ref());
    names.filter_map(|it| HeaderName::from_bytes(it.as_bytes()).ok())
}

/// The query parameters that routes show their upstreams as credentials.
pub(super) fn secret_parameters(raw: &raw::Config) -> impl Iterator<Item = Arc<str>> {
    secret_names(raw, |it| it.request_query.as_ref()).map(Arc::from)
}

/// Which way the headers go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Set,
    Add,
    Remove,
}

/// What a route's changes are compiled against.
pub(super) struct Scene<'a> {
    pub config: &'a raw::Config,
    pub route: &'a raw::Route,
    pub id: &'a str,
    /// Of the route.
    pub at: &'a Path,
    /// None on a public route.
    pub authenticate: Option<&'a Authenticate>,
    pub rules: Rules,
}

impl Scene<'_> {
    pub fn compile(&self, problems: &mut Problems) -> Option<Transform> {
        let raw = self.route;
        let forwards = raw.upstream.is_some() || raw.split.is_some();
        let to_upstream = [
            ("rewrite", raw.rewrite.is_some()),
            ("request_headers", raw.request_headers.is_some()),
            ("request_query", raw.request_query.is_some()),
        ];
        for (key, is_written) in to_upstream {
            if is_written && !forwards {
                let message = "this route forwards nothing that could be changed";
                problems.add_with_hint(
                    &self.at.key(key),
                    message,
                    "it needs an `upstream` or a `split`",
                );
            }
        }
        if !to_upstream.iter().any(|(_, it)| *it) && raw.response_headers.is_none() {
            return None;
        }
        let rewrite = raw.rewrite.as_ref().and_then(|it| self.rewrite(it, problems));
        let query = raw.request_query.as_ref().map(|it| self.query(it, problems));
        let mut headers = |raw: Option<&raw::Edits>, key, side| {
            raw.map(|it| self.headers(it, side, &self.at.key(key), problems)).unwrap_or_default()
        };
        Some(Transform {
            rewrite,
            query: query.unwrap_or_default(),
            request: headers(raw.request_headers.as_ref(), "request_headers", Side::Request),
            response: headers(raw.response_headers.as_ref(), "response_headers", Side::Response),
        })
    }

    fn rewrite(&self, raw: &raw::Rewrite, problems: &mut Problems) -> Option<Rewrite> {
        let at = self.at.key("rewrite");
        if raw.strip_prefix.is_none()
            && raw.add_prefix.is_none()
            && raw.regex.is_none()
            && raw.host.is_none()
        {
            problems.add(&at, "`strip_prefix`, `add_prefix`, `regex` or `host` is needed");
        }
        let mut prefix_of = |word: &Option<Word>, key| {
            let Word(text) = word.as_ref()?;
            problems.keep(&at.key(key), prefix(text)).map(Box::from)
        };
        let strip: Option<Box<str>> = prefix_of(&raw.strip_prefix, "strip_prefix");
        let add = prefix_of(&raw.add_prefix, "add_prefix");
        if let Some(strip) = &strip
            && !self.may_begin_with(strip)
        {
            let message = format!("no path of this route begins with `{strip}`");
            problems.add(&at.key("strip_prefix"), message);
        }
        let replace = raw.regex.as_ref().and_then(|raw| replace(raw, &at.key("regex"), problems));
        let host = raw.host.as_ref().and_then(|Word(text)| {
            let parsed = host::canonical(text).map_err(|why| {
                format!("`{}` is not a host with or without a port: {why}", text.escape_debug())
            });
            problems.keep(&at.key("host"), parsed)?;
            HeaderValue::from_str(text).ok()
        });
        Some(Rewrite { strip, replace, add, host, rules: self.rules })
    }

    /// Whether some path that the route may serve is `prefix` or is under it.
    fn may_begin_with(&self, prefix: &str) -> bool {
        let Some(paths) = self.route.r#match.as_ref().and_then(|it| it.paths.as_ref()) else {
            return true;
        };
        let is_under = |path: &str, prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|it| it.is_empty() || it.starts_with('/'))
        };
        paths.iter().any(|Word(path)| match path.strip_suffix("/*") {
            _ if path.starts_with('~') => true,
            Some(served) => is_under(served, prefix) || is_under(prefix, served),
            None => is_under(path, prefix),
        })
    }

    fn query(&self, raw: &raw::Edits, problems: &mut Problems) -> Query {
        let at = self.at.key("request_query");
        check_written(raw, &at, problems);
        let mut pairs = |raw: Option<&Map<Word>>, key: &str| -> Box<[Pair]> {
            let mut pairs = Vec::new();
            for (name, Word(text)) in raw.into_iter().flatten() {
                let at = at.key(key).key(name);
                if let Some(value) = self.template(text, &at, problems) {
                    pairs.push(Pair::new(name, value));
                }
            }
            pairs.into()
        };
        let set = pairs(raw.set.as_ref(), "set");
        let add = pairs(raw.add.as_ref(), "add");
        let at = at.key("remove");
        let mut remove: Vec<Box<str>> = Vec::new();
        for (index, name) in
            listed(raw.remove.as_deref(), &at, problems).into_iter().flatten().enumerate()
        {
            if set.iter().any(|it| *it.name == *name) {
                problems.add(&at.index(index), "stands under `set` too, which replaces it");
            }
            remove.push(name.into());
        }
        Query { set, add, remove: remove.into() }
    }

    fn headers(&self, raw: &raw::Edits, side: Side, at: &Path, problems: &mut Problems) -> Headers {
        check_written(raw, at, problems);
        let set = self.texts(raw.set.as_ref(), side, Edit::Set, &at.key("set"), problems);
        let add = self.texts(raw.add.as_ref(), side, Edit::Add, &at.key("add"), problems);
        let at = at.key("remove");
        let mut remove = Vec::new();
        for (index, name) in
            listed(raw.remove.as_deref(), &at, problems).into_iter().flatten().enumerate()
        {
            let at = at.index(index);
            if let Some(name) = self.name(name, side, Edit::Remove, &at, problems) {
                if set.iter().any(|(it, _)| *it == name) {
                    problems.add(&at, "stands under `set` too, which replaces it");
                }
                remove.push(name);
            }
        }
        Headers { set, add, remove: remove.into() }
    }

    fn texts(
        &self,
        raw: Option<&Map<Word>>,
        side: Side,
        edit: Edit,
        at: &Path,
        problems: &mut Problems,
    ) -> Box<[(HeaderName, Text)]> {
        let (mut texts, mut seen) = (Vec::new(), BTreeSet::new());
        for (name, Word(text)) in raw.into_iter().flatten() {
            let at = at.key(name);
            let Some(name) = self.name(name, side, edit, &at, problems) else { continue };
            if !seen.insert(name.as_str().to_owned()) {
                problems.add(&at, "stands here already: case does not matter in a header name");
            }
            let Some(template) = self.template(text, &at, problems) else { continue };
            if let Some(text) = problems.keep(&at, written(template)) {
                texts.push((name, text));
            }
        }
        texts.into()
    }

    /// A name that may be changed so.
    fn name(
        &self,
        text: &str,
        side: Side,
        edit: Edit,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            problems.add(at, format!("`{}` is not a header name", text.escape_debug()));
            return None;
        };
        let refused = match side {
            _ if FRAMING.contains(&name.as_str()) => Some((
                format!("`{name}` is about the connection, which is the gateway's own"),
                "leave it out",
            )),
            _ if matches!(name.as_str(), "x-request-id" | "via") => {
                Some((format!("the gateway sets `{name}` itself"), "leave it out"))
            }
            Side::Request => self.refused_of_request(&name, edit),
            Side::Response => {
                let is_cors =
                    self.route.cors.is_some() && name.as_str().starts_with("access-control-");
                is_cors.then(|| {
                    (format!("`cors` of this route decides on `{name}`"), "write it there")
                })
            }
        };
        if let Some((message, hint)) = refused {
            problems.add_with_hint(at, message, hint);
            return None;
        }
        Some(name)
    }

    fn refused_of_request(&self, name: &HeaderName, edit: Edit) -> Option<(String, &'static str)> {
        if name == header::HOST {
            let message = "the host is not changed as a header".to_owned();
            return Some((message, "write `rewrite: {host: …}`"));
        }
        let of_caller = ["x-consumer-", "x-credential-", "x-authenticated-"];
        let says_who = of_caller.iter().any(|it| name.as_str().starts_with(it));
        if reserved::claim(name.as_str()).is_some() && !(says_who && edit == Edit::Remove) {
            let message = format!("only the gateway itself says `{name}`: upstreams believe it");
            return Some((message, "choose another name"));
        }
        if name == header::AUTHORIZATION {
            if edit == Edit::Add {
                let message = "a request has one `authorization` at most".to_owned();
                return Some((message, "write it under `set`"));
            }
            if self.has_token() {
                let message = "the upstream is sent an access token of its own".to_owned();
                return Some((message, "see `credentials` of the upstream"));
            }
        }
        None
    }

    /// Whether the upstream has `credentials`.
    fn has_token(&self) -> bool {
        let named = self.route.upstream.as_ref().into_iter();
        let split = self.route.split.iter().flatten().filter_map(|it| it.upstream.as_ref());
        named.chain(split).any(|Word(name)| {
            let upstream = self.config.upstreams.as_ref().and_then(|it| it.get(name));
            upstream.is_some_and(|it| it.credentials.is_some())
        })
    }

    fn template(&self, text: &str, at: &Path, problems: &mut Problems) -> Option<Template> {
        let template = template(text, self.id, at, problems)?;
        for variable in template.variables() {
            if let Some((message, hint)) = self.refused(variable) {
                problems.add_with_hint(at, message, hint);
                return None;
            }
        }
        Some(template)
    }

    /// Why a template may not name this.
    fn refused(&self, variable: &Variable) -> Option<(String, &'static str)> {
        let Some(authenticate) = self.authenticate else {
            if variable.is_of_caller() {
                let message = "a public route does not know who is calling".to_owned();
                return Some((message, "a route with `auth` does"));
            }
            return self.refused_of_client(variable, &[], &[]);
        };
        if matches!(variable, Variable::Claim(_))
            && !authenticate.any.iter().any(|it| brings_claims(it))
        {
            let message = "none of the authenticators of this route brings claims".to_owned();
            return Some((message, "tokens have claims; keys have `{credential.id}`"));
        }
        let places: &[Place] =
            if authenticate.pass_credentials { &[] } else { &authenticate.places };
        self.refused_of_client(variable, places, &authenticate.upstream_headers)
    }

    /// What a client sends, and what must not go on as it does.
    fn refused_of_client(
        &self,
        variable: &Variable,
        places: &[Place],
        ours: &[HeaderName],
    ) -> Option<(String, &'static str)> {
        let is_place = |source: &Source| {
            places.iter().any(|it| matches!(it, Place::Elsewhere(place) if place == source))
        };
        let in_query = |it: &Place| matches!(it, Place::Elsewhere(Source::Query(_)));
        match variable {
            Variable::Header(name)
                if reserved::claim(name.as_str()).is_some() || ours.contains(name) =>
            {
                let message = format!("`{name}` of a request is what anybody may claim");
                Some((message, "`{consumer.name}`, `{credential.id}` and `{client.ip}` are known"))
            }
            Variable::Header(name)
                if *name == header::COOKIE
                    || *name == header::PROXY_AUTHORIZATION
                    || *name == header::AUTHORIZATION && !places.is_empty()
                    || is_place(&Source::Header(name.clone())) =>
            {
                Some((
                    format!("`{name}` carries credentials, which go nowhere else"),
                    "leave it out",
                ))
            }
            Variable::Parameter(name) if is_place(&Source::Query((**name).into())) => Some((
                format!("`{name}` carries credentials, which go nowhere else"),
                "leave it out",
            )),
            Variable::Query | Variable::Uri if places.iter().any(in_query) => Some((
                "the query may carry a credential, which goes nowhere else".to_owned(),
                "name the parameters, as `{request.query.NAME}`",
            )),
            _ => None,
        }
    }
}

fn check_written(raw: &raw::Edits, at: &Path, problems: &mut Problems) {
    let is_empty = |it: &Option<Map<Word>>| it.as_ref().is_none_or(Map::is_empty);
    if is_empty(&raw.set) && is_empty(&raw.add) && raw.remove.is_none() {
        problems.add(at, "`set`, `add` or `remove` is needed");
    }
}

fn written(template: Template) -> Result<Text, String> {
    match template.fixed().map(|it| (it.is_empty(), HeaderValue::from_bytes(it.as_bytes()))) {
        Some((true, _)) => {
            Err("the value is empty; to send none, write the name under `remove`".to_owned())
        }
        Some((false, Ok(value))) => Ok(Text::Fixed(value)),
        None if template.texts().all(|it| HeaderValue::from_bytes(it.as_bytes()).is_ok()) => {
            Ok(Text::Filled(template))
        }
        _ => Err("the value cannot stand in a header: it has a control character".to_owned()),
    }
}

fn replace(raw: &raw::Replace, at: &Path, problems: &mut Problems) -> Option<Replace> {
    let (Some(Word(from)), Some(Word(to))) = (&raw.from, &raw.to) else {
        let hint = "write {from: \"^/old/(.*)\", to: \"/new/$1\"}";
        problems.add_with_hint(at, "`from` and `to` are both needed", hint);
        return None;
    };
    match Replace::parse(from, to) {
        Ok(replace) => return Some(replace),
        Err(Mistake::From(why)) => problems.add(&at.key("from"), why),
        Err(Mistake::To(why)) if to.contains('?') => {
            problems.add_with_hint(&at.key("to"), why, "the query is changed by `request_query`");
        }
        Err(Mistake::To(why)) => problems.add(&at.key("to"), why),
    }
    None
}

/// A canonical path of one or more whole segments.
fn prefix(text: &str) -> Result<&str, String> {
    let shown = text.escape_debug();
    if text.trim_end_matches('/').is_empty() {
        return Err(format!("`{shown}` is no prefix, such as `/v2`"));
    }
    let wrong = |why: String| Err(format!("`{shown}` is no prefix of a path: {why}"));
    match path::canonicalise(text, Rules { merge_slashes: true }) {
        Err(why) => wrong(why.to_string()),
        Ok(it) if it.has_encoded_slash || it.has_encoded_nul => {
            wrong("it has an encoded slash or NUL".to_owned())
        }
        Ok(it) => match it.path.strip_suffix('/') {
            Some(without) => wrong(format!("write `{without}`; whole segments are meant")),
            None if it.path != text => wrong(format!("write `{}`", it.path)),
            None => Ok(text),
        },
    }
}
