//! `api_key`.
use http::HeaderName;

use super::{Compiled, Scene};
use crate::{
    auth::{Method, api_key},
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
};

/// In place of the name of a header: keys do not come in one.
pub(in crate::gateway::compile) const NONE: &str = "none";

pub(super) fn compile(
    raw: &raw::ApiKey,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let mut config = api_key::Config::default();
    if let Some(Word(header)) = &raw.header {
        match HeaderName::from_bytes(header.as_bytes()) {
            // YAML's `null` is a key that is not written, and so the default.
            Ok(header) if header == NONE => config.header = None,
            Ok(header) if header == http::header::AUTHORIZATION => {
                problems.add_with_hint(
                    &at.key("header"),
                    "`Authorization` carries a scheme",
                    "`bearer: true` takes `Authorization: Bearer tg_…`",
                );
            }
            Ok(header) => config.header = Some(header),
            Err(_) => {
                let text = header.escape_debug();
                problems.add(&at.key("header"), format!("`{text}` is not a header name"));
            }
        }
    }
    config.bearer = raw.bearer.unwrap_or(true);
    config.query = raw.query.as_ref().map(|query| query.0.as_str().into());
    if config.query.as_deref() == Some("") {
        problems.add(&at.key("query"), "the name of a query parameter is needed");
        return None;
    }
    if config.header.is_none() && !config.bearer && config.query.is_none() {
        problems
            .add(at, "a key is looked for nowhere: not in a header, a bearer token or the query");
    }
    Some(Method::ApiKey(api_key::ApiKey::new(config, scene.keys.clone())).into())
}
