//! The types that an expression can have, as far as they are known before there is a request.
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Known only with the request: a claim.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    /// A type as a value, such as `int`.
    Kind,
    List(Box<Self>),
    /// By its values; keys are mostly strings.
    Map(Box<Self>),
    Optional(Box<Self>),
}

impl Type {
    pub const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    pub const fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double | Self::Any)
    }

    /// Whether this may turn out to be `other`.
    pub fn is_or_any(&self, other: &Self) -> bool {
        self.is_any() || self == other
    }

    /// Whether a value of one type can ever equal one of the other.
    pub fn may_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(a), Self::List(b))
            | (Self::Map(a), Self::Map(b))
            | (Self::Optional(a), Self::Optional(b)) => a.may_equal(b),
            (a, b) => a == b || a.is_number() && b.is_number(),
        }
    }

    /// Of a value that is one or the other.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.join(*b))),
            (Self::Map(a), Self::Map(b)) => Self::Map(Box::new(a.join(*b))),
            (a, b) if a == b => a,
            _ => Self::Any,
        }
    }

    pub fn list(of: Self) -> Self {
        Self::List(Box::new(of))
    }

    pub fn map(of: Self) -> Self {
        Self::Map(Box::new(of))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "a value",
            Self::Null => "null",
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Uint => "a uint",
            Self::Double => "a double",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Kind => "a type",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Optional(_) => "an optional",
        })
    }
}
