//! What an operator says about an upstream, as typed words. Building them from text is the
//! configuration's work; their defaults and bounds stand here.
use std::{collections::HashSet, sync::Arc, time::Duration};

use http::HeaderName;

use super::address::EndpointAddress;
use crate::value::secret::Secret;

#[derive(Clone, Debug)]
pub struct Spec {
    /// Unique in a configuration; health and counters are found again by it.
    pub name: Arc<str>,
    pub endpoints: Vec<EndpointSpec>,
    pub balance: Balance,
    /// What `Balance::Hash` hashes; the caller makes the number ([`super::hash_of`]).
    pub hash_on: Option<HashOn>,
    pub protocol: Protocol,
    pub timeouts: Timeouts,
    pub retry: Retry,
    pub health: Option<Health>,
    pub outlier: Option<Outlier>,
    /// Idle connections wished for. Pingora keeps one pool a process: the server adds these up.
    pub keepalive: usize,
    pub tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    pub address: EndpointAddress,
    /// Share of the requests; 0: drained, gets none. At most [`Spec::MAX_WEIGHT`].
    pub weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// The less busy of two taken by chance.
    LeastRequests,
    Random,
    /// The same endpoint for the same key, as long as it is there.
    Hash,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    Header(HeaderName),
    Cookie(String),
    Consumer,
    ClientIp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    /// With `http`: HTTP/2 with prior knowledge (RFC 9113, section 3.3).
    Http2,
    /// What ALPN settles; HTTP/1.1 with `http`.
    Auto,
}

/// Pingora's own are infinite, hence no `Option`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS together.
    pub connect: Duration,
    /// For each read, not for the whole response.
    pub read: Duration,
    /// For each write.
    pub write: Duration,
    /// An unused connection closes after it. Shorter than the endpoint's own, or requests that
    /// can't be sent again meet a connection that just closed.
    pub idle: Duration,
    /// From the first try to the end of the response, retries included; held by the data path.
    pub total: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first, at most [`Retry::MAX_ATTEMPTS`].
    pub attempts: u32,
    pub on: Vec<RetryOn>,
    /// Retries for each hundred requests, over ten seconds; ten are always free. 0: no retries.
    pub budget_percent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection, or one that ended before an answer began.
    Connect,
    Timeout,
    Status(u16),
}

/// Active checks: GET of `path`, healthy by a status of 2xx or 3xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Good answers in a row until an endpoint that was down is up.
    pub healthy_after: u32,
    /// Bad ones in a row until it is down.
    pub unhealthy_after: u32,
}

/// Passive checks: what real requests met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row ...
    pub failures: u32,
    /// ... of which the first and the last are at most this far apart ...
    pub within: Duration,
    /// ... take the endpoint out for this long, twice as long on each repetition, up to ten times.
    pub eject: Duration,
    /// Of the endpoints with a weight, how many may be out at a time.
    pub at_most_percent: u32,
}

#[derive(Clone, Debug)]
pub struct Tls {
    /// The name asked for (SNI) and verified; without it the endpoint's own host is.
    pub server_name: Option<String>,
    /// DER certificates to trust instead of the system's.
    pub ca: Option<Vec<Vec<u8>>>,
    pub identity: Option<ClientIdentity>,
    pub verify: bool,
}

/// The gateway's own certificate towards an endpoint (mutual TLS).
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER: PKCS#8, SEC 1 or PKCS#1.
    pub key: Secret<Vec<u8>>,
}

impl Spec {
    pub const MAX_WEIGHT: u32 = 65_535;
    pub const MAX_ENDPOINTS: usize = 4_096;

    /// With every default of `tollgate.yaml`.
    pub fn new(name: Arc<str>, endpoints: Vec<EndpointSpec>) -> Self {
        Self {
            name,
            endpoints,
            balance: Balance::RoundRobin,
            hash_on: None,
            protocol: Protocol::Http1,
            timeouts: Timeouts::DEFAULT,
            retry: Retry::default(),
            health: None,
            outlier: None,
            keepalive: 128,
            tls: None,
        }
    }

    /// See [`EndpointAddress::parse`].
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse_url(url: &str) -> Result<EndpointAddress, String> {
        EndpointAddress::parse(url)
    }

    /// What the parts can't say alone.
    ///
    /// # Errors
    /// The first problem, as a sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("an upstream needs at least one endpoint".to_owned());
        }
        if self.endpoints.len() > Self::MAX_ENDPOINTS {
            return Err(format!("an upstream has at most {} endpoints", Self::MAX_ENDPOINTS));
        }
        if self.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            return Err("every endpoint has weight 0: no request could be sent".to_owned());
        }
        if self.endpoints.iter().any(|endpoint| endpoint.weight > Self::MAX_WEIGHT) {
            return Err(format!("a weight is at most {}", Self::MAX_WEIGHT));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.endpoints.iter().find(|it| !seen.insert(&it.address)) {
            return Err(format!("endpoint {} stands twice", twice.address));
        }
        if self.balance == Balance::Hash && self.hash_on.is_none() {
            return Err("balance: hash needs hash_on".to_owned());
        }
        if self.retry.attempts > Retry::MAX_ATTEMPTS {
            return Err(format!("retry.attempts is at most {}", Retry::MAX_ATTEMPTS));
        }
        match &self.health {
            Some(health) if !is_path(&health.path) => {
                Err("health.path begins with a slash and has neither spaces nor a fragment"
                    .to_owned())
            }
            Some(health) if health.interval.is_zero() || health.timeout.is_zero() => {
                Err("health.interval and health.timeout are above zero".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// A path and perhaps a query, as they go on the wire (RFC 9112, section 3.2.1).
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

impl Timeouts {
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(2),
        read: Duration::from_secs(30),
        write: Duration::from_secs(30),
        idle: Duration::from_secs(50),
        total: Duration::from_secs(60),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Retry {
    /// As many as [`super::Tried`] remembers.
    pub const MAX_ATTEMPTS: u32 = 8;
}

impl Default for Retry {
    /// One more try when there was no connection.
    fn default() -> Self {
        Self { attempts: 1, on: vec![RetryOn::Connect], budget_percent: 20 }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            failures: 5,
            within: Duration::from_secs(10),
            eject: Duration::from_secs(30),
            at_most_percent: 50,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { server_name: None, ca: None, identity: None, verify: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Spec), expected: Option<&str>) {
        let mut spec = super::super::tests::spec("orders", &[("http://10.0.0.1", 1)]);
        change(&mut spec);
        match (spec.check(), expected) {
            (Ok(()), None) => {}
            (Err(text), Some(part)) => assert!(text.contains(part), "{text}"),
            (result, _) => panic!("{result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_can_not_work_is_refused() {
        check(|_| {}, None);
        check(|spec| spec.endpoints.clear(), Some("at least one"));
        check(|spec| spec.endpoints[0].weight = 0, Some("weight 0"));
        check(|spec| spec.endpoints[0].weight = 65_536, Some("at most 65535"));
        check(|spec| spec.endpoints.push(spec.endpoints[0].clone()), Some("stands twice"));
        check(|spec| spec.balance = Balance::Hash, Some("hash_on"));
        check(|spec| spec.retry.attempts = 9, Some("at most 8"));
        let health = |path: &str| Some(Health { path: path.to_owned(), ..Health::default() });
        check(|spec| spec.health = health("/up"), None);
        check(|spec| spec.health = health("up"), Some("slash"));
        check(|spec| spec.health = health("/a b"), Some("slash"));
    }
}
