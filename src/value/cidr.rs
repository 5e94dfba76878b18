//! Sets of networks in CIDR notation.
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// A list of networks. A plain address is a network of one.
#[derive(Clone, Debug, Default)]
pub struct Networks(Box<[IpNet]>);

impl Networks {
    /// # Errors
    /// The index of the first text that is neither a network nor an address, and why.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, (usize, String)> {
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| network(text.as_ref()).map_err(|why| (index, why)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    /// The first that `address` is in.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&IpNet> {
        // An IPv4 client of a dual-stack socket arrives as ::ffff:a.b.c.d and must match a.b.c.d.
        let address = address.to_canonical();
        self.0.iter().find(|network| network.contains(&address))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = if text.contains('/') {
        text.parse::<IpNet>().ok()
    } else {
        text.parse::<IpAddr>().ok().map(IpNet::from)
    };
    let network = parsed.ok_or_else(|| {
        format!("{text:?} is not a network such as 10.0.0.0/8 or an address such as 192.0.2.1")
    })?;
    if network.addr() == network.network() {
        Ok(canonical(network))
    } else {
        // A set host bit is mostly a typo for another prefix length.
        Err(format!("{text:?} has bits set beyond its prefix; the network is {}", network.trunc()))
    }
}

/// IPv4 networks that are written as IPv6 (`::ffff:10.0.0.0/104`), as IPv4: so are the addresses.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let IpAddr::V4(address) = network.addr().to_canonical() else { return network };
    let length = network.prefix_len().checked_sub(MAPPED);
    match (network, length.and_then(|it| Ipv4Net::new(address, it).ok())) {
        (IpNet::V6(_), Some(inner)) => inner.into(),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(networks: &[&str], address: &str, expected: bool) {
        let set = Networks::parse(networks).unwrap();
        assert_eq!(set.contains(address.parse().unwrap()), expected, "{address} in {networks:?}");
    }

    #[test]
    fn contains_what_the_prefix_covers() {
        check(&["10.0.0.0/8"], "10.255.0.1", true);
        check(&["10.0.0.0/8"], "11.0.0.1", false);
        check(&["192.0.2.1"], "192.0.2.1", true);
        check(&["2001:db8::/32"], "2001:db8:1::1", true);
        check(&[], "127.0.0.1", false);
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_is_that_ipv4_client() {
        check(&["127.0.0.0/8"], "::ffff:127.0.0.1", true);
        check(&["::ffff:127.0.0.0/104"], "127.0.0.1", true);
        check(&["::ffff:127.0.0.0/104"], "128.0.0.1", false);
        check(&["::ffff:127.0.0.1"], "::ffff:127.0.0.1", true);
        check(&["::ffff:0.0.0.0/96"], "10.0.0.1", true);
        check(&["::/0"], "10.0.0.1", false);
    }

    #[test]
    fn a_bad_network_is_named_by_its_index() {
        let (index, why) = Networks::parse(&["10.0.0.0/8", "ten"]).unwrap_err();
        assert_eq!(index, 1);
        assert!(why.contains("ten"), "{why}");
        assert!(Networks::parse(&["10.0.0.1/8"]).unwrap_err().1.contains("10.0.0.0/8"));
    }
}
