//! One order, from the account to the file: RFC 8555 section 7. What it writes is written whole and
//! renamed, key and chain together, for nobody but this user to read.
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use instant_acme::{
    AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Challenge, Pending, Settings, client::Http, pending::Shown};
use crate::gateway::tls::{certificate::Certificate, pem, provider};

/// From the first request to the file.
const WHOLE: Duration = Duration::from_secs(300);
/// For the authority to look, and again for it to sign.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Obtained {
    New,
    /// Another process is at it.
    ByAnother,
}

/// Where the account's key is: by the authority, since an account is one authority's.
fn account_file(storage: &Path, directory: &str) -> PathBuf {
    let is_plain = |it: &char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-');
    let (_, rest) = directory.split_once("://").unwrap_or(("", directory));
    let name: String = rest.chars().map(|it| if is_plain(&it) { it } else { '_' }).collect();
    storage.join(format!("account-{name}.json"))
}

/// # Errors
/// Why there is no certificate, for people.
pub async fn obtain(settings: &Settings, pending: &Arc<Pending>) -> Result<Obtained, String> {
    let Some(_lock) = lock(&settings.storage)? else { return Ok(Obtained::ByAnother) };
    match tokio::time::timeout(WHOLE, order(settings, pending)).await {
        Ok(result) => result.map(|()| Obtained::New),
        Err(_) => Err(format!("it takes longer than {} s", WHOLE.as_secs())),
    }
}

/// Of two processes at one folder, one orders.
fn lock(storage: &Path) -> Result<Option<File>, String> {
    let failed = |why: std::io::Error| format!("{}: {why}", storage.display());
    DirBuilder::new().recursive(true).mode(0o700).create(storage).map_err(failed)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(storage.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(why)) => Err(failed(why)),
    }
}

async fn order(settings: &Settings, pending: &Arc<Pending>) -> Result<(), String> {
    let account = account(settings).await?;
    let names: Vec<_> = settings.domains.iter().map(|it| Identifier::Dns(it.clone())).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(said)?;
    let shown = answer(&mut order, settings, pending).await?;
    let policy = RetryPolicy::new().initial_delay(Duration::from_millis(500)).timeout(PATIENCE);
    let status = order.poll_ready(&policy).await.map_err(said)?;
    drop(shown);
    if status != OrderStatus::Ready {
        return Err(refused(&mut order).await);
    }
    let key = KeyPair::generate().map_err(|why| why.to_string())?;
    let mut params = params(&settings.domains)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(|why| why.to_string())?;
    order.finalize_csr(request.der()).await.map_err(said)?;
    let chain = order.poll_certificate(&policy).await.map_err(said)?;
    check(settings, &chain, &key)?;
    let both = format!("{}{chain}", key.serialize_pem());
    write(&settings.file.path, both.as_bytes())
}

fn said(why: instant_acme::Error) -> String {
    let why = Box::<dyn std::error::Error>::from(why);
    let mut text = why.to_string();
    // An answer that is refused says why in what it is made of.
    let mut inner = why.source();
    while let Some(it) = inner {
        text = format!("{text}: {it}");
        inner = it.source();
    }
    text
}

async fn account(settings: &Settings) -> Result<instant_acme::Account, String> {
    let file = account_file(&settings.storage, &settings.directory);
    let builder =
        || instant_acme::Account::builder_with_http(Box::new(Http(settings.client.clone())));
    if let Ok(text) = fs::read(&file) {
        let credentials: AccountCredentials = serde_json::from_slice(&text)
            .map_err(|why| format!("{} is no account: {why}", file.display()))?;
        return builder().from_credentials(credentials).await.map_err(said);
    }
    let contact = settings.email.as_ref().map(|it| format!("mailto:{it}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = builder().create(&new, settings.directory.clone(), None).await.map_err(said)?;
    let text = serde_json::to_vec(&made.1).map_err(|why| why.to_string())?;
    write(&file, &text)?;
    Ok(made.0)
}

/// Lets the authority find what it asks for, for each name.
async fn answer(
    order: &mut Order,
    settings: &Settings,
    pending: &Arc<Pending>,
) -> Result<Vec<Shown>, String> {
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.map_err(said)?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(format!("an authorization is {other:?}")),
        }
        let kind = match settings.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let Some(mut challenge) = authorization.challenge(kind) else {
            return Err(format!("the authority offers no {}", settings.challenge.word()));
        };
        let key = challenge.key_authorization();
        shown.push(match settings.challenge {
            Challenge::Http01 => pending.show_text(&challenge.token, key.as_str()),
            Challenge::TlsAlpn01 => {
                let name = challenge.identifier().to_string();
                let certificate = proof(&name, key.digest().as_ref())?;
                pending.show_certificate(&name, certificate)
            }
        });
        challenge.set_ready().await.map_err(said)?;
    }
    Ok(shown)
}

