//! The admin listener: health, metrics, status and the API that operates the process. HTTP/1.1 on
//! an address of its own, with an authentication of its own. It reaches the rest through `Control`
//! alone; the data path never passes here.
mod api;
pub mod client;
mod guard;
mod page;
mod reply;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Response, request::Parts};
use pingora::{apps::http_app::ServeHttp, protocols::http::ServerSession};
use serde_json::{Value, json};

pub use self::{
    api::{Identities, counts},
    guard::Caller,
};
use self::{
    page::{Page, Target},
    reply::{Problem, Reply},
};
pub use crate::gateway::token::{Role, Token};
use crate::store::Origin;

/// The longest body that is read.
const BODY: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The answer to a stop leaves before the process does.
const STOP_DELAY: Duration = Duration::from_millis(100);

/// What the admin listener asks of the process. Called on a thread that may block, except for the
/// words that answer at once.
pub trait Control: Send + Sync + 'static {
    /// At once. Whether the first snapshot runs and the listeners accept.
    fn is_ready(&self) -> bool;
    /// At once. Whether the process is stopping.
    fn is_draining(&self) -> bool;
    /// At once. The tokens of the configuration that runs.
    fn tokens(&self) -> Arc<[Token]>;
    /// At once. Whether the admin address can be reached from this machine alone.
    fn is_loopback(&self) -> bool;
    /// Begins to stop and returns.
    fn stop(&self, fast: bool);
    fn status(&self) -> Value;
    /// Applies the configuration as it now stands in its file and answers its revision.
    ///
    /// # Errors
    /// Every reason why the old one goes on.
    fn reload(&self, cause: &str) -> Result<String, Vec<String>>;
    /// Has another process take over and answers its number once it serves.
    ///
    /// # Errors
    /// Why this one goes on.
    fn upgrade(&self, asked: Upgrade) -> Result<u32, NotUpgraded>;
    /// At once. Consumers and keys, of the file and of the store.
    fn identities(&self) -> Identities;
    /// Applies the store as it now is.
    ///
    /// # Errors
    /// Every reason why what ran before goes on.
    fn sync(&self) -> Result<(), Vec<String>>;
    /// The text of a scrape.
    fn metrics(&self) -> String;
    /// # Errors
    /// What is wrong with the question.
    fn explain(&self, request: Value) -> Result<Value, String>;
    /// Removes stored responses; says how many, where that was counted.
    ///
    /// # Errors
    /// What is wrong with the question.
    fn purge(&self, request: Value) -> Result<Value, String>;
}

/// Another process is to take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Another executable than the one that runs.
    pub program: Option<PathBuf>,
    pub patience: Option<Duration>,
    pub cause: String,
}

/// Why none has.
#[derive(Clone, Debug)]
pub struct NotUpgraded {
    /// Whether something else is under way.
    pub is_conflict: bool,
    pub why: String,
}

/// The application of the admin listener, for `HttpServerApp::process_new_http`.
pub struct Admin<C> {
    control: Arc<C>,
}

#[async_trait]
impl<C: Control> ServeHttp for Admin<C> {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        session.set_write_timeout(Some(WRITE_TIMEOUT));
        let is_head = session.req_header().method == http::Method::HEAD;
        let request_id = request_id(session.req_header());
        let answer = self.answer(session, &request_id).await;
        let reply = answer.unwrap_or_else(|problem| problem.into_reply(&request_id));
        let reply = match HeaderValue::from_str(&request_id) {
            Ok(value) => reply.header(X_REQUEST_ID, value),
            Err(_) => reply,
        };
        reply.into_response(is_head)
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A word of the caller's, so that it finds its request in the audit; else a random one.
fn request_id(head: &Parts) -> String {
    let given = head.headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_word = |text: &&str| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (1..=64).contains(&text.len()) && text.chars().all(is_fine)
    };
    let random = || format!("{:032x}", fastrand::u128(..));
    given.filter(is_word).map_or_else(random, str::to_owned)
}

