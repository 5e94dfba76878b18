//! What clients keep for us, sealed: sessions, cursors, the state of calls that wait for input. Any node
//! with the same secret opens them; nobody else can make one, and each is good for one caller of one route.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::shared::seal::Sealer;

/// Seconds that a session lives.
pub const SESSION: u64 = 24 * 3600;
/// Seconds that a call may wait for its client's input.
pub const WAITING: u64 = 600;
/// Bytes that all servers' sessions may take in a client's: it stands in a header.
const MOST_SESSIONS: usize = 2048;
/// Bytes of what a client says of itself and of what it can that are kept.
const MOST_SAID: usize = 2048;

/// Whose value it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub route: &'a str,
    /// The consumer, or whoever the credential is of; empty on a public route.
    pub caller: &'a str,
}

impl Owner<'_> {
    fn context(self) -> Vec<u8> {
        // Names of routes have no NUL.
        [self.route.as_bytes(), b"\0", self.caller.as_bytes()].concat()
    }
}

/// A session of the legacy era.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Session {
    /// Random, of 128 bits: tells it from the caller's other ones.
    #[serde(rename = "n")]
    pub nonce: String,
    #[serde(rename = "v")]
    pub version: String,
    /// Seconds since the epoch.
    #[serde(rename = "t")]
    pub begun: u64,
    /// What the client can, as it said it.
    #[serde(rename = "c")]
    pub capabilities: String,
    #[serde(rename = "i")]
    pub info: String,
    /// The sessions of the servers that have some, by their names.
    #[serde(rename = "s", default)]
    pub servers: BTreeMap<String, String>,
}

impl Session {
    /// Keeps what a client says within bounds; what is too long counts as not said.
    #[must_use]
    pub fn bounded(said: Option<&str>) -> String {
        said.filter(|it| it.len() <= MOST_SAID).unwrap_or("{}").to_owned()
    }

    /// Takes up a server's session, while there is room.
    pub fn keep(&mut self, server: &str, id: &str) {
        let used: usize = self.servers.iter().map(|(name, id)| name.len() + id.len()).sum();
        if used + server.len() + id.len() <= MOST_SESSIONS {
            self.servers.insert(server.to_owned(), id.to_owned());
        }
    }
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    #[serde(rename = "k")]
    pub list: String,
    #[serde(rename = "s")]
    pub server: String,
    /// The last one that was told, by its public name.
    #[serde(rename = "a")]
    pub after: String,
}

/// A call that waits for its client's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    #[serde(rename = "t")]
    pub begun: u64,
    #[serde(rename = "s")]
    pub server: String,
    /// The method and what it names.
    #[serde(rename = "m")]
    pub call: String,
    /// The server's own word for it, as JSON.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The call that this node holds open at a server.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

fn seal<T: Serialize>(sealer: &Sealer, what: &str, owner: Owner<'_>, value: &T) -> Option<String> {
    let json = serde_json::to_vec(value).ok()?;
    sealer.seal(what, &owner.context(), &json).ok()
}

fn open<T: DeserializeOwned>(
    sealer: &Sealer,
    what: &str,
    owner: Owner<'_>,
    text: &str,
) -> Option<T> {
    serde_json::from_slice(&sealer.open(what, &owner.context(), text)?).ok()
}

macro_rules! sealed {
    ($($name:ident as $what:literal;)+) => {
        $(impl $name {
            /// `None` where it is too large, or the system fails.
            #[must_use]
            pub fn seal(&self, sealer: &Sealer, owner: Owner<'_>) -> Option<String> {
                seal(sealer, $what, owner, self)
            }

            /// `None` for everything that is not one of ours, of this owner.
            #[must_use]
            pub fn open(sealer: &Sealer, owner: Owner<'_>, text: &str) -> Option<Self> {
                open(sealer, $what, owner, text)
            }
        })+
    };
}

sealed! {
    Session as "mcp session";
    Cursor as "mcp cursor";
    Pending as "mcp call";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_good_for_its_caller_on_its_route_alone() {
        let sealer = Sealer::random().unwrap();
        let owner = Owner { route: "tools", caller: "acme" };
        let mut session = Session { nonce: "n".to_owned(), ..Session::default() };
        session.keep("crm", "upstream-session");
        let sealed = session.seal(&sealer, owner).unwrap();
        let check = |route, caller, is_open| {
            let found = Session::open(&sealer, Owner { route, caller }, &sealed);
            assert_eq!(found.is_some(), is_open, "{route} {caller}");
        };
        check("tools", "acme", true);
        check("tools", "evil", false);
        check("tools", "", false);
        check("other", "acme", false);
        check("toolsacme", "", false);
        assert!(Cursor::open(&sealer, owner, &sealed).is_none());
        assert!(sealed.bytes().all(|it| (0x21..=0x7e).contains(&it)));
    }

    #[test]
    fn what_is_sealed_in_a_session_is_bounded() {
        let mut session = Session::default();
        for index in 0..100 {
            session.keep(&format!("s{index}"), &"x".repeat(100));
        }
        assert!(session.servers.len() < 25);
        assert_eq!(Session::bounded(Some(&"x".repeat(5000))), "{}");
        assert_eq!(Session::bounded(Some("{\"a\":1}")), "{\"a\":1}");
        assert_eq!(Session::bounded(None), "{}");
    }
}
