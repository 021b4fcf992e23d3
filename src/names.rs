//! Names that travel through every floor: queue ids, accounts, transports.
//!
//! Each is checked when it is made, so that nothing above needs to ask again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name was refused; the text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

/// A message in the queue: a number that the spool counts up and never gives twice.
///
/// Written in Crockford's base 32 (no i, l, o, u), at least six digits, so that it can be read
/// aloud and selected with a double click: `00002a`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct QueueId(pub u64);

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const QUEUE_ID_DIGITS_MIN: usize = 6;
const QUEUE_ID_DIGITS_MAX: usize = 13;

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; QUEUE_ID_DIGITS_MAX];
        let (mut rest, mut at) = (self.0, QUEUE_ID_DIGITS_MAX);
        while rest > 0 {
            at -= 1;
            digits[at] = BASE32[(rest & 31) as usize];
            rest >>= 5;
        }
        let from = at.min(QUEUE_ID_DIGITS_MAX - QUEUE_ID_DIGITS_MIN);
        f.pad(std::str::from_utf8(&digits[from..]).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError(format!("{text:?} is not a queue id: ids look like 00002a"));
        if text.is_empty() || text.len() > QUEUE_ID_DIGITS_MAX {
            return Err(wrong());
        }
        let mut value = 0u64;
        for byte in text.bytes() {
            let digit = BASE32.iter().position(|d| *d == byte.to_ascii_lowercase()).ok_or_else(wrong)?;
            value = value.checked_mul(32).and_then(|v| v.checked_add(digit as u64)).ok_or_else(wrong)?;
        }
        Ok(Self(value))
    }
}

impl Serialize for QueueId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What account and transport names are made of: they stand in file names, TOML keys and logs.
fn check_name(kind: &str, text: &str, more: &[u8]) -> Result<(), NameError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b);
    let first_good = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if first_good && text.len() <= 64 && text.bytes().all(good) {
        return Ok(());
    }
    let more: Vec<String> = more.iter().map(|b| format!("{:?}", *b as char)).collect();
    Err(NameError(format!(
        "{text:?} is not {kind} name: 1 to 64 of a-z, 0-9, {}, beginning with a letter or a digit",
        more.join(", ")
    )))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $more:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name($kind, text, $more)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// An account: who logs in, owns mailboxes and may have a routing script.
    AccountName, "an account", b"-_.+@"
);
name!(
    /// A transport: what a routing script returns.
    TransportName, "a transport", b"-_."
);

impl TransportName {
    /// The built-in transport that delivers to the recipient domain's MX hosts.
    pub const DIRECT: &'static str = "direct";
    /// Delivery into a mailbox of this server; scripts are not asked and cannot name it.
    pub const LOCAL: &'static str = "local";

    /// The transport `direct`.
    pub fn direct() -> Self {
        Self(Self::DIRECT.into())
    }

    /// The transport `local`.
    pub fn local() -> Self {
        Self(Self::LOCAL.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_read_back_as_written() {
        for (number, text) in [(0, "000000"), (1, "000001"), (33, "000011"), (u64::MAX, "fzzzzzzzzzzzz")] {
            assert_eq!(QueueId(number).to_string(), text);
            assert_eq!(text.parse(), Ok(QueueId(number)));
        }
    }

    #[test]
    fn what_is_no_queue_id_is_refused() {
        for text in ["", "il", "zzzzzzzzzzzzzz", "gzzzzzzzzzzzz", "a b", "é"] {
            assert!(text.parse::<QueueId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_lower_case_and_safe_in_file_names() {
        for good in ["a", "sending-service", "smart.host_2"] {
            assert!(TransportName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "..", "a/b", "A", "a b", "é", &"x".repeat(65)] {
            assert!(TransportName::new(bad).is_err(), "{bad}");
        }
        assert!(AccountName::new("me@example.org").is_ok());
    }
}
