//! Where a store is, parsed; the words themselves are the configuration's.
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use sqlx::postgres::PgConnectOptions;

use crate::value::secret::Secret;

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
    },
}

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
        Ok(Self::Postgres { url: Secret::new(url.to_owned()), shown: shown.into() })
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
    fn any_file_name_survives_the_url() {
        let location = Location::sqlite(Path::new("/a b/ä?c#d%e.db")).unwrap();
        assert_eq!(location.url(), "sqlite:///a%20b/%C3%A4%3Fc%23d%25e.db?mode=rw");
    }
}
