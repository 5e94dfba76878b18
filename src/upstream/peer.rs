//! Pingora's `HttpPeer`s, made once for each resolved address and cloned for each request. The only
//! file, with `health`, that names one.
//!
//! What Pingora 0.9.1 does and this works around: an empty SNI turns verification off; its pool tells
//! connections apart by neither CA nor ALPN; a CA or client certificate of our own costs a TLS
//! configuration for each new connection, so such upstreams live on kept connections.
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pingora::{
    protocols::tls::CaType,
    tls::{CertificateDer, ClientConfig, PrivateKeyDer, RootCertStore, ServerName},
    upstreams::peer::{ALPN, HttpPeer},
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use sha2::{Digest, Sha256};

use super::{
    address::{EndpointAddress, Host},
    endpoint::{Endpoint, Picked},
    spec::{ClientIdentity, Protocol, Spec, Timeouts, Tls},
};
use crate::value::address::Address;

/// How long an address that could not be connected to is passed over while its name has others.
const SHUN_NANOS: u64 = 30_000_000_000;

/// The TLS material of one upstream, parsed.
#[derive(Clone, Debug, Default)]
pub(super) struct Material {
    ca: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
    server_name: Option<Box<str>>,
    skip_verification: bool,
    group_key: u64,
}

impl Tls {
    /// Looks at names, certificates and key as closely as a connection will.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        self.material().map(|_| ())
    }

    fn material(&self) -> Result<Material, String> {
        let server_name = self.server_name.as_deref();
        if let Some(name) = server_name.filter(|name| ServerName::try_from(*name).is_err()) {
            return Err(format!("tls.server_name `{name}` is neither a name nor an address"));
        }
        Ok(Material {
            ca: self.ca.as_deref().map(parse_ca).transpose()?,
            identity: self.identity.as_ref().map(parse_identity).transpose()?,
            server_name: server_name.map(Into::into),
            skip_verification: !self.verify,
            group_key: 0,
        })
    }
}

impl Material {
    pub fn new(spec: &Spec) -> Result<Self, String> {
        let mut material = spec.tls.as_ref().map_or_else(|| Ok(Self::default()), Tls::material)?;
        material.group_key = group_key(spec);
        Ok(material)
    }
}

/// Every byte that tells one upstream's connections from another's, in one number.
fn group_key(spec: &Spec) -> u64 {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    add(spec.name.as_bytes());
    add(&[match spec.protocol {
        Protocol::Http1 => 1,
        Protocol::Http2 => 2,
        Protocol::Auto => 3,
    }]);
    if let Some(tls) = &spec.tls {
        add(&[u8::from(tls.verify), u8::from(tls.ca.is_some())]);
        add(tls.server_name.as_deref().unwrap_or_default().as_bytes());
        for certificate in tls.ca.iter().flatten() {
            add(certificate);
        }
        if let Some(identity) = &tls.identity {
            add(b"identity");
            add(identity.key.expose());
            for certificate in &identity.chain {
                add(certificate);
            }
        }
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |key, byte| (key << 8) | u64::from(*byte))
}

fn parse_ca(certificates: &[Vec<u8>]) -> Result<Arc<CaType>, String> {
    if certificates.is_empty() {
        return Err("tls.ca has no certificate".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(CertificateDer::from(certificate.as_slice()));
        added.map_err(|error| format!("tls.ca: {error}"))?;
    }
    // Pingora has no parser that returns an error.
    let parse =
        || certificates.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect();
    catch_unwind(AssertUnwindSafe(parse)).map_err(|_| "tls.ca: not an X.509 certificate".to_owned())
}

/// Checks what Pingora unwraps at connection time: that key and certificates parse and belong
/// together.
fn parse_identity(identity: &ClientIdentity) -> Result<Arc<CertKey>, String> {
    if identity.chain.iter().all(Vec::is_empty) {
        return Err("tls.cert has no certificate".to_owned());
    }
    let key = identity.key.expose();
    let parsed = PrivateKeyDer::try_from(key.clone())
        .map_err(|_| "tls.key is not a private key (PKCS#8, SEC 1 or PKCS#1)".to_owned())?;
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    pingora::tls::install_default_crypto_provider();
    ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, parsed)
        .map_err(|error| format!("tls.cert and tls.key: {error}"))?;
    let parse = || Arc::new(CertKey::new(identity.chain.clone(), key.clone()));
    catch_unwind(AssertUnwindSafe(parse))
        .map_err(|_| "tls.cert: not an X.509 certificate".to_owned())
}

