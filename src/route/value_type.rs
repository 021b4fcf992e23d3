//! What sort of value a property has. The reference says it to people, the lint compares by it.

use std::fmt;

/// A sort of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// A whole number.
    Number,
    /// True or false.
    Truth,
    /// Text, and what it says.
    Text(TextOf),
    /// A point in time.
    Time,
    /// A previous attempt.
    Attempt,
    /// Several of one sort.
    List(&'static ValueType),
    /// Of that sort, or `()` when it is not known or not there.
    Optional(&'static ValueType),
}

/// What a text says; each has one form, in which it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOf {
    /// Anything.
    Words,
    /// A domain: lower-case A-labels without a trailing dot, or an address literal.
    Domain,
    /// A mailbox whose domain has that form, or "".
    Address,
    /// The name of an account, in lower case.
    Account,
    /// The name of a transport.
    Transport,
    /// One of these.
    Word(&'static [&'static str]),
}

pub(super) const NUMBER: ValueType = ValueType::Number;
pub(super) const TRUTH: ValueType = ValueType::Truth;
pub(super) const TEXT: ValueType = ValueType::Text(TextOf::Words);
pub(super) const DOMAIN: ValueType = ValueType::Text(TextOf::Domain);

impl ValueType {
    /// Several of them.
    fn plural(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Truth => "truths",
            Self::Text(TextOf::Domain) => "domains",
            Self::Text(TextOf::Address) => "addresses",
            Self::Text(_) => "texts",
            Self::Time => "times",
            Self::Attempt => "attempts",
            Self::List(_) | Self::Optional(_) => "values",
        }
    }
}

/// `number`, `domain`, `list of attempts`, `text or ()`.
impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number => f.write_str("number"),
            Self::Truth => f.write_str("true or false"),
            Self::Text(TextOf::Domain) => f.write_str("domain"),
            Self::Text(TextOf::Address) => f.write_str("address"),
            Self::Text(_) => f.write_str("text"),
            Self::Time => f.write_str("time"),
            Self::Attempt => f.write_str("attempt"),
            Self::List(of) => write!(f, "list of {}", of.plural()),
            Self::Optional(value) => write!(f, "{value} or `()`"),
        }
    }
}
