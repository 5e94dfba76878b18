//! What an expression can ask of a request and of its caller. Nothing is made before it is asked
//! for, and text is borrowed, not copied.
use std::{collections::BTreeSet, fmt, iter, net::IpAddr, sync::Arc, sync::OnceLock};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as Items, Sizer},
        types::{
            CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
            MAP_TYPE, Type,
        },
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use http::{HeaderMap, HeaderName, request::Parts};
use serde_json::{Map, Value};

use crate::{auth::decode_query, flow::identity::Identity};

/// Most headers, parameters or claims that an expression goes through, and most values within one
/// claim. With more of them it fails, and so denies.
const MOST: usize = 1024;

/// The deepest that a claim may be nested.
const DEEPEST: usize = 16;

/// The `function` of errors whose message is ours, and so without values of the request.
pub const OURS: &str = "tollgate";

/// A request and who sent it.
#[derive(Clone, Copy)]
pub struct Facts<'r> {
    pub request: &'r Parts,
    pub host: &'r str,
    pub scheme: &'static str,
    /// The client as `trusted_proxies` make it out.
    pub client: IpAddr,
    pub identity: &'r Identity,
    pub authenticator: &'r str,
}

/// What there is to ask: the variables, each with the names behind its dot.
pub const VARIABLES: [(&str, &[&str]); 2] = [
    ("request", &["method", "path", "host", "scheme", "query", "headers", "ip"]),
    ("identity", &["consumer", "groups", "scopes", "credential", "claims", "authenticator"]),
];

impl VariableResolver for Facts<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (variable, name) = variable.split_once('.')?;
        match variable {
            "request" => self.of_request(name),
            "identity" => self.of_identity(name),
            _ => None,
        }
    }
}

impl Facts<'_> {
    fn of_request(&self, name: &str) -> Option<CowVal<'_, '_>> {
        Some(match name {
            "method" => text(self.request.method.as_str()),
            "path" => text(self.request.uri.path()),
            "host" => text(self.host),
            "scheme" => text(self.scheme),
            "query" => Table::of(Rows::Query(self.request.uri.query().unwrap_or(""))),
            "headers" => Table::of(Rows::Headers(&self.request.headers)),
            "ip" => CowVal::owned(CelString::from(self.client.to_canonical().to_string())),
            _ => return None,
        })
    }

    fn of_identity(&self, name: &str) -> Option<CowVal<'_, '_>> {
        let credential = &self.identity.credential;
        let consumer = self.identity.consumer();
        Some(match name {
            "consumer" => text(consumer.map_or("", |it| it.name.as_str())),
            "groups" => words(consumer.map_or(&[][..], |it| &it.groups)),
            "scopes" => words(&credential.scopes),
            "credential" => text(credential.id.as_str()),
            "claims" => Table::of(Rows::Claims(credential.claims.as_deref())),
            "authenticator" => text(self.authenticator),
            _ => return None,
        })
    }
}

fn text(text: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(text))
}

