//! From the files of a listener to what its handshakes are made with: all of it, or every reason why
//! not. What is merely unwise (an expired certificate, a key that all can read) is a warning, because
//! refusing to start over one name of twenty would take the other nineteen down.
use std::sync::Arc;

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, ProducesTickets},
    version::{TLS12, TLS13},
};

use super::{
    acme,
    certificate::{Certificate, Flaw},
    pem,
    settings::{Clients, File, Pair, Settings, Version},
    table::Table,
    trust::{Authorities, List, Trust},
};
use crate::{
    diagnostic::{Path, Problems},
    shared::file,
};

/// Bytes of a chain or a key at most.
const CERTIFICATE: u64 = 1 << 20;
/// Bytes of what an authority says of a certificate: some hundreds are usual.
const STAPLE: u64 = 64 << 10;
/// Bytes of a revocation list at most: some 1.5 million certificates.
const LIST: u64 = 64 << 20;

/// Something that works and should not stay so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub place: Path,
    pub message: String,
}

/// What the handshakes of one moment are made with.
#[derive(Debug)]
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    pub table: Arc<Table>,
    pub trust: Option<Trust>,
    /// File and seconds since the epoch at which it is out of date, of each revocation list.
    pub lists: Vec<(Arc<str>, u64)>,
    pub warnings: Vec<Warning>,
}

/// What loading needs besides the files.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub provider: &'a Arc<CryptoProvider>,
    /// Seals the sessions of clients without certificates, so that they come back cheaply.
    pub tickets: &'a Arc<dyn ProducesTickets>,
    /// The proofs that authorities ask for.
    pub pending: &'a Arc<acme::Pending>,
    /// Seconds since the epoch.
    pub unix: u64,
}

struct Loading<'a> {
    scene: Scene<'a>,
    problems: Problems,
    warnings: Vec<Warning>,
}

/// # Errors
/// Every problem of the files, each with its place in the configuration.
pub fn load(settings: &Settings, scene: Scene<'_>) -> Result<Loaded, Problems> {
    let mut loading = Loading { scene, problems: Problems::default(), warnings: Vec::new() };
    let pairs = settings.certificates.iter();
    let mut certificates: Vec<_> = pairs.filter_map(|it| loading.stapled(it)).collect();
    certificates.extend(settings.acme.as_ref().and_then(|it| loading.ordered(it)));
    let mut lists = Vec::new();
    let trust = settings.clients.as_ref().and_then(|it| loading.trust(it, &mut lists));
    if !loading.problems.is_empty() {
        return Err(loading.problems);
    }
    let is_proving = |it: &acme::Settings| it.challenge == acme::Challenge::TlsAlpn01;
    let pending = settings.acme.as_ref().filter(|it| is_proving(it)).map(|_| scene.pending.clone());
    let table = Arc::new(Table::new(certificates, pending));
    let config = match config(settings, &table, trust.as_ref(), scene) {
        Ok(config) => Arc::new(config),
        Err(why) => {
            let mut problems = Problems::default();
            problems.add(&Path::root(), format!("TLS cannot be set up: {why}"));
            return Err(problems);
        }
    };
    Ok(Loaded { config, table, trust, lists, warnings: loading.warnings })
}