/// What the authority says of the names that it does not give.
async fn refused(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let name = format!("{:?}", state.status);
        let errors = state.challenges.iter().filter_map(|it| it.error.as_ref());
        reasons.extend(errors.map(|it| format!("{it}")));
        if state.status != AuthorizationStatus::Valid && reasons.is_empty() {
            reasons.push(name);
        }
    }
    format!("the authority is not convinced: {}", reasons.join("; "))
}

fn params(names: &[String]) -> Result<CertificateParams, String> {
    CertificateParams::new(names.to_vec()).map_err(|why| why.to_string())
}

/// A certificate that is signed by nobody else.
fn own(
    params: CertificateParams,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), String> {
    let key = KeyPair::generate().map_err(|why| why.to_string())?;
    let signed = params.self_signed(&key).map_err(|why| why.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    Ok((signed.der().clone(), key))
}

/// RFC 8737 section 3.
fn proof(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let mut params = params(&[name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let (certificate, key) = own(params)?;
    let key = provider().key_provider.load_private_key(key).map_err(|why| why.to_string())?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

/// What stands in the place of the first certificate until that is there.
///
/// # Errors
/// The names cannot be those of a certificate.
pub fn placeholder(file: &Arc<str>, domains: &[String]) -> Result<Certificate, String> {
    let (certificate, key) = own(params(domains)?)?;
    Certificate::new(file.clone(), vec![certificate], key, provider())
        .map_err(|why| format!("{why:?}"))
}

/// Nothing that could not be used takes the place of what can.
fn check(settings: &Settings, chain: &str, key: &KeyPair) -> Result<(), String> {
    let chain = pem::certificates(chain.as_bytes())?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let certificate = Certificate::new(settings.file.shown.clone(), chain, key, provider())
        .map_err(|why| format!("what the authority has signed cannot be used: {why:?}"))?;
    match settings.domains.iter().find(|it| !certificate.names.cover(it)) {
        Some(name) => Err(format!("the authority has signed, but not for {name}")),
        None => Ok(()),
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |why: std::io::Error| format!("{}: {why}", file.display());
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut written = options.open(&new).map_err(failed)?;
    written.write_all(bytes).and_then(|()| written.sync_all()).map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_one_authoritys() {
        let file =
            |directory| account_file(Path::new("/s"), directory).to_string_lossy().into_owned();
        assert_eq!(
            file("https://acme-v02.api.letsencrypt.org/directory"),
            "/s/account-acme-v02.api.letsencrypt.org_directory.json"
        );
        assert_eq!(file("https://a.test/../../x"), "/s/account-a.test_.._.._x.json");
    }

    #[test]
    fn what_stands_in_its_place_is_for_all_names() {
        let names = ["a.test".to_owned(), "b.test".to_owned()];
        let made = placeholder(&"acme".into(), &names).unwrap();
        assert!(made.names.cover("a.test") && made.names.cover("b.test"));
        assert!(!made.names.cover("c.test"));
    }

    #[test]
    fn one_process_orders() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("acme");
        let first = lock(&storage).unwrap();
        assert!(first.is_some() && lock(&storage).unwrap().is_none());
        drop(first);
        assert!(lock(&storage).unwrap().is_some());
    }

    #[test]
    fn a_file_is_written_whole_and_for_us_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        for text in ["one", "two"] {
            write(&file, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&folder.path().join("none/a.pem"), b"x").is_err());
    }
}
