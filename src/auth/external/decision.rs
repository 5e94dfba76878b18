//! What the service answered: yes, no with an answer for the client, or nothing that can be used.
use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Config;
use crate::{
    auth::{Reason, Refused},
    flow::answer::{Reply, Stop},
    shared::{
        answers::Said,
        http_client::{self, Answer, Failure, Request},
    },
};

/// Of a 401 that has no challenge: what is wanted, only the service knows.
pub(super) static CHALLENGE: HeaderValue = HeaderValue::from_static("External realm=\"tollgate\"");

/// The headers of a no that the client gets.
const TO_CLIENT: [HeaderName; 8] = [
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
];

/// Who a caller is, by a header of a yes.
#[derive(Clone, Debug)]
pub struct Owner {
    pub header: HeaderName,
    /// Whether somebody who is not among the consumers is let through.
    pub allow_unknown: bool,
}

#[derive(Debug)]
pub enum Decision {
    Yes(Yes),
    No(No),
    /// It did answer, though neither yes nor no. Never let through, whatever `on_outage` says: a client
    /// may have made it answer so, with a header that it chokes on.
    Strange(String),
}

#[derive(Debug, Default, PartialEq)]
pub struct Yes {
    pub(super) to_upstream: Box<[(HeaderName, HeaderValue)]>,
    pub(super) owner: Option<Box<str>>,
}

#[derive(Debug)]
pub struct No {
    reply: Reply,
    asked_by: u64,
}

impl Decision {
    pub(super) const fn is_of_another(&self, turn: u64) -> bool {
        matches!(self, Self::No(no) if no.asked_by != turn)
    }
}

impl No {
    pub(super) fn refused(&self) -> Refused {
        let is_login = self.reply.status.is_redirection();
        let reason = if is_login { Reason::Missing } else { Reason::Denied };
        Refused { stop: Some(Stop::from(self.reply.clone())), ..reason.into() }
    }
}

/// # Errors
/// No whole answer, or one that says that the service is broken.
pub(super) async fn ask(
    config: &Config,
    http: &http_client::Client,
    request: Request,
    turn: u64,
) -> Result<Said<Arc<Decision>>, String> {
    let decision = match http.ask(request).await {
        Ok(answer) => read(config, answer, turn)?,
        Err(why @ Failure::TooLarge(_)) => Decision::Strange(why.to_string()),
        Err(why) => return Err(why.to_string()),
    };
    let (holds, weight) = match (&decision, config.cache) {
        (Decision::Yes(yes), Some(cache)) => (cache, weight(yes)),
        _ => (Duration::ZERO, 0),
    };
    Ok(Said { value: Arc::new(decision), fresh_for: holds, usable_for: holds, weight })
}

fn weight(yes: &Yes) -> u64 {
    let headers = yes.to_upstream.iter().map(|(name, value)| name.as_str().len() + value.len());
    let owner = yes.owner.as_ref().map_or(0, |it| it.len());
    (headers.map(|it| it + 160).sum::<usize>() + owner + 128) as u64
}

pub(super) fn read(config: &Config, answer: Answer, turn: u64) -> Result<Decision, String> {
    let status = answer.status;
    Ok(match status.as_u16() {
        200..=299 => accepted(config, &answer.headers),
        401 | 403 => Decision::No(no(answer, turn)),
        301 | 302 | 303 | 307 | 308 => match only(&answer.headers, &header::LOCATION) {
            Ok(Some(_)) => Decision::No(no(answer, turn)),
            _ => Decision::Strange(format!("it answered {} without a Location", status.as_u16())),
        },
        500..=599 => return Err(format!("it answered {}", status.as_u16())),
        other => Decision::Strange(format!("it answered {other}")),
    })
}

fn accepted(config: &Config, headers: &HeaderMap) -> Decision {
    let chosen = |name: &HeaderName| {
        let value = only(headers, name)?;
        Ok(value.map(|it| (name.clone(), it.clone())))
    };
    let to_upstream: Result<Vec<_>, String> =
        config.response_headers.iter().filter_map(|it| chosen(it).transpose()).collect();
    let owner = match &config.owner {
        None => Ok(None),
        Some(rule) => only(headers, &rule.header),
    };
    match (to_upstream, owner) {
        (Ok(to_upstream), Ok(owner)) => Decision::Yes(Yes {
            to_upstream: to_upstream.into(),
            // What is no text is nobody's subject.
            owner: owner.map(|it| String::from_utf8_lossy(it.as_bytes()).into()),
        }),
        (Err(why), _) | (_, Err(why)) => Decision::Strange(why),
    }
}

/// The value of a header that may come once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, String> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (first, None) => Ok(first),
        _ => Err(format!("its answer has {name} more than once")),
    }
}

fn no(answer: Answer, asked_by: u64) -> No {
    let mut reply = Reply::new(answer.status).body(answer.body);
    for name in &TO_CLIENT {
        for value in answer.headers.get_all(name) {
            reply = reply.header(name.clone(), value.clone());
        }
    }
    if !answer.headers.contains_key(header::CACHE_CONTROL) {
        reply = reply.header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if reply.status == StatusCode::UNAUTHORIZED
        && !answer.headers.contains_key(header::WWW_AUTHENTICATE)
    {
        reply = reply.header(header::WWW_AUTHENTICATE, CHALLENGE.clone());
    }
    No { reply, asked_by }
}