/// Times of keys are read by people.
fn whole_second() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl<C: Control> Admin<C> {
    pub const fn new(control: Arc<C>) -> Self {
        Self { control }
    }

    async fn answer(
        &self,
        session: &mut ServerSession,
        request_id: &str,
    ) -> Result<Reply, Problem> {
        let (target, caller) = self.admit(session.req_header())?;
        let head = session.req_header();
        match target {
            Target::Page(page) => {
                caller.may(&head.method)?;
                let body = if page.is_action() { read_body(session).await? } else { Vec::new() };
                self.perform(page, &caller, &body).await
            }
            Target::Api(resource) => {
                let client = session.client_addr().and_then(|it| it.as_inet());
                let origin = Origin {
                    actor: caller.actor().to_owned(),
                    role: caller.role(),
                    request_id: request_id.to_owned(),
                    source: client.map(|it| it.ip().to_string()).unwrap_or_default(),
                    now: whole_second(),
                };
                let request = api::Request::new(resource, head, origin);
                let body = match caller.may(&head.method) {
                    Ok(()) => request.body(session).await,
                    Err(problem) => Err(problem),
                };
                api::answer(&self.control, &request, body).await
            }
        }
    }

    /// Decides from the head alone, before anything of the body is read.
    fn admit(&self, head: &Parts) -> Result<(Target, Caller), Problem> {
        let target = Target::find(head.uri.path());
        let caller = match &target {
            Some(target) if target.is_open() => Caller::Anyone,
            _ => guard::admit(head, &self.control.tokens(), self.control.is_loopback())?,
        };
        let target = target.ok_or_else(|| Problem::new(404, "not_found"))?;
        target.check_method(&head.method)?;
        Ok((target, caller))
    }

    async fn perform(&self, page: Page, caller: &Caller, body: &[u8]) -> Result<Reply, Problem> {
        match page {
            Page::Index => Ok(Reply::html(page::INDEX)),
            Page::Healthz => Ok(Reply::text(200, "ok\n")),
            Page::Readyz => Ok(self.readiness()),
            Page::Metrics => self.blocking(Control::metrics).await.map(Reply::metrics),
            Page::Status => self.blocking(Control::status).await.map(|it| Reply::json(200, &it)),
            Page::Reload => self.reload(caller).await,
            Page::Stop => self.stop(caller, body),
            Page::Upgrade => self.upgrade(caller, body).await,
            Page::Explain => self.explain(body).await,
            Page::Purge => self.purge(caller, body).await,
        }
    }

    fn readiness(&self) -> Reply {
        if self.control.is_draining() {
            Reply::text(503, "draining\n")
        } else if self.control.is_ready() {
            Reply::text(200, "ready\n")
        } else {
            Reply::text(503, "starting\n")
        }
    }

    async fn reload(&self, caller: &Caller) -> Result<Reply, Problem> {
        let cause = format!("admin API, by {caller}");
        match self.blocking(move |control| control.reload(&cause)).await? {
            Ok(revision) => Ok(Reply::json(200, &json!({"applied": true, "revision": revision}))),
            Err(errors) => Err(Problem::new(422, "reload_failed")
                .detail("the configuration was not applied; the old one goes on")
                .errors(errors)),
        }
    }

    fn stop(&self, caller: &Caller, body: &[u8]) -> Result<Reply, Problem> {
        let fast = match object(body)?.get("fast") {
            None => false,
            Some(Value::Bool(fast)) => *fast,
            Some(_) => return Err(Problem::malformed("`fast` is true or false")),
        };
        log::info!("stop asked for by {caller} over the admin API, fast: {fast}");
        let control = Arc::clone(&self.control);
        tokio::spawn(async move {
            tokio::time::sleep(STOP_DELAY).await;
            control.stop(fast);
        });
        Ok(Reply::json(202, &json!({"stopping": true, "fast": fast})))
    }

    async fn upgrade(&self, caller: &Caller, body: &[u8]) -> Result<Reply, Problem> {
        let asked = upgrade(&object(body)?, caller)?;
        match self.blocking(move |control| control.upgrade(asked)).await? {
            Ok(pid) => Ok(Reply::json(200, &json!({"upgraded": true, "pid": pid}))),
            Err(NotUpgraded { is_conflict: true, why }) => {
                Err(Problem::new(409, "upgrade_not_possible").detail(why))
            }
            Err(NotUpgraded { why, .. }) => Err(Problem::new(422, "upgrade_failed")
                .detail("the process goes on as it was")
                .errors([why])),
        }
    }

    async fn explain(&self, body: &[u8]) -> Result<Reply, Problem> {
        let request = object(body)?;
        match self.blocking(move |control| control.explain(request)).await? {
            Ok(explanation) => Ok(Reply::json(200, &explanation)),
            Err(why) => Err(Problem::malformed(why)),
        }
    }

    async fn purge(&self, caller: &Caller, body: &[u8]) -> Result<Reply, Problem> {
        let request = object(body)?;
        log::info!("a purge of the cache is asked for by {caller}");
        match self.blocking(move |control| control.purge(request)).await? {
            Ok(purged) => Ok(Reply::json(200, &purged)),
            Err(why) => Err(Problem::malformed(why)),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&C) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        blocking(&self.control, work).await
    }
}

/// Off the threads that serve: rendering 10,000 routes or compiling a configuration takes long.
async fn blocking<C: Control, T: Send + 'static>(
    control: &Arc<C>,
    work: impl FnOnce(&C) -> T + Send + 'static,
) -> Result<T, Problem> {
    let control = Arc::clone(control);
    let done = tokio::task::spawn_blocking(move || work(&control)).await;
    done.map_err(|error| {
        log::error!("an admin request failed: {error}");
        Problem::new(500, "internal_error")
    })
}

fn upgrade(body: &Value, caller: &Caller) -> Result<Upgrade, Problem> {
    const LONGEST: u64 = 600;
    let members = body.as_object().into_iter().flatten();
    let (mut program, mut patience) = (None, None);
    for (name, value) in members {
        match (name.as_str(), value.as_str(), value.as_u64()) {
            ("binary", Some(path), _) => program = Some(PathBuf::from(path)),
            ("timeout_seconds", _, Some(seconds @ 1..=LONGEST)) => {
                patience = Some(Duration::from_secs(seconds));
            }
            ("binary", ..) => return Err(Problem::malformed("`binary` is a path")),
            ("timeout_seconds", ..) => {
                return Err(Problem::malformed("`timeout_seconds` is a number from 1 to 600"));
            }
            _ => return Err(Problem::malformed(format!("unknown member `{name}`"))),
        }
    }
    Ok(Upgrade { program, patience, cause: format!("admin API, by {caller}") })
}

/// The body as a JSON object; none is an empty one.
fn object(body: &[u8]) -> Result<Value, Problem> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_slice(body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Problem::malformed("the body is not a JSON object")),
        Err(error) => Err(Problem::malformed(format!("the body is not JSON: {error}"))),
    }
}

async fn read_body(session: &mut ServerSession) -> Result<Vec<u8>, Problem> {
    let reading = async {
        let mut body = Vec::new();
        loop {
            match session.read_request_body().await {
                Ok(Some(bytes)) if body.len() + bytes.len() > BODY => {
                    return Err(Problem::new(413, "body_too_large").detail("64 KiB at most"));
                }
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => return Ok(body),
                Err(_) => return Err(Problem::malformed("the body ended early")),
            }
        }
    };
    let late = |_| Err(Problem::new(408, "request_timeout"));
    tokio::time::timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests;
