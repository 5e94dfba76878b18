//! `mcp`: servers of tools, who may use what; and what a route has of them.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::{
    Source, authenticators, dialects, limits, operations,
    routes::Scene,
    upstreams,
    words::{duration_or, listed, number_or, resolve, unknown},
};
use crate::{
    auth::bearer,
    config::raw::{self, Map, Word},
    content::schema::Schema,
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        mcp::{Api, Hub, Kind, Remote, Resource, Rule, Server},
        route::Action,
    },
    limit::{Key, LimitId, Subject as Counted},
    mcp::{
        access::{Filter, Pattern, Subject},
        name,
    },
    shared::{file, http_client, seal::Sealer},
    upstream::{EndpointSpec, Spec, Upstream},
    value::secret::Secret,
};

/// No upstream of the file can have it: names have no slash.
const PREFIX: &str = "mcp/";
/// Bytes of a schema of arguments.
const SCHEMA_MAX: u64 = 4 << 20;
const MOST_SERVERS: usize = 64;

type Upstreams = BTreeMap<Arc<str>, Arc<Upstream>>;

/// What routes refer to.
pub(super) struct Servers {
    pub servers: BTreeMap<Arc<str>, Arc<Server>>,
    access: Option<Arc<[Rule]>>,
    sealer: Arc<Sealer>,
}

pub(super) fn compile(
    source: &Source<'_>,
    shared: &Shared,
    secret_headers: &[HeaderName],
    upstreams: &mut Upstreams,
    root: &Path,
    problems: &mut Problems,
) -> Servers {
    let mut compiled =
        Servers { servers: BTreeMap::new(), access: None, sealer: shared.sealer.clone() };
    let Some(raw) = &source.raw.mcp else { return compiled };
    let at = root.key("mcp");
    let sealed = authenticators::oidc::Secrets {
        secret: raw.secret.as_ref(),
        previous: raw.previous_secret.as_ref(),
    };
    if let Some(sealer) = authenticators::oidc::sealer(&sealed, shared, &at, problems) {
        compiled.sealer = sealer;
    }
    if let Some(kept) = source.kept {
        // No file that it names is read again.
        compiled.servers = kept.mcp_servers.clone();
        compiled.access = kept.routes.iter().find_map(|route| match &route.action {
            Action::Mcp(hub) => hub.access.clone(),
            _ => None,
        });
        return compiled;
    }
    for (label, raw) in raw.servers.iter().flatten() {
        let at = at.key("servers").key(label);
        problems.keep(&at, name::server(label));
        let declared = DeclaredServer { label, source, shared, secret_headers, at: &at };
        if let Some(server) = declared.server(raw, upstreams, problems) {
            compiled.servers.insert(server.name.clone(), Arc::new(server));
        }
    }
    let at = at.key("access");
    compiled.access = raw.access.as_ref().map(|rules| {
        let all = rules.iter().enumerate();
        all.map(|(index, rule)| {
            let scene = RuleScene { raw, index, source, shared, at: &at.index(index) };
            scene.rule(rule, problems)
        })
        .collect()
    });
    compiled
}

struct DeclaredServer<'a> {
    label: &'a str,
    source: &'a Source<'a>,
    shared: &'a Shared,
    /// Headers of their own that carry keys or tokens.
    secret_headers: &'a [HeaderName],
    at: &'a Path,
}

