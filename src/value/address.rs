//! Where a stream socket is: an IP address and a port, or a path on this machine (`unix:/run/app.sock`).
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// What stands before a path.
pub const UNIX: &str = "unix:";
/// Bytes of a path at most: `sun_path` of unix(7) has 108, the last of which is a NUL.
const LONGEST: usize = 107;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Inet(SocketAddr),
    Unix(Arc<Path>),
}

impl Address {
    #[must_use]
    pub const fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The port; 0 where there is none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Inet(address) => address.port(),
            Self::Unix(_) => 0,
        }
    }
}

/// The path behind `unix:`, which must be one that a socket can have, wherever the process runs.
///
/// # Errors
/// A sentence for the operator.
pub fn unix_path(path: &str) -> Result<Arc<Path>, String> {
    let whole = PathBuf::from(path);
    if !whole.is_absolute() || path.ends_with('/') {
        return Err(format!(
            "`{}` is not the absolute path of a socket, such as unix:/run/tollgate/http.sock",
            path.escape_debug()
        ));
    }
    if path.len() > LONGEST || path.contains('\0') {
        return Err(format!("a socket's path has at most {LONGEST} bytes, and no NUL"));
    }
    Ok(whole.into())
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(UNIX) {
            Some(path) => unix_path(path).map(Self::Unix),
            None => text.parse().map(Self::Inet).map_err(|_| {
                format!("`{text}` is not an address and port such as 127.0.0.1:8080 or [::]:8080")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        let check = |text: &str, port: u16| {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.port()), (text, port));
        };
        check("127.0.0.1:80", 80);
        check("[::1]:8443", 8443);
        check("unix:/run/a b.sock", 0);
        check(&format!("unix:/{}", "x".repeat(LONGEST - 1)), 0);
    }

    #[test]
    fn what_is_no_address_says_why() {
        let check = |text: &str, part: &str| {
            let said = text.parse::<Address>().unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        };
        check("127.0.0.1", "127.0.0.1:8080");
        check("", "127.0.0.1:8080");
        check("unix:", "absolute");
        check("unix:run/a.sock", "absolute");
        check("unix:/run/", "absolute");
        check("unix:/a\0b", "no NUL");
        check(&format!("unix:/{}", "x".repeat(LONGEST)), "107 bytes");
    }
}
