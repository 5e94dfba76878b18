//! What one server offers, under the names that clients of a route see.
use std::sync::Arc;

use ahash::AHashMap;

use super::{
    name,
    object::{self, Object},
};

/// What servers list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of the answer that holds them.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// What tells one of them from the others.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// The capability of a server that has some.
    #[must_use]
    pub const fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// What clients call it.
    #[must_use]
    pub fn public(self, server: &str, own: &str) -> String {
        match self {
            Self::Tools | Self::Prompts => name::prefixed(server, own),
            Self::Resources | Self::Templates => name::wrapped(server, own),
        }
    }
}

/// One thing that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What its server calls it.
    pub name: Arc<str>,
    /// As its server describes it.
    pub json: Box<str>,
}

impl Item {
    /// One of the items of a list; none where it lacks its name.
    #[must_use]
    pub fn read(kind: Kind, json: &str) -> Option<Self> {
        let object = Object::read(json).ok()?;
        let name = object.text(kind.key()).filter(|it| !it.is_empty() && it.len() <= 2048)?;
        Some(Self { name: (&*name).into(), json: json.into() })
    }
}

/// An item as clients of a route see it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub own: Arc<str>,
    pub public: Arc<str>,
    /// With the public name.
    pub json: Box<str>,
}

/// Everything of one kind of one server.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub entries: Box<[Entry]>,
    by_public: AHashMap<Arc<str>, usize>,
}

impl Catalogue {
    /// In the order of the server's list; of two with one name the first is taken.
    #[must_use]
    pub fn new(kind: Kind, server: &str, is_prefixed: bool, items: &[Item]) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
        let mut by_public = AHashMap::with_capacity(items.len());
        for item in items {
            let (public, json) = match is_prefixed {
                false => (item.name.clone(), item.json.clone()),
                true => {
                    let Ok(object) = Object::read(&item.json) else { continue };
                    let public = kind.public(server, &item.name);
                    let quoted = object::quoted(&public);
                    let json = object.with(&[(kind.key(), Some(&quoted))]);
                    (public.into(), json.into())
                }
            };
            if by_public.contains_key(&public) {
                continue;
            }
            by_public.insert(public.clone(), entries.len());
            entries.push(Entry { own: item.name.clone(), public, json });
        }
        Self { entries: entries.into(), by_public }
    }

    /// By exactly the name that clients are told.
    #[must_use]
    pub fn find(&self, public: &str) -> Option<&Entry> {
        self.entries.get(*self.by_public.get(public)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_they_are_told_and_no_other_way() {
        let items: Vec<Item> = ["search", "x__y", "search"]
            .iter()
            .map(|it| Item::read(Kind::Tools, &format!("{{\"name\":\"{it}\",\"z\":1.0}}")).unwrap())
            .collect();
        let catalogue = Catalogue::new(Kind::Tools, "crm", true, &items);
        assert_eq!(catalogue.entries.len(), 2);
        let found = catalogue.find("crm__search").unwrap();
        assert_eq!((&*found.own, &*found.json), ("search", "{\"name\":\"crm__search\",\"z\":1.0}"));
        assert_eq!(&*catalogue.find("crm__x__y").unwrap().own, "x__y");
        for name in ["search", "CRM__search", "crm__Search", "crm__", "crm__search "] {
            assert!(catalogue.find(name).is_none(), "{name}");
        }
        let plain = Catalogue::new(Kind::Tools, "crm", false, &items);
        assert_eq!(&*plain.find("search").unwrap().public, "search");
    }
}