impl DeclaredServer<'_> {
    fn server(
        &self,
        raw: &raw::McpServer,
        upstreams: &mut Upstreams,
        problems: &mut Problems,
    ) -> Option<Server> {
        let seconds = Duration::from_secs;
        let at = self.at.key("timeout");
        let timeout = duration_or(raw.timeout.as_ref(), seconds(60), &at, problems);
        let none = raw::McpTools::default();
        let tools = raw.tools.as_ref().unwrap_or(&none);
        let at = self.at.key("tools");
        let tools = Filter {
            allow: tools.allow.as_ref().map(|it| patterns(it, &at.key("allow"), problems)),
            deny: tools
                .deny
                .as_ref()
                .map_or_else(Box::default, |it| patterns(it, &at.key("deny"), problems)),
        };
        let at = self.at.key("concurrency");
        let concurrency = raw.concurrency.map(|_| {
            let most = number_or(raw.concurrency, 1_u64, 1..=1_000_000, &at, problems);
            let id = LimitId::new("mcp", self.label, usize::MAX);
            (Key::new(id, Counted::Route), most)
        });
        let (kind, state) = match raw.openapi {
            Some(_) => (Kind::Api(self.api(raw, problems)?), format!("{}\0", self.label)),
            None => {
                let (remote, state) = self.remote(raw, upstreams, problems)?;
                (Kind::Remote(remote), state)
            }
        };
        let live =
            self.shared.mcp_servers.get_or_make(&state, || Ok::<_, String>(Default::default()));
        Some(Server {
            name: self.label.into(),
            kind,
            tools,
            timeout,
            concurrency,
            live: problems.keep(self.at, live)?,
            metrics: self.shared.metrics.mcp_server(self.label),
        })
    }

    /// The operations of a document.
    fn api(&self, raw: &raw::McpServer, problems: &mut Problems) -> Option<Api> {
        let Self { source, at, secret_headers, .. } = *self;
        let scene = operations::Scene { source, secret_headers, at };
        scene.operations(raw, problems).map(Api::new)
    }

    /// And what tells it from any other: what is known of that one is not known of this.
    fn remote(
        &self,
        raw: &raw::McpServer,
        upstreams: &mut Upstreams,
        problems: &mut Problems,
    ) -> Option<(Remote, String)> {
        let before = problems.0.len();
        let Some(Word(url)) = &raw.url else {
            let hint = "write `url`, such as https://crm.internal/mcp, or `openapi`, a document";
            problems.add_with_hint(self.at, "`url` is missing", hint);
            return None;
        };
        operations::are_absent(raw, self.at, problems);
        let at = self.at.key("url");
        let (origin, path) = problems.keep(&at, split(url))?;
        let address = problems.keep(&at, Spec::parse_url(origin))?;
        let upstream: Arc<str> = format!("{PREFIX}{}", self.label).into();
        let mut spec = Spec::new(upstream.clone(), vec![EndpointSpec { address, weight: 1 }]);
        spec.keepalive = 512;
        let base_dir = self.source.base_dir;
        let tls = raw.tls.as_ref();
        spec.tls = tls.and_then(|it| upstreams::tls(it, base_dir, &self.at.key("tls"), problems));
        let none = raw::McpCredentials::default();
        let shown = raw.credentials.as_ref().unwrap_or(&none);
        let at = self.at.key("credentials");
        if raw.credentials.is_some() && shown.header.is_some() == shown.client_credentials.is_some()
        {
            problems.add(&at, "exactly one is needed: `header` or `client_credentials`");
        }
        let header = shown.header.as_ref().and_then(|it| header(it, &at.key("header"), problems));
        let token = shown.client_credentials.as_ref().and_then(|it| {
            let raw = raw::Credentials { client_credentials: Some(it.clone()) };
            upstreams::token(&upstream, &raw, self.shared, &at, problems)
        });
        let at = self.at.key("cache");
        let cache = duration_or(raw.cache.as_ref(), Duration::from_secs(60), &at, problems);
        if problems.0.len() > before {
            return None;
        }
        let shown: [u8; 32] = match &header {
            Some((name, value)) => {
                let whole = [name.as_str().as_bytes(), value.expose().as_bytes()].concat();
                Sha256::digest(whole).into()
            }
            None => [0; 32],
        };
        let state = format!("{}\0{url}\0{shown:?}", self.label);
        let made = Upstream::new(spec, &self.shared.endpoints);
        let made = Arc::new(problems.keep(self.at, made)?.with_token(token.map(Arc::new)));
        upstreams.insert(upstream, made.clone());
        let path = if path.is_empty() { "/" } else { path }.into();
        Some((Remote { upstream: made, path, header, cache }, state))
    }
}

fn split(url: &str) -> Result<(&str, &str), String> {
    dialects::split(url).map_err(|why| why.replace("a provider", "a server of tools"))
}

