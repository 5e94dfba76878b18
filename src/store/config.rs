//! Where a store is, parsed; the words themselves are the configuration's.
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::{diagnostic::did_you_mean, value::secret::Secret};

/// What to do at a start when the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// Do not start: without the store nobody knows which keys were revoked.
    Fail,
    /// Start with the consumers of the file alone; those of the store follow when it answers.
    StartWithout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub location: Location,
    pub on_outage: OnOutage,
}

#[derive(Clone, Debug)]
pub enum Location {
    Sqlite(PathBuf),
    Postgres {
        url: Secret<String>,
        /// The URL without its password and parameters.
        shown: Arc<str>,
        /// Whether whoever is on the way could read and change what is said.
        is_open: bool,
    },
}

/// What may stand behind the question mark. The driver leaves out what it does not know, so that a
/// slip of the pen in `sslmode` would be a connection without encryption.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "statement-cache-capacity",
    "user",
    // Other spellings.
    "ssl-mode",
    "ssl-root-cert",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
];

impl Location {
    /// # Errors
    /// A sentence for the operator.
    pub fn sqlite(path: &Path) -> Result<Self, String> {
        if path.as_os_str().is_empty() || path.ends_with("/") {
            return Err("the path of a file is needed".to_owned());
        }
        // The driver takes a URL, which is text.
        if path.to_str().is_none_or(|it| it.chars().any(char::is_control)) {
            return Err("must be text without control characters".to_owned());
        }
        Ok(Self::Sqlite(path.to_owned()))
    }

    /// # Errors
    /// A sentence for the operator, without the URL, which may hold a password.
    pub fn postgres(url: &str) -> Result<Self, String> {
        const FORM: &str = "must be a URL such as postgres://user:password@host:5432/database";
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(FORM.to_owned());
        }
        parameters(url)?;
        let options = PgConnectOptions::from_str(url).map_err(|_| FORM.to_owned())?;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        let shown = format!(
            "postgres://{}@{host}:{}/{database}",
            options.get_username(),
            options.get_port()
        );
        let is_here = options.get_socket().is_some() || is_loopback(options.get_host());
        let is_sealed = matches!(
            options.get_ssl_mode(),
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
        );
        let is_open = !is_here && !is_sealed;
        Ok(Self::Postgres { url: Secret::new(url.to_owned()), shown: shown.into(), is_open })
    }

    /// What an operator should know of it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self::Postgres { is_open: true, .. } = self else { return None };
        Some(format!(
            "{self}: the connection may be without encryption; \
             `?sslmode=verify-full` at the end of the URL asks for it and for the server's certificate"
        ))
    }

    /// The word of the configuration.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres { .. } => "postgres",
        }
    }

    /// As the driver takes it. Holds the password.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => {
                let path = path.to_str().unwrap_or_default();
                let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
                let escape = |c: char| match plain(c) {
                    true => c.to_string(),
                    false => {
                        let mut bytes = [0; 4];
                        c.encode_utf8(&mut bytes).bytes().map(|it| format!("%{it:02X}")).collect()
                    }
                };
                format!("sqlite://{}?mode=rw", path.chars().map(escape).collect::<String>())
            }
            Self::Postgres { url, .. } => url.expose().clone(),
        }
    }
}

/// Each known. The message repeats nothing: a question mark in a password would begin them too.
fn parameters(url: &str) -> Result<(), String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let names = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")).0);
    for name in names.filter(|name| !name.is_empty()) {
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            let hint = did_you_mean(name, &PARAMETERS)
                .unwrap_or_else(|| format!("known are {}", PARAMETERS.join(", ")));
            return Err(format!("has a parameter behind `?` that is not known; {hint}"));
        }
    }
    query.split('&').filter_map(|pair| pair.split_once('=')).try_for_each(|it| is_there(it.0, it.1))
}