fn words(words: &[Arc<str>]) -> CowVal<'_, '_> {
    let items = words.iter().map(|it| Box::new(CelString::from(&**it)) as Box<dyn Val + '_>);
    CowVal::owned(CelList::from(items.collect::<Vec<_>>()))
}

/// Values by name, found when they are asked for.
struct Table<'t> {
    rows: Rows<'t>,
    /// For going through them; `None` if there are more than may be.
    names: OnceLock<Option<Box<[CelString<'t>]>>>,
}

#[derive(Clone, Copy)]
enum Rows<'t> {
    Headers(&'t HeaderMap),
    /// Without the question mark, still encoded.
    Query(&'t str),
    Claims(Option<&'t Map<String, Value>>),
}

impl<'t> Rows<'t> {
    fn names(self) -> Box<dyn Iterator<Item = CelString<'t>> + 't> {
        match self {
            Self::Headers(headers) => {
                Box::new(headers.keys().map(|it: &'t HeaderName| it.as_str().into()))
            }
            Self::Query(query) => {
                let names: BTreeSet<_> = pairs(query).map(|(name, _)| decode_query(name)).collect();
                Box::new(names.into_iter().map(CelString::from))
            }
            Self::Claims(claims) => {
                Box::new(claims.into_iter().flat_map(Map::keys).map(|it| it.as_str().into()))
            }
        }
    }

    fn get(self, name: &str) -> Result<Box<dyn Val + 't>, ExecutionError> {
        let found: Option<Box<dyn Val + 't>> = match self {
            Self::Headers(headers) => header(headers, name),
            Self::Query(query) => {
                let mut values = pairs(query).filter(|(it, _)| decode_query(it) == name);
                let value = values.next().map(|(_, value)| value);
                if values.next().is_some() {
                    // Which of them the upstream would take is anybody's guess.
                    return Err(ExecutionError::function_error(OURS, "a parameter is repeated"));
                }
                value.map(|it| Box::new(CelString::from(decode_query(it))) as Box<dyn Val + 't>)
            }
            Self::Claims(claims) => match claims.and_then(|it| it.get(name)) {
                Some(claim) => Some(json(claim, &mut { MOST }, DEEPEST)?),
                None => None,
            },
        };
        found.ok_or_else(|| ExecutionError::no_such_key(name))
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|it| !it.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Several lines are one list (RFC 9110 section 5.3).
fn header<'t>(headers: &'t HeaderMap, name: &str) -> Option<Box<dyn Val + 't>> {
    let mut lines = headers.get_all(name).iter().map(|it| String::from_utf8_lossy(it.as_bytes()));
    let first = lines.next()?;
    Some(Box::new(match lines.next() {
        None => CelString::from(first),
        Some(second) => {
            let rest = iter::once(second).chain(lines);
            CelString::from(rest.fold(first.into_owned(), |all, line| all + ", " + &line))
        }
    }))
}

/// A claim, of at most `left` values.
fn json<'t>(
    value: &'t Value,
    left: &mut usize,
    depth: usize,
) -> Result<Box<dyn Val + 't>, ExecutionError> {
    let too_large = || ExecutionError::function_error(OURS, "a claim is too large");
    *left = left.checked_sub(1).ok_or_else(too_large)?;
    let below = || depth.checked_sub(1).ok_or_else(too_large);
    Ok(match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(it) => Box::new(CelBool::from(*it)),
        Value::String(it) => Box::new(CelString::from(it.as_str())),
        Value::Number(it) => match (it.as_i64(), it.as_u64()) {
            (Some(it), _) => Box::new(CelInt::from(it)),
            (None, Some(it)) => Box::new(CelUInt::from(it)),
            (None, None) => Box::new(CelDouble::from(it.as_f64().unwrap_or(f64::NAN))),
        },
        Value::Array(items) => {
            let below = below()?;
            let items = items.iter().map(|it| json(it, left, below));
            Box::new(CelList::from(items.collect::<Result<Vec<_>, _>>()?))
        }
        Value::Object(entries) => {
            let below = below()?;
            let entries = entries.iter().map(|(name, value)| {
                let name = CelMapKey::String(CelString::from(name.as_str()));
                Ok((name, json(value, left, below)?))
            });
            let entries = entries.collect::<Result<std::collections::HashMap<_, _>, _>>()?;
            Box::new(CelMap::from(entries))
        }
    })
}

impl<'t> Table<'t> {
    fn of(rows: Rows<'t>) -> CowVal<'t, 't> {
        CowVal::owned(Self { rows, names: OnceLock::new() })
    }

    fn names(&self) -> Option<&[CelString<'t>]> {
        let names = self.names.get_or_init(|| {
            let names: Box<[_]> = self.rows.names().take(MOST + 1).collect();
            (names.len() <= MOST).then_some(names)
        });
        names.as_deref()
    }
}

/// Without what a client sent.
impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

impl Val for Table<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        self.names().is_some().then_some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        self.names().is_some().then_some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Table { rows: self.rows, names: OnceLock::new() })
    }
}

fn wrong_key(key: &dyn Val) -> ExecutionError {
    let got = key.get_type().name().to_owned();
    ExecutionError::UnexpectedType { got, want: "string".to_owned() }
}

impl Container for Table<'_> {
    fn contains(&self, name: &dyn Val) -> Result<bool, ExecutionError> {
        let name = name.downcast_ref::<CelString>().ok_or_else(|| wrong_key(name))?.inner();
        Ok(match self.rows {
            Rows::Headers(headers) => headers.contains_key(name),
            Rows::Query(query) => pairs(query).any(|(it, _)| decode_query(it) == name),
            Rows::Claims(claims) => claims.is_some_and(|it| it.contains_key(name)),
        })
    }
}

impl Indexer for Table<'_> {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = name.downcast_ref::<CelString>().ok_or_else(|| wrong_key(name))?;
        Ok(CowVal::Owned(self.rows.get(name.inner())?))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}

impl Iterable for Table<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Items<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Names(self.names().unwrap_or_default().iter()))
    }
}

struct Names<'b, 't>(std::slice::Iter<'b, CelString<'t>>);

impl<'b, 'v, 't: 'v> Items<'b, 'v> for Names<'b, 't> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|it| it as &'b (dyn Val + 'v))
    }
}

impl Sizer for Table<'_> {
    fn size(&self) -> CelInt {
        let names = self.names().map_or(0, <[_]>::len);
        i64::try_from(names).unwrap_or(i64::MAX).into()
    }
}