fn header(
    raw: &raw::McpHeader,
    at: &Path,
    problems: &mut Problems,
) -> Option<(HeaderName, Secret<HeaderValue>)> {
    let (Some(Word(name)), Some(Word(value))) = (&raw.name, &raw.value) else {
        let hint = "write {name: Authorization, value: \"Bearer ${env:TOKEN}\"}";
        problems.add_with_hint(at, "`name` and `value` are both needed", hint);
        return None;
    };
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{}` is not a header name", name.escape_debug()));
    let name = problems.keep(&at.key("name"), name)?;
    let own = ["host", "content-type", "content-length", "accept", "connection"];
    if own.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
        problems.add(&at.key("name"), format!("`{name}` is not for credentials"));
    }
    let parsed = HeaderValue::from_str(value).ok().filter(|it| !it.is_empty());
    let mut value = problems
        .keep(&at.key("value"), parsed.ok_or_else(|| "cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Some((name, Secret::new(value)))
}

fn patterns(words: &[Word], at: &Path, problems: &mut Problems) -> Box<[Pattern]> {
    let words = listed(Some(words), at, problems).unwrap_or_default();
    let all = words.iter().enumerate();
    all.filter_map(|(index, word)| problems.keep(&at.index(index), Pattern::parse(word))).collect()
}

struct RuleScene<'a> {
    raw: &'a raw::Mcp,
    index: usize,
    source: &'a Source<'a>,
    shared: &'a Shared,
    at: &'a Path,
}

impl RuleScene<'_> {
    fn rule(&self, rule: &raw::McpAccess, problems: &mut Problems) -> Rule {
        let mut words = |words: &Option<Vec<Word>>, key: &str| {
            let words = listed(words.as_deref(), &self.at.key(key), problems);
            words.unwrap_or_default().into_iter().map(Arc::from).collect::<Box<[Arc<str>]>>()
        };
        let subject = Subject {
            consumers: words(&rule.consumers, "consumers"),
            groups: words(&rule.groups, "groups"),
            scopes: words(&rule.scopes, "scopes"),
        };
        self.known(&subject, problems);
        if rule.tools.is_none() && rule.deny.is_none() {
            let hint = "write `tools: [\"crm__*\"]`, or `deny`";
            problems.add_with_hint(self.at, "`tools` is missing", hint);
        }
        let mut named = |words: &Option<Vec<Word>>, key: &str| {
            let at = self.at.key(key);
            let Some(words) = words else { return Box::default() };
            let patterns = patterns(words, &at, problems);
            for (index, pattern) in patterns.iter().enumerate() {
                self.is_of_some_server(pattern, words.get(index), &at.index(index), problems);
            }
            patterns
        };
        let (tools, deny) = (named(&rule.tools, "tools"), named(&rule.deny, "deny"));
        Rule {
            subject,
            tools,
            deny,
            windows: self.windows(rule, problems),
            arguments: rule.arguments.as_ref().and_then(|Word(name)| {
                let at = self.at.key("arguments");
                let schema = file::read(&self.source.base_dir.join(name), SCHEMA_MAX)
                    .and_then(|text| serde_json::from_slice(&text).map_err(|why| why.to_string()))
                    .and_then(|schema| Schema::compile(&schema).map(Arc::new))
                    .map_err(|why| format!("{name}: {why}"));
                problems.keep(&at, schema)
            }),
        }
    }

    /// Consumers of the file, where there is no store that may bring others.
    fn known(&self, subject: &Subject, problems: &mut Problems) {
        if self.source.raw.store.is_some() {
            return;
        }
        let none = Map::new();
        let consumers = self.source.raw.consumers.as_ref().unwrap_or(&none);
        for (index, consumer) in subject.consumers.iter().enumerate() {
            let at = self.at.key("consumers").index(index);
            resolve(consumer, "consumer", consumers, &at, problems);
        }
        let groups = consumers.values().flat_map(|it| it.groups.iter().flatten());
        let groups: Vec<&str> = groups.map(|it| it.0.as_str()).collect();
        for (index, group) in subject.groups.iter().enumerate() {
            if !groups.contains(&&**group) {
                let at = self.at.key("groups").index(index);
                unknown(group, "group", &groups, &at, problems);
            }
        }
    }

    /// A rule that can never apply is a mistake.
    fn is_of_some_server(
        &self,
        pattern: &Pattern,
        word: Option<&Word>,
        at: &Path,
        problems: &mut Problems,
    ) {
        let servers: Vec<&str> = self.raw.servers.iter().flatten().map(|it| &**it.0).collect();
        if !servers.iter().any(|it| pattern.may_match(&format!("{it}__"))) {
            let word = word.map_or("", |it| &it.0);
            let hint = format!("names are SERVER__TOOL; there is `{}`", servers.join("`, `"));
            let message = format!("`{}` is of no server", word.escape_debug());
            problems.add_with_hint(at, message, hint);
        }
    }

    fn windows(
        &self,
        rule: &raw::McpAccess,
        problems: &mut Problems,
    ) -> Option<crate::policy::rate_limit::Windows> {
        let raw = rule.rate_limits.as_deref()?;
        let at = self.at.key("rate_limits");
        let owner = format!("access.{}", self.index);
        let scope = limits::Scope { kind: "mcp", owner: &owner, shared: self.shared };
        let windows = scope.windows(Some(raw), &at, problems, None);
        Some(limits::together(windows, &at, problems))
    }
}

