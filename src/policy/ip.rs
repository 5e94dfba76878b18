//! Lets in or keeps out by the client's address, as `trusted_proxies` make it out. Runs before
//! anybody is asked for a credential.
use std::sync::Arc;

use super::Context;
use crate::{
    flow::rejection::{Code, Rejection},
    telemetry::{AccessMetrics, AccessOutcome},
    value::cidr::Networks,
};

pub struct Ip {
    /// None: all but those denied.
    pub allow: Option<Networks>,
    /// Goes before `allow`.
    pub deny: Networks,
    pub metrics: Arc<AccessMetrics>,
}

impl Ip {
    pub(super) fn request_filter(&self, context: &Context) -> Result<(), Rejection> {
        let decided = self.check(context);
        if decided.is_err() {
            self.metrics.record(AccessOutcome::Ip);
        }
        decided
    }

    /// The decision; counts nothing.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, context: &Context) -> Result<(), Rejection> {
        let client = context.client.to_canonical();
        let why = match (self.deny.find(client), &self.allow) {
            (Some(network), _) => format!("ip.deny: {client} is in {network}"),
            (None, Some(allow)) if allow.find(client).is_none() => {
                format!("ip.allow: {client} is in none of its networks")
            }
            _ => return Ok(()),
        };
        Err(Rejection::new(Code::AccessDenied).cause(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flow::clock::Now, telemetry::Metrics};

    fn check(allow: &[&str], deny: &[&str], client: &str, expected: Option<&str>) {
        let ip = Ip {
            allow: (!allow.is_empty()).then(|| Networks::parse(allow).unwrap()),
            deny: Networks::parse(deny).unwrap(),
            metrics: Metrics::new().unwrap().access("r"),
        };
        let context = Context::new(Now::read(), client.parse().unwrap());
        let cause = ip.check(&context).err().map(|it| {
            assert_eq!((it.code, it.detail), (Code::AccessDenied, None));
            it.cause.unwrap()
        });
        assert_eq!(cause.as_deref(), expected, "{client} with {allow:?} and {deny:?}");
    }

    #[test]
    fn deny_goes_before_allow() {
        let none_of = |client: &str| format!("ip.allow: {client} is in none of its networks");
        let (allow, deny) = (&["192.0.2.0/24", "2001:db8::/32"], &["192.0.2.66/32"]);
        check(allow, deny, "192.0.2.1", None);
        check(allow, deny, "192.0.2.66", Some("ip.deny: 192.0.2.66 is in 192.0.2.66/32"));
        check(allow, deny, "192.0.3.1", Some(&none_of("192.0.3.1")));
        check(allow, deny, "2001:db8:1::1", None);
        check(allow, deny, "2001:db9::1", Some(&none_of("2001:db9::1")));
        check(
            &["10.0.0.0/8"],
            &["10.0.0.0/8"],
            "10.1.1.1",
            Some("ip.deny: 10.1.1.1 is in 10.0.0.0/8"),
        );
    }

    #[test]
    fn without_allow_all_but_the_denied_come_in() {
        check(&[], &["192.0.2.0/24"], "192.0.2.9", Some("ip.deny: 192.0.2.9 is in 192.0.2.0/24"));
        check(&[], &["192.0.2.0/24"], "203.0.113.1", None);
        check(&[], &["::/0"], "2001:db8::1", Some("ip.deny: 2001:db8::1 is in ::/0"));
        check(&[], &["::/0"], "203.0.113.1", None);
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_that_ipv4_address() {
        check(
            &[],
            &["192.0.2.0/24"],
            "::ffff:192.0.2.9",
            Some("ip.deny: 192.0.2.9 is in 192.0.2.0/24"),
        );
        check(
            &[],
            &["::ffff:192.0.2.0/120"],
            "192.0.2.9",
            Some("ip.deny: 192.0.2.9 is in 192.0.2.0/24"),
        );
        check(&["::ffff:192.0.2.9"], &[], "192.0.2.9", None);
    }
}
