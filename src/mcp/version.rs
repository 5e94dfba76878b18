//! The revisions of the protocol, and the two eras that they fall into: with sessions, and without.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V2025March,
    V2025June,
    V2025November,
    V2026July,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize`, sessions, requests of the server's own.
    Legacy,
    /// Each request says everything that it needs.
    Modern,
}

impl Version {
    /// The newest first.
    pub const ALL: [Self; 4] =
        [Self::V2026July, Self::V2025November, Self::V2025June, Self::V2025March];
    /// What `initialize` settles on where the client asks for what we do not know.
    pub const NEWEST_LEGACY: Self = Self::V2025November;

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::V2025March => "2025-03-26",
            Self::V2025June => "2025-06-18",
            Self::V2025November => "2025-11-25",
            Self::V2026July => "2026-07-28",
        }
    }

    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }

    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2026July => Era::Modern,
            _ => Era::Legacy,
        }
    }

    /// What is answered to a client that asks for `word` in `initialize`.
    #[must_use]
    pub fn negotiated(word: &str) -> Self {
        let known = Self::named(word).filter(|it| it.era() == Era::Legacy);
        known.unwrap_or(Self::NEWEST_LEGACY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_settles_on_what_both_know() {
        let check = |asked: &str, expected| assert_eq!(Version::negotiated(asked).word(), expected);
        check("2025-03-26", "2025-03-26");
        check("2025-06-18", "2025-06-18");
        check("2025-11-25", "2025-11-25");
        check("2024-11-05", "2025-11-25");
        // It has no `initialize`.
        check("2026-07-28", "2025-11-25");
        check("", "2025-11-25");
    }
}
