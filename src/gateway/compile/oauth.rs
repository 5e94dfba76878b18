//! What stands in several places of a configuration that speaks to authorization servers.
use super::words::choice_or;
use crate::{
    config::raw::Word,
    diagnostic::{Path, Problems},
    shared::{
        http_client::{self, Url},
        oauth::{AuthMethod, Client},
    },
    value::secret::Secret,
};

/// The keys of a client, as they are written.
pub(super) struct Registration<'a> {
    pub id: Option<&'a Word>,
    pub secret: Option<&'a Word>,
    pub auth_method: Option<&'a Word>,
}

/// Us as a client; both halves are needed.
pub(super) fn client(raw: &Registration<'_>, at: &Path, problems: &mut Problems) -> Option<Client> {
    let method = choice_or(
        raw.auth_method,
        AuthMethod::ClientSecretBasic,
        &[
            ("client_secret_basic", AuthMethod::ClientSecretBasic),
            ("client_secret_post", AuthMethod::ClientSecretPost),
        ],
        &at.key("auth_method"),
        problems,
    );
    let (Some(Word(id)), Some(Word(secret))) = (raw.id, raw.secret) else {
        problems.add_with_hint(
            at,
            "`client_id` and `client_secret` are both needed",
            "the authorization server gives them out; keep the secret in ${env:…} or ${file:…}",
        );
        return None;
    };
    problems.keep(at, Client::new(id, Secret::new(secret.clone()), method))
}

/// The URL under `key`, which must be there.
pub(super) fn endpoint(
    url: Option<&Word>,
    key: &str,
    at: &Path,
    problems: &mut Problems,
) -> Option<Url> {
    let Some(Word(url)) = url else {
        problems.add(at, format!("`{key}` is missing: an https URL"));
        return None;
    };
    problems.keep(&at.key(key), http_client::endpoint(url))
}
