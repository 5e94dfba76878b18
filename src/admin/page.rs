//! The closed list of what the admin listener serves: paths, methods and who may.
use http::{HeaderValue, Method, header::ALLOW};

use super::{api::Resource, reply::Problem};

/// What is asked for: a page that is there once, or something that the API knows by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Page(Page),
    Api(Resource),
}

impl Target {
    pub fn find(path: &str) -> Option<Self> {
        Page::find(path).map(Self::Page).or_else(|| Resource::find(path).map(Self::Api))
    }

    /// For probes, which have neither a token nor a name that we know.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Page(Page::Healthz | Page::Readyz))
    }

    pub fn check_method(&self, method: &Method) -> Result<(), Problem> {
        let allow = match self {
            Self::Page(page) if page.is_action() => "POST",
            Self::Page(_) => "GET, HEAD",
            Self::Api(resource) => resource.allow(),
        };
        let refuse = || {
            Problem::new(405, "method_not_allowed").header(ALLOW, HeaderValue::from_static(allow))
        };
        allow.split(", ").any(|it| method == it).then_some(()).ok_or_else(refuse)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Index,
    Healthz,
    Readyz,
    Metrics,
    Status,
    Reload,
    Stop,
    Upgrade,
    Explain,
    Purge,
}

impl Page {
    pub fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Index,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/status" | "/api/status" => Self::Status,
            "/api/reload" => Self::Reload,
            "/api/stop" => Self::Stop,
            "/api/upgrade" => Self::Upgrade,
            "/api/explain" => Self::Explain,
            "/api/cache/purge" => Self::Purge,
            _ => return None,
        })
    }

    /// Asked for by POST, with a body or without.
    pub const fn is_action(self) -> bool {
        matches!(self, Self::Reload | Self::Stop | Self::Upgrade | Self::Explain | Self::Purge)
    }
}

pub const INDEX: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<title>Tollgate</title><h1>Tollgate</h1><ul>\
<li><a href=\"/status\">/status</a> what runs\
<li><a href=\"/metrics\">/metrics</a> for Prometheus\
<li><a href=\"/healthz\">/healthz</a> whether the process lives\
<li><a href=\"/readyz\">/readyz</a> whether it takes requests\
<li>POST /api/reload applies the configuration anew\
<li>POST /api/stop stops, after the requests in flight\
<li>POST /api/upgrade has another executable take over\
<li>POST /api/explain says what would happen to a request\
<li>POST /api/cache/purge removes stored responses\
<li><a href=\"/api/consumers\">/api/consumers</a>, <a href=\"/api/keys\">/api/keys</a>, \
<a href=\"/api/audit\">/api/audit</a>, <a href=\"/api/usage\">/api/usage</a></ul></html>\n";