/// The driver would say that there is no such file, and not of which.
fn is_there(parameter: &str, file: &str) -> Result<(), String> {
    const FILES: [&str; 7] =
        ["sslrootcert", "sslcert", "sslkey", "ssl-root-cert", "ssl-ca", "ssl-cert", "ssl-key"];
    // A certificate itself may stand there too, and what is escaped is not looked for.
    if !FILES.contains(&parameter) || file.contains(['%', '+']) || file.starts_with("-----") {
        return Ok(());
    }
    let looked_at = std::fs::metadata(file).map(drop);
    looked_at.map_err(|why| format!("names a file as `{parameter}` that is not there: {why}"))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) => one == other,
            (Self::Postgres { url: one, .. }, Self::Postgres { url: other, .. }) => {
                one.matches(other.expose().as_bytes())
            }
            _ => false,
        }
    }
}

impl Eq for Location {}

/// For people: without the password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres { shown, .. } => f.write_str(shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_nowhere_but_in_the_url() {
        let location = Location::postgres("postgres://me:hunter2@db:6543/keys?sslmode=disable");
        let location = location.unwrap();
        assert_eq!(location.to_string(), "postgres://me@db:6543/keys");
        assert!(!format!("{location:?}").contains("hunter2"));
        assert!(location.url().contains("hunter2"));
    }

    #[test]
    fn what_is_no_place_of_a_store_is_refused_without_repeating_it() {
        for text in ["", "mysql://a:hunter2@b/c", "postgres", "postgres://a:hunter2@b:port/c"] {
            let why = Location::postgres(text).unwrap_err();
            assert!(why.contains("postgres://user:password@") && !why.contains("hunter2"), "{why}");
        }
        assert!(Location::sqlite(Path::new("")).is_err());
        assert!(Location::sqlite(Path::new("a\nb")).is_err());
    }

    #[test]
    fn a_slip_in_a_parameter_is_no_open_connection() {
        let check = |query: &str, expected: Option<&str>| {
            let said = Location::postgres(&format!("postgres://a:b@db/c{query}")).err();
            assert_eq!(said.is_some(), expected.is_some(), "{query}: {said:?}");
            let said = said.unwrap_or_default();
            assert!(said.contains(expected.unwrap_or_default()), "{query}: {said}");
        };
        check("", None);
        check("?sslmode=verify-full&application_name=x&options[a]=b", None);
        check("?ssl_mode=verify-full", Some("did you mean `sslmode`?"));
        check("?sslmode=full", Some("must be a URL"));
        check(
            "?sslrootcert=/nonexistent/ca.pem",
            Some("as `sslrootcert` that is not there: No such"),
        );
        check("?hunter2@db/c", Some("known are sslmode, "));
        let said = Location::postgres("postgres://a:b?hunter2@db/c").unwrap_err();
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_connection_that_others_may_read_is_warned_of() {
        let check = |url: &str, is_warned: bool| {
            let warning = Location::postgres(url).unwrap().warning();
            assert_eq!(warning.is_some(), is_warned, "{url}: {warning:?}");
            assert!(!warning.unwrap_or_default().contains("hunter2"), "{url}");
        };
        check("postgres://a:hunter2@db/c?sslmode=prefer", true);
        check("postgres://a:hunter2@db/c?sslmode=disable", true);
        check("postgres://a:hunter2@192.0.2.1/c?sslmode=allow", true);
        for mode in ["require", "verify-ca", "verify-full"] {
            check(&format!("postgres://a:hunter2@db/c?sslmode={mode}"), false);
        }
        for host in ["localhost", "127.0.0.1", "[::1]:5432", "%2Frun%2Fpostgresql"] {
            check(&format!("postgres://a:hunter2@{host}/c?sslmode=disable"), false);
        }
    }

    #[test]
    fn any_file_name_survives_the_url() {
        let location = Location::sqlite(Path::new("/a b/ä?c#d%e.db")).unwrap();
        assert_eq!(location.url(), "sqlite:///a%20b/%C3%A4%3Fc%23d%25e.db?mode=rw");
    }
}
