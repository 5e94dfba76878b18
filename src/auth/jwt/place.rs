//! Where a token stands in a request: `Authorization: Bearer`, and wherever else the configuration says.
//! A second one is refused even if it is the same one: two readers could take different ones.
use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, header};

use crate::{
    auth::{Presented, Reason, Refused, bearer, decode_query},
    flow::identity::Source,
};

/// The places besides `Authorization`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    pub header: Option<HeaderName>,
    pub query: Option<Arc<str>>,
    pub cookie: Option<Arc<str>>,
}

/// A token and where it stood.
#[derive(Debug)]
pub struct Found<'a> {
    pub token: Cow<'a, [u8]>,
    pub source: Source,
}

impl Found<'_> {
    /// Whether other methods look at this place as well.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(&self.source, Source::Header(name) if name == header::AUTHORIZATION)
    }
}

impl Places {
    /// # Errors
    /// There is more than one token.
    pub fn find<'a>(&self, presented: &Presented<'a>) -> Result<Option<Found<'a>>, Refused> {
        let mut found = None;
        if let Some(token) = bearer::token(presented.headers())? {
            let source = Source::Header(header::AUTHORIZATION);
            add(&mut found, Found { token: Cow::Borrowed(token), source })?;
        }
        if let Some(name) = &self.header {
            for value in presented.headers().get_all(name) {
                let token = Cow::Borrowed(value.as_bytes());
                add(&mut found, Found { token, source: Source::Header(name.clone()) })?;
            }
        }
        if let (Some(name), Some(query)) = (&self.query, presented.query()) {
            for pair in query.split('&') {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                if decode_query(key) == **name {
                    let token = match decode_query(value) {
                        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                    };
                    add(&mut found, Found { token, source: Source::Query(name.clone()) })?;
                }
            }
        }
        if let Some(name) = &self.cookie {
            for line in presented.headers().get_all(header::COOKIE) {
                for pair in line.as_bytes().split(|it| *it == b';').map(<[u8]>::trim_ascii) {
                    let value = pair.strip_prefix(name.as_bytes());
                    let Some(value) = value.and_then(|it| it.strip_prefix(b"=")) else { continue };
                    let token = Cow::Borrowed(value);
                    add(&mut found, Found { token, source: Source::Cookie(name.clone()) })?;
                }
            }
        }
        Ok(found)
    }
}

fn add<'a>(found: &mut Option<Found<'a>>, another: Found<'a>) -> Result<(), Refused> {
    match found.replace(another) {
        None => Ok(()),
        Some(_) => Err(Reason::Duplicate.into()),
    }
}