fn config(
    settings: &Settings,
    table: &Arc<Table>,
    trust: Option<&Trust>,
    scene: Scene<'_>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        Version::Tls12 => &[&TLS13, &TLS12],
        Version::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(scene.provider.clone())
        .with_protocol_versions(versions)?;
    let builder = match trust {
        Some(trust) => builder.with_client_cert_verifier(trust.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(table.clone());
    config.alpn_protocols = settings.alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    if table.is_proving() {
        config.alpn_protocols.push(acme::PROTOCOL.to_vec());
    }
    // Sessions live in tickets that the clients keep, so they cost no memory here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if trust.is_some() {
        // A session that comes back is not verified again: a certificate that was revoked or has
        // expired meanwhile would come back with it. So none comes back.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = scene.tickets.clone();
    }
    Ok(config)
}

impl Loading<'_> {
    fn read(&mut self, file: &File, most: u64) -> Option<Vec<u8>> {
        let read = file::read(&file.path, most).map_err(|why| format!("{}: {why}", file.shown));
        self.problems.keep(&file.place, read)
    }

    fn warn(&mut self, file: &File, message: &str) {
        let message = format!("{}: {message}", file.shown);
        self.warnings.push(Warning { place: file.place.clone(), message });
    }

    /// With what its authority says of it. Without that it is shown all the same: most clients ask for
    /// none, and those that do are the ones to tell.
    fn stapled(&mut self, pair: &Pair) -> Option<Certificate> {
        let mut certificate = self.certificate(&pair.chain, &pair.key)?;
        let Some(file) = &pair.ocsp else { return Some(certificate) };
        let read = file::read(&file.path, STAPLE).and_then(|bytes| match pem::is_der(&bytes) {
            true => Ok(bytes),
            false => Err("not an OCSP response in DER form".to_owned()),
        });
        match read {
            Ok(bytes) => certificate.staple(bytes),
            Err(why) => self.warn(file, &format!("nothing is stapled: {why}")),
        }
        Some(certificate)
    }

    /// What the authority has signed, or what stands in its place.
    fn ordered(&mut self, acme: &acme::Settings) -> Option<Certificate> {
        if acme.file.path.exists() {
            return self.certificate(&acme.file, &acme.file);
        }
        self.warn(&acme.file, "not there yet: a certificate that nobody trusts is shown meanwhile");
        let made = acme::placeholder(&acme.file.shown, &acme.domains);
        self.problems.keep(&acme.file.place, made)
    }

    fn certificate(&mut self, chain: &File, key: &File) -> Option<Certificate> {
        let (chain_bytes, key_bytes) = (self.read(chain, CERTIFICATE), self.read(key, CERTIFICATE));
        let named = |file: &File, why: String| format!("{}: {why}", file.shown);
        let certificates = chain_bytes.and_then(|bytes| {
            let read = pem::certificates(&bytes).map_err(|why| named(chain, why));
            self.problems.keep(&chain.place, read)
        });
        let private = key_bytes.and_then(|bytes| {
            let read = pem::private_key(&bytes).map_err(|why| named(key, why));
            self.problems.keep(&key.place, read)
        });
        let made =
            Certificate::new(chain.shown.clone(), certificates?, private?, self.scene.provider);
        let certificate = match made {
            Ok(certificate) => certificate,
            Err(flaw) => {
                self.flaw(flaw, chain, key);
                return None;
            }
        };
        if self.scene.unix > certificate.not_after {
            let at = date(certificate.not_after);
            self.warn(chain, &format!("the certificate has expired at {at}: clients refuse it"));
        } else if self.scene.unix < certificate.not_before {
            let at = date(certificate.not_before);
            self.warn(chain, &format!("the certificate is not valid before {at}"));
        }
        if file::is_open_to_all(&key.path) {
            let message = "everybody on this machine can read the key: `chmod o-r` it";
            self.warn(key, message);
        }
        Some(certificate)
    }

    fn flaw(&mut self, flaw: Flaw, chain: &File, key: &File) {
        match flaw {
            Flaw::Chain(why) => self.problems.add(&chain.place, format!("{}: {why}", chain.shown)),
            Flaw::Nameless => self.problems.add_with_hint(
                &chain.place,
                format!(
                    "{}: the certificate names nobody: it has no subject alternative name, and its \
                     common name does not count (RFC 9525)",
                    chain.shown
                ),
                "with openssl: `-addext \"subjectAltName=DNS:www.example.com\"`",
            ),
            Flaw::Key(why) => self.problems.add(&key.place, format!("{}: {why}", key.shown)),
            Flaw::Mismatch(owner) => {
                let message = format!("{}: not the key of {}", key.shown, chain.shown);
                match owner {
                    Some(number) => self.problems.add_with_hint(
                        &key.place,
                        message,
                        format!(
                            "it is the key of certificate {number} in that file: the server's own \
                             certificate goes first, then the one that signed it"
                        ),
                    ),
                    None => self.problems.add(&key.place, message),
                }
            }
        }
    }

    fn trust(&mut self, clients: &Clients, lists: &mut Vec<(Arc<str>, u64)>) -> Option<Trust> {
        let file = &clients.authorities;
        let authorities = self.read(file, LIST).and_then(|bytes| {
            let made = pem::certificates(&bytes).and_then(Authorities::new);
            self.problems.keep(&file.place, made.map_err(|why| format!("{}: {why}", file.shown)))
        });
        let mut all = Vec::new();
        let mut issuers = Vec::new();
        for file in &clients.lists {
            let Some(bytes) = self.read(file, LIST) else { continue };
            let read = pem::revocation_lists(bytes).and_then(|ders| {
                let Some(authorities) = &authorities else { return Ok(Vec::new()) };
                let read =
                    |der| List::read(&der, authorities, self.scene.provider).map(|it| (it, der));
                ders.into_iter().map(read).collect::<Result<Vec<_>, _>>()
            });
            let read = read.map_err(|why| format!("{}: {why}", file.shown));
            for (list, der) in self.problems.keep(&file.place, read).into_iter().flatten() {
                if self.scene.unix >= list.next_update {
                    let at = date(list.next_update);
                    self.warn(
                        file,
                        &format!("out of date since {at}: every client certificate is refused"),
                    );
                }
                lists.push((file.shown.clone(), list.next_update));
                issuers.push(list.issuer);
                all.push(der);
            }
        }
        let authorities = authorities?;
        if self.problems.is_empty() {
            self.compare(clients, &authorities, &issuers);
        }
        let trust = Trust::new(clients.asked, &authorities, all, self.scene.provider);
        self.problems.keep(&file.place, trust)
    }

    /// With lists at all, a certificate is refused unless its issuer has one.
    fn compare(&mut self, clients: &Clients, authorities: &Authorities, issuers: &[Vec<u8>]) {
        let Some(first) = clients.lists.first() else { return };
        let without: Vec<&str> = (authorities.names.iter())
            .filter(|(name, _)| !issuers.contains(name))
            .map(|(_, shown)| shown.as_str())
            .collect();
        let shown = without.join("`, `");
        if without.len() == authorities.names.len() {
            let message = format!(
                "none of the lists is by an authority of {}: every client would be refused",
                clients.authorities.shown
            );
            let hint = format!("the authorities are `{shown}`");
            self.problems.add_with_hint(&first.place, message, hint);
        } else if !without.is_empty() {
            self.warn(first, &format!("no list is by `{shown}`: its certificates are refused"));
        }
    }
}

/// RFC 3339, for people.
pub fn date(unix: u64) -> String {
    let at = i64::try_from(unix).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.map_or_else(|| format!("{unix} s"), |at| at.to_string())
}
