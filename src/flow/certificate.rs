//! What a verified client certificate says of its owner; read once a connection.
use std::sync::Arc;

/// A client certificate whose chain, time and revocation were checked in the handshake.
#[derive(Debug, Default)]
pub struct ClientCertificate {
    /// SHA-256 of the DER, lower-case hexadecimal.
    pub fingerprint: Arc<str>,
    /// The last common name of the subject.
    pub subject_cn: Option<Arc<str>>,
    pub san_dns: Box<[Arc<str>]>,
    pub san_uri: Box<[Arc<str>]>,
}
