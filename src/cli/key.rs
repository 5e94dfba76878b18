//! `tollgate key`: makes keys and hashes. A key is printed once; only its hash is kept. With `--admin`
//! or `-c`, keys are those of a running process; without, `new` prints the lines for a file.
mod remote;

use std::io::Read;

use clap::Subcommand;

use super::{Access, AdminArguments, Outcome};
use crate::{
    auth::{basic, key_format},
    value::secret::Secret,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a key for a consumer and print it once: in the store of a running process with --admin or
    /// -c, else with the lines for the configuration.
    New {
        /// The consumer it is for.
        consumer: String,
        /// Its id. Without it: a part of the key in the store, today's date in the configuration.
        #[arg(long)]
        id: Option<String>,
        /// When it ends, such as 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// A scope that it carries; may be repeated.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// The admin listener of a process with a store. The environment does not count here: the key
        /// is to be where one said.
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<String>,
        #[command(flatten)]
        access: Access,
    },
    /// List the credentials of a running process: of its file and of its store.
    List {
        /// Of this consumer only.
        consumer: Option<String>,
        /// Only those used since this time, or for so long: who still uses an old key?
        #[arg(long, value_name = "TIME|AGE")]
        used_since: Option<String>,
        /// Only those not used since this time, or for so long.
        #[arg(long, value_name = "TIME|AGE")]
        unused_since: Option<String>,
        /// Only those in this state: active, expired or revoked.
        #[arg(long)]
        state: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Make a new key in the place of one in the store, which goes on for a while.
    Rotate {
        /// The key: CONSUMER/ID, or the ID alone where only one consumer has it.
        key: String,
        /// How long the old key goes on, such as 7d.
        #[arg(long, value_name = "DURATION")]
        overlap: String,
        /// The id of the new key; a part of the key without it.
        #[arg(long)]
        id: Option<String>,
        /// When the new key ends. Without it, it lives as long as the old one was made for.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Take a key of the store out of use, at once.
    Revoke {
        /// The key: CONSUMER/ID, or the ID alone where only one consumer has it.
        key: String,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Hash a key, a token or a password that is read from standard input, or given.
    Hash {
        /// What to hash. Better on standard input: the command line is seen by others.
        value: Option<String>,
        /// Hash a password for Basic (argon2id) instead.
        #[arg(long)]
        password: bool,
    },
}

pub(super) fn run(verb: Verb) -> Outcome {
    let offline = match verb {
        Verb::New { consumer, id, expires, scopes, admin, access } => {
            let (id, expires) = (id.as_deref(), expires.as_deref());
            match has_store(admin.as_deref(), &access) {
                Ok(true) => {
                    let admin = AdminArguments { admin, access };
                    return remote::new(&admin, &consumer, id, expires, &scopes);
                }
                Ok(false) => new(&consumer, id, expires, &scopes),
                Err(outcome) => return outcome,
            }
        }
        Verb::List { consumer, used_since, unused_since, state, json, admin } => {
            let filters = [
                ("consumer", consumer),
                ("used_since", used_since),
                ("unused_since", unused_since),
                ("state", state),
            ];
            return remote::list(&admin, filters, json);
        }
        Verb::Rotate { key, overlap, id, expires, admin } => {
            return remote::rotate(&admin, &key, &overlap, id.as_deref(), expires.as_deref());
        }
        Verb::Revoke { key, admin } => return remote::revoke(&admin, &key),
        Verb::Hash { value, password } => hash(value, password),
    };
    offline.map_or_else(|why| Outcome::failure(2, format!("tollgate key: {why}")), Outcome::success)
}

/// Whether a new key belongs into a store: of the process that `--admin` names, or of the one that
/// runs on a file which says so.
fn has_store(admin: Option<&str>, access: &Access) -> Result<bool, Outcome> {
    let config = access.config()?;
    Ok(config.map_or(admin.is_some(), |config| config.store.is_some()))
}

fn new(
    consumer: &str,
    id: Option<&str>,
    expires: Option<&str>,
    scopes: &[String],
) -> Result<String, String> {
    let today = jiff::Timestamp::now().to_string();
    let id = id.unwrap_or_else(|| today.get(..10).unwrap_or("new"));
    for word in [consumer, id] {
        crate::gateway::compile::name(word)?;
    }
    if let Some(expires) = expires {
        expires
            .parse::<jiff::Timestamp>()
            .map_err(|_| format!("`{expires}` is not a time such as 2027-01-01T00:00:00Z"))?;
    }
    let (key, hash) = generate()?;
    let mut line = format!("{{id: {id}, hash: \"{hash}\"");
    if let Some(expires) = expires {
        line.push_str(&format!(", expires: {expires}"));
    }
    if !scopes.is_empty() {
        let scopes: Vec<String> = scopes.iter().map(|it| format!("{it:?}")).collect();
        line.push_str(&format!(", scopes: [{}]", scopes.join(", ")));
    }
    Ok(format!(
        "{key}\n\n\
         # The key is shown this once. In the configuration stands only its hash:\n\
         consumers:\n  {consumer}:\n    api_keys:\n      - {line}}}",
        key = key.expose(),
    ))
}

/// A fresh key and what a configuration holds of it.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn generate() -> Result<(Secret<String>, String), String> {
    let key = key_format::generate()?;
    let hash = key_format::hash(key.expose());
    Ok((key, hash))
}

fn hash(value: Option<String>, is_password: bool) -> Result<String, String> {
    let value = match value {
        Some(value) => value,
        None => read()?,
    };
    if value.is_empty() {
        return Err("there is nothing to hash".to_owned());
    }
    if is_password { basic::hash(&value) } else { Ok(key_format::hash(&value)) }
}

/// One line of standard input, without its end.
fn read() -> Result<String, String> {
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).map_err(|why| why.to_string())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_comes_with_its_lines() {
        let text = new("acme", Some("q4"), Some("2027-01-01T00:00:00Z"), &["a:b".into()]).unwrap();
        let key = text.lines().next().unwrap();
        assert!(key_format::is_sound(key), "{text}");
        let line = format!(
            "      - {{id: q4, hash: \"{}\", expires: 2027-01-01T00:00:00Z, scopes: [\"a:b\"]}}",
            key_format::hash(key)
        );
        assert!(text.contains(&line), "{text}");
    }

    #[test]
    fn words_that_no_configuration_takes_are_refused() {
        assert!(new("a b", None, None, &[]).is_err());
        assert!(new("acme", Some("a\nb"), None, &[]).is_err());
        assert!(new("acme", None, Some("tomorrow"), &[]).is_err());
    }

    #[test]
    fn a_hash_is_of_the_whole_key() {
        assert_eq!(
            hash(Some("test".into()), false).unwrap(),
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        );
        assert!(
            hash(Some("test".into()), true).unwrap().starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
    }
}