/// How to make the peers of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Template {
    is_tls: bool,
    sni: Box<str>,
    alpn: ALPN,
    timeouts: Timeouts,
    material: Material,
}

impl Template {
    pub fn new(spec: &Spec, address: &EndpointAddress, material: &Material) -> Self {
        let is_tls = address.is_tls();
        Self {
            is_tls,
            sni: if is_tls { sni(address, material) } else { Box::default() },
            alpn: match spec.protocol {
                Protocol::Http2 => ALPN::H2,
                Protocol::Auto if is_tls => ALPN::H2H1,
                Protocol::Http1 | Protocol::Auto => ALPN::H1,
            },
            timeouts: spec.timeouts,
            material: material.clone(),
        }
    }

    /// `None` cannot be met: a path that no socket can have was not taken.
    fn peer(&self, address: &Address) -> Option<HttpPeer> {
        let sni = self.sni.to_string();
        let mut peer = match address {
            Address::Inet(address) => HttpPeer::new(*address, self.is_tls, sni),
            Address::Unix(path) => HttpPeer::new_uds(path.to_str()?, self.is_tls, sni).ok()?,
        };
        peer.group_key = self.material.group_key;
        let options = &mut peer.options;
        options.connection_timeout = Some(self.timeouts.connect);
        options.total_connection_timeout = Some(self.timeouts.connect);
        options.read_timeout = Some(self.timeouts.read);
        options.write_timeout = Some(self.timeouts.write);
        options.idle_timeout = Some(self.timeouts.idle);
        options.alpn = self.alpn.clone();
        // Pingora's own is 1: a connection for each request.
        options.max_h2_streams = 100;
        if self.is_tls {
            options.verify_cert = !self.material.skip_verification;
            options.verify_hostname = !self.material.skip_verification;
            options.ca.clone_from(&self.material.ca);
            peer.client_cert_key.clone_from(&self.material.identity);
        }
        Some(peer)
    }
}

/// Never empty: an IP address is verified as one (RFC 9110, section 4.3.4), and rustls leaves it out
/// of the handshake by itself (RFC 6066, section 3).
fn sni(address: &EndpointAddress, material: &Material) -> Box<str> {
    match (&material.server_name, &address.host) {
        (Some(name), _) => name.clone(),
        (None, Host::Name(name)) => name.strip_suffix('.').unwrap_or(name).into(),
        (None, Host::Ip(ip)) => ip.to_string().into(),
        (None, Host::Unix(_)) => Box::default(),
    }
}

/// An endpoint's peers, one for each address of its name.
#[derive(Debug, Default)]
pub(super) struct Peers(Box<[Prepared]>);

#[derive(Debug)]
struct Prepared {
    address: Address,
    peer: HttpPeer,
    /// Monotonic nanoseconds.
    shunned_until: AtomicU64,
}

impl Peers {
    /// Addresses of one name that are used.
    pub const MAX: usize = 64;

    pub fn new(template: &Template, addresses: &[Address]) -> Self {
        let prepare = |address: &Address| {
            let peer = template.peer(address)?;
            Some(Prepared { address: address.clone(), peer, shunned_until: AtomicU64::new(0) })
        };
        Self(addresses.iter().filter_map(prepare).collect())
    }

    pub fn are(&self, addresses: &[Address]) -> bool {
        self.0.iter().map(|it| &it.address).eq(addresses)
    }

    /// Copies for checks: given up after `timeout`, never pooled.
    pub fn for_checks(&self, timeout: Duration) -> Vec<(Address, HttpPeer)> {
        let copy = |prepared: &Prepared| {
            let mut peer = prepared.peer.clone();
            peer.options.connection_timeout = Some(timeout);
            peer.options.total_connection_timeout = Some(timeout);
            peer.options.read_timeout = Some(timeout);
            peer.options.write_timeout = Some(timeout);
            // With one stream a connection, Pingora keeps none of them for others to share.
            peer.options.max_h2_streams = 1;
            (prepared.address.clone(), peer)
        };
        self.0.iter().map(copy).collect()
    }