/// A route as it stands in the file.
pub(super) struct Declared<'a> {
    pub route: &'a raw::Route,
    pub id: &'a str,
    /// Of `mcp`.
    pub at: &'a Path,
}

impl Declared<'_> {
    pub fn hub(
        &self,
        raw: &raw::RouteMcp,
        scene: &Scene<'_>,
        problems: &mut Problems,
    ) -> Option<Hub> {
        let at = self.at.key("servers");
        let words = listed(raw.servers.as_deref(), &at, problems).unwrap_or_default();
        if raw.servers.is_none() {
            let hint = "write `mcp: {servers: [crm]}`";
            problems.add_with_hint(self.at, "`servers` is missing", hint);
        }
        if words.len() > MOST_SERVERS {
            problems.add(&at, format!("a route has at most {MOST_SERVERS} of them"));
        }
        let (none, mut servers) = (Map::new(), Vec::new());
        let known = scene.source.raw.mcp.as_ref().and_then(|it| it.servers.as_ref());
        for (index, word) in words.iter().enumerate() {
            let at = at.index(index);
            resolve(word, "server of tools", known.unwrap_or(&none), &at, problems);
            // One that failed to compile has its own problem already.
            servers.extend(scene.tools.servers.get(*word).cloned());
        }
        let is_prefixed = raw.prefix.unwrap_or(true);
        if !is_prefixed && words.len() > 1 {
            let message = "of several servers, names would be mistaken for each other's";
            problems.add(&self.at.key("prefix"), message);
        }
        let methods = self.route.r#match.as_ref().and_then(|it| it.methods.as_ref());
        if methods.is_some_and(|all| !all.iter().any(|it| it.0 == "POST")) {
            problems.add(self.at, "clients send POST, which this route does not match");
        }
        Some(Hub {
            route: self.id.into(),
            servers: servers.into(),
            is_prefixed,
            resource: self.resource(raw, problems),
            origins: self.origins(raw, problems),
            has_hosts: self.route.r#match.as_ref().is_some_and(|it| it.hosts.is_some()),
            access: scene.tools.access.clone(),
            sealer: scene.tools.sealer.clone(),
            limits: scene.shared.limits.clone(),
            in_flight: scene.shared.in_flight.clone(),
            is_public: self.route.public == Some(true),
        })
    }

    fn resource(&self, raw: &raw::RouteMcp, problems: &mut Problems) -> Option<Resource> {
        let Word(uri) = raw.resource.as_ref()?;
        let at = self.at.key("resource");
        if self.route.public == Some(true) {
            problems.add(&at, "a public route asks for no token");
        }
        let metadata = problems.keep(&at, bearer::metadata_url(uri))?;
        problems.keep(&at, http_client::endpoint(uri))?;
        let scopes = self.route.authorize.as_ref().and_then(|it| it.scopes.as_ref());
        let scopes = scopes.map(|it| it.iter().map(|it| &*it.0).collect::<Vec<_>>().join(" "));
        Some(Resource {
            uri: uri.as_str().into(),
            metadata: metadata.into(),
            scope: scopes.map(Into::into),
        })
    }

    fn origins(&self, raw: &raw::RouteMcp, problems: &mut Problems) -> Box<[Box<str>]> {
        let at = self.at.key("origins");
        let cors = self.route.cors.as_ref().and_then(|it| it.origins.as_ref());
        let mut origins: Vec<Box<str>> =
            cors.into_iter().flatten().map(|it| it.0.to_ascii_lowercase().into()).collect();
        let words = listed(raw.origins.as_deref(), &at, problems).unwrap_or_default();
        for (index, word) in words.into_iter().enumerate() {
            let is_fine = http_client::Url::parse(word)
                .is_ok_and(|it| it.origin().ascii_serialization() == word.to_ascii_lowercase());
            if !is_fine && word != "*" {
                let hint = "write it as browsers do: https://app.example.com";
                let message = format!("`{}` is not an origin", word.escape_debug());
                problems.add_with_hint(&at.index(index), message, hint);
            }
            origins.push(word.to_ascii_lowercase().into());
        }
        origins.into()
    }
}
