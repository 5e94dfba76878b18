//! Anthropic's messages.
pub mod request;
pub mod response;
pub mod stream;

/// What `anthropic-version` says. The later one has no sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2023,
    V2026,
}

impl Version {
    pub const ALL: [(&'static str, Self); 2] =
        [("2023-06-01", Self::V2023), ("2026-10-21", Self::V2026)];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::V2023 => "2023-06-01",
            Self::V2026 => "2026-10-21",
        }
    }
}
