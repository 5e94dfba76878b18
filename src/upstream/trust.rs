//! Whose certificates are believed where an upstream names no `tls.ca`: the system's. Pingora panics
//! when it cannot read them, and does so even if no upstream speaks TLS; this looks before.
use std::sync::OnceLock;

use pingora::tls::{RootCertStore, load_platform_certs_incl_env_into_store};

/// A file without certificates: nobody is believed.
const NOBODY: &str = "/dev/null";

const CONSEQUENCE: &str = "an https upstream needs `tls.ca`";

/// What every connector of this process takes as its `ca_file`: `None` for the system's certificates,
/// or a file without any when those cannot be read. Certificates are verified either way. Without any,
/// even `verify: false` needs a `tls.ca`: Pingora builds a verifier that it then does not ask.
pub fn ca_file() -> Option<&'static str> {
    static FILE: OnceLock<Option<&'static str>> = OnceLock::new();
    *FILE.get_or_init(|| {
        let mut store = RootCertStore::empty();
        match load_platform_certs_incl_env_into_store(&mut store) {
            Ok(()) => {
                if store.is_empty() {
                    log::warn!("this system has no CA certificates: {CONSEQUENCE}");
                }
                None
            }
            Err(why) => {
                log::warn!("the system's CA certificates cannot be read: {why}: {CONSEQUENCE}");
                Some(NOBODY)
            }
        }
    })
}