    /// Each address in turn, without those that failed lately unless all did.
    fn next(&self, turn: impl Fn() -> usize, now_nanos: u64) -> Option<&Prepared> {
        if self.0.len() < 2 {
            return self.0.first();
        }
        let (before, after) = self.0.split_at(turn() % self.0.len());
        let is_good = |it: &&Prepared| it.shunned_until.load(Ordering::Relaxed) <= now_nanos;
        after.iter().chain(before).find(is_good).or_else(|| after.first())
    }

    pub fn shun(&self, address: &Address, until: u64) {
        if let Some(prepared) = self.0.iter().find(|it| it.address == *address) {
            prepared.shunned_until.store(until, Ordering::Relaxed);
        }
    }
}

impl Endpoint {
    pub(super) fn shun(&self, address: &Address, now_nanos: u64) {
        self.peers.load().shun(address, now_nanos.saturating_add(SHUN_NANOS));
    }
}

impl Picked {
    /// Where to connect to: the endpoint's next address. `None` cannot be met by one that was
    /// picked: those are resolved, and stay it.
    pub fn peer(&mut self, now_nanos: u64) -> Option<Box<HttpPeer>> {
        let peers = self.endpoint().peers.load();
        let turn = || self.endpoint().state.turn.fetch_add(1, Ordering::Relaxed);
        let prepared = peers.next(turn, now_nanos)?;
        let (address, peer) = (prepared.address.clone(), Box::new(prepared.peer.clone()));
        drop(peers);
        self.address = Some(address);
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use pingora::{
        protocols::l4::socket,
        upstreams::peer::{Peer, Scheme},
    };

    use super::*;
    use crate::{
        upstream::{
            Tried,
            tests::{spec, upstream},
        },
        value::secret::Secret,
    };

    const CA: &[u8] = include_bytes!("testdata/ca.der");
    const LEAF: &[u8] = include_bytes!("testdata/leaf.der");
    const KEY: &[u8] = include_bytes!("testdata/leaf.key.der");

    fn peer_of(url: &str, change: impl FnOnce(&mut Spec)) -> HttpPeer {
        let mut spec = spec("orders", &[(url, 1)]);
        change(&mut spec);
        let upstream = upstream(spec);
        if upstream.endpoints()[0].spec().address.socket().is_none() {
            upstream.endpoints()[0].set_addresses(vec!["10.9.9.9:1".parse().unwrap()]);
        }
        let mut picked = upstream.pick(None, &Tried::default(), 0).unwrap();
        *picked.peer(0).unwrap()
    }

    #[test]
    fn every_timeout_is_finite() {
        let options = peer_of("http://10.0.0.1:8080", |_| {}).options;
        assert_eq!(options.connection_timeout, Some(Duration::from_secs(2)));
        assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(2)));
        assert_eq!(options.read_timeout, Some(Duration::from_secs(30)));
        assert_eq!(options.write_timeout, Some(Duration::from_secs(30)));
        assert_eq!(options.idle_timeout, Some(Duration::from_secs(50)));
        assert_eq!(options.max_h2_streams, 100);
    }

    #[test]
    fn a_socket_of_this_machine_is_a_peer() {
        let peer = peer_of("unix:/run/app.sock", |_| {});
        let socket::SocketAddr::Unix(address) = &peer._address else { panic!("{peer}") };
        assert_eq!(address.as_pathname().unwrap().to_str(), Some("/run/app.sock"));
        assert!(peer.scheme == Scheme::HTTP && peer.sni.is_empty());
    }

    #[test]
    fn the_protocol_settles_alpn() {
        let check = |url: &str, protocol: Protocol, expected: ALPN| {
            let peer = peer_of(url, |spec| spec.protocol = protocol);
            assert_eq!(peer.options.alpn, expected, "{url} {protocol:?}");
        };
        check("http://a.test", Protocol::Http1, ALPN::H1);
        check("http://a.test", Protocol::Http2, ALPN::H2);
        check("http://a.test", Protocol::Auto, ALPN::H1);
        check("https://a.test", Protocol::Auto, ALPN::H2H1);
        check("https://a.test", Protocol::Http2, ALPN::H2);
    }

    #[test]
    fn tls_always_has_a_name_to_verify() {
        let check = |url: &str, server_name: Option<&str>, expected: &str| {
            let server_name = server_name.map(str::to_owned);
            let peer = peer_of(url, |spec| spec.tls = Some(Tls { server_name, ..Tls::default() }));
            assert_eq!(peer.sni, expected, "{url}");
            assert!(peer.verify_cert() && peer.verify_hostname());
        };
        check("https://orders.internal:8443", None, "orders.internal");
        check("https://orders.internal.", None, "orders.internal");
        check("https://10.0.0.1", None, "10.0.0.1");
        check("https://[::1]:8443", None, "::1");
        check("https://10.0.0.1", Some("orders.internal"), "orders.internal");
        let plain = peer_of("http://orders.internal", |_| {});
        assert!(plain.sni.is_empty() && plain.scheme == Scheme::HTTP);
    }

    #[test]
    fn connections_are_shared_only_by_those_with_the_same_settings() {
        let url = "https://10.0.0.1";
        let key = |change: fn(&mut Spec)| peer_of(url, change).reuse_hash();
        let tls = |spec: &mut Spec| spec.tls = Some(Tls::default());
        assert_eq!(key(tls), key(tls));
        let others: [fn(&mut Spec); 5] = [
            |spec| spec.name = "other".into(),
            |spec| spec.protocol = Protocol::Auto,
            |spec| spec.tls = Some(Tls { verify: false, ..Tls::default() }),
            |spec| spec.tls = Some(Tls { ca: Some(vec![CA.to_vec()]), ..Tls::default() }),
            |spec| spec.tls = Some(Tls { server_name: Some("b".to_owned()), ..Tls::default() }),
        ];
        let mut keys: Vec<u64> = others.into_iter().map(key).collect();
        keys.push(key(tls));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn broken_tls_material_is_refused_and_never_panics() {
        let check = |tls: Tls, expected: Option<&str>| match (tls.check(), expected) {
            (Ok(()), None) => {}
            (Err(text), Some(part)) => assert!(text.contains(part), "{text}"),
            (result, _) => panic!("{result:?}, expected {expected:?}"),
        };
        let ca = |ca: Vec<Vec<u8>>| Tls { ca: Some(ca), ..Tls::default() };
        let identity = |chain: Vec<Vec<u8>>, key: &[u8]| Tls {
            identity: Some(ClientIdentity { chain, key: Secret::new(key.to_vec()) }),
            ..Tls::default()
        };
        check(ca(vec![CA.to_vec()]), None);
        check(ca(Vec::new()), Some("tls.ca has no certificate"));
        check(ca(vec![b"no".to_vec()]), Some("tls.ca:"));
        check(ca(vec![CA[..CA.len() - 9].to_vec()]), Some("tls.ca:"));
        check(identity(vec![LEAF.to_vec()], KEY), None);
        check(identity(Vec::new(), KEY), Some("tls.cert has no certificate"));
        check(identity(vec![Vec::new()], KEY), Some("tls.cert has no certificate"));
        check(identity(vec![b"no".to_vec()], KEY), Some("tls.cert"));
        check(identity(vec![LEAF.to_vec()], b"no"), Some("tls.key"));
        check(identity(vec![CA.to_vec()], KEY), Some("tls.cert and tls.key"));
        let name = |name: &str| Tls { server_name: Some(name.to_owned()), ..Tls::default() };
        check(name("orders.internal"), None);
        check(name(""), Some("tls.server_name"));
        check(name("a b"), Some("tls.server_name"));
    }

    #[test]
    fn addresses_of_a_name_take_turns_and_a_bad_one_is_passed_over() {
        let upstream = upstream(spec("orders", &[("http://name.test", 1)]));
        let addresses: Vec<Address> =
            (1..=3).map(|n| SocketAddr::from(([10, 0, 0, n], 80)).into()).collect();
        upstream.endpoints()[0].set_addresses(addresses.clone());
        let mut picked = upstream.pick(None, &Tried::default(), 0).unwrap();
        let mut next = |now| {
            let peer = picked.peer(now).unwrap();
            let socket::SocketAddr::Inet(address) = peer._address else { panic!("{peer}") };
            let address = Address::Inet(address);
            assert_eq!(picked.address(), Some(&address));
            address
        };
        let mut met: Vec<Address> = (0..3).map(|_| next(0)).collect();
        met.sort_unstable();
        assert_eq!(met, addresses);
        upstream.endpoints()[0].shun(&addresses[1], 0);
        assert!((0..9).all(|_| next(1) != addresses[1]));
        assert!((0..9).any(|_| next(SHUN_NANOS) == addresses[1]));
        addresses.iter().for_each(|address| upstream.endpoints()[0].shun(address, 0));
        assert!((0..3).any(|_| next(1) == addresses[1]), "when all are bad, each is as good");
    }
}
